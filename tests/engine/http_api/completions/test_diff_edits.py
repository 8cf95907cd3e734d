from __future__ import annotations

import pytest
from dgemma_engine.http_api.completions.diff_edits import edits_of


@pytest.mark.parametrize(
    ("diff", "edits"),
    [
        ("", []),
        ("--- a\n+++ b\n", []),
        ("--- a\n+++ b\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n", ["-old\n+new\n"]),
        ("@@ -1 +1 @@\n-a\n+b\n@@ -9 +9 @@ def f():\n+c\n", ["-a\n+b\n", "+c\n"]),
        ("@@ -1 +1 @@\n--- a comment of SQL\n+++i\n", ["--- a comment of SQL\n+++i\n"]),
        ("@@ -1 +1 @@\n same\n@@\n", []),
        ("".join(f"@@ @@\n+{number}\n" for number in range(10)), [f"+{number}\n" for number in range(2, 10)]),
    ],
)
def test_edits_of_keeps_the_changed_lines_of_the_last_hunks(diff: str, edits: list[str]) -> None:
    found = edits_of("a.py", diff)
    assert [one.text for one in found] == edits
    assert {one.path for one in found} <= {"a.py"}
