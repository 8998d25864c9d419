"""Fixtures: models exported as PEFT adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import (
    AS_ADAPTERS,
    lively_adapted,
    lively_encoder,
    tokenizer_for,
)

from mtl_nlp import (
    MultitaskModel,
)
from mtl_nlp.export.peft import export_peft


@pytest.fixture(scope="module")
def as_adapters(tmp_path_factory) -> dict[str, tuple[MultitaskModel, Path, str, str]]:
    """Export all cases: name -> the model, the folder of the export, the folder of the encoder, the base model."""
    exported, folder = {}, tmp_path_factory.mktemp("as-adapters")
    for name, case in AS_ADAPTERS.items():
        encoder = lively_encoder(folder / f"{case.family}-{dict(case.changes)}", case.family, case.changes)
        model, output = lively_adapted(case, encoder), folder / name
        base = export_peft(model, tokenizer_for(case.family), case.task, output, encoder)
        exported[name] = (model, output, encoder, base)
    return exported
