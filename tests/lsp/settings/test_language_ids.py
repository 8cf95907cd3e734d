from __future__ import annotations

import pytest

from dgemma_lsp.settings.language_ids import canonical_id


@pytest.mark.parametrize(
    ("name", "language_id"),
    [
        ("Python", "python"),
        ("PYTHON", "python"),
        ("C++", "cpp"),
        ("C#", "csharp"),
        ("C", "c"),
        ("Shell", "shellscript"),
        ("sh", "shellscript"),
        ("ShellScript", "shellscript"),
        ("Objective-C", "objective-c"),
        ("my-own-language", "my-own-language"),
        ("", ""),
    ],
)
def test_canonical_id(name: str, language_id: str):
    assert canonical_id(name) == language_id
    assert canonical_id(language_id) == language_id
