from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from dgemma_engine.errors import AdapterStoreError, TrainingError
from dgemma_engine.repository_adapters import store as store_module
from dgemma_engine.repository_adapters import training_folder
from dgemma_engine.repository_adapters.store import MAX_BYTES, AdapterStore, RepositoryAdapter
from dgemma_engine.repository_adapters.training_folder import TrainingFacts, UnfinishedTraining

from tests.engine.repository_adapters.conftest import MakeAbout, factors


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore.locate({"XDG_DATA_HOME": str(tmp_path / "data")})


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "repo" / "src" / "deep").mkdir(parents=True)
    return tmp_path / "repo"


def contents(found: RepositoryAdapter | None) -> bytes:
    assert found is not None
    return found.path.read_bytes()


def test_store_is_in_the_users_data_folder() -> None:
    assert AdapterStore.locate({"XDG_DATA_HOME": "/data"}).folder == Path("/data/dgemma-lsp/adapters")
    assert AdapterStore.locate({"HOME": "/h"}).folder == Path("/h/.local/share/dgemma-lsp/adapters")


def test_adapter_is_found_from_any_folder_below_its_root(
    store: AdapterStore, repo: Path, make_about: MakeAbout
) -> None:
    assert store.find(repo) is None
    store.install(make_about(), adapter=b"factors", calibration=b"{}")
    for place in (repo, repo / "src" / "deep", repo / "src" / "file.py", repo / "src" / ".." / "src"):
        found = store.find(place)
        assert contents(found) == b"factors" and found is not None and found.calibration_path is not None
        assert found.about == make_about()
    assert store.find(repo.parent) is None
    assert store.find(repo.parent / "repo2") is None
    assert store.get(repo / "src") is None


