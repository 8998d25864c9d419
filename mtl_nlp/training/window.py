"""The agreement between a model and its data on windows: the number of sub-words that the encoder reads at once."""

from __future__ import annotations

from collections.abc import Iterable

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.windows_multitask import encoder_max_length


def agree_on_window(
    config: MultitaskConfig,
    datasets: Iterable[EncodedDataset | EncodedStream],
) -> None:
    """Check that a model and its data have the same `max_length` and `stride`, and set missing values of the model.

    The configuration is saved with the model, so that a pipeline cuts long texts into the same windows as the data.

    Args:
        config: the model's configuration. A value of None is set to the value of the data.
        datasets: encoded splits. Splits without a `max_length` are not compared.

    Raises:
        ValueError: if two datasets differ, or the data differs from the configuration.
    """
    known = [encoded for encoded in datasets if encoded.max_length is not None]
    if not known:
        return
    first = known[0]
    for other in known[1:]:
        if (other.max_length, other.stride) != (first.max_length, first.stride):
            raise ValueError(
                f"All datasets should be encoded with the same `max_length` and `stride`. Found {_window_of(first)}, "
                f"and {_window_of(other)}."
            )
    # Data is encoded with the limit of the tokenizer by default, which may exceed the limit of the encoder.
    max_length = min(filter(None, (first.max_length, encoder_max_length(config.text_config))))
    for name, own, found in (
        ("max_length", config.max_length, {first.max_length, max_length}),
        ("stride", config.stride, {first.stride}),
    ):
        if own is not None and own not in found:
            raise ValueError(
                f"The model's configuration has `{name}` {own}, but the data does not: {_window_of(first)}. Encode all "
                f"datasets with `{name}={own}`."
            )
    config.max_length = config.max_length or max_length
    config.stride = first.stride


def _window_of(encoded: EncodedDataset | EncodedStream) -> str:
    stride = "the default" if encoded.stride is None else encoded.stride
    return f"{encoded.name} has `max_length` {encoded.max_length} and `stride` {stride}"
