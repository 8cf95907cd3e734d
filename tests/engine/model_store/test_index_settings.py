"""The user's package indexes, from the environment and from pip's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.model_store.index_settings import IndexSettings


@pytest.mark.parametrize(
    ("environ", "urls"),
    [
        ({}, ("https://pypi.org/simple",)),
        ({"PIP_INDEX_URL": "http://a/simple/"}, ("http://a/simple",)),
        ({"UV_DEFAULT_INDEX": "http://u/", "PIP_INDEX_URL": "http://a"}, ("http://a",)),
        ({"UV_INDEX_URL": "http://u/"}, ("http://u",)),
        ({"UV_INDEX": "own=http://n/x http://m"}, ("https://pypi.org/simple", "http://n/x", "http://m")),
        ({"PIP_INDEX_URL": "HTTP://A/simple/"}, ("HTTP://A/simple",)),
        ({"PIP_EXTRA_INDEX_URL": "http://b' http://c"}, ("https://pypi.org/simple", "http://b'", "http://c")),
        ({"PIP_EXTRA_INDEX_URL": "file:///srv http://b http://b/"}, ("https://pypi.org/simple", "http://b")),
    ],
)
def test_reads_addresses_of_the_environment(environ: dict[str, str], urls: tuple[str, ...]) -> None:
    assert IndexSettings.read(environ, files=()).urls == urls


def test_reads_pips_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("[global]\nindex-url = http://a\ntimeout = 7\ncert = /c\n[install]\nindex-url = http://no\n")
    second.write_text("[download]\nindex_url = http://b\nproxy = http://p\nextra-index-url =\n  http://x\n  http://y\n")
    settings = IndexSettings.read({"PIP_CERT": "/own"}, files=(first, second, tmp_path / "absent"))
    assert settings.urls == ("http://b", "http://x", "http://y")
    assert (settings.timeout_s, settings.proxy, settings.certificates) == (7.0, "http://p", Path("/own"))


@pytest.mark.parametrize("content", ["no section", "[global\n", "\xff"])
def test_damaged_files_and_values_are_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pip.conf"
    path.write_bytes(content.encode("latin-1"))
    settings = IndexSettings.read({"PIP_TIMEOUT": "soon"}, files=(path,))
    assert (settings.urls, settings.timeout_s) == (("https://pypi.org/simple",), 15.0)


def test_finds_the_files_that_pip_reads(tmp_path: Path) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/pip.conf").write_text("[global]\nindex-url = http://user\n")
    (tmp_path / "named").write_text("[global]\nindex-url = http://named\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/nowhere"}
    assert IndexSettings.read(environ).urls[0] == "http://user"
    assert IndexSettings.read(environ | {"PIP_CONFIG_FILE": str(tmp_path / "named")}).urls[0] == "http://named"
    assert IndexSettings.read(environ | {"PIP_CONFIG_FILE": "/dev/null"}).urls[0] == "https://pypi.org/simple"


def test_name_has_every_index_and_no_password() -> None:
    environ = {"PIP_INDEX_URL": "https://me:secret@a/simple/", "PIP_EXTRA_INDEX_URL": "notaurl me:secret@b file:///c"}
    settings = IndexSettings.read(environ, files=())
    assert settings.name == "the package indexes https://a/simple, notaurl, me:..., file:///c"
    assert IndexSettings.read({}, files=()).name == "the package index https://pypi.org/simple"
