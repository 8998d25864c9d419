"""The trial of a recipe's model: a random model of its form runs once before anything is trained."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.errors import MtlNlpError, RecipeError
from mtl_nlp.messages import counted, one_line
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import add_adapters
from mtl_nlp.run.answers import LIBRARY_ERRORS, answers_of, stock_problem
from mtl_nlp.run.refusal import is_of_own_code
from mtl_nlp.run.shallow import randomize, shallow_config, special_ids, vocabulary_tables

_LONG, _SHORT = 12, 5
"""The numbers of sub-words of the texts, without special tokens."""
_MOST_PARAMETERS = 500_000_000
"""The number of weights that fit into the memory of a small machine together with their gradients."""
_DEPENDS = 0.01
"""The effect of padding, relative to that of different words, from which a note names it."""
_MISTAKES = (AttributeError, KeyError, TypeError)
"""The errors that a mistake in this package raises, and input that is not valid does not."""
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass
class _Findings:
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def try_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig) -> list[str]:
    """Run a model with the tasks, adapters and encoder of a recipe, which has random weights and two encoder layers.

    The model reads a batch of three texts, of which one is padded, and a backward pass follows. The answers for the
    padded text should be those for the text alone. Where two layers do not run, the whole depth is tried. The weights
    of the encoder are not loaded, and the state of all random number generators stays as it was.

    Args:
        recipe: the recipe.
        tokenizer: the tokenizer of the encoder.
        config: the configuration of the model with its tasks, without the adapters of the recipe.

    Returns:
        Sentences about tasks whose answers depend on padding, stock classes that differ from a head, and weights that
        no task trains.

    Raises:
        RecipeError: if the model does not run, a head on texts reads padding or does not read the text, or a run on
            several processes has weights that no task trains. The message names the family of the encoder.
    """
    with _own_randomness(), warnings.catch_warnings(action="ignore"):  # the training shows them
        try:
            found = _findings(recipe, tokenizer, config, is_shallow=True)
        except LIBRARY_ERRORS as error:
            found = _findings_of_whole(recipe, tokenizer, config, error)
    if found is None:
        return ["the encoder is too large for a trial, so the training may still find that its family does not work"]
    if found.faults:
        raise RecipeError(found.faults[0])
    return found.notes


def _findings_of_whole(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig, error: Exception
) -> _Findings:
    """Return the findings of a model with all layers after an error of the model with two layers."""
    own = _own_modules(config)
    if not is_of_own_code(error, own):
        try:
            if (found := _findings(recipe, tokenizer, config, is_shallow=False)) is not None:
                return found
        except LIBRARY_ERRORS as second:
            error = second
    if isinstance(error, MtlNlpError) or is_of_own_code(error, own):
        raise error
    reason, family = one_line(error).rstrip(".") or "no reason given", config.text_config.model_type
    other = f"an encoder of a different family, such as {'roberta' if family == 'bert' else 'bert'}"
    is_of_package = isinstance(error, _MISTAKES) and _innermost_module(error).startswith("mtl_nlp.")
    remedy = (
        f"This can be a fault of mtl_nlp: please report it; --debug shows the traceback. Until then, choose {other}."
        if is_of_package
        else f"Choose {other}."
    )
    raise RecipeError(
        f"encoder: {recipe.encoder}: a multitask model with an encoder of the family {family} does not run "
        f"({type(error).__name__}: {reason}). {remedy}"
    ) from error


def _innermost_module(error: Exception) -> str:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__"))


def _own_modules(config: MultitaskConfig) -> set[str]:
    """Return the modules of the user that define heads or task types of a model."""
    return {task[key] for task in config.tasks or () for key in ("module", "head_module") if key in task}


@contextlib.contextmanager
def _own_randomness() -> Iterator[None]:
    """Use random numbers of a fixed seed, and restore the state of the generators afterwards.

    The generators of devices are not used: their states are not read, which would start the devices.
    """
    numbers, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            yield
    finally:
        random.setstate(numbers)
        np.random.set_state(arrays)


def _findings(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig, *, is_shallow: bool
) -> _Findings | None:
    """Return the findings of a model, or None if the model is too large."""
    rows = trial_rows(tokenizer, config)
    config = copy.deepcopy(config)
    if is_shallow:
        config.text_config = shallow_config(config.text_config)
    config.text_config.dtype = torch.float32
    with torch.device("cpu"):
        with no_init_weights():
            model = MultitaskModel(config).eval()
            model.tie_weights()  # T5 has its embedding under two names
        if (read := model.encoder.main_input_name) != "input_ids":
            raise ValueError(f"it reads {read} instead of texts")
        written = set(model.parameters()) - vocabulary_tables(model, config.text_config)
        if sum(parameter.numel() for parameter in written) > _MOST_PARAMETERS:
            return None
        batch = MultitaskDataCollator(tokenizer, model.tasks)(rows)
        inputs = {key: batch[key] for key in _INPUTS if key in batch}
        randomize(model, config.text_config, inputs["input_ids"].unique().tolist())
        found = _compare(model, inputs, len(rows[1]["input_ids"]))
        if not found.faults:
            add_adapters(model, recipe)
            outputs = model.train()(**inputs).logits
            sum(logits.float().square().sum() for logits in outputs.values()).backward()
            _find_untrained(model, recipe, found)
    return found


def _find_untrained(model: MultitaskModel, recipe: Recipe, found: _Findings) -> None:
    """Find the weights that got no gradient, for which a distributed run would wait."""
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    if not without:
        return
    family = model.config.text_config.model_type
    weights = counted(len(without), "weight")
    fact = f"no task trains {weights} of an encoder of the family {family}, such as {without[0]}"
    is_distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if is_distributed and recipe.training.get("ddp_find_unused_parameters") is not True:
        found.faults.append(
            f"encoder: {recipe.encoder}: {fact}, and each process would wait for their gradients. Set "
            f"training.ddp_find_unused_parameters: true, or train in one process."
        )
    else:
        found.notes.append(fact)


def trial_rows(tokenizer: PreTrainedTokenizerBase, config: MultitaskConfig) -> list[dict[str, list[int]]]:
    """Return the rows of the trial: a long text, a short text, and the long text with different words after the first.

    The texts have the special tokens of the tokenizer. Their words are ids from the start of the vocabulary, since a
    tokenizer may read every real word as the unknown token.

    Args:
        tokenizer: the tokenizer.
        config: the configuration, whose `max_length` the texts keep.
    """
    encoding = dict(tokenizer("a " * 2 * _LONG, return_special_tokens_mask=True, verbose=False))
    marks = encoding["special_tokens_mask"]
    capacity = marks.count(0) if config.max_length is None else config.max_length - marks.count(1)
    length = max(1, min(_LONG, capacity, marks.count(0)))
    special = {*tokenizer.all_special_ids, *special_ids(config.text_config)}
    free = [each for each in range(len(tokenizer)) if each not in special] or [0]
    words = list(islice(cycle(free[: 2 * _LONG]), 2 * _LONG))
    other = [words[0], *words[_LONG:][: length - 1]] if length > 1 else words[_LONG : _LONG + 1]
    texts = [words[:length], words[: min(_SHORT, max(1, length - 1))], other]
    return [_row(encoding, text) for text in texts]


def _row(encoding: Mapping[str, Sequence[int]], text: Sequence[int]) -> dict[str, list[int]]:
    """Return a text of sub-words with the special tokens of an encoding, which has at least as many sub-words."""
    marks = encoding["special_tokens_mask"]
    ordinary = [position for position, mark in enumerate(marks) if not mark]
    kept = sorted({*range(len(marks))} - {*ordinary[len(text) :]})
    row = {key: [values[position] for position in kept] for key, values in encoding.items()}
    words = iter(text)
    row["input_ids"] = [
        each if marks[position] else next(words) for each, position in zip(row["input_ids"], kept, strict=True)
    ]
    return row


def _compare(model: MultitaskModel, inputs: Mapping[str, torch.Tensor], length: int) -> _Findings:
    """Return the faults and notes of a model whose second text has `length` sub-words and then padding."""
    found, family = _Findings(), model.config.text_config.model_type
    of_padding = 0.0
    for name, answers in answers_of(model, inputs, length).items():
        if not answers.are_clear:
            continue
        is_own = model.heads_by_task[name].own_type is not None
        if answers.ignore_text and is_own:
            found.notes.append(f"{name}: its head does not read the text: different words give the same answer")
        elif answers.ignore_text:
            found.faults.append(
                f"tasks.{name}: with an encoder of the family {family}, the head reads a sub-word that knows only the "
                f"start of the text. {_advice(name)}"
            )
        elif answers.head_reads_padding and is_own:
            found.notes.append(f"{name}: its head reads padding, so an answer depends on the longest text of its batch")
        elif answers.head_reads_padding:
            found.faults.append(
                f"tasks.{name}: with an encoder of the family {family}, the head reads padding. {_advice(name)}"
            )
        else:
            of_padding = max(of_padding, answers.effect_of_padding)
        if not model.adapter_names and (problem := stock_problem(model, name, inputs, answers)) is not None:
            found.notes.append(f"{name}: cannot be exported to a stock class: {problem}")
    if of_padding > _DEPENDS:
        found.notes.append(
            f"encoders of the family {family} read padding, so an answer depends on the longest text of its batch: "
            f"with random weights, by up to {of_padding:.0%} of the effect of different words"
        )
    return found


def _advice(name: str) -> str:
    return f"Set tasks.{name}.pooling: mean, or choose an encoder of a different family."
