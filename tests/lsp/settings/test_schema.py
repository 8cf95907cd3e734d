"""The schema made from the table of settings agrees with the server, and docs/settings.md has the same table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dgemma_lsp.settings.reader import read_settings
from dgemma_lsp.settings.schema import to_lines, to_markdown, to_schema
from dgemma_lsp.settings.settings import OPTIONS, Settings

PAGE = Path(__file__).parents[3] / "docs/settings.md"
PROPERTIES = to_schema()["properties"]


def test_page_has_the_table():
    assert to_markdown() in PAGE.read_text(encoding="utf-8"), "print it with: dgemma-lsp settings --markdown"


def test_schema_has_every_setting_with_its_default():
    for option in OPTIONS:
        schema = PROPERTIES[f"dgemma.{option.key}"]
        assert schema["description"] == option.meaning
        assert read_settings({option.key: schema["default"]}, Settings()) == (Settings(), ())
    assert len(PROPERTIES) == len(OPTIONS)


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("dgemma.enabled", False, 0),
        ("dgemma.deadlineMs", 50, 49),
        ("dgemma.deadlineMs", 60_000, 60_001),
        ("dgemma.engine.device", "cuda:1", "gpu"),
        ("dgemma.engine.model", "/m", " "),
        ("dgemma.logLevel", "info", "loud"),
        ("dgemma.privateFiles", ["!*.sql"], ["!"]),
    ],
)
def test_schema_and_reader_agree(key: str, good: object, bad: object):
    for value, expected in ((good, True), (bad, False)):
        assert fits(value, PROPERTIES[key]) is expected
        assert (not read_settings({key: value}, Settings())[1]) is expected


def fits(value: object, schema: dict[str, object]) -> bool:
    """The part of JSON Schema that the page uses."""
    kinds = {"boolean": bool, "integer": int, "string": str, "array": list}
    if not isinstance(value, kinds[str(schema["type"])]):
        return False
    if isinstance(value, list):
        return all(fits(item, schema["items"]) for item in value)  # pyright: ignore
    if isinstance(value, str):
        return value in schema.get("enum", [value]) and bool(re.search(str(schema.get("pattern", "")), value))  # pyright: ignore
    return schema.get("minimum", value) <= value <= schema.get("maximum", value)  # pyright: ignore


def test_lines_name_what_each_setting_takes():
    assert "dgemma.deadlineMs = 3000\n" in to_lines()
    assert "takes a whole number from 50 to 60000" in to_lines()
