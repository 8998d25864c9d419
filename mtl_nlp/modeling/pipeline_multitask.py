"""The pipeline: raw text in, answers of all tasks out, with one encoder pass per batch for tasks without adapters."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel
from transformers.pipelines.base import ChunkPipeline

from .answering_multitask import Logits, arranged
from .checks_multitask import check_tokenizer
from .configuration_multitask import MultitaskConfig
from .label_kinds_multitask import PREDICTED, TopK
from .ragged_multitask import Ragged
from .windows_multitask import Window, added_tokens, default_max_length, tokenize_texts, tokenize_words
from .words_multitask import Word, split_words

_SORTED_BATCHES = 32
"""Number of batches whose texts are tokenized together and sorted by length, unless batches have one text."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TOKENIZING = threading.Lock()
"""Lock of the tokenizer: a fast tokenizer stores truncation as state, which a second thread must not change."""


class _Text(NamedTuple):
    """A pipeline input with its words and windows.

    Attributes:
        text: the text, or the first text of a pair.
        words: the words of the text.
        windows: the windows of the text.
        is_pair: whether the input is a pair of texts.
    """

    text: str
    words: list[Word]
    windows: list[Window]
    is_pair: bool = False

    @property
    def read_words(self) -> list[Word]:
        """The words that belong to a window; the words that were truncated from a pair do not."""
        indices = [index for window in self.windows for index in window.words]
        return self.words if len(indices) == len(self.words) else [self.words[index] for index in indices]


class _Answered(NamedTuple):
    """Texts with the logits of each text for each task, see `Answering.join_all`."""

    texts: list[_Text]
    logits: dict[str, Logits]


