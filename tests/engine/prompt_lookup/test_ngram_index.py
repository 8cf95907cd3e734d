"""The n-gram index of prompt lookup follows edits, reads few places and stays small."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from dgemma_engine.prompt_lookup import ngram_index
from dgemma_engine.prompt_lookup.candidates import SeedStore
from dgemma_engine.prompt_lookup.ngram_index import Line, NgramIndex
from dgemma_engine.protocol.messages import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.prompt_lookup.test_candidates import check, context

LINES = st.sampled_from(
    [
        "",
        "    ",
        "x = 1",
        "x = f(a, b)",
        "    x = f(a)",
        "if x:",
        "    go(x)",
        "  self.a = a",
        "self.ab = a",
        ")",
        "]\r",
    ]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["a.py", "b.py"]),
        st.integers(0, 200),
        st.integers(0, 40),
        st.lists(LINES, max_size=6).map("\n".join),
        st.integers(0, 250),
        st.lists(st.sampled_from(["x = f(c)\nif x:\n    stop(x)\n", "if x:\n    go(y)", "self.a = b"]), max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, extent=st.sampled_from(Extent), max_characters=st.sampled_from([60, 300, 2_000_000]))
def test_store_that_followed_edits_equals_a_fresh_one(
    edits: list[tuple[str, int, int, str, int, list[str]]], extent: Extent, max_characters: int
) -> None:
    store, texts = SeedStore(max_characters=max_characters), {"a.py": "", "b.py": ""}
    for document, start, length, added, cursor, snippets in edits:
        text = texts[document] = texts[document][:start] + added + texts[document][start + length :]
        at_cursor = context(f"{text[:cursor]}|{text[cursor:]}", extent=extent, snippets=snippets, document=document)
        fresh = SeedStore(max_characters=max_characters, num_documents=1)
        seeds = store.propose(at_cursor)
        assert seeds == fresh.propose(at_cursor)
        assert SeedStore(num_documents=0).propose(at_cursor) == SeedStore().propose(at_cursor)
        assert store.num_characters <= max_characters
        for seed in seeds:
            assert seed.text.strip()
            assert extent is Extent.BLOCK or len(seed.text.splitlines()) == 1
            assert not text[cursor:].startswith(seed.text)


def test_index_drops_removed_text() -> None:
    store = SeedStore()
    store.propose(context("x = 1\ny.z = |\nx = 2\n", snippets=["a = b"]))
    num_entries = store.num_entries
    store.propose(context("x = 1\nq = f(x)\nx = 3\nx = 1\ny = |\n", snippets=["a = b", "b = c"]))
    assert store.num_entries > num_entries
    store.propose(context("x = 1\ny.z = |\nx = 2\n", snippets=["a = b"]))
    assert store.num_entries == num_entries
    store.propose(context("y.z = |"))
    assert store.num_entries == 0


def read_lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that grows by every line that is indexed."""
    read: list[str] = []
    lexemes_of = ngram_index.lexemes_of

    def reading(text: str) -> tuple[str, ...]:
        read.append(text)
        return lexemes_of(text)

    monkeypatch.setattr(ngram_index, "lexemes_of", reading)
    return read


def test_only_changed_lines_are_indexed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read, store = read_lines(monkeypatch), SeedStore()
    above, below = ("".join(f"{side}{n} = {n}\n" for n in range(1_000)) for side in "ab")
    steps = {
        f"{above}c = |\n{below}": 2_000,
        f"{above}c = 1|\n{below}": 0,
        f"{above}c = 1\n|\n{below}": 1,
        f"{above}c = 1|\n\n{below}": 1,
        f"{above}c = 1\n\n{below}|": 1,
        f"|{above}c = 1\n\n{below}": 0,
        f"d = 1\n|{above}c = 1\n\n{below}": 1,
    }
    for text, num_lines in steps.items():
        read.clear()
        store.propose(context(text))
        assert len(read) == num_lines, text.replace(above, "<above>").replace(below, "<below>")


def test_unchanged_snippet_is_not_indexed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read, store = read_lines(monkeypatch), SeedStore()
    store.propose(context("x = |", snippets=["a = 1\n", "b = 1\n"]))
    store.propose(context("x = |", snippets=["c = 1\n", "a = 1\n"]))
    assert sorted(read) == ["a = 1", "b = 1", "c = 1"]


