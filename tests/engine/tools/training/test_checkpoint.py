from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from dgemma_engine.errors import CannotResume, TrainingError
from dgemma_engine.tools.training.checkpoint import STATE, load_state, save_state

STATE_OF_A_MEGABYTE = {"config": {}, "tensor": torch.zeros(2**18)}


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Limits the size of any written file, so that writes fail as on a full disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes: not checked")
@pytest.mark.parametrize("is_first", [True, False])
def test_failed_write_is_reported_with_the_systems_message(tmp_path: Path, is_first: bool) -> None:
    if not is_first:
        save_state(STATE_OF_A_MEGABYTE, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_of_at_most(2**16), pytest.raises(TrainingError) as caught:
        save_state(STATE_OF_A_MEGABYTE, tmp_path)
    kept = "what was saved before is kept: free some space, then use --resume"
    remedy = "free some space, then start again" if is_first else kept
    assert str(caught.value) == f"{tmp_path / STATE}: cannot be written (File too large); {remedy}"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_failed_write_of_a_library_hides_the_librarys_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(TrainingError, match=r"cannot be written \(the disk may be full\); free some space, then start"):
        save_state(STATE_OF_A_MEGABYTE, tmp_path)


def test_state_that_cannot_be_resumed_is_detected(tmp_path: Path) -> None:
    with pytest.raises(CannotResume, match="missing, nothing to resume"):
        load_state(tmp_path, {})
    save_state(STATE_OF_A_MEGABYTE, tmp_path)
    with pytest.raises(CannotResume, match=r"another configuration \(different: model\.rank\)"):
        load_state(tmp_path, {"model": {"rank": 4}})
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:-1_000])
    with pytest.raises(CannotResume, match=r"is damaged; start without --resume$"):
        load_state(tmp_path, {})
