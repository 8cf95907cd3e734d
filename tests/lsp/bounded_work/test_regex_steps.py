"""Every regular expression of the server takes steps in proportion to the text, or reads a short text only."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from typing import cast

import dgemma_engine
import pytest
from dgemma_engine import path_style, postprocess, privacy
from dgemma_engine.postprocess import lexer

import dgemma_lsp
from dgemma_lsp.context import import_parser
from dgemma_lsp.fill import placeholder
from tests.lsp.bounded_work.regex_steps import Steps
from tests.lsp.bounded_work.worst_texts import WORST_TEXTS

SHORT, TIMES = 24, 4
# A quadratic pattern takes sixteen times the steps in four times the text.
MOST_GROWTH = 9
# Modules whose patterns read at most this many characters; their steps may grow with the square of that number.
READS_LITTLE = {
    "dgemma_engine.privacy.backup_names": 255,
    "dgemma_engine.postprocess.block_columns": 1_000,
    "dgemma_lsp.fill.placeholder": 2_000,
}
PIECES = tuple(dict.fromkeys([*(piece for *_, piece in WORST_TEXTS), "a ", "a.", "a,", ",", "a:", "\\\n", "''", '""']))


def modules() -> Iterator[pkgutil.ModuleInfo]:
    """Yields the modules of the server, and those of the engine that shape an answer or judge a path."""
    for package in (dgemma_lsp, postprocess, privacy):
        yield from pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    names = pkgutil.iter_modules(dgemma_engine.__path__, "dgemma_engine.")
    yield from (found for found in names if found.name == path_style.__name__)


def patterns() -> Iterator[tuple[str, re.Pattern[str], bool]]:
    """Yields every pattern that a module holds, and whether it is only ever matched from a given place on."""
    for found in modules():
        if found.name in READS_LITTLE or found.name == "dgemma_lsp.__main__":
            continue
        module = importlib.import_module(found.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and f"{name} = re.compile" in source and isinstance(value.pattern, str):
                uses = set(re.findall(rf"\b{name}\.(\w+)\(", source))
                yield f"{found.name}.{name}", value, bool(uses) and uses <= {"match", "fullmatch"}
            for index, held in enumerate(_held(value) if f"{name} = (" in source else ()):
                yield f"{found.name}.{name}[{index}]", held, False
    for name in ("c", "python", "javascript", "html", "markdown", "yaml", "shellscript", "json", "go", ""):
        language = lexer.language_named(name)
        yield f"opener of {name}", language.opener, False
        yield f"pieces of {name}", language.pieces, False


def _held(value: object) -> Iterator[re.Pattern[str]]:
    """Yields the patterns of a table, however deep."""
    if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
        yield value
    elif isinstance(value, tuple):
        for one in cast("tuple[object, ...]", value):
            yield from _held(one)


def texts(steps: Steps, length: int) -> Iterator[str]:
    """Yields texts that repeat one piece, with and without a literal of the pattern before it, ending in a mismatch."""
    named = steps.literals
    pieces = [*PIECES, *named, *(f"{one} " for one in named)]
    for piece in dict.fromkeys(pieces):
        line = (piece * length)[:length]
        for before in ("", *named[:2]):
            for behind in ("!", "\n"):
                yield f"{before}{line}{behind}"


def growth(pattern: re.Pattern[str], *, anchored: bool) -> tuple[float, str]:
    """Returns the most by which the steps grow where the text is four times as long, and for which text."""
    steps, worst = Steps(pattern), (0.0, "")
    shorter, longer = texts(steps, SHORT), texts(steps, TIMES * SHORT)
    for short, long in zip(shorter, longer, strict=True):
        counts: list[int] = []
        for text in (short, long):
            (steps.match if anchored else steps.find_all)(text)
            counts.append(steps.num)
        # A text that fails at its first character takes too few steps for a ratio.
        worst = max(worst, (counts[1] / max(counts[0], SHORT), short))
    return worst


@pytest.fixture(autouse=True)
def deep_recursion() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(limit)


def test_patterns_of_every_package_are_found() -> None:
    names = [name for name, *_ in patterns()]
    assert len(names) > 50
    assert {found.name for found in modules()} >= READS_LITTLE.keys(), "the modules that are left out are there"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pattern", "anchored"), list(patterns()), ids=lambda value: str(value)[:50])
def test_steps_grow_with_the_text_and_no_faster(name: str, pattern: re.Pattern[str], anchored: bool) -> None:
    most, text = growth(pattern, anchored=anchored)
    assert most < MOST_GROWTH, (name, text)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w*\Z",
        r"(?:[({\[]|\b(?:case\b.*|default\s*):)\Z",
        r"(?m)^[ \t]*(?:from|.*require\()[^\n]*",
        r"\b(?:import|export)\s+(?:type\s+)?([\w$*{}\s,]+?)\s+from\s*[\"']([^\"'\n]+)[\"']",
        r"[^\n\r]*[^\s!/][^\n\r]*\Z",
    ],
)
def test_quadratic_patterns_exceed_the_limit(pattern: str) -> None:
    assert growth(re.compile(pattern), anchored=False)[0] > MOST_GROWTH


@pytest.mark.parametrize(
    "text", ["", "from . import a, b\n", "x = case: case a:", 'if x: # {\'a\': "b\\"c"}', "aab aa"]
)
@pytest.mark.parametrize(
    "pattern",
    [
        import_parser._FROM,  # pyright: ignore[reportPrivateUsage]
        lexer.language_named("c").opener,
        lexer.language_named("python").pieces,
        placeholder._PYTHON,  # pyright: ignore[reportPrivateUsage]
        re.compile(r"(a+?)(?=b)b|\Ba\b|(?<!a)a{2}"),
    ],
)
def test_counting_matcher_finds_what_re_finds(pattern: re.Pattern[str], text: str) -> None:
    assert Steps(pattern).find_all(text) == [found.span() for found in pattern.finditer(text)]