class MultitaskPipeline(ChunkPipeline):
    """The pipeline for all tasks of a multitask model, `pipeline("multitask", model=…)`.

    An input is a text, `{"text": …, "text_pair": …}`, or `{"tokens": [...]}` with words that are not split further.
    If the model has tasks on words, a text is split as in `mtl_nlp.modeling.words_multitask`, and tokens that were
    added to the tokenizer (`[E1]`) stay whole.
    The pipeline accepts one input, a list, or any other iterable, such as a generator or a dataset's column. The answer
    to an input is a dict with one entry per task, in the format of the stock pipelines: words or spans for
    [`TokenClassification`], and `[{"label", "score"}]` for all other tasks. Offsets of `tokens` refer to the words
    joined by spaces. Answers to a list are a list. Answers to any other iterable are computed on demand, and the
    pipeline reads up to 32 batches of inputs ahead.

    Word tasks read a text that is longer than the encoder's limit in overlapping windows, and text tasks read its first
    window. A pair is truncated to one window, and word tasks answer for the remaining words of the first text.

    Batches contain texts of similar length, and answers are in the order of the inputs. Threads can share a pipeline.

    In a model with adapters, each task with its own adapter takes a separate encoder pass, and all other tasks share
    one pass.

    Args:
        merge_task (`str`, *optional*): the only task to answer, with its adapters merged into the encoder: answers take
            one encoder pass without the cost of adapters. Calls do not accept this argument.
        tasks (`str` or `list[str]`, *optional*): the tasks to answer; by default all, except that a single text gets no
            answer of a task that was trained on pairs, unless the model has only such tasks.
        top_k (`int`, *optional*): the number of classes to show, best first; None for all classes. The default is the
            predicted classes: the best class, or every class with a probability of at least 0.5 in multi-label tasks.
        batch_size (`int`, *optional*): the number of windows per encoder pass; 1 by default.

    Raises:
        ValueError: if an argument or an input is not valid. All inputs of a list are checked before the first encoder
            pass, and any other iterable is checked as far as the pipeline reads ahead.

    Examples:
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
            raise ValueError(
                f"`merge_task` needs a torch model. Found {type(model).__name__}. Leave `merge_task` out, or pass the "
                "model before its export."
            )
        _check_batch_size(kwargs.get("batch_size"))
        # Merged first, since the base class checks `tasks` against the model and moves the model to a device.
        super().__init__(model if merge_task is None else model.merge_and_unload(merge_task), *args, **kwargs)
        config = self.model.config
        check_tokenizer(self.tokenizer, config.text_config, config.max_length, config.stride)

    def __call__(self, inputs: Any, *args: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Answer one input, a list of inputs, or any other iterable of inputs on demand."""
        _check_batch_size(batch_size)
        if isinstance(inputs, list | tuple):
            inputs = list(_checked_inputs(inputs))
            if not inputs:
                return []
        elif isinstance(inputs, Iterable | Dataset) and not isinstance(inputs, str | bytes | bytearray | Mapping):
            inputs = _checked_inputs(inputs)
        else:
            check_input(inputs)
        return super().__call__(inputs, *args, batch_size=batch_size, **kwargs)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = options.keys() - {"tasks", "top_k"}
        if unknown:
            raise ValueError(f"The multitask pipeline accepts `tasks` and `top_k`. Found {', '.join(sorted(unknown))}.")
        # Only the options of this call: all others keep the values given to the constructor.
        forward = {"tasks": self._task_names(options["tasks"])} if options.get("tasks") is not None else {}
        answer = {"top_k": options["top_k"]} if "top_k" in options else {}
        answer |= {"tasks": forward["tasks"]} if forward else {}
        top_k = options.get("top_k")
        if top_k not in (None, PREDICTED) and not _is_positive_integer(top_k):
            raise ValueError(
                f"`top_k` should be an integer of at least 1, or None for all classes. Found {top_k!r:.80}."
            )
        return {}, forward, answer

    def _task_names(self, tasks: Any) -> list[str]:
        """Return the names of the tasks to answer, each once; a single name stands for a list of one task.

        Raises:
            ValueError: if `tasks` does not name tasks of the model.
        """
        tasks = [tasks] if isinstance(tasks, str) else tasks
        names = list(tasks) if isinstance(tasks, Iterable) and not isinstance(tasks, bytes | Mapping) else []
        if not names:
            raise ValueError(
                f"`tasks` should be a list with at least one task, or None for all tasks. Found {tasks!r:.80}. The "
                f"model has {', '.join(self.model.tasks)}."
            )
        for name in names:
            if not isinstance(name, str) or name not in self.model.tasks:
                raise ValueError(f"No task {name!r:.80} in this model. The model has {', '.join(self.model.tasks)}.")
        return list(dict.fromkeys(names))

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any],
        postprocess_params: Mapping[str, Any],
    ) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Yield the answers in the order of the inputs, from batches of similar length.

        The stock iterator batches texts in the order of the inputs, which computes mostly padding. `num_workers` has no
        effect, since the texts of many batches are tokenized together.
        """
        items = iter(inputs)
        ahead = 1 if batch_size == 1 else _SORTED_BATCHES * batch_size
        while chunk := list(itertools.islice(items, ahead)):
            texts = self.preprocess(chunk, **preprocess_params)
            answered = _Answered(texts, self._logits_of(texts, batch_size, forward_params))
            yield from self.postprocess(answered, **postprocess_params)

    def _logits_of(
        self, texts: Sequence[_Text], batch_size: int, forward_params: Mapping[str, Any]
    ) -> dict[str, Logits]:
        """Return the logits of each text for each task."""
        windows = [window for text in texts for window in text.windows]
        counts = np.array([len(text.windows) for text in texts])
        input_ids = Ragged.of([window.input_ids for window in windows])
        positions = Ragged.of([window.positions for window in windows])
        order = np.argsort(-input_ids.sizes, kind="stable")
        cut: dict[str, list[Logits]] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            type_ids = [windows[number].token_type_ids for number in batch.tolist()]
            outputs = self.forward(self._collate(input_ids.take(batch), type_ids), **forward_params)
            places = positions.take(batch)
            for name, values in outputs.items():
                cut.setdefault(name, []).append(self.model.tasks[name].kind.cut_all(values.numpy(), places))
        in_order = np.argsort(order)
        return {
            name: self.model.tasks[name].kind.join_all(arranged(parts, in_order), counts) for name, parts in cut.items()
        }

    def _collate(self, input_ids: Ragged, type_ids: Sequence[list[int] | None]) -> dict[str, torch.Tensor]:
        """Return a batch, padded on the right, since words are found by their position from the left."""
        tokenizer = self.tokenizer
        arrays = {"input_ids": input_ids.padded(tokenizer.pad_token_id)}
        if type_ids[0] is not None:
            arrays["token_type_ids"] = Ragged.of([ids or [] for ids in type_ids]).padded(tokenizer.pad_token_type_id)
        if "attention_mask" in tokenizer.model_input_names:
            arrays["attention_mask"] = input_ids.replaced(np.ones_like(input_ids.values)).padded(0)
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def preprocess(self, inputs: Sequence[str | dict[str, Any]], **kwargs: Any) -> list[_Text]:
        """Split inputs into words, tokenize them together, and cut them into windows."""
        whole = added_tokens(self.tokenizer)
        parsed = [parse_input(item, whole) for item in inputs]
        pairs = [item.get("text_pair") if isinstance(item, dict) else None for item in inputs]
        seconds = [None if pair is None else _replace_surrogates(pair) for pair in pairs]
        windows: dict[int, list[Window]] = {}
        for is_pair in (False, True):
            chosen = [number for number, second in enumerate(seconds) if (second is not None) == is_pair]
            if chosen:
                second = [seconds[number] for number in chosen] if is_pair else None
                windows |= zip(
                    chosen, self._tokenize([parsed[number] for number in chosen], second, whole), strict=True
                )
        return [
            _Text(text, words, windows[number], seconds[number] is not None)
            for number, (text, words) in enumerate(parsed)
        ]

    def _tokenize(
        self, texts: Sequence[tuple[str, list[Word]]], pairs: Sequence[Any] | None, whole: Sequence[str]
    ) -> list[list[Window]]:
        config = self.model.config
        limit = config.max_length or default_max_length(self.tokenizer, config.text_config)
        with _TOKENIZING:
            if not config.reads_words:
                return tokenize_texts(self.tokenizer, [text for text, _ in texts], pairs, max_length=limit)
            tokens = [[word.text for word in words] for _, words in texts]
            seconds = None if pairs is None else [[word.text for word in split_words(pair, whole)] for pair in pairs]
            return tokenize_words(self.tokenizer, tokens, seconds, max_length=limit, stride=config.stride)

    def _forward(self, model_inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        logits = self.model(**model_inputs, tasks=tasks).logits
        return {name: values.float() for name, values in logits.items()}

    def postprocess(
        self, model_outputs: _Answered, top_k: TopK = PREDICTED, tasks: Sequence[str] | None = None
    ) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Yield the answer of every task that was asked for or fits the input, for each text."""
        texts, logits = model_outputs
        for_pairs = set() if tasks is not None else {*(self.model.config.pair_tasks or ())}
        if self.model.tasks.keys() <= for_pairs:  # a model of pairs alone still answers
            for_pairs = set()
        words, plain = [text.read_words for text in texts], [text.text for text in texts]
        answers = {
            name: task.kind.answer_all(logits[name], words, plain, top_k)
            for name, task in self.model.tasks.items()
            if name in logits and (name not in for_pairs or any(text.is_pair for text in texts))
        }
        for number, text in enumerate(texts):
            yield {name: found[number] for name, found in answers.items() if text.is_pair or name not in for_pairs}