@pytest.mark.parametrize("line", ["self.x = 1", "self.x = (self.x, self.x, self.x)"])
@pytest.mark.parametrize("num_lines", [500, 3_000])
def test_number_of_places_read_is_bounded(monkeypatch: pytest.MonkeyPatch, line: str, num_lines: int) -> None:
    num_looked_at, look = 0, Line.lexemes_before

    def looking(self: Line, end: int) -> Any:
        nonlocal num_looked_at
        num_looked_at += 1
        return look(self, end)

    monkeypatch.setattr(Line, "lexemes_before", looking)
    seeds = SeedStore(max_places=50).propose(context(f"{line}\n" * num_lines + "self.x|"))
    assert seeds
    assert 50 <= num_looked_at <= 51  # The line that is typed is read too.


@pytest.mark.parametrize("num_lines", [100, 2_000])
def test_near_gives_the_nearest_lines(num_lines: int) -> None:
    index = NgramIndex()
    index.update(above=["x = 1"] * num_lines, below=["x = 1", "y", "x = 2"] * num_lines)
    near = index.near(("x", "="), limit=4)
    assert [(line.run is index.above, line.text) for line in near] == [
        (True, "x = 1"), (False, "x = 1"), (True, "x = 1"), (True, "x = 1"),
    ]  # fmt: skip


def test_least_recently_used_document_goes_first() -> None:
    store = SeedStore(num_documents=2)
    for document, num_characters in [("a", 6), ("b", 12), ("a", 12), ("c", 12), ("b", 12)]:
        store.propose(context("x = 1\nx = |", document=document))
        assert store.num_characters == num_characters


def test_all_documents_share_the_character_limit() -> None:
    store = SeedStore(max_characters=90)
    for document in "abcdef":
        store.propose(context("x = 1\n" * 20 + "x = |\n" + "y = 1\n" * 20, document=document))
        assert 30 <= store.num_characters <= 90


def test_indexed_text_surrounds_the_cursor() -> None:
    store = SeedStore(max_characters=300)
    above, below = "x = 1\n" * 99, "x = 4\n" * 99
    text = f"{above}x = 2\ny\nx = |\nx = 3\n{below}"
    assert [seed.text for seed in store.propose(context(text), limit=9)] == ["4", "1", "3", "2"]
    assert store.num_characters <= 200
    assert [seed.text for seed in SeedStore(max_characters=33).propose(context(text))] == ["3", "2"]


def test_line_partly_outside_the_indexed_text_is_left_out() -> None:
    assert not SeedStore(max_characters=33).propose(context("abcdef.x = 1\nx = |\n"))
    assert not SeedStore(max_characters=33).propose(context("x = |\nx = 1 + abcdef\n"))


def test_far_end_of_the_indexed_text_stays_while_the_cursor_moves() -> None:
    store = SeedStore(max_characters=3_000)
    num_characters: list[int] = []
    for num_lines in range(200, 300):
        store.propose(context("x = 1\n" * num_lines + "|"))
        num_characters.append(store.num_characters)
    grown = [b - a for a, b in pairwise(num_characters)]
    assert sum(step == len("x = 1\n") for step in grown) >= 90
    assert max(num_characters) <= 1_000


def test_best_place_is_found_after_many_nearer_ones() -> None:
    check("a.b.x = 2\nz\n" + "c.x = 1\n" * 300 + "z\na.b.x = |", "2", "1")


def test_snippets_are_indexed_while_they_fit() -> None:
    store = SeedStore(max_characters=60)
    seeds = store.propose(context("x = |", snippets=["x = 1\n" * 3, "x = 2\n", "x = 3\n"]))
    assert [seed.text for seed in seeds] == ["3", "2"]


@pytest.mark.parametrize("name", ["max_characters", "max_places"])
def test_negative_bound_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1 must not be negative"):
        SeedStore(**{name: -1})


@pytest.mark.parametrize("name", ["num_documents", "max_characters", "max_places"])
def test_bound_may_be_zero(name: str) -> None:
    store = SeedStore(**{name: 0})
    seeds = store.propose(context("x = 1\nx = |", snippets=["x = 2"]))
    assert bool(seeds) == (name == "num_documents")
    assert bool(store.num_characters) == (name == "max_places")
