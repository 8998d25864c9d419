from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import build_model, remove_hash
from trainers import assert_same_weights

from mtl_nlp import MultitaskModel, TextClassification
from mtl_nlp.modeling.weights_multitask import NotFiniteError, check_finite, not_finite

TASKS = [TextClassification(name="topic", labels=["news", "sport"])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found_anywhere_in_a_tensor(dtype, number):
    largest = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    for position in range(15):
        wrong = largest.clone()
        wrong.view(-1)[position] = number
        assert not_finite([("a", largest), ("b", wrong), ("c", -largest)]) == ["b"]


def test_integers_and_tensors_without_numbers_are_finite():
    check_finite([])
    empty, meta = torch.zeros(0), torch.empty(2, device="meta")
    check_finite([("integers", torch.ones(2, dtype=torch.int64)), ("empty", empty), ("meta", meta)])


def test_error_names_the_first_tensor_and_counts_the_others():
    wrong = torch.tensor([math.nan])
    with pytest.raises(NotFiniteError, match=r"NaN or infinite numbers in b and 1 more\."):
        check_finite([("a", torch.ones(1)), ("b", wrong), ("c", wrong)])
    with pytest.raises(NotFiniteError, match=r"NaN or infinite numbers in b\."):
        check_finite([("b", wrong)])


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_model_with_weights_that_are_not_finite_is_not_saved(tmp_path, number):
    model = build_model(TASKS)
    model.save_pretrained(tmp_path / "good")
    assert_same_weights(MultitaskModel.from_pretrained(tmp_path / "good"), model)
    model.heads[0].stock.classifier.weight.data[1, 2] = number
    with pytest.raises(
        ValueError, match=r"The weights should be finite. Found .* in heads\.0\.stock\.classifier\.weight\."
    ):
        model.save_pretrained(tmp_path / "bad")
    with pytest.raises(ValueError, match="classifier"):
        model.save_pretrained(tmp_path / "bad", state_dict=model.state_dict())
    assert not (tmp_path / "bad").exists()


def test_model_with_weights_that_are_not_finite_is_not_loaded(tmp_path):
    build_model(TASKS).save_pretrained(tmp_path)
    spoil(tmp_path)
    for options in ({}, {"output_loading_info": True}, {"dtype": torch.bfloat16}):
        with pytest.raises(ValueError, match="The weights should be finite"):
            MultitaskModel.from_pretrained(tmp_path, **options)


def test_encoder_with_weights_that_are_not_finite_is_refused(tmp_path):
    build_model(TASKS).encoder.save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ValueError, match="The weights should be finite"):
        MultitaskModel.from_encoder(str(tmp_path), TASKS)


def test_weights_of_8_bits_are_checked():
    weights = torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn)
    check_finite([("a", weights)])
    assert not_finite([("a", torch.tensor([1.0, math.nan]).to(torch.float8_e4m3fn))]) == ["a"]


def spoil(folder) -> None:
    """Make one weight of a saved model NaN."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name][7, 3] = math.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    remove_hash(folder)
