from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from toy_splits import TASKS, build_split
from trainers import adapted_model, assert_same_weights, build_model
from transformers import Trainer, TrainerCallback
from watched_training import Recorder

from mtl_nlp import (
    EncodedDataset,
    MultitaskDataCollator,
    MultitaskModel,
    TextClassification,
)
from mtl_nlp.training.defaults import HEAD_FACTOR


@pytest.fixture(scope="module")
def unequal(tokenizer) -> EncodedDataset:
    """32 texts; only the six longest have a topic, so short micro-batches have none."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13, "score": lambda n: n % 2 == 0}
    return build_split(tokenizer, 1, lengths, has)


def freeze_plain_encoder(model: MultitaskModel) -> None:
    for name, parameter in model.encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)


def logged(trainer: Trainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_loss_weight_of_an_unknown_task_is_refused(trainer_of):
    with pytest.raises(ValueError, match=r"`loss_weights` should name tasks of the model \(pos, ner, .*Found {'pso'}"):
        trainer_of(loss_weights={"pso": 1.0})


# Evaluation


@pytest.fixture(scope="module")
def long_texts(tokenizer) -> EncodedDataset:
    """Texts of up to 150 words, many with several windows."""
    has = {"pos": lambda n: True, "ner": lambda n: n != 9, "topic": lambda n: n != 150, "score": lambda n: n > 1}
    return build_split(tokenizer, 4, [9, 150, 1, 60, 30, 2, 70], has)


@pytest.fixture(scope="module")
def decided_model() -> MultitaskModel:
    """A model with random heads that give different answers to different texts."""
    model = build_model()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def test_evaluate_returns_scores_losses_and_their_means(trainer_of, disjoint):
    trainer = trainer_of(validation=disjoint)
    metrics = trainer.evaluate()
    scores = ["pos_accuracy", "ner_f1", "ner_precision", "ner_recall", "topic_accuracy", "topic_macro_f1"]
    scores += ["score_pearson", "score_spearman", "score_mse", "mtl_score", "loss", *(f"{task}_loss" for task in TASKS)]
    trainers = {"eval_runtime", "eval_samples_per_second", "epoch"}
    assert set(metrics) == {f"eval_{score}" for score in scores} | trainers
    primary = [metrics[f"eval_{key}"] for key in ("pos_accuracy", "ner_f1", "topic_accuracy", "score_pearson")]
    assert metrics["eval_mtl_score"] == pytest.approx(np.mean(primary))
    shares = {"pos": 16 / 40, "ner": 16 / 40, "topic": 24 / 40, "score": 24 / 40}
    joint = sum(share * metrics[f"eval_{task}_loss"] for task, share in shares.items())
    assert metrics["eval_loss"] == pytest.approx(joint, rel=1e-5)
    assert trainer.state.log_history[-1]["eval_mtl_score"] == metrics["eval_mtl_score"]


def test_evaluate_accepts_different_data_and_prefix(trainer_of, disjoint):
    metrics = trainer_of(validation=disjoint).evaluate({"words": disjoint["words"]}, metric_key_prefix="test")
    assert {"test_pos_accuracy", "test_mtl_score", "test_loss"} <= set(metrics)
    assert "test_topic_accuracy" not in metrics


def test_predictions_are_in_text_order_and_equal_those_of_single_texts(
    trainer_of, tokenizer, long_texts, decided_model
):
    trainer = trainer_of(model=decided_model)
    predictions = trainer.predict_rows(long_texts)
    collator = MultitaskDataCollator(tokenizer, TASKS)
    distinct = {"pos": set(), "score": set()}
    for window in long_texts.windows:
        with torch.no_grad():
            logits = decided_model(**collator([window])).logits
        for task, row_logits in logits.items():
            if not len(row_logits):
                continue
            row = predictions[task][window["row"]]
            if task == "pos":
                best = [TASKS[task].labels[i] for i in row_logits[0, window["positions"]].argmax(-1)]
                assert [row[word] for word in window["words"]] == best
                distinct["pos"] |= set(best)
            elif task == "topic":
                assert row == TASKS[task].labels[row_logits[0].argmax()]
            elif task == "score":
                assert row == pytest.approx(row_logits[0, 0].item(), abs=1e-5)
                distinct["score"].add(round(row, 3))
    assert len(distinct["pos"]) > 1
    assert len(distinct["score"]) > 3


def test_every_word_has_exactly_one_prediction_in_texts_of_any_length(trainer_of, long_texts, decided_model):
    predictions = trainer_of(model=decided_model).predict_rows(long_texts)
    assert len(long_texts.windows) > long_texts.num_rows
    for task in ("pos", "ner"):
        for predicted, reference in zip(predictions[task], long_texts.references[task], strict=True):
            assert (predicted is None) == (reference is None)
            assert predicted is None or len(predicted) == len(reference)
    assert [row is None for row in predictions["topic"]] == [row is None for row in long_texts.references["topic"]]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_does_not_change_predictions_scores_or_losses(trainer_of, long_texts, decided_model, batch_size):
    small, large = (
        trainer_of(model=decided_model, validation={"d": long_texts}, per_device_eval_batch_size=size)
        for size in (batch_size, 64)
    )
    few, many = small.predict_rows(long_texts), large.predict_rows(long_texts)
    for score, other in zip(few.pop("score"), many.pop("score"), strict=True):
        assert score == other or score == pytest.approx(other, abs=1e-5)
    assert few == many
    few, many = small.evaluate(), large.evaluate()
    same = [key for key in few if "runtime" not in key and "per_second" not in key]
    assert [few[key] for key in same] == pytest.approx([many[key] for key in same], rel=1e-4, abs=1e-5)


def test_training_without_training_data_is_refused(trainer_of):
    with pytest.raises(ValueError, match=r"Training needs a TaskMixture as `train_dataset`\. Found None"):
        trainer_of().train()


def test_evaluation_without_data_is_refused(trainer_of):
    with pytest.raises(ValueError, match=r"Evaluation needs an `eval_dataset`, encoded splits by dataset\. Found None"):
        trainer_of().evaluate()


# Best model, early stopping, optimizer


class Spoiler(TrainerCallback):
    """Callback that makes all answers of the model equal after 30 steps."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step >= 30:
            with torch.no_grad():
                for parameter in model.heads.parameters():
                    parameter.zero_()


