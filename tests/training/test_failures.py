from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import SafetensorError

from mtl_nlp.errors import RunError
from mtl_nlp.training.failures import failed_checkpoint, lost_process, lost_processes_reported

WORKER = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
PEER = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:32")
TORCH_SAVE = RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An incomplete checkpoint."""
    (tmp_path / "checkpoint-6").mkdir()
    (tmp_path / "checkpoint-6" / "config.json").write_text("{}")
    return tmp_path / "checkpoint-6"


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (WORKER, "a worker of the data loader was killed"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "Lower `dataloader_num_workers`"),
        (ConnectionResetError(104, "Connection reset by peer"), "a worker of the data loader was killed"),
        (PEER, "a different process of the run has ended"),
    ],
)
def test_lost_process_is_named(tmp_path, error, part):
    assert part in (lost_process(error) or "")
    with pytest.raises(RunError) as raised, lost_processes_reported(tmp_path):
        raise error
    assert str(raised.value)[0].isupper()
    assert str(raised.value).endswith(f"There is no complete checkpoint in {tmp_path}. Start the run again.")


def test_lost_process_of_an_evaluation_has_no_checkpoint():
    with pytest.raises(RunError, match=r"`dataloader_prefetch_factor`\.$"), lost_processes_reported(None):
        raise WORKER


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert"), OSError("gloo"), TORCH_SAVE, BrokenPipeError()]
)
def test_other_errors_have_no_lost_process(error):
    assert lost_process(error) is None


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left"), TORCH_SAVE]
)
def test_checkpoint_on_a_full_disk_is_deleted(checkpoint, error):
    message = str(failed_checkpoint(checkpoint, error))
    assert message.startswith(f"{checkpoint} cannot be written (")
    assert message.endswith(
        f"Free disk space. There is no complete checkpoint in {checkpoint.parent}. Start the run again."
    )
    assert not checkpoint.exists()


@pytest.mark.parametrize("error", [WORKER, PEER, RuntimeError("CUDA out of memory")])
def test_checkpoint_is_kept_after_other_failures(checkpoint, error):
    message = str(failed_checkpoint(checkpoint, error))
    assert message.startswith(f"{checkpoint} is incomplete: ")
    assert "disk" not in message
    assert checkpoint.exists()
