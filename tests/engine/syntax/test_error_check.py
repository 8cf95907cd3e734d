"""Syntax errors that a candidate adds, on real grammars; an incrementally updated tree agrees with a new parse."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dgemma_engine.protocol.messages import Context
from dgemma_engine.syntax.error_check import SyntaxCheck, SyntaxStore
from hypothesis import given, settings
from hypothesis import strategies as st

LANGUAGES = (
    "c", "cpp", "css", "go", "html", "java", "javascript", "javascriptreact", "json", "python", "rust", "typescript",
    "typescriptreact", "yaml",
)  # fmt: skip
FUNCTION = 'def f(a, b):\n    """Adds: it isn\'t hard."""\n    if a:\n        return [a, b]\n    return a + b\n\n\n'


def store(**options: int) -> SyntaxStore:
    """A store whose clock stands still, so that no parse times out."""
    return SyntaxStore(clock=lambda: 0.0, **options)


def context(marked: str, language: str = "python", *, path: str = "", document: str = "d") -> Context:
    prefix, _, suffix = marked.partition("|")
    return Context(document=document, prefix=prefix, suffix=suffix, language=language, path=path)


def checked(marked: str, language: str = "python") -> SyntaxCheck:
    return store().check(context(marked, language))


PYTHON = [
    ("x = |\n", "foo(bar)", True),
    ("x = |\n", "foo(bar", True),
    ("x = |\n", ")(", False),
    ("x = |\n", "1\ny = 2", True),
    ("|\n", "x = foo(bar", False),
    ("|\n", "x = = 1", False),
    ("|\n", "else:", False),
    ("if x|\n    y()\n", ":", True),
    ("if x|:\n    y()\n", " == 1", True),
    ("if x|:\n    y()\n", ":", False),
    ("if |:\n    y()\n", "(a and b", False),
    ("foo(|)\n", "a, b", True),
    ("foo(|)\n", "bar(x)", True),
    ("foo(|)\n", "a, b)", False),
    ("foo(|)\n", "a, (b", False),
    ("foo(bar(|)\n", "x)", True),
    ("def f():\n    |\n", "pass", True),
    ("def f():\n    |\n", "return [1, 2", False),
    ("def f():\n    |\n", "if a:\n        b()\n    else:\n        c()", True),
    ("print('|')\n", "it is", True),
    ("print('|')\n", "it's", False),
    ("print('|')\n", "it\\'s", True),
    ("# |\n", "((('", True),
    ('"""|"""\n', "((('", True),
    ('f"{|}"\n', "x!r", True),
    ('f"{|}"\n', "x[", True),
    ('f"{x}|"\n', "{y[", False),
    ("x = {'é': '😀', |}\n", "'ü': 1", True),
    ("x = {'é': '😀', |}\n", "'ü: 1", False),
    ("foo(((\n\n\ndef f(a):\n    return |\n", "a", True),
    ("try:\n    a()\n|\n", "except E:\n    b()", True),
    ("x = 1\r\ny = |\r\nz = 3\r\n", "2", True),
]
OTHERS = [
    ("javascript", "const x = |;\n", "a ? b : c", True),
    ("javascript", "const x = |;\n", "a ? b", True),
    ("javascript", "const x = 1;\n|\n", "const y = {a: 1", False),
    ("javascript", "foo(|);\n", "x => { return x; }", True),
    ("javascript", "foo(|);\n", "x => {", False),
    ("javascript", "if (|) {\n}\n", "a && b", True),
    ("javascript", "if (|) {\n}\n", "a) {", False),
    ("javascript", "function f(|) {}\n", "a: string", False),
    ("javascript", "const s = `${|}`;\n", "a + `b`", True),
    ("javascriptreact", "const a = |;\n", "<b>hi</b>", True),
    ("javascriptreact", "const a = <p>|</p>;\n", "<b>hi", False),
    ("typescript", "function f(|) {}\n", "a: string", True),
    ("typescript", "let x: | = 1;\n", "number[]", True),
    ("typescript", "let x: number| = 1;\n", "[", False),
    ("typescript", "let x = y;|\n", "let z = <T>y;", True),
    ("typescriptreact", "let x = y;|\n", "let z = <T>y;", False),
    ("typescriptreact", "const a = <p>{|}</p>;\n", "items.map((x: Item) => <li>{x}</li>)", True),
    ("go", "package a\n\nfunc f() {\n\t|\n}\n", "if err != nil {\n\t\treturn err\n\t}", True),
    ("go", "package a\n\nfunc f() {\n\t|\n}\n", "if err != nil {", False),
    ("go", "package a\n\nvar x = []int{|}\n", "1, 2", True),
    ("rust", "fn f() -> u8 {\n    |\n}\n", "let x: Vec<_> = y?;\n    x[0]", True),
    ("rust", "fn f() -> u8 {\n    |\n}\n", "match x { Some(y) => y,", False),
    ("rust", "fn f<'a>(x: &|) {}\n", "'a str", True),
    ("c", "int f(void) {\n    |\n}\n", "for (int i = 0; i < n; i++) {}", True),
    ("c", "int f(void) {\n    |\n}\n", "for (int i = 0; i < n; i++ {}", False),
    ("cpp", "auto x = |;\n", "std::vector<int>{1, 2}", True),
    ("cpp", "int f() {\n    |\n}\n", "auto g = [&](int a) { return a; ", False),
    ("java", "class A {\n    void f() {\n        |\n    }\n}\n", 'String s = "a" + b;', True),
    ("java", "class A {\n    void f() {\n        |\n    }\n}\n", "int x = foo(1;", False),
    ("java", "class A {\n    |\n}\n", "@Override\n    public int f() { return 1; }", True),
    ("html", "<ul>\n  |\n</ul>\n", "<li class='a'>b</li>", True),
    ("html", "<div>\n  |\n</div>\n", "<p>a</span>", True),
    ("html", "<div>\n  |\n</div>\n", "<p class='>a</p>", False),
    ("html", "<div>|</div>\n", "</div>", False),
    ("css", "a {\n  |\n}\n", "color: red;", True),
    ("css", "a {\n  |\n}\n", "color: red; }", False),
    ("json", '{"a": |}\n', "[1, null]", True),
    ("json", '{"a": 1|}\n', ", 2", False),
    ("yaml", "a:\n  b: 1\n  |\n", "c: [1, 2]", True),
    ("yaml", "a:\n  b: 1\n  |\n", "c: [1, 2", False),
    ("yaml", "a:\n  - x\n  |\n", "- y: 'z'", True),
    ("yaml", "a:\n  - x\n  |\n", "- y: 'z", False),
]


