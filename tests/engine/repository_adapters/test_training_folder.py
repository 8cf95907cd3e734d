from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from dgemma_engine.errors import AdapterStoreError, TrainingError
from dgemma_engine.private_files import open_private, try_lock
from dgemma_engine.repository_adapters import training_folder
from dgemma_engine.repository_adapters.training_folder import TrainingFacts, TrainingFolder

FACTS = TrainingFacts(root="/a/\udcff b", base_name="b.gguf", started="2026-01-31T10:00:00+00:00", minutes=5, seed=3)


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(path=tmp_path / "key" / "training")


def test_empty_folder_is_removed_at_the_end(folder: TrainingFolder) -> None:
    with folder.exclusive():
        folder.begin(FACTS)
        assert folder.facts() == FACTS and not folder.is_unfinished and folder.unfinished() is None
    assert not folder.path.parent.exists()


def test_empty_folder_is_removed_after_an_error(folder: TrainingFolder) -> None:
    with pytest.raises(SystemExit), folder.exclusive():
        raise SystemExit
    assert not folder.path.parent.exists()


def test_files_of_a_training_are_listed_and_cleared(folder: TrainingFolder) -> None:
    with folder.exclusive():
        folder.begin(FACTS)
        (folder.path / "state.pt").write_bytes(bytes(7))
        (folder.path / "trial" / "x").mkdir(parents=True)
        (folder.path / "trial" / "x" / "y").write_bytes(bytes(5))
    found = folder.unfinished()
    assert found is not None and (found.facts, found.num_bytes) == (FACTS, 12)
    with folder.exclusive():
        folder.clear()
    assert not folder.path.parent.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"root": 3}', "\udcff"])
def test_unknown_training_is_reported_in_one_sentence(folder: TrainingFolder, text: str) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "training.json").write_text(text, errors="surrogateescape")
    (folder.path / "state.pt").touch()
    assert folder.facts() is None
    with pytest.raises(AdapterStoreError, match="training: holds an unfinished training of an unknown folder; remove"):
        folder.unfinished()


def test_training_facts_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="minutes='5' has another type"):
        TrainingFacts(root="/a", base_name="b", started="2026-01-31T10:00:00+00:00", minutes="5", seed=3)  # pyright: ignore[reportArgumentType]


def test_second_holder_is_refused_and_a_later_one_is_not(folder: TrainingFolder) -> None:
    with folder.exclusive():
        refusal = pytest.raises(TrainingError, match="another process is tuning this already; wait for it, or stop it")
        with refusal, folder.exclusive():
            pass
        assert (folder.path / "lock").exists()
    with folder.exclusive():
        pass


def test_lock_file_that_its_holder_removed_blocks_no_process(
    folder: TrainingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process opens the file just before its holder removes it; a lock on the removed file must not admit two."""
    opened = list[Path]()

    def open_then_lose(path: Path, flags: int) -> int:
        descriptor = open_private(path, flags)
        opened.append(path)
        if len(opened) == 1:
            path.unlink()
            path.parent.rmdir()
        return descriptor

    monkeypatch.setattr(training_folder, "open_private", open_then_lose)
    with folder.exclusive():
        assert len(opened) == 2
        descriptor = os.open(folder.path / "lock", os.O_RDWR)
        assert not try_lock(descriptor)
        os.close(descriptor)


def test_two_threads_never_hold_the_lock_at_once(folder: TrainingFolder) -> None:
    inside, most, refused = list[int](), list[int](), list[str]()

    def come_and_go() -> None:
        for _ in range(60):
            try:
                with folder.exclusive():
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except TrainingError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert {one.partition(";")[0] for one in refused} <= {"another process is tuning this already"}


def test_file_system_without_locks_is_reported_in_one_sentence(
    folder: TrainingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_descriptor: int) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(training_folder, "try_lock", cannot)
    refusal = pytest.raises(TrainingError, match=r"training: cannot be locked \(No locks available\)")
    with refusal, folder.exclusive():
        pass
