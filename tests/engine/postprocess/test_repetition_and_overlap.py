"""Middles without overlaps with the suffix, repetitions and equal texts; the cursor is at `|`."""

from __future__ import annotations

import pytest
from dgemma_engine.postprocess.clean_candidate import cut_repetition, trim_overlap
from hypothesis import given
from hypothesis import strategies as st


def trimmed(marked: str, text: str) -> str:
    prefix, _, suffix = marked.partition("|")
    return trim_overlap(text, prefix=prefix, suffix=suffix)


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("foo(|)\n", "a, b", "a, b"),
        ("foo(|)\n", "a, b)", "a, b"),
        ("foo(|)\n", "a, b) ", "a, b"),
        ("foo(|)\n", "bar(x)", "bar(x)"),
        ("foo(|)\n", "bar(x))", "bar(x)"),
        ("foo(|)\n", "bar()", "bar()"),
        ("foo(|)\n", ")", ""),
        ("foo(bar(|)\n", "x)", "x)"),
        ("foo(bar(|)\n", "x))", "x)"),
        ("f(foo(|))\n", "bar(a))", "bar(a)"),
        ("f(foo(|))\n", "bar(a)))", "bar(a)"),
        ("if foo(|):\n", "a):", "a"),
        ("if foo(|):\n", "a", "a"),
        ("x = [|]\n", "1, [2]]", "1, [2]"),
        ("x = {'a': [|]}\n", "1]}", "1"),
        ("x = a[|]\n", "i", "i"),
        ("a = | + c\n", "b + c", "b"),
        ("a = | + c\n", "b", "b"),
        ("f(a|, b)\n", ".x, b)", ".x"),
        ("f(|)  # why\n", "a)  # why", "a"),
        ("<div|>\n", ' class="a">', ' class="a"'),
        ("foo(x, |\n    y)\n", "a)", "a)"),
        ("{ foo(bar(|) }\n", "x)", "x)"),
        ("f(\n  [\n    (1|),\n  ]\n)\n", ", 2),", ", 2"),
    ],
)
def test_rest_of_the_line_is_not_repeated(marked: str, text: str, expected: str) -> None:
    assert trimmed(marked, text) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ('x = "|"\n', 'abc"', "abc"),
        ('x = "|"\n', "abc", "abc"),
        ('x = |"\n', '"abc"', '"abc'),
        ('print("|")\n', 'it (is")', "it (is"),
        ('x = [|"c"]\n', '"a", "b"', '"a", "b"'),
        ('x = [|, "c"]\n', '"a", "b"', '"a", "b"'),
        ("x = '|' + y\n", "a' + y", "a"),
        ("f(')', |)\n", "'(')", "'('"),
        ("x = `${|}`\n", "a}`", "a"),
    ],
)
def test_quotes_keep_their_partner(marked: str, text: str, expected: str) -> None:
    assert trimmed(marked, text) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("get_|foo\n", "value_of", "value_of"),
        ("x = |len(y)\n", "max_len", "max_"),
        ("x = |len(y)\n", "max_len(y)", "max_"),
        ("x = |e\n", "value", "value"),
        ("x = va|l\n", "l", "l"),
        ("x = |else_\n", "a else", "a else"),
        ("x = |is y\n", "this ", "this "),
        ("x = [|1]\n", "0, 1", "0, "),
        ("x = |é\n", "caf.é", "caf."),
        ("x = |😀\n", "'😀", "'"),
    ],
)
def test_words_are_not_split(marked: str, text: str, expected: str) -> None:
    assert trimmed(marked, text) == expected


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("def f():\n    |\n    return y\n", "x = 1\n    return y", "x = 1"),
        ("def f():\n    |\n    return y\n", "x = 1\nreturn y  ", "x = 1"),
        ("def f():\n    |\n\n    return y\n", "x = 1\n    return y\n", "x = 1"),
        ("def f():\n    |\n    return y\n", "x = 1\n\n    return y", "x = 1"),
        ("def f():\n    |\n    a = b\n    return y\n", "x = 1\n    a = b\n    ret", "x = 1"),
        ("def f():\n    |\n    a = b\n    return y\n", "x = 1\n    a", "x = 1\n    a"),
        ("def f():\n    |\n    return y\n", "return y", ""),
        ("def f():\n    return |\n    return y\n", "y", ""),
        ("def f():\n    |\n    return y\n", "x = 1\n    return z", "x = 1\n    return z"),
        ("def f():\n    |\n    return y\n", "if a:\n        return y\n    b()", "if a:\n        return y\n    b()"),
        ("for x in y:\n    if a:\n        |\n    break\n", "b()\n        break", "b()\n        break"),
        ("for x in y:\n    if a:\n        |\n    break\n", "b()\n    break", "b()"),
        ("if a\n  if b\n    |\nend\n", "c\n  end", "c\n  end"),
        ("foo(\n    |\n)\n", "x,\n)", "x,"),
        ("foo(\n    bar(\n        |\n)\n", "x\n    )", "x\n    )"),
        ("  if (x) {\n    |\n  }\n", "return 1;\n  }", "return 1;"),
        ("f() {\n  if (x) {\n    |\n  }\n}\n", "return 1;\n}", "return 1;"),
        ("if (x) {\n  if (y) {\n    |\n}\n", "return 1;\n  }", "return 1;\n  }"),
        ("foo(|)\nreturn x\n", "a)\nreturn x", "a"),
        ("foo(|)\nreturn x\n", "a) \n    return x", "a"),
        ("foo(bar(|)\nreturn x\n", "a)\nreturn x", "a)"),
        ("foo(|)\nreturn x\n", "a\nreturn x", "a"),
        ("f() {\n  |\n  if (a) {\n    b();\n  }\n}\n}\n", "c();\n  if (a) {", "c();"),
        ("foo(|)\nif (a) {{\n  b();\n}}\n}}\n", "x)\nif (a) {{", "x"),
        ("    b();\n    |\n  }\n}\n", "c();\n    }", "c();\n    }"),
        ("{\n  {\n    |\n  }\n" + "  b;\n" * 1_000 + "}\n", "c;\n  }", "c;"),
        ("|\nclass A {\n", "var x = 1;\nclass A {", "var x = 1;"),
        ("|\n", "x\n", "x\n"),
        ("|", "x\ny", "x\ny"),
    ],
)
def test_next_lines_are_not_repeated(marked: str, text: str, expected: str) -> None:
    assert trimmed(marked, text) == expected