@pytest.mark.parametrize(("marked", "text", "passes"), PYTHON)
def test_python_candidate_adds_errors_or_not(marked: str, text: str, passes: bool) -> None:
    assert (checked(marked).added_errors(text) <= 0) == passes


@pytest.mark.parametrize(("language", "marked", "text", "passes"), OTHERS)
def test_candidate_adds_errors_or_not(language: str, marked: str, text: str, passes: bool) -> None:
    assert (checked(marked, language).added_errors(text) <= 0) == passes


def test_candidate_replaces_the_covered_text_when_checked() -> None:
    check = checked("foo(|)  # \N{GRINNING FACE}\n")
    assert check.added_errors("a)[0]") == 1
    assert check.added_errors("a)[0]", 1) == 0


def test_good_candidate_lowers_the_errors() -> None:
    check = checked("x = |\n")
    assert check.num_errors == 1
    assert [check.added_errors(text) for text in ("", "1", "(", ")(")] == [0, -1, 0, 1]


@pytest.mark.parametrize(
    ("language", "path", "known"),
    [
        ("python", "", True),
        ("", "a/b.py", True),
        ("", "a/B.TSX", True),
        ("yaml.ansible", "", True),
        ("plaintext", "a.py", False),
        ("", "a.xyz", False),
        ("", "", False),
        (".", "", False),
        ("markdown", "a.md", False),
    ],
)
def test_language_id_decides_then_the_suffix(language: str, path: str, known: bool) -> None:
    check = store().check(context("x = |(", language, path=path))
    assert check.known == known
    assert known or (check.num_errors, check.added_errors("))")) == (0, 0)


@pytest.mark.parametrize("language", LANGUAGES)
def test_grammar_is_installed(language: str) -> None:
    assert checked("|", language).known


@pytest.mark.parametrize("module", ["tree_sitter", "tree_sitter_python"])
def test_missing_package_is_an_unknown_language(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert not checked("x = |").known


def test_grammar_for_another_tree_sitter_is_an_unknown_language(monkeypatch: pytest.MonkeyPatch) -> None:
    def language() -> object:
        raise ValueError("Incompatible Language version 99")

    monkeypatch.setattr("tree_sitter_python.language", language)
    assert not checked("x = |").known


def test_grammars_are_imported_on_first_use() -> None:
    code = (
        "import sys; from dgemma_engine.protocol.messages import Context\n"
        "from dgemma_engine.syntax.error_check import SyntaxStore\n"
        "loaded = lambda: sorted(name for name in sys.modules if name.startswith('tree_sitter') and '.' not in name)\n"
        "print(loaded())\n"
        "SyntaxStore().check(Context(document='', prefix='', suffix='', language='go'))\n"
        "print(loaded())"
    )
    engine = Path(__file__).parents[3] / "engine"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(engine)}
    )
    assert result.stdout.splitlines() == ["[]", "['tree_sitter', 'tree_sitter_go']"]


