from __future__ import annotations

import json
from pathlib import Path

import pytest
from dgemma_engine.repository_adapters.safetensors_header import why_damaged

from tests.engine.repository_adapters.conftest import factors


def test_whole_file_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(factors())
    assert why_damaged(tmp_path / "f") == ""


def with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is truncated, or no safetensors file"),
        (b"garbage" * 9, "is truncated, or no safetensors file"),
        (factors()[:40], "is truncated, or no safetensors file"),
        (factors()[:-1], "is truncated"),
        (factors() + b"\0", "is truncated"),
        ((3).to_bytes(8, "little") + b"{{{", "is no safetensors file"),
        (with_header([]), "is no safetensors file"),
        (with_header({"a": 1}), "is no safetensors file"),
        (with_header({"a": {"data_offsets": [0, None]}}), "is no safetensors file"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "f").write_bytes(content)
    assert why_damaged(tmp_path / "f") == reason


def test_missing_file_and_folder_are_reported(tmp_path: Path) -> None:
    assert why_damaged(tmp_path / "none") == "is missing"
    assert why_damaged(tmp_path) == "cannot be read (Is a directory)"
