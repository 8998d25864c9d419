"""The pipeline: raw text in, the answers of all tasks out, one encoder pass a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from .configuration_multitask import MultitaskConfig
from .encoding_multitask import Window, default_max_length, encode_texts, encode_words
from .tasks_multitask import PREDICTED, Task, TopK
from .words_multitask import Word, split_words

_LOGITS = "logits_"


@dataclass
class _Source:
    """What a window carries past the model; an object, because the pipeline would take lists and tuples apart."""

    text: str
    words: list[Word]
    window: Window


class MultitaskPipeline(ChunkPipeline):
    """Answers every task of a multitask model, `pipeline("multitask", model=…)`.

    Inputs, singly, in a list, or from a generator or dataset: a text; `{"text": …, "text_pair": …}`; or
    `{"tokens": [...]}`, words that are not split any further. For each of them a dict with an entry a task, shaped as
    the stock pipelines': words or spans for token classification, see [`TokenClassification`], and
    `[{"label", "score"}]` for the others. Offsets of `tokens` count in the words joined by blanks.

    Texts longer than the encoder takes are read in overlapping windows for tasks on words. Tasks on whole texts read
    the first window. A pair is truncated to one window, and tasks on words answer for its words of the first text.

    Args:
        tasks (`list[str]`, *optional*): the tasks to answer; all by default.
        top_k (`int`, *optional*): how many classes to show, best first; None for all. By default those predicted: the
            best one, or for multi-label tasks all those that hold.

    Example:
        >>> answer = pipeline("multitask", model="runs/ewt")
        >>> answer("Ada lives in Paris.")["ner"]
        [{'entity_group': 'PER', 'score': 0.99, 'word': 'Ada', 'start': 0, 'end': 3}, …]
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.config.model_type != MultitaskConfig.model_type:
            raise ValueError(
                f"The multitask pipeline needs a multitask model. Found a {self.model.config.model_type} model."
            )
        # Words are found by their position from the left.
        self.tokenizer.padding_side = "right"

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = options.keys() - {"tasks", "top_k"}
        if unknown:
            raise ValueError(f"The multitask pipeline takes `tasks` and `top_k`. Found {', '.join(sorted(unknown))}.")
        for task in options.get("tasks") or ():
            if task not in self.model.tasks:
                raise ValueError(f"No task {task!r} in this model. It has {', '.join(self.model.tasks)}.")
        # Only what this call was given: the rest stays as the pipeline was built with.
        forward = {"tasks": list(options["tasks"])} if options.get("tasks") is not None else {}
        answer = {"top_k": options["top_k"]} if "top_k" in options else {}
        return {}, forward, answer

    def preprocess(self, inputs: str | dict[str, Any], **kwargs: Any) -> Iterator[dict[str, Any]]:
        """Split, tokenise and cut one input; yields a model input a window."""
        text, words = parse_input(inputs)
        pair = inputs.get("text_pair") if isinstance(inputs, dict) else None
        config = self.model.config
        limit = config.max_length or default_max_length(self.tokenizer, config.text_config)
        windows: list[Window]
        if config.reads_words:
            pairs = None if pair is None else [[word.text for word in split_words(pair)]]
            tokens = [[word.text for word in words]]
            (windows,) = encode_words(self.tokenizer, tokens, pairs, max_length=limit, stride=config.stride)
        else:
            second = None if pair is None else [pair]
            (windows,) = encode_texts(self.tokenizer, [text], second, max_length=limit)
        for number, window in enumerate(windows):
            model_inputs = {"input_ids": torch.tensor([window.input_ids])}
            model_inputs["attention_mask"] = torch.ones_like(model_inputs["input_ids"])
            if window.token_type_ids is not None:
                model_inputs["token_type_ids"] = torch.tensor([window.token_type_ids])
            yield {"is_last": number == len(windows) - 1, "source": _Source(text, words, window), **model_inputs}

    def _forward(self, model_inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> dict[str, Any]:
        carried = {key: model_inputs.pop(key) for key in ("is_last", "source")}
        logits = self.model(**model_inputs, tasks=tasks).logits
        # Flat, because the pipeline's unbatching does not look into nested dicts; logits first, because it takes the
        # batch's size from the first entry.
        return {_LOGITS + name: values.float() for name, values in logits.items()} | carried

    def postprocess(
        self, model_outputs: list[dict[str, Any]], top_k: TopK = PREDICTED
    ) -> dict[str, list[dict[str, Any]]]:
        """Put the windows of one text together and let every task answer."""
        source = model_outputs[0]["source"]
        words = [source.words[index] for output in model_outputs for index in output["source"].window.words]
        answers = {}
        for name, task in self.model.tasks.items():
            if _LOGITS + name in model_outputs[0]:
                logits = _task_logits(task, model_outputs)
                answers[name] = task.answer(logits, words, source.text, top_k)
        return answers


def parse_input(inputs: str | dict[str, Any]) -> tuple[str, list[Word]]:
    """The (first) text of a pipeline input, and its words.

    Raises:
        ValueError: if the input has none of the shapes that [`MultitaskPipeline`] reads.
    """
    if isinstance(inputs, str):
        return inputs, split_words(inputs)
    strings = isinstance(inputs, dict) and all(isinstance(value, str) for value in inputs.values())
    if strings and "text" in inputs and inputs.keys() <= {"text", "text_pair"}:
        return inputs["text"], split_words(inputs["text"])
    tokens = inputs.get("tokens") if isinstance(inputs, dict) and inputs.keys() == {"tokens"} else None
    if isinstance(tokens, list | tuple) and all(isinstance(token, str) for token in tokens):
        words, start = [], 0
        for token in tokens:
            words.append(Word(token, start, start + len(token)))
            start += len(token) + 1
        return " ".join(tokens), words
    raise ValueError(
        'The multitask pipeline reads a text, {"text": …, "text_pair": …} or {"tokens": [...]}. '
        f"Found {inputs!r:.80}."
    )


def _task_logits(task: Task, windows: Sequence[dict[str, Any]]) -> np.ndarray:
    """A task's logits for one text: those of its words (the windows share them out in order), or its first window's."""
    values = [window[_LOGITS + task.name][0].cpu().numpy() for window in windows]
    if task.level == "sequence":
        return values[0]
    return np.concatenate([v[window["source"].window.positions] for v, window in zip(values, windows, strict=True)])