BEST = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "mtl_score",
    "eval_strategy": "steps",
    "save_strategy": "steps",
}


def test_best_model_by_mtl_score_is_loaded_at_the_end(trainer_of, disjoint):
    settings = {**BEST, "eval_steps": 10, "save_steps": 10, "max_steps": 40, "learning_rate": 5e-3}
    trainer = trainer_of(disjoint, disjoint, callbacks=[Spoiler()], **settings)
    trainer.train()
    history = logged(trainer, "eval_mtl_score")
    assert len(history) == 4
    assert trainer.state.best_metric == max(history) > history[-1]
    assert trainer.evaluate()["eval_mtl_score"] == pytest.approx(max(history))


def test_training_stops_after_patience_evaluations(trainer_of, disjoint):
    settings = {**BEST, "eval_steps": 1, "save_steps": 1, "max_steps": 20, "learning_rate": 0.0}
    trainer = trainer_of(disjoint, disjoint, early_stopping_patience=2, **settings)
    trainer.train()
    assert trainer.state.global_step == 3


def test_new_head_layers_have_a_separate_learning_rate_and_groups_are_disjoint(trainer_of, disjoint):
    settings = {"learning_rate": 1e-3, "head_learning_rate": 1e-2, "weight_decay": 0.1}
    trainer = trainer_of(disjoint, max_steps=2, lr_scheduler_type="constant", **settings)
    trainer.train()
    trainer.train()  # a second call does not split the groups again
    groups = trainer.optimizer.param_groups
    assert sorted((group["lr"], group["weight_decay"]) for group in groups) == [
        (1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)
    ]  # fmt: skip
    rates = [(id(parameter), group["lr"]) for group in groups for parameter in group["params"]]
    assert sorted(rates) == sorted(
        (id(parameter), 1e-2 if name.startswith("heads.") and "pooler" not in name else 1e-3)
        for name, parameter in trainer.model.named_parameters()
    )


