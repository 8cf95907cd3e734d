from __future__ import annotations

import pytest
from dgemma_engine.tools.evaluation.holes.code_map import CodeMap


def insides(text: str, language: str = "python") -> list[str]:
    return [text[span.start : span.end] for span in CodeMap.of(text, language).insides]


def prose(text: str, language: str = "python") -> list[str]:
    return [text[span.start : span.end] for span in CodeMap.of(text, language).prose]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("f(a[0], {1: 2})", "python", ["0", "1: 2", "a[0], {1: 2}"]),
        ("f(')', x)", "python", ["')', x"]),
        ("f(x)  # (not\ng(y)", "python", ["x", "y"]),
        ("f(x // 2)", "python", ["x // 2"]),
        ("f(x); // (not\ng(y)", "java", ["x", "y"]),
        ("f('''(\n''', z)", "python", ["'''(\n''', z"]),
        ("f(`(${y}`, z)", "javascript", ["`(${y}`, z"]),
        ("(]) f(x)", "python", ["x"]),
        ('f("\\")", x)', "python", ['"\\")", x']),
        ("", "python", []),
    ],
)
def test_insides_are_between_brackets_of_code(text: str, language: str, expected: list[str]) -> None:
    assert insides(text, language) == expected


def test_prose_is_comments_and_triple_quoted_strings_but_no_other_strings() -> None:
    text = 'x = "a"  # why\ndef f():\n    """Says."""\n    return """a\nb"""\n'
    assert prose(text) == ["# why", '"""Says."""', '"""a\nb"""']
    assert prose("/* a\n b */ x = '#'; // c\n", "c") == ["/* a\n b */", "// c"]


def test_all_other_text_is_code() -> None:
    text = "x = 1  # why\ny = 2\n"
    code = CodeMap.of(text, "python")
    assert "".join(character for i, character in enumerate(text) if code.is_code(i)) == "x = 1  \ny = 2\n"