def test_link_to_a_root_finds_its_adapter(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    store.install(make_about(), adapter=b"factors", calibration=None)
    (repo.parent / "link").symlink_to(repo)
    assert contents(store.find(repo.parent / "link" / "src")) == b"factors"


def test_nearest_root_counts_even_if_its_adapter_is_off(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    store.install(make_about(), adapter=b"outer", calibration=None)
    store.install(make_about(root=str(repo / "src")), adapter=b"inner", calibration=None)
    assert contents(store.find(repo / "src" / "deep")) == b"inner"
    assert contents(store.find(repo)) == b"outer"
    store.enable(repo / "src", enabled=False)
    found = store.find(repo / "src" / "deep")
    assert contents(found) == b"inner" and found is not None and not found.about.is_enabled
    assert store.enable(repo / "src", enabled=True).about.is_enabled
    assert [one.about.is_enabled for one in store.all() if isinstance(one, RepositoryAdapter)] == [True, True]


def test_new_adapter_replaces_the_old_one_and_its_calibration(
    store: AdapterStore, repo: Path, make_about: MakeAbout
) -> None:
    store.install(make_about(is_enabled=False), adapter=b"old", calibration=b"{}")
    store.training_folder(repo).path.mkdir()
    made = store.install(make_about(minutes=1), adapter=b"new", calibration=None)
    assert store.get(repo) == made
    assert contents(made) == b"new" and made.calibration_path is None and made.num_bytes == 3
    home = made.folder.parent
    assert {path.name for path in home.iterdir()} == {"about.json", made.folder.name, "training"}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no modes; not checked: private folders")
def test_everything_is_readable_by_the_user_only(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    before = os.umask(0)
    try:
        store.install(make_about(), adapter=b"factors", calibration=b"{}")
        store.enable(repo, enabled=False)
    finally:
        os.umask(before)
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [store.folder, *store.folder.rglob("*")]}
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.parametrize("failing", range(4))
def test_full_disk_at_any_write_keeps_the_old_adapter(
    store: AdapterStore, repo: Path, make_about: MakeAbout, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """An installation writes factors, calibration and description, then renames the folder."""
    store.install(make_about(), adapter=b"old", calibration=None)
    written, write = list[Path](), store_module._write

    def full(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    def cannot(_path: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_write", full)
    if failing == 3:
        monkeypatch.setattr(Path, "replace", cannot)
    with pytest.raises(AdapterStoreError, match=r"No space left on device.*the old adapter is kept") as caught:
        store.install(make_about(minutes=1), adapter=b"new", calibration=b"{}")
    assert "\n" not in str(caught.value)
    found = store.get(repo)
    assert contents(found) == b"old" and found is not None
    assert sorted(path.name for path in found.folder.parent.iterdir()) == sorted(["about.json", found.folder.name])


def test_remains_of_a_killed_installation_are_ignored_and_removed_by_the_next(
    store: AdapterStore, repo: Path, make_about: MakeAbout
) -> None:
    made = store.install(make_about(), adapter=b"old", calibration=None)
    home = made.folder.parent
    (home / "abandoned").mkdir()
    (home / "abandoned" / "causal.safetensors").write_bytes(b"half")
    (home / ".about.json.part").write_text("{")
    assert contents(store.get(repo)) == b"old"
    store.install(make_about(), adapter=b"new", calibration=None)
    assert contents(store.get(repo)) == b"new" and not (home / "abandoned").exists()
    assert not (home / ".about.json.part").exists()


def test_too_large_adapter_is_refused(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    with pytest.raises(AdapterStoreError, match=r"has 24\.0 MiB, 24 are the most"):
        store.install(make_about(), adapter=bytes(MAX_BYTES), calibration=b"{}")
    assert store.find(repo) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"version": 99}'])
def test_damaged_description_is_reported_in_one_sentence_and_can_be_removed(
    store: AdapterStore, repo: Path, make_about: MakeAbout, text: str
) -> None:
    made = store.install(make_about(), adapter=b"old", calibration=None)
    (made.folder.parent / "about.json").write_text(text)
    with pytest.raises(AdapterStoreError, match=r"about\.json: cannot be used") as caught:
        store.find(repo / "src")
    assert "\n" not in str(caught.value)
    assert [str(one) for one in store.all()] == [str(caught.value)]
    store.remove(repo)
    assert store.find(repo) is None and list(store.all()) == []


def test_adapter_of_another_root_with_the_same_key_is_not_found(
    store: AdapterStore, repo: Path, make_about: MakeAbout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdapterStore, "_home", lambda self, _root: self.folder / "same")
    store.install(make_about(root="/elsewhere"), adapter=b"other", calibration=None)
    assert store.get(repo) is None


def test_root_without_adapter_is_named(store: AdapterStore, repo: Path) -> None:
    for act in (store.remove, lambda root: store.enable(root, enabled=True)):
        with pytest.raises(AdapterStoreError, match="repo: has no adapter; `dgemma-engine adapters` lists"):
            act(repo)


def test_adapter_is_not_removed_while_one_is_trained(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    store.install(make_about(), adapter=b"old", calibration=None)
    training = store.training_folder(repo)
    with training.exclusive():
        (training.path / "state.pt").write_bytes(b"state")
        for remove in (store.remove, store.remove_unfinished):
            with pytest.raises(TrainingError, match="another process is tuning this already; wait for it, or stop"):
                remove(repo)
        # The held lock still excludes other processes.
        with pytest.raises(TrainingError), training.exclusive():
            pass
        assert contents(store.get(repo)) == b"old" and training.is_unfinished
    store.remove(repo)
    assert store.get(repo) is None and list(store.folder.iterdir()) == []


def test_adapter_is_removed_on_a_full_disk(
    store: AdapterStore, repo: Path, make_about: MakeAbout, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(make_about(), adapter=b"old", calibration=None)

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("open_private", "make_private_folder"):
        monkeypatch.setattr(training_folder, name, full)
    store.remove(repo)
    assert list(store.folder.iterdir()) == []


def test_unfinished_training_is_listed_and_removed_alone(
    store: AdapterStore, repo: Path, make_about: MakeAbout
) -> None:
    made = store.install(make_about(), adapter=b"old", calibration=None)
    training = store.training_folder(repo)
    facts = TrainingFacts(root=str(repo), base_name="b", started="2026-01-31T10:00:00+00:00", minutes=20.0, seed=0)
    with training.exclusive():
        training.begin(facts)
        (training.path / "state.pt").write_bytes(bytes(9))
    assert list(store.all()) == [made, UnfinishedTraining(facts=facts, num_bytes=9)]
    store.remove_unfinished(repo)
    assert list(store.all()) == [made] and not training.path.exists()
    with pytest.raises(AdapterStoreError, match="repo: has no unfinished training; `dgemma-engine adapters` lists"):
        store.remove_unfinished(repo)


def test_size_and_fault_of_an_adapter_whose_files_are_gone(
    store: AdapterStore, repo: Path, make_about: MakeAbout
) -> None:
    made = store.install(make_about(), adapter=factors(), calibration=None)
    assert made.fault == "" and made.num_bytes == len(factors())
    made.path.unlink()
    sentence = (
        f"the adapter of {repo} is damaged: causal.safetensors is missing; train it anew: dgemma-engine tune {repo}"
    )
    assert made.fault.startswith(sentence) and made.num_bytes == 0
    made.folder.rmdir()
    assert made.fault.startswith(sentence) and made.num_bytes == 0


def test_root_whose_adapter_is_damaged_is_named(store: AdapterStore, repo: Path, make_about: MakeAbout) -> None:
    assert store.nearest(repo / "src") is None
    made = store.install(make_about(), adapter=b"old", calibration=None)
    assert store.nearest(repo / "src" / "deep") == (repo, made)
    (made.folder.parent / "about.json").write_text("{")
    nearest = store.nearest(repo / "src" / "deep")
    assert nearest is not None and nearest[0] == repo and isinstance(nearest[1], AdapterStoreError)
