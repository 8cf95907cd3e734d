from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import NO_KEYS, ApiKeys

ONE, TWO = "0123456789abcdef", "fedcba9876543210"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_read_names_each_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# editors\n\nlaptop {ONE}\n{TWO}\n")
    keys = ApiKeys.read(path, {"DGEMMA_API_KEY": " 1111111111111111\n"})
    assert keys.name_of(bearer(ONE)) == "laptop"
    assert keys.name_of(bearer(TWO)) == "line 4"
    assert keys.name_of(bearer("1" * 16)) == "environment"
    assert keys.name_of(bearer("2" * 16)) is None
    assert ONE not in repr(keys)


def test_read_without_file_and_variable_has_none() -> None:
    assert not ApiKeys.read(None, {}) and not NO_KEYS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("short\n", "line 1: a key must be"),
        (f"a b {ONE}\n", "line 1: must be KEY or NAME KEY"),
        (f"{ONE}ü\n", "line 1: a key must be"),
    ],
)
def test_read_of_a_bad_file_names_the_line_and_quotes_nothing(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WrongUsage, match=problem) as caught:
        ApiKeys.read(path, {})
    assert ONE not in str(caught.value)


def test_read_of_a_key_with_a_line_end_inside_is_refused() -> None:
    with pytest.raises(WrongUsage, match="DGEMMA_API_KEY: a key must be"):
        ApiKeys.read(None, {"DGEMMA_API_KEY": f"{ONE}\n{TWO}"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_read_accepts_the_encodings_that_windows_writes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"laptop {ONE}\r\n", encoding=encoding)
    assert ApiKeys.read(path, {}).name_of(bearer(ONE)) == "laptop"


def test_read_refuses_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(ONE.encode("utf-16-le"))
    with pytest.raises(WrongUsage, match=r"cannot be read \(it is not text in UTF-8"):
        ApiKeys.read(path, {})


def test_read_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="cannot be read"):
        ApiKeys.read(tmp_path / "none", {})