def check_input(inputs: Any, where: str = "") -> None:
    """Check that an input has one of the formats that [`MultitaskPipeline`] accepts.

    Args:
        inputs: the input.
        where: the start of the message, such as the number of the input.

    Raises:
        ValueError: if the input has a different format.
    """
    keys = inputs.keys() if isinstance(inputs, dict) else set()
    if (
        isinstance(inputs, str)
        or (keys in ({"text"}, {"text", "text_pair"}) and _are_strings(inputs.values()))
        or (keys == {"tokens"} and isinstance(inputs["tokens"], list | tuple) and _are_strings(inputs["tokens"]))
    ):
        return
    raise ValueError(
        f'{where}The multitask pipeline accepts a text, {{"text": …, "text_pair": …}} or {{"tokens": [...]}}. '
        f"Found {inputs!r:.80}."
    )


def _checked_inputs(inputs: Iterable[Any]) -> Iterator[Any]:
    """Yield the inputs, each after its check. A message has the number of the input."""
    for number, item in enumerate(inputs):
        check_input(item, f"inputs[{number}]: ")
        yield item


def parse_input(inputs: str | dict[str, Any], whole: Sequence[str] = ()) -> tuple[str, list[Word]]:
    """Return the text of a pipeline input, or the first text of a pair, and its words.

    Args:
        inputs: the input.
        whole: the tokens of the tokenizer that are one word, see `added_tokens`.

    Raises:
        ValueError: if the input does not have one of the formats that [`MultitaskPipeline`] accepts.
    """
    check_input(inputs)
    if isinstance(inputs, str) or "text" in inputs:
        text = _replace_surrogates(inputs if isinstance(inputs, str) else inputs["text"])
        return text, split_words(text, whole)
    words, start = [], 0
    tokens = [_replace_surrogates(token) for token in inputs["tokens"]]
    for token in tokens:
        words.append(Word(token, start, start + len(token)))
        start += len(token) + 1
    return " ".join(tokens), words


def _are_strings(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _check_batch_size(batch_size: Any) -> None:
    """Check that a batch size is None or a positive integer.

    Raises:
        ValueError: if the batch size has a different value.
    """
    if batch_size is not None and not _is_positive_integer(batch_size):
        raise ValueError(f"`batch_size` should be an integer of at least 1. Found {batch_size!r:.80}.")


def _replace_surrogates(text: str) -> str:
    """Replace every surrogate with U+FFFD, since tokenizers do not accept surrogates."""
    return _SURROGATE.sub("\ufffd", text)