LONG = "x = f(1)\n" * 1_000


@pytest.mark.parametrize(
    ("marked", "text", "expected"),
    [
        ("foo(|)\n", "a)", "a"),
        ("foo(bar(|)\n", "a)", "a)"),
        ("table = [\n" + "    (1, 2),\n" * 1_000 + "    (1|),\n" + "    (1, 2),\n" * 1_000 + "]\n", ", 2),", ", 2"),
        ("{\n" + "  a;\n" * 1_500 + "  {\n    |\n  }\n" + "  b;\n" * 1_500 + "}\n", "c;\n  }", "c;"),
        ("    it's (here)\n  }\n  {\n    |\n  }\n}\n", "c;\n  }", "c;"),
    ],
)
def test_partners_may_be_far_away(marked: str, text: str, expected: str) -> None:
    assert trimmed(marked, text) == expected
    assert trimmed(LONG + marked + LONG, text) == expected


def test_brackets_in_comments_and_strings_need_no_partner() -> None:
    assert trimmed("# see (1\n// or (2\nx = '('\nfoo(|)\n", "a)") == "a"
    assert trimmed("# see (1\n// or (2\nx = '('\nfoo(bar(|)\n", "a)") == "a)"


@given(text=st.text("ab()\n\"' }"), prefix=st.text("ab(\n' {"), suffix=st.text("ab)\n' }"))
def test_trimmed_text_is_a_prefix_and_an_empty_suffix_trims_nothing(text: str, prefix: str, suffix: str) -> None:
    kept = trim_overlap(text, prefix=prefix, suffix=suffix)
    assert text.startswith(kept)
    assert trim_overlap(text, prefix=prefix, suffix="") == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = x = x = x =", "x ="),
        ("x = x = x = x = x", "x"),
        ("x = x = x", "x = x = x"),
        ("return x + x + x + x + x", "return x"),
        ("x = x = x = x = 1", ""),
        ("a()\nx = x = x = x = 1\nb()", "a()"),
        ("foo(a, a, a, a, a)", "foo(a, a, a, a, a)"),
        ("foo(a, a, a, a, a, a, a, a", "foo(a"),
        ("foo(a, a, a, a, a, a, a, a)", "foo(a, a, a, a, a, a, a, a)"),
        ("Path(x).parent.parent.parent.parent", "Path(x).parent.parent.parent.parent"),
        ("self.self.self.self.self.self.self.se", "self."),
        ("[0, 0, 0, 0, 0, 0, 0, 0, 0", "[0, 0, 0, 0, 0, 0, 0, 0, 0"),
        ('"%s %s %s %s %s %s"', '"%s %s %s %s %s %s"'),
        ('"\\n\\n\\n\\n\\n\\n"', '"\\n\\n\\n\\n\\n\\n"'),
        ("# ----------------", "# ----------------"),
        ("not in not in not in not in not", "not"),
        ("print(x)\nprint(x)\nprint(x)", "print(x)"),
        ("print(x)\n    print(x)\n    print(x)\n", "print(x)"),
        ("print(x)\n    print(x)\n    print(x)\n    pri", "print(x)"),
        ("print(x)\nprint(x)\nprint(x)\nprint(y)", "print(x)\nprint(x)\nprint(x)\nprint(y)"),
        ("print(x)\nprint(x)", "print(x)\nprint(x)"),
        ("a()\nb()\nc()\nb()\nc()\nb()\nc()", "a()\nb()\nc()"),
        ("a()\n\na()\n\na()\n\na()\n", "a()"),
        ("None,\nNone,\nNone,", "None,\nNone,\nNone,"),
        ("None,\n" * 8, "None,"),
        ("0, 1,\n" * 8, "0, 1,\n" * 8),
        ("}\n}\n}\n}", "}\n}\n}\n}"),
        ("a\n    </div>\n  </div>\n</div>", "a\n    </div>\n  </div>\n</div>"),
        ("x  ", "x  "),
        ("", ""),
        ("\n\n\n\n", "\n\n\n\n"),
    ],
)
def test_cut_repetition(text: str, expected: str) -> None:
    assert cut_repetition(text) == expected


@given(text=st.text("ab =\n,.", max_size=40))
def test_cut_repetition_returns_a_prefix_and_is_idempotent(text: str) -> None:
    kept = cut_repetition(text)
    assert text.startswith(kept)
    assert cut_repetition(kept) == kept
