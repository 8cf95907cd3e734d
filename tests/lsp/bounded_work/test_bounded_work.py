"""The cost of a message does not grow with the line, the file, the settings value or the URI in it.

Counted, not timed: `metered_messages` runs the server's own code, rewritten so that it counts the characters that
string methods and regular expressions read and the iterations of loops.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lsp.bounded_work.text_meter import Meter, metered

ROOT = Path(__file__).parents[3]
LENGTHS = (10_000, 100_000, 1_000_000)
# A request reads 128 Ki characters on either side of the cursor, some parts of them several times.
MOST_CHARACTERS = 32_000_000
MOST_AT_ONCE = 400_000
MOST_TURNS = 60_000
ASKED = {"question", "menu", "fill", "code action"}
# Opening and changing copy a text and count its lines, in a few passes without a Python operation per character.
PASSES = 4


@pytest.fixture(scope="module", params=[pytest.param(length, marks=pytest.mark.slow) for length in LENGTHS])
def counts(request: pytest.FixtureRequest) -> tuple[int, dict[str, Any]]:
    """Returns a length, and what every message about texts and values of that length read."""
    command = [sys.executable, "-m", "tests.lsp.bounded_work.metered_messages", str(request.param)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "engine"), str(ROOT / "kernels")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout)


def test_request_menu_and_fill_read_a_window_whatever_the_text(counts: tuple[int, dict[str, Any]]) -> None:
    _, found = counts
    asked = [
        (text, message, count)
        for text, messages in found["texts"].items()
        for message, count in messages.items()
        if message in ASKED
    ]
    assert len(asked) > 300
    assert found["num_offered"] > 100, "answers are shaped, too"
    over = [
        (text, message, count)
        for text, message, count in asked
        if count["characters"] > MOST_CHARACTERS or count["most"] > MOST_AT_ONCE or count["turns"] > MOST_TURNS
    ]
    assert not over


def test_opening_and_changing_take_a_few_passes_and_no_loop_over_characters(
    counts: tuple[int, dict[str, Any]],
) -> None:
    length, found = counts
    over = [
        (text, message, count)
        for text, messages in found["texts"].items()
        for message, count in messages.items()
        if message not in ASKED
        and (count["characters"] > MOST_CHARACTERS + PASSES * length or count["turns"] > MOST_TURNS)
    ]
    assert not over


def test_settings_uris_and_ignore_files_of_any_length_are_read_in_bounded_steps(
    counts: tuple[int, dict[str, Any]],
) -> None:
    _, found = counts
    over = [
        (name, count)
        for name, count in found["values"].items()
        if count["characters"] > MOST_CHARACTERS or count["most"][0] > MOST_AT_ONCE or count["turns"] > MOST_TURNS
    ]
    assert not over


def test_meter_counts_what_methods_expressions_and_loops_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metered_sample.py").write_text(SAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    meter = metered("metered_sample")
    import metered_sample  # pyright: ignore[reportMissingImports]

    def read(name: str) -> tuple[int, int]:
        meter.clear()
        getattr(metered_sample, name)("ab" * 500)
        return meter.characters, meter.turns

    assert isinstance(meter, Meter)
    assert read("found_at_once") == (2, 0)
    assert read("not_found") == (1_000, 0)
    assert read("searched") == (1_000, 0)
    assert read("sliced") == (900, 0)
    assert read("compared") == (1_000, 0)
    assert read("looped") == (0, 1_000)
    assert read("counted_down") == (0, 1_001), "the last test of the condition too"


SAMPLE = """
import re

PATTERN = re.compile(r"x")


def found_at_once(text):
    return text.find("ab")


def not_found(text):
    return text.rfind("x")


def searched(text):
    return PATTERN.search(text)


def sliced(text):
    return text[100:]


def compared(text):
    return text == "ba" * 500


def looped(text):
    return [character for character in text]


def counted_down(text):
    num = len(text)
    while num:
        num -= 1
"""