@pytest.mark.parametrize("rates", [(1e-2, 5e-2), (1e-2, 1e-2), (None, 5e-2), (1e-2, None)])
def test_heads_and_adapters_have_separate_learning_rates_and_frozen_parameters_no_group(trainer_of, rates):
    model = adapted_model(("shared", "pos", "topic"))
    model.freeze("topic")
    for parameter in model.encoder.embeddings.parameters():
        parameter.requires_grad_(False)
    settings = {"learning_rate": 1e-3, "weight_decay": 0.1}
    of_heads, of_adapters = rates
    trainer = trainer_of(model=model, head_learning_rate=of_heads, adapter_learning_rate=of_adapters, **settings)

    def expected(name: str) -> tuple[float, float]:
        rate = 1e-3
        if name.startswith("heads.") and "pooler" not in name:
            rate = of_heads or HEAD_FACTOR * 1e-3
        elif "lora_" in name:
            rate = of_adapters or rate
        return rate, 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1

    groups = trainer.create_optimizer().param_groups
    found = [(id(p), (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert sorted(found) == sorted((id(p), expected(name)) for name, p in model.named_parameters() if p.requires_grad)
    assert len({id(p) for p in model.parameters() if not p.requires_grad}) > 30


def test_layer_lr_decay_lowers_the_rates_of_lower_layers_only(trainer_of):
    model = adapted_model(("shared", "pos"))
    model.freeze("layers 1")
    trainer = trainer_of(model=model, learning_rate=1e-3, head_learning_rate=1e-2, layer_lr_decay=0.5)
    groups = trainer.create_optimizer().param_groups
    assert trainer.create_optimizer().param_groups is groups  # a second call does not decay the rates again
    found = {id(p): group["lr"] for group in groups for p in group["params"]}

    def expected(name: str) -> float:
        if name.startswith("heads.") and "pooler" not in name:
            return 1e-2
        if "lora_" in name or "pooler" in name:
            return 1e-3
        return 1e-3 * 0.5 ** (1 if ".layer.0." in name else 2)  # two layers, the last of which is frozen

    assert found == {id(p): expected(name) for name, p in model.named_parameters() if p.requires_grad}
    assert all(group["params"] for group in groups if group["lr"] in {5e-4, 2.5e-4})
    with pytest.raises(ValueError, match="`layer_lr_decay`: The layers of the albert encoder are shared or grouped"):
        trainer_of(model=build_model(family="albert", classifier_dropout_prob=0.0), layer_lr_decay=0.5)


def test_task_name_does_not_exempt_its_adapter_from_weight_decay(trainer_of, tokenizer):
    tasks = [TextClassification(name=name, labels=["x", "y"]) for name in ("bias", "norm", "layernorm", "plain")]
    model = build_model(tasks)
    for task in tasks:
        model.add_adapter(LoraConfig(r=2, target_modules=["query"]), task.name)
    groups = trainer_of(model=model, weight_decay=0.1).create_optimizer().param_groups
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert {id(p) for name, p in model.named_parameters() if "lora_" in name} <= decayed
    assert not any(id(p) in decayed for name, p in model.named_parameters() if name.endswith("bias"))


def test_optimizer_class_is_used_and_its_rate_scales_that_of_the_heads(trainer_of, disjoint):
    chosen = (torch.optim.SGD, {"lr": 0.02, "momentum": 0.5})
    trainer = trainer_of(disjoint, given={"optimizer_cls_and_kwargs": chosen}, max_steps=1, head_learning_rate=None)
    groups = trainer.create_optimizer().param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert {group["lr"] for group in groups} == {0.02, HEAD_FACTOR * 0.02} and {
        group["momentum"] for group in groups
    } == {0.5}
    trainer.train()


def test_metrics_and_state_are_shown_and_saved_as_by_trainer(trainer_of, disjoint, tmp_path, capsys):
    trainer = trainer_of(disjoint, disjoint, max_steps=1)
    result = trainer.train()
    for split, metrics in (("train", result.metrics), ("eval", trainer.evaluate())):
        trainer.log_metrics(split, metrics)
        trainer.save_metrics(split, metrics)
    trainer.save_state()
    assert "eval_pos_accuracy" in capsys.readouterr().out
    saved = {path.name for path in (tmp_path / "run").glob("*.json")}
    assert {"train_results.json", "eval_results.json", "all_results.json", "trainer_state.json"} <= saved


def test_evaluation_on_start_is_not_repeated_by_a_resumed_run(trainer_of, disjoint, tmp_path):
    settings = {"max_steps": 2, "eval_on_start": True, "eval_strategy": "steps", "eval_steps": 1}
    whole = trainer_of(disjoint, disjoint, save_strategy="steps", save_steps=1, **settings)
    whole.train()
    assert [entry["step"] for entry in whole.state.log_history if "eval_loss" in entry] == [0, 1, 2]
    resumed = trainer_of(disjoint, disjoint, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert logged(resumed, "eval_loss") == logged(whole, "eval_loss")
    assert_same_weights(resumed.model, whole.model)


# Adapters


@pytest.fixture(scope="module")
def apart(tokenizer) -> dict[str, EncodedDataset]:
    """A dataset of 8 texts per task."""
    return {
        task: build_split(tokenizer, seed, [3 + n % 5 for n in range(8)], {task: lambda n: True})
        for seed, task in enumerate(TASKS)
    }


@pytest.mark.parametrize(
    ("family", "options"),
    [("bert", {}), ("modernbert", {}), ("deberta-v2", {}), ("bert", {"use_dora": True}), ("albert", {})],
)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("train_encoder", [True, False])
def test_batch_of_all_tasks_gives_the_gradients_of_separate_passes(
    trainer_of, apart, family, options, checkpointing, train_encoder
):
    if checkpointing and family == "albert":
        pytest.skip("transformers cannot checkpoint it")
    found = []
    together, alone = [[*range(32)]], [[*range(start, start + 8)] for start in (0, 8, 16, 24)]
    for batches, activation_checkpointing in ((together, checkpointing), (alone, False)):
        adapters = ("pos", "topic") if options else ("shared", "pos", "topic")
        model, recorder = adapted_model(adapters, family, **options), Recorder()
        if not train_encoder:
            freeze_plain_encoder(model)
        settings = {"gradient_accumulation_steps": len(batches), "activation_checkpointing": activation_checkpointing}
        trainer = trainer_of(
            apart, batches=batches, model=model, callbacks=[recorder], max_steps=1, logging_steps=1, **settings
        )
        trainer.train()
        gradients = {name: g for name, g in recorder.gradients[0].items() if g is not None}
        found.append((gradients, logged(trainer, "loss")[0]))
        assert not train_encoder or gradients.keys() == recorder.gradients[0].keys()
        assert all(gradients[name].any() for name in gradients if "lora_" in name)
    (gradients, loss), (expected, other_loss) = found
    assert loss == pytest.approx(other_loss, rel=1e-5)
    assert gradients.keys() == expected.keys()
    whole, other = (torch.cat([each[name].flatten() for name in gradients]) for each in (gradients, expected))
    assert (whole - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("settings", [{}, {"label_smoothing_factor": 0.2}])
def test_new_adapters_do_not_change_the_loss_and_head_gradients(trainer_of, disjoint, settings):
    found = []
    for model in (build_model(), adapted_model(std=0.0)):
        recorder = Recorder()
        trainer = trainer_of(disjoint, model=model, callbacks=[recorder], max_steps=1, logging_steps=1, **settings)
        trainer.train()
        heads = {name: gradient for name, gradient in recorder.gradients[0].items() if name.startswith("heads.")}
        found.append((logged(trainer, "loss"), heads))
    (loss, heads), (other_loss, others) = found
    assert loss == pytest.approx(other_loss, rel=1e-6)
    torch.testing.assert_close(heads, others, rtol=1e-4, atol=1e-6)


def test_model_with_adapters_round_trips(trainer_of, disjoint, tmp_path):
    model = adapted_model(("shared", "pos", "topic"), std=0.0)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = trainer_of(disjoint, disjoint, model=model, max_steps=4, learning_rate=0.01)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = MultitaskModel.from_pretrained(tmp_path / "saved").eval()
    assert_same_weights(loaded, trainer.model)
    assert all(not torch.equal(start[name], p) for name, p in loaded.named_parameters() if "lora_" in name)
    (batch, *_) = trainer.get_train_dataloader()
    with torch.no_grad():
        logits, expected = (each(**batch).logits for each in (loaded, trainer.model.eval()))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)


def test_adapters_of_the_best_model_are_loaded_at_the_end(trainer_of, disjoint, tmp_path):
    settings = {**BEST, "eval_steps": 10, "save_steps": 10, "max_steps": 40, "learning_rate": 5e-3}
    trainer = trainer_of(disjoint, disjoint, model=adapted_model(), callbacks=[Spoiler()], **settings)
    trainer.train()
    assert trainer.state.best_global_step < 40
    best, last = (
        load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors")
        for step in (trainer.state.best_global_step, 40)
    )
    state = trainer.model.state_dict()
    adapters = [name for name in state if "lora_" in name]
    assert len(adapters) == 3 * 2 * 12
    assert all(torch.equal(state[name], best[name]) for name in state)
    assert not any(torch.equal(best[name], last[name]) for name in adapters)
    assert trainer.evaluate()["eval_mtl_score"] == pytest.approx(trainer.state.best_metric)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_adapters_and_pull_run_in_bfloat16_on_a_cpu(trainer_of, disjoint, options):
    found = []
    for bf16 in (False, True):
        settings = {"max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3, "adapter_pull": 0.0 if options else 0.1}
        model = adapted_model(("pos", "topic") if options else ("shared", "pos", "topic"), **options)
        trainer = trainer_of(disjoint, disjoint, model=model, bf16=bf16, **settings)
        trainer.train()
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        found.append((logged(trainer, "loss"), logged(trainer, "pull"), trainer.evaluate()["eval_loss"]))
    (loss, pull, eval_loss), (low_loss, low_pull, low_eval_loss) = found
    assert low_loss == pytest.approx(loss, rel=0.05)
    assert low_loss != loss
    assert low_pull == pytest.approx(pull, rel=0.01)
    assert low_eval_loss == pytest.approx(eval_loss, rel=0.05)


def test_model_with_adapters_trains_with_a_token_budget(trainer_of, disjoint):
    settings = {"max_tokens_per_batch": 60, "num_train_epochs": 1, "logging_steps": 1, "adapter_pull": 0.1}
    model = adapted_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = trainer_of(disjoint, model=model, **settings)
    trainer.train()
    assert all(batch["input_ids"].numel() <= 60 for batch in trainer.get_train_dataloader())
    assert trainer.state.global_step == len(logged(trainer, "pull")) > 4
    assert all(not torch.equal(start[name], p) for name, p in model.named_parameters() if "lora_" in name)


def test_tasks_learn_with_adapters_only(trainer_of, disjoint):
    model = adapted_model(("pos", "ner", "topic", "score"), std=0.0)
    freeze_plain_encoder(model)
    plain = {name: p.clone() for name, p in model.encoder.named_parameters() if not p.requires_grad}
    settings = {"num_train_epochs": 60, "learning_rate": 5e-3, "per_device_train_batch_size": 16}
    trainer = trainer_of(disjoint, disjoint, model=model, lr_scheduler_type="constant", **settings)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert all(after[f"eval_{task}_loss"] < 0.7 * before[f"eval_{task}_loss"] for task in TASKS)
    assert after["eval_mtl_score"] > before["eval_mtl_score"] + 0.3
    assert all(torch.equal(p, plain[name]) for name, p in model.encoder.named_parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    "setting", [{"activation_checkpointing": True}, {"dataloader_num_workers": 2}, {"data_seed": 42}]
)
def test_checkpointing_workers_and_equal_data_seed_do_not_change_the_weights(trainer_of, disjoint, setting):
    plain, other = (trainer_of(disjoint, max_steps=6, learning_rate=0.01, **s) for s in ({}, setting))
    plain.train()
    other.train()
    torch.testing.assert_close(other.model.state_dict(), plain.model.state_dict(), rtol=1e-4, atol=1e-6)


def test_workers_give_the_same_batches(trainer_of, disjoint):
    loaders = [trainer_of(disjoint, dataloader_num_workers=n).get_train_dataloader() for n in (0, 2)]
    for one, other in zip(*loaders, strict=True):
        torch.testing.assert_close(dict(one), dict(other), rtol=0, atol=0)


def test_data_seed_sets_the_batch_order_and_can_be_zero(trainer_of, disjoint):
    first = [next(iter(trainer_of(disjoint, **s).get_train_dataloader())) for s in ({}, {"data_seed": 0}, {"seed": 0})]
    assert torch.equal(first[1]["input_ids"], first[2]["input_ids"])
    assert first[0]["input_ids"].shape != first[1]["input_ids"].shape or not torch.equal(
        first[0]["input_ids"], first[1]["input_ids"]
    )


def test_training_and_evaluation_run_in_bfloat16_on_a_cpu(trainer_of, disjoint):
    settings = {"max_steps": 3, "logging_steps": 1, "learning_rate": 1e-3}
    plain, low = (trainer_of(disjoint, disjoint, bf16=bf16, **settings) for bf16 in (False, True))
    plain.train()
    low.train()
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}
    assert logged(low, "loss") == pytest.approx(logged(plain, "loss"), rel=0.05)
    assert logged(low, "loss") != logged(plain, "loss")
    assert low.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=0.05)


def test_mixture_without_a_common_task_learns_all_tasks(trainer_of, disjoint):
    settings = {"num_train_epochs": 60, "learning_rate": 5e-3, "per_device_train_batch_size": 16}
    trainer = trainer_of(disjoint, disjoint, lr_scheduler_type="constant", **settings)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for task in TASKS:
        assert after[f"eval_{task}_loss"] < 0.9 * before[f"eval_{task}_loss"]
    assert after["eval_mtl_score"] > before["eval_mtl_score"] + 0.2
