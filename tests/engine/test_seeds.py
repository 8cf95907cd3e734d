"""What stands elsewhere is proposed where both sides match, from an index that follows edits and stays small."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from dgemma_engine import places
from dgemma_engine.messages import Context, Extent, Snippet
from dgemma_engine.places import Line, PlaceIndex
from dgemma_engine.seeds import Seed, SeedStore
from hypothesis import given, settings
from hypothesis import strategies as st


def context(
    text: str, *, extent: Extent = Extent.LINE, snippets: Sequence[str] = (), document: str = "a.py"
) -> Context:
    """Returns the context of `text`, whose cursor is the only `|`."""
    prefix, _, suffix = text.partition("|")
    return Context(
        document=document,
        prefix=prefix,
        suffix=suffix,
        extent=extent,
        snippets=tuple(Snippet(path=f"{n}.py", text=snippet) for n, snippet in enumerate(snippets)),
    )


def check(
    text: str, *expected: str, extent: Extent = Extent.LINE, snippets: Sequence[str] = (), limit: int = 3
) -> None:
    seeds = SeedStore().propose(context(text, extent=extent, snippets=snippets), limit=limit)
    assert [seed.text for seed in seeds] == list(expected)


SAME_LINE = {
    "rest of a line": ("self.config = config\nself.config = |\n", ["config"]),
    "word begun": ("self._config = x\nself._con|", ["fig = x"]),
    "word begun by one letter, after enough lexemes": ("self._config = x\nself._|", ["config = x"]),
    "whole word": ("self._config = x\nself._config|", [" = x"]),
    "first word of a line begun": ("result = run()\nres|", ["ult = run()"]),
    "first word of a line, too little of it": ("result = run()\nre|", []),
    "word begun is a beginning only": ("self.my_config = x\nself.con|", []),
    "space before the cursor is not doubled": ("a.b = 1\na.b =|", [" 1"]),
    "space at the cursor is not doubled": ("a.b=1\na.b= |", ["1"]),
    "space between lexemes does not count": ("run( a,b )\nx = run(a, |", ["b )"]),
    "arguments up to the bracket": ("run(first, second)\nx = run(|)", ["first, second"]),
    "arguments with brackets of their own": ("run(a(b), c[d])\nx = run(|)", ["a(b), c[d]"]),
    "arguments never pass their bracket": ("run() + (a, b)\nx = run(|)", []),
    "rest of the line names the end": ("run(a, key=b, last=c)\nx = run(|, last=c)", ["a, key=b"]),
    "rest of the line that is nowhere": ("run(a)\nx = run(| + 1", []),
    "space before the rest is not doubled": ("x = a + b\nx = | + b", ["a"]),
    "space before the rest is made": ("x = a + b\nx = |+ b", ["a "]),
    "head of a word": ("run(my_name)\nx = run(|name)", ["my_"]),
    "middle of a word": ("x = my_long_name\nx = my_|_name", ["long"]),
    "longest match of the rest ends the middle": ("x = a, b, c)\nx = |, c)", ["a, b"]),
    "shortest of equal matches of the rest": ("x = a + b + c\nx = |+ ", ["a "]),
    "matching at one place is not matching at another": ("b a c, d a e\nb a |", ["c, d a e"]),
    "punctuation alone at another place": ("run(c, b(1))\nx = run(|", ["c, b(1))"]),
    "much before beats a little after": (
        "a.b.x = 1\nz\nc.x = 2\nf()\nz\na.b.x = |\nf(1)\n",
        ["1", "2"],
    ),
    "the next line begins with it": ("x = b\nx = |\nb\n", ["b"]),
    "more before beats less": ("other.run(1)\nself.run(2)\nother.run(3)\nx\nself.run(|)", ["2", "3", "1"]),
    "two of three before are enough": ("a.b.run(1)\nb.run(|)", ["1"]),
    "after decides where before is the same": ("x = 1\nfirst()\nx = 2\nsecond()\nx = |\nfirst()\n", ["1", "2"]),
    "number of places decides then": ("x = 1\nx = 2\nx = 2\ny\ny\nx = |", ["2", "1"]),
    "the nearest decides last": ("x = 1\ny\ny\nx = 3\nx = |\nq\nq\nx = 2\n", ["3", "2", "1"]),
    "below the cursor": ("x = |\nx = 2\n", ["2"]),
    "only punctuation": ("a[()] = 1\nb(()|", []),
    "one lexeme": ("run(1)\nx = run|\n", []),
    "cursor's own line": ("x = 1; x = |", []),
    "cursor's own line, behind the cursor": ("self.x = |; self.x = 1", []),
    "what the rest begins with": ("run(a, a, b)\nx = run(|a, b)", []),
    "what is there already, less a letter": ("run(a, ab)\nx = run(|ab)", ["a, "]),
    "trailing space": ("x = 1   \nx = |", ["1"]),
    "empty document": ("|", []),
    "first line": ("|\nx = 1\n", []),
}


@pytest.mark.parametrize(("text", "expected"), SAME_LINE.values(), ids=SAME_LINE)
def test_line(text: str, expected: list[str]) -> None:
    check(text, *expected)


NEXT_LINE = {
    "what follows the line above": ("open_it()\nread_it()\nx\nopen_it()\n|", ["read_it()"]),
    "blank lines do not count": ("open_it()\n\n\nread_it()\nx\nopen_it()\n\n|", ["read_it()"]),
    "word begun": ("open_it()\nread_it()\nx\nopen_it()\nr|", ["ead_it()"]),
    "depth is not compared": ("open_it()\nread_it()\nif x:\n    open_it()\n    |", ["read_it()"]),
    "indentation to come": ("def f(x):\n    go(x)\n\ndef f(x):\n|", ["    go(x)"]),
    "indentation half typed": ("def f(x):\n    go(x)\n\nif y:\n  def f(x):\n  |", ["    go(x)"]),
    "indentation of another size": ("def f(x):\n  go(x)\n\ndef f(x):\n    |", ["go(x)"]),
    "deeper than it may be": ("open_it()\nread_it()\nx\nopen_it()\n    |", []),
    "less deep than it may be": ("if a:\n    b(x)\n    c()\nif d:\n        b(x)\n    |", []),
    "one level back": ("if a:\n    b(x)\nc()\nif d:\n    if e:\n        b(x)\n    |", ["c()"]),
    "one level back, not taken yet": ("if a:\n    b(x)\nc()\nif d:\n    if e:\n        b(x)\n        |", []),
    "indentation is not added before a rest": ("def f(x):\n    go(x)\n\ndef f(x):\n|(x)", []),
    "rest of a line after the indentation": ("def f(x):\n    go(x)\n\ndef f(x):\n    |(x)", ["go"]),
    "back further than there is": ("if a:\n    b(x)\nc()\nb(x)\n|", []),
    "only punctuation above": ("a = [\n    1,\n]\n)\nb\n    ]\n)\n|", []),
    "the next line is there already": ("open_it()\nread_it()\nx\nopen_it()\n|\nread_it()\n", []),
    "nothing over the cursor's line": ("x\nopen_it()\n|\nread_it()\n", []),
}


@pytest.mark.parametrize(("text", "expected"), NEXT_LINE.values(), ids=NEXT_LINE)
def test_next_line(text: str, expected: list[str]) -> None:
    check(text, *expected)


LOOP = "for x in xs:\n    if x:\n        go(x)\n\n    done(x)\nend()\n"
BLOCK = {
    "body": (LOOP + "for x in xs:\n    |", ["if x:", "if x:\n        go(x)\n\n    done(x)"]),
    "body, indentation to come": (LOOP + "for x in xs:\n|", ["    if x:", "    if x:\n        go(x)\n\n    done(x)"]),
    "body from the end of its head": (
        LOOP + "for x in xs:|\n",
        ["\n    if x:", "\n    if x:\n        go(x)\n\n    done(x)"],
    ),
    "body at another depth": (
        LOOP + "if y:\n    for x in xs:\n        |",
        ["if x:", "if x:\n            go(x)\n\n        done(x)"],
    ),
    "up to the suffix": (LOOP + "for x in xs:\n    |\n\n    done(x)\n", ["if x:\n        go(x)", "if x:"]),
    "one line": ("x = 1\nx = |\n", ["1"]),
    "rest of the line keeps to it": ("run(a)\n    b\nx = run(|)\n", ["a"]),
    "closing bracket": ("run(\n    a,\n)\nb\nx = run(|", ["\n    a,", "\n    a,\n)"]),
    "closing bracket is there": ("run(\n    a,\n)\nb\nx = run(|\n)\n", ["\n    a,"]),
    "nothing after the closing bracket": ("run(\n    a,\n)\n]\nx = run(|", ["\n    a,", "\n    a,\n)"]),
    "ends at the cursor's line": ("a(b)\nc\na(b)\n|\nd\n", ["c", "c\na(b)"]),
    "the suffix begins like the first line": ("a(b)\nc\nd\nq\na(b)\n|\nc\n", []),
}


@pytest.mark.parametrize(("text", "expected"), BLOCK.values(), ids=BLOCK)
def test_block(text: str, expected: list[str]) -> None:
    check(text, *expected, extent=Extent.BLOCK)


def test_block_has_at_most_twenty_lines() -> None:
    body = "".join(f"    step{n}()\n" for n in range(40))
    seeds = SeedStore().propose(context(f"def f(x):\n{body}\ndef f(x):\n    |", extent=Extent.BLOCK))
    assert sorted(len(seed.text.splitlines()) for seed in seeds) == [1, 20]


def test_block_has_the_line_breaks_of_the_document() -> None:
    text = (LOOP + "for x in xs:\n    |").replace("\n", "\r\n")
    check(text, "if x:", "if x:\r\n        go(x)\r\n\r\n    done(x)", extent=Extent.BLOCK)


@pytest.mark.parametrize("line_break", ["\r\n", "\r", "\n", "\f", "\u2028"])
def test_line_has_no_line_break_of_any_kind(line_break: str) -> None:
    check(f"x = 1{line_break}y{line_break}x = |{line_break}z", "1")


def test_cursor_between_carriage_return_and_line_feed() -> None:
    check("x = 1\r\nx = |\r\n", "1")
    check("open_it()\r\nread_it()\r\nx\r\nopen_it()\r|\n", "read_it()")


def test_snippets_come_after_the_document_and_the_most_relevant_first() -> None:
    check("x = 1\nx = |", "1", "3", "2", snippets=["x = 2\n", "x = 3\n"])


def test_nothing_runs_from_one_snippet_into_the_next() -> None:
    check("open_it()\n|", snippets=["open_it()\n", "read_it()\n"])


def test_seed_says_how_well_it_fits() -> None:
    text = "if a:\n    run(b, c)\n    stop()\nrun(b, d)\nrun(c)\nif a:\n    run(|)\n    stop()\n"
    first, *_ = SeedStore().propose(context(text))
    assert first == Seed(text="b, c", before=7, after=5, count=1)
    text = "x = 1\nx = 1\nx = |"
    assert SeedStore().propose(context(text)) == [Seed(text="1", before=7, after=0, count=2)]


@pytest.mark.parametrize("limit", [0, 1, 2, 9])
def test_limit(limit: int) -> None:
    check("x = 1\nx = 2\nx = 3\nx = |", *["3", "2", "1"][:limit], limit=limit)


@pytest.mark.parametrize("extent", Extent)
@pytest.mark.parametrize(
    "text",
    [
        "\0\n\0\0 a.b = \0\na.b = |\0",
        "a.b = \ud800\na.b = |",
        "\ud83d|\ude00",
        "\u0301|\u0301",
        " \t \n\t|\n  ",
        "\n" * 5_000 + "|" + "\n" * 5_000,
        "x = 1\nx = 1" + " + 1" * 50_000 + "\nx = |",
        "x = " + "1 + " * 50_000 + "|",
        "x = 1\nx = |" + " + 1" * 50_000,
        "x = 1\n" * 50_000 + "x = |\n" + "x = 2\n" * 50_000,
    ],
    ids=range(10),
)
def test_odd_text_is_no_fault(text: str, extent: Extent) -> None:
    for seed in SeedStore().propose(context(text, extent=extent)):
        assert seed.text.strip()
        assert len(seed.text) < 20_000


def test_lone_surrogate_is_text_like_any_other() -> None:
    check("a.b = \ud800\na.b = |", "\ud800")


def test_line_too_long_to_read_is_not_proposed_in_part() -> None:
    check("x = 1" + " + 1" * 1_000 + "\nx = |")
    check("x = 1\n" + "y;" * 300 + "x = |")
    check("if a:\n    b(x)\n    " + "c" * 1_000 + "\n    d\nif a:\n    b(x)\n    |", extent=Extent.BLOCK)


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


def test_index_forgets_what_is_gone() -> None:
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
    lexemes_of = places.lexemes_of

    def reading(text: str) -> tuple[str, ...]:
        read.append(text)
        return lexemes_of(text)

    monkeypatch.setattr(places, "lexemes_of", reading)
    return read


def test_only_changed_lines_are_indexed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_snippet_that_stays_is_not_indexed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    read, store = read_lines(monkeypatch), SeedStore()
    store.propose(context("x = |", snippets=["a = 1\n", "b = 1\n"]))
    store.propose(context("x = |", snippets=["c = 1\n", "a = 1\n"]))
    assert sorted(read) == ["a = 1", "b = 1", "c = 1"]


@pytest.mark.parametrize("line", ["self.x = 1", "self.x = (self.x, self.x, self.x)"])
@pytest.mark.parametrize("num_lines", [500, 3_000])
def test_number_of_places_looked_at_is_bounded(monkeypatch: pytest.MonkeyPatch, line: str, num_lines: int) -> None:
    num_looked_at, look = 0, Line.lexemes_before

    def looking(self: Line, end: int) -> Any:
        nonlocal num_looked_at
        num_looked_at += 1
        return look(self, end)

    monkeypatch.setattr(Line, "lexemes_before", looking)
    seeds = SeedStore(max_places=50).propose(context(f"{line}\n" * num_lines + "self.x|"))
    assert seeds
    assert 50 <= num_looked_at <= 51  # what is typed is looked at too


@pytest.mark.parametrize("num_lines", [100, 2_000])
def test_near_gives_the_nearest_lines(num_lines: int) -> None:
    index = PlaceIndex()
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


def test_all_documents_share_the_characters() -> None:
    store = SeedStore(max_characters=90)
    for document in "abcdef":
        store.propose(context("x = 1\n" * 20 + "x = |\n" + "y = 1\n" * 20, document=document))
        assert 30 <= store.num_characters <= 90


def test_what_is_indexed_lies_around_the_cursor() -> None:
    store = SeedStore(max_characters=300)
    above, below = "x = 1\n" * 99, "x = 4\n" * 99
    text = f"{above}x = 2\ny\nx = |\nx = 3\n{below}"
    assert [seed.text for seed in store.propose(context(text), limit=9)] == ["4", "1", "3", "2"]
    assert store.num_characters <= 200
    assert [seed.text for seed in SeedStore(max_characters=33).propose(context(text))] == ["3", "2"]


def test_line_half_in_what_is_indexed_is_left_out() -> None:
    assert not SeedStore(max_characters=33).propose(context("abcdef.x = 1\nx = |\n"))
    assert not SeedStore(max_characters=33).propose(context("x = |\nx = 1 + abcdef\n"))


def test_far_end_stays_while_the_cursor_moves_on() -> None:
    store = SeedStore(max_characters=3_000)
    num_characters: list[int] = []
    for num_lines in range(200, 300):
        store.propose(context("x = 1\n" * num_lines + "|"))
        num_characters.append(store.num_characters)
    grown = [b - a for a, b in pairwise(num_characters)]
    assert sum(step == len("x = 1\n") for step in grown) >= 90
    assert max(num_characters) <= 1_000


def test_best_place_is_found_behind_many_nearer_ones() -> None:
    check("a.b.x = 2\nz\n" + "c.x = 1\n" * 300 + "z\na.b.x = |", "2", "1")


def test_snippets_are_indexed_while_they_fit() -> None:
    store = SeedStore(max_characters=60)
    seeds = store.propose(context("x = |", snippets=["x = 1\n" * 3, "x = 2\n", "x = 3\n"]))
    assert [seed.text for seed in seeds] == ["3", "2"]


@pytest.mark.parametrize("name", ["num_documents", "max_characters", "max_places"])
def test_negative_bound_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1 must not be negative"):
        SeedStore(**{name: -1})


@pytest.mark.parametrize("name", ["num_documents", "max_characters", "max_places"])
def test_bound_may_be_zero(name: str) -> None:
    store = SeedStore(**{name: 0})
    seeds = store.propose(context("x = 1\nx = |", snippets=["x = 2"]))
    assert bool(seeds) == (name == "num_documents")
    assert bool(store.num_characters) == (name == "max_places")
