"""Text from elsewhere in the document or snippets is proposed where its surroundings match those of the cursor."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from dgemma_engine.prompt_lookup.candidates import Seed, SeedStore
from dgemma_engine.protocol.messages import Context, Extent, Snippet


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
    "cursor's own line, after the cursor": ("self.x = |; self.x = 1", []),
    "what the rest begins with": ("run(a, a, b)\nx = run(|a, b)", []),
    "what is there already, less a letter": ("run(a, ab)\nx = run(|ab)", ["a, "]),
    "trailing space": ("x = 1   \nx = |", ["1"]),
    "empty document": ("|", []),
    "first line": ("|\nx = 1\n", []),
}


@pytest.mark.parametrize(("text", "expected"), SAME_LINE.values(), ids=SAME_LINE)
def test_candidates_on_the_cursors_line(text: str, expected: list[str]) -> None:
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
def test_candidates_on_the_next_line(text: str, expected: list[str]) -> None:
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
def test_candidates_of_a_block(text: str, expected: list[str]) -> None:
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


def test_no_candidate_spans_two_snippets() -> None:
    check("open_it()\n|", snippets=["open_it()\n", "read_it()\n"])


def test_seed_carries_the_length_of_its_match() -> None:
    text = "if a:\n    run(b, c)\n    stop()\nrun(b, d)\nrun(c)\nif a:\n    run(|)\n    stop()\n"
    first, *_ = SeedStore().propose(context(text))
    assert first == Seed(text="b, c", before=7, after=5, count=1)
    text = "x = 1\nx = 1\nx = |"
    assert SeedStore().propose(context(text)) == [Seed(text="1", before=7, after=0, count=2)]


@pytest.mark.parametrize("limit", [0, 1, 2, 9])
def test_limit_of_candidates(limit: int) -> None:
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
def test_unusual_text_raises_no_error(text: str, extent: Extent) -> None:
    for seed in SeedStore().propose(context(text, extent=extent)):
        assert seed.text.strip()
        assert len(seed.text) < 20_000


def test_lone_surrogate_is_text_like_any_other() -> None:
    check("a.b = \ud800\na.b = |", "\ud800")


def test_line_over_the_length_limit_is_not_proposed_in_part() -> None:
    check("x = 1" + " + 1" * 1_000 + "\nx = |")
    check("x = 1\n" + "y;" * 300 + "x = |")
    check("if a:\n    b(x)\n    " + "c" * 1_000 + "\n    d\nif a:\n    b(x)\n    |", extent=Extent.BLOCK)
