from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from dgemma_engine.repository_adapters.about import About, HeldOutFigures

from tests.engine.repository_adapters.conftest import FIGURES, MakeAbout


def test_text_is_read_back(make_about: MakeAbout) -> None:
    about = make_about(is_enabled=False, root="/a/\udcff b", before=FIGURES, merged_sha256="cd" * 32)
    assert About.from_json(about.to_json("folder1")) == (about, "folder1")


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2}, {"version": None}, {"files": "../other"}, {"files": None}, {"root": 3}, {"created": "today"},
        {"created": "2026-01-31"}, {"minutes": -1}, {"minutes": "2"}, {"holes": 1.5}, {"holes": True},
        {"is_enabled": 1}, {"before": None}, {"before": {}}, {"after": asdict(FIGURES) | {"rest": 1.5}},
        {"more": 1},
    ],
)  # fmt: skip
def test_damaged_text_is_refused(make_about: MakeAbout, changed: dict[str, Any]) -> None:
    values = json.loads(make_about().to_json("folder1")) | changed
    with pytest.raises((ValueError, TypeError)):
        About.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "{}"])
def test_text_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        About.from_json(text)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_holes": -1}, "num_holes=-1 must be a whole number"),
        ({"edit_similarity": math.nan}, "edit_similarity=nan must be a number between 0 and 1"),
        ({"edit_similarity": None}, "edit_similarity=None must be"),
        ({"shown": 2}, "shown=2 must be"),
        ({"rest": -0.1}, "rest=-0.1 must be"),
        ({"line": math.inf}, "line=inf must be"),
        ({"precision_shown": "1"}, "precision_shown='1' must be"),
    ],
)
def test_figures_that_are_no_shares_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeldOutFigures(**(asdict(FIGURES) | changed))


def test_figures_without_holes_may_be_none() -> None:
    figures = HeldOutFigures(num_holes=0, rest=None, line=None, edit_similarity=0, precision_shown=None, shown=0)
    assert (figures.rest, figures.line, figures.precision_shown) == (None, None, None)
