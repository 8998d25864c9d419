"""The pipeline: raw text in, the answers of all tasks out, one encoder pass a batch for tasks without adapters."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.pipelines.base import ChunkPipeline

from .configuration_multitask import MultitaskConfig
from .label_kinds_multitask import PREDICTED, TopK
from .windows_multitask import Window, default_max_length, tokenize_texts, tokenize_words
from .words_multitask import Word, split_words

_SORTED_BATCHES = 32
"""So many batches' texts are read ahead, tokenized at once and sorted by length; with batches of one text, one."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TOKENIZING = threading.Lock()
"""A fast tokenizer keeps truncation as its own state, which threads must not change under each other."""


@dataclass
class _Text:
    """One input on its way to its answer.

    Attributes:
        text: the (first) text.
        words: its words.
        windows: what the encoder reads of it.
        logits: for each window those of every task, of its words or of the text.
    """

    text: str
    words: list[Word]
    windows: list[Window]
    logits: list[dict[str, np.ndarray]] = field(default_factory=list)


class MultitaskPipeline(ChunkPipeline):
    """Answers every task of a multitask model, `pipeline("multitask", model=…)`.

    Inputs, singly, in a list, or from any iterable (a generator, a dataset's column): a text;
    `{"text": …, "text_pair": …}`; or `{"tokens": [...]}`, words that are not split any further. For each of them a
    dict with an entry a task, shaped as the stock pipelines': words or spans for token classification, see
    [`TokenClassification`], and `[{"label", "score"}]` for the others. Offsets of `tokens` count in the words joined
    by blanks. A list is answered by a list; any other iterable is read as its answers are asked for, 32 batches ahead.

    Texts longer than the encoder takes are read in overlapping windows for tasks on words. Tasks on whole texts read
    the first window. A pair is truncated to one window, and tasks on words answer for its words of the first text.

    Batches hold texts of like length, and answers come in the order of the inputs. Threads may share a pipeline.

    Of a model with adapters every task that has its own takes an encoder pass of its own, and all others share one.

    Args:
        merge_task (`str`, *optional*): answer this task alone, its adapters merged into the encoder: one pass, without
            any adapter's cost. Only when the pipeline is made.
        tasks (`list[str]`, *optional*): the tasks to answer; all by default.
        top_k (`int`, *optional*): how many classes to show, best first; None for all. By default those predicted: the
            best one, or for multi-label tasks all those that hold.

    Example:
        >>> import mtl_nlp
        >>> from transformers import pipeline
        >>> answer = pipeline("multitask", model="runs/ewt")
        >>> answer("Ada lives in Paris.")["ner"]
        [{'entity_group': 'PER', 'score': 0.99..., 'word': 'Ada', 'start': 0, 'end': 3}, ...]
    """

    model: Any
    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, model: Any, *args: Any, merge_task: str | None = None, **kwargs: Any) -> None:
        if model.config.model_type != MultitaskConfig.model_type:
            raise ValueError(
                f"The multitask pipeline needs a multitask model. Found a {model.config.model_type} model."
            )
        if merge_task is not None and not isinstance(model, PreTrainedModel):
            raise ValueError("`merge_task` needs the model itself, not its export.")
        # Before `tasks` are looked at, and what is not needed goes to a device.
        super().__init__(model if merge_task is None else model.merge_and_unload(merge_task), *args, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer one input, a list of them, or any other iterable of them, as they are asked for."""
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif isinstance(inputs, Iterable) and not isinstance(inputs, str | dict | list):
            inputs = (item for item in inputs)
        return super().__call__(inputs, *args, **kwargs)

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

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any],
        postprocess_params: Mapping[str, Any],
    ) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """The answers in the inputs' order: the stock pipelines' own batches are in that order, and mostly padding.

        `num_workers` is not used, since a whole chunk is tokenized at once.
        """
        items = iter(inputs)
        ahead = 1 if batch_size == 1 else _SORTED_BATCHES * batch_size
        while chunk := list(itertools.islice(items, ahead)):
            texts = self.preprocess(chunk, **preprocess_params)
            self._read(texts, batch_size, forward_params)
            for text in texts:
                yield self.postprocess(text, **postprocess_params)

    def _read(self, texts: Sequence[_Text], batch_size: int, forward_params: Mapping[str, Any]) -> None:
        """Give every window of the texts its logits."""
        windows = [(text, number) for text in texts for number in range(len(text.windows))]
        order = sorted(windows, key=lambda place: -len(place[0].windows[place[1]].input_ids))
        for text in texts:
            text.logits = [{} for _ in text.windows]
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            outputs = self.forward(self._collate([text.windows[number] for text, number in batch]), **forward_params)
            for name, values in outputs.items():
                kind = self.model.tasks[name].kind
                for (text, number), logits in zip(batch, values.numpy(), strict=True):
                    text.logits[number][name] = kind.cut(logits, text.windows[number].positions)

    def _collate(self, windows: Sequence[Window]) -> dict[str, torch.Tensor]:
        features = {"input_ids": [window.input_ids for window in windows]}
        if windows[0].token_type_ids is not None:
            features["token_type_ids"] = [window.token_type_ids or [] for window in windows]
        # On the right, whatever the tokenizer says: words are found by their position from the left.
        return dict(self.tokenizer.pad(features, padding_side="right", return_tensors="pt", verbose=False))

    def preprocess(self, inputs: Sequence[str | dict[str, Any]], **kwargs: Any) -> list[_Text]:
        """Split, tokenize and cut many inputs at once."""
        parsed = [parse_input(item) for item in inputs]
        pairs = [item.get("text_pair") if isinstance(item, dict) else None for item in inputs]
        seconds = [None if pair is None else _replace_surrogates(pair) for pair in pairs]
        windows: dict[int, list[Window]] = {}
        for is_pair in (False, True):
            chosen = [number for number, second in enumerate(seconds) if (second is not None) == is_pair]
            if chosen:
                second = [seconds[number] for number in chosen] if is_pair else None
                windows |= zip(chosen, self._tokenize([parsed[number] for number in chosen], second), strict=True)
        return [_Text(text, words, windows[number]) for number, (text, words) in enumerate(parsed)]

    def _tokenize(self, texts: Sequence[tuple[str, list[Word]]], pairs: Sequence[Any] | None) -> list[list[Window]]:
        config = self.model.config
        limit = config.max_length or default_max_length(self.tokenizer, config.text_config)
        with _TOKENIZING:
            if not config.reads_words:
                return tokenize_texts(self.tokenizer, [text for text, _ in texts], pairs, max_length=limit)
            tokens = [[word.text for word in words] for _, words in texts]
            seconds = None if pairs is None else [[word.text for word in split_words(pair)] for pair in pairs]
            return tokenize_words(self.tokenizer, tokens, seconds, max_length=limit, stride=config.stride)

    def _forward(self, model_inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        logits = self.model(**model_inputs, tasks=tasks).logits
        return {name: values.float() for name, values in logits.items()}

    def postprocess(self, model_outputs: _Text, top_k: TopK = PREDICTED) -> dict[str, list[dict[str, Any]]]:
        """Put the windows of one text together and let every task answer."""
        text = model_outputs
        words = [text.words[index] for window in text.windows for index in window.words]
        return {
            name: task.kind.answer(task.kind.join([logits[name] for logits in text.logits]), words, text.text, top_k)
            for name, task in self.model.tasks.items()
            if name in text.logits[0]
        }


def parse_input(inputs: str | dict[str, Any]) -> tuple[str, list[Word]]:
    """The (first) text of a pipeline input, and its words.

    Raises:
        ValueError: if the input has none of the shapes that [`MultitaskPipeline`] reads.
    """
    if isinstance(inputs, str):
        text = _replace_surrogates(inputs)
        return text, split_words(text)
    strings = isinstance(inputs, dict) and all(isinstance(value, str) for value in inputs.values())
    if strings and "text" in inputs and inputs.keys() <= {"text", "text_pair"}:
        return parse_input(inputs["text"])
    tokens = inputs.get("tokens") if isinstance(inputs, dict) and inputs.keys() == {"tokens"} else None
    if isinstance(tokens, list | tuple) and all(isinstance(token, str) for token in tokens):
        words, start = [], 0
        tokens = [_replace_surrogates(token) for token in tokens]
        for token in tokens:
            words.append(Word(token, start, start + len(token)))
            start += len(token) + 1
        return " ".join(tokens), words
    raise ValueError(
        'The multitask pipeline reads a text, {"text": …, "text_pair": …} or {"tokens": [...]}. '
        f"Found {inputs!r:.80}."
    )


def _replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no tokenizer takes."""
    return _SURROGATE.sub("\ufffd", text)