PIECES = {
    "python": ["def f(a):\n", "    return a\n", "x = 1\n", "if x:\n", "    ", "\n", "(", ")", "'", '"""', "# c\n", ":"],
    "javascript": ["function f(a) {\n", "}\n", "let x = `${a}`;\n", "{", "}", "(", ")", "'", "/* ", "*/", "//", "\n"],
    "html": ["<div>", "</div>", "<p>", "</p>", "<a b='c'>", "<!--", "-->", "<", "text", "<script>", "</script>", "\n"],
    "yaml": ["a: b\n", "  c: d\n", "- x\n", "  - y\n", "k: |\n", "   text\n", "{a: b}", "[", "'", "# c\n", "---\n"],
}
ODD = ["é", "è", "ĩ", "😀", "\r\n", "\r", "\t", "\0", "\x1a", "\ufeff", "\u2028", "\ud83d"]


@st.composite
def edited_documents(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]], str]:
    """Draws a language, versions of one text with the hole's offset, and a candidate."""
    language = draw(st.sampled_from(sorted(PIECES)))
    pieces = st.lists(st.sampled_from(PIECES[language] + ODD), max_size=12).map("".join)
    text = draw(pieces)
    versions: list[tuple[str, int]] = []
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        removed = draw(st.sampled_from([0, 0, 1, 2, 9]))
        text = text[:start] + draw(pieces) + text[start + removed :]
        versions.append((text, draw(st.integers(0, len(text)))))
    return language, versions, draw(pieces)


@settings(max_examples=300, deadline=None)
@given(edited=edited_documents())
def test_kept_tree_is_free_of_errors_exactly_if_a_fresh_parse_is(
    edited: tuple[str, list[tuple[str, int]], str],
) -> None:
    """Numbers of errors are not compared: with several, the number depends on the tree that parsing began with."""
    language, versions, candidate = edited
    kept = store()
    for text, offset in versions:
        asked = Context(document="d", prefix=text[:offset], suffix=text[offset:], language=language)
        check = kept.check(asked)
        assert (check.num_errors == 0) == (counted(text, language) == 0)
        errors = check.num_errors + check.added_errors(candidate)
        assert (errors == 0) == (counted(text[:offset] + candidate + text[offset:], language) == 0)


def counted(text: str, language: str = "python") -> int:
    """Parses `text` anew."""
    return store().check(Context(document="", prefix=text, suffix="", language=language)).num_errors


def test_typing_counts_as_fresh_parses_do() -> None:
    kept, before, after = store(), FUNCTION, "\n\n\n" + FUNCTION
    typed = "def g(é: str = '😀') -> dict[str, int]:\n    x = {'a': [1, 2]}  # it's\n    return f(x, \"b\", y)"
    for size in range(len(typed)):
        prefix = before + typed[:size]
        check = kept.check(Context(document="d", prefix=prefix, suffix=after, language="python"))
        assert check.num_errors == counted(prefix + after)
        for candidate in (typed[size:], ")", "x = 1\n"):
            assert check.added_errors(candidate) == counted(prefix + candidate + after) - check.num_errors


@settings(max_examples=150, deadline=None)
@given(
    language=st.sampled_from(LANGUAGES),
    prefix=st.text(st.characters(exclude_categories=())),
    suffix=st.text(st.characters(exclude_categories=())),
    text=st.text(st.characters(exclude_categories=())),
)
def test_unusual_text_raises_no_error(language: str, prefix: str, suffix: str, text: str) -> None:
    store().check(Context(document="", prefix=prefix, suffix=suffix, language=language)).added_errors(text)


