"""Texts that cost the server's regular expressions and loops most, found by reading each of them."""

from __future__ import annotations

# Language, description, and the piece that a line repeats.
WORST_TEXTS = (
    ("cpp", "many cases", "case "),
    ("javascript", "cases with colons", "case a: "),
    ("python", "openers of blocks", "if x: "),
    ("json", "values", '{"a":[1,"b"]},'),
    ("java", "opening brackets", "("),
    ("go", "closing brackets", "])}"),
    ("typescript", "quotes", "'\"`"),
    ("rust", "backslashes", "\\"),
    ("c", "escapes in a string", '"\\'),
    ("cpp", "comments", "/*"),
    ("python", "number signs", "#"),
    ("python", "letters", "word"),
    ("plaintext", "letters", "a"),
    ("python", "spaces", " "),
    ("yaml", "tabs", "\t"),
    ("html", "elements", "<a "),
    ("markdown", "fences", "``` "),
    ("python", "long strings", '"""'),
    ("python", "combining characters", "e\u0301"),
    ("javascript", "astral characters", "\U0001f60b"),
    ("typescript", "imports", "import {a} "),
    ("javascript", "require", "const {a = "),
    ("python", "imports of names", "from a import b, "),
    ("python", "dots", "from ."),
    ("rust", "uses", "use crate::a "),
    ("go", "packages", '"a/'),
    ("rust", "todo", "todo!("),
    ("python", "ellipsis", "= ..."),
)