class CountingClock:
    """Stands still; the parser reads it as often as it makes progress, so readings measure the work."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return 0.0

    def reads_of(self, work: Callable[[], object]) -> int:
        before = self.reads
        work()
        return self.reads - before


def test_keystroke_and_candidate_are_parsed_incrementally() -> None:
    clock = CountingClock()
    kept = SyntaxStore(clock=clock)
    text = FUNCTION * 280 + "def g():\n    x = |\n\n\n" + FUNCTION * 5
    first = clock.reads_of(lambda: kept.check(context(text)))
    again = clock.reads_of(lambda: kept.check(context(text)))
    typed = clock.reads_of(lambda: kept.check(context(text.replace("|", "a|"))))
    candidate = clock.reads_of(lambda: kept.check(context(text.replace("|", "a|"))).added_errors(".b(c)"))
    assert first > 200
    assert again == 0
    assert 0 < typed < first / 4
    assert 0 < candidate < first / 4


def test_least_recently_used_document_goes_first() -> None:
    clock = CountingClock()
    kept = SyntaxStore(num_documents=2, clock=clock)
    reads = [clock.reads_of(lambda name=name: kept.check(context(FUNCTION, document=name))) for name in "abacab"]
    assert [count > 0 for count in reads] == [True, True, False, True, False, True]


def test_store_of_no_documents_parses_every_time() -> None:
    clock = CountingClock()
    kept = SyntaxStore(num_documents=0, clock=clock)
    assert all(clock.reads_of(lambda: kept.check(context(FUNCTION))) for _ in range(2))


def test_document_that_changes_its_language_is_parsed_again() -> None:
    kept = store()
    assert kept.check(context("let x = |;", "javascript")).num_errors == 1
    assert kept.check(context("let x = |1;", "javascript")).num_errors == 0
    assert kept.check(context("let x = |1;", "python")).num_errors > 0


def test_check_is_unaffected_by_later_edits() -> None:
    kept = store()
    check = kept.check(context("x = |\n"))
    kept.check(context("foo(((|\n"))
    assert [check.added_errors(text) for text in ("1", ")(")] == [-1, 1]


class SlowClock:
    """Advances by a second at each reading while `slow` is set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slow = False

    def __call__(self) -> float:
        self.now_s += self.slow
        return self.now_s


def test_parse_that_takes_too_long_gives_no_verdict() -> None:
    clock = SlowClock()
    kept = SyntaxStore(clock=clock)
    long = FUNCTION * 100 + "x = |\n"
    clock.slow = True
    check = kept.check(context(long))
    assert (check.known, check.num_errors, check.added_errors(")(")) == (False, 0, 0)
    clock.slow = False
    check = kept.check(context("x = |\n"))
    assert (check.known, check.num_errors, check.added_errors(")(")) == (True, 1, 1)
    clock.slow = True
    assert check.added_errors("foo(\n" + FUNCTION * 100) == 0
    clock.slow = False
    assert check.added_errors("foo(\n" + FUNCTION * 100) > 0


@pytest.mark.parametrize(
    "deep", ["- " * 300, "? " * 300, "".join(" " * level + "a:\n" for level in range(300))], ids=["-", "?", "a:"]
)
def test_yaml_that_would_crash_the_process_is_not_parsed(deep: str) -> None:
    assert not checked(deep + "|", "yaml").known
    check = checked("a: |\n", "yaml")
    assert check.known
    assert check.added_errors("\n" + deep) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FUNCTION * 20_000, "\n\n" + FUNCTION * 20_000),
        ("x = [1, 2]; " * 100_000, ""),
        ('    it isn\'t hard."""\n    return 1\n\n\n' + FUNCTION * 50, "\n"),
        (FUNCTION, "\n\n" + FUNCTION * 60 + 'def g():\n    """It isn\'t\n'),
    ],
    ids=["both sides long", "one line", "begins in a docstring", "ends in a docstring"],
)
def test_only_text_near_the_hole_is_parsed(before: str, after: str) -> None:
    check = store().check(Context(document="d", prefix=before + "x = ", suffix=after, language="python"))
    assert check.num_errors == 1
    assert check.added_errors("1") == -1
    assert check.added_errors(")(") > 0


def test_long_document_is_parsed_in_bounded_time() -> None:
    def reads(times: int) -> int:
        clock = CountingClock()
        kept = SyntaxStore(clock=clock)
        return clock.reads_of(lambda: kept.check(context(FUNCTION * times + "x = |\n" + FUNCTION * times)))

    assert reads(20_000) < reads(1_000) * 1.5


def test_checks_leak_no_memory() -> None:
    """py-tree-sitter 0.26.1 never frees the text that a read callback returns."""
    document = Context(document="a", prefix="value = [1, 2, 3]\n" * 500, suffix="\nother = {}" * 500, language="python")
    store = SyntaxStore()

    def check(number: int) -> None:
        checked = store.check(replace(document, prefix=f"{document.prefix}value_{number} = "))
        assert checked.added_errors("[value for value in other]") == 0

    def held(numbers: range) -> int:
        for number in numbers:
            check(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, after = held(range(50)), held(range(50, 100))
    finally:
        tracemalloc.stop()
    assert after - before < 100_000, "a hundred parses of 15 kB of text"
