from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from dgemma_engine.http_api.completions.document_windows import DocumentWindows

LINES = [f"value_{number} = compute({number * 7919 % 1009}, offset={number})\n" for number in range(2_000)]
TEXT = "".join(LINES)


def common(one: str, other: str) -> int:
    most = min(len(one), len(other))
    return next((index for index in range(most) if one[index] != other[index]), most)


def last_characters(num_chars: int) -> Iterator[str]:
    """Prefixes of a typist whose client sends the last characters before the cursor."""
    for cursor in range(40_000, 40_400):
        yield TEXT[cursor - num_chars : cursor]


def last_lines(num_lines: int) -> Iterator[str]:
    """Prefixes of a typist whose client sends the last lines before the cursor."""
    above = "".join(LINES[:1_000])
    for num_typed in range(1, 400):
        text = above + "".join(LINES[1_000:])[:num_typed]
        lines = text.split("\n")
        yield "\n".join(lines[-num_lines - 1 :])


@pytest.mark.parametrize("prefixes", [list(last_characters(4_000)), list(last_lines(256)), list(last_lines(10_000))])
def test_locate_keeps_the_beginning_of_a_moving_window(prefixes: list[str]) -> None:
    windows, keys, sent = DocumentWindows(), set[str](), list[str]()
    for prefix in prefixes:
        key, start = windows.locate("me", "", prefix, "")
        keys.add(key)
        sent.append(prefix[start:])
        assert len(sent[-1]) >= min(len(prefix), 512) and len(sent[-1]) >= len(prefix) // 2
    assert len(keys) == 1
    encoded = [len(new) - common(old, new) for old, new in itertools.pairwise(sent)]
    # After most keys only the typed characters are new; where the beginning of the window moves, the whole window is.
    assert sorted(encoded)[len(encoded) // 2] <= 2
    assert sum(num > 100 for num in encoded) <= len(encoded) // 100


def test_locate_tells_documents_callers_and_paths_apart() -> None:
    windows = DocumentWindows()
    one, other = TEXT[:3_000], "".join(reversed(LINES))[:3_000]
    keys = [
        windows.locate(caller, path, text, "")[0]
        for caller, path, text in (("a", "", one), ("a", "", other), ("b", "", one), ("a", "x.py", one))
    ]
    assert len(set(keys)) == 4
    assert windows.locate("a", "", one + "more", "")[0] == keys[0]
    assert windows.locate("a", "", other + "more", "")[0] == keys[1]


def test_locate_finds_a_short_document_while_it_grows_and_shrinks() -> None:
    windows = DocumentWindows()
    keys = [windows.locate("a", "", text, "")[0] for text in ("", "x", "x = ", "x =", "x = 1\n" * 40, "x = 1\n" * 39)]
    assert len(set(keys[1:])) == 1


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (("", "alpha\n"), ("", "beta\n"), False),
        (("", "alpha\n"), ("", "alpha\n"), True),
        (("", ""), ("import os\n", ""), False),
        (("import", "\n\nalpha\n"), ("import os", "\n\nbeta\n"), False),
        (("import", "\n\nalpha\n"), ("import os", "\n\nalpha\n"), True),
        (("f", ""), ("f(", ")"), True),
        (("f", "\nalpha\n"), ("f(", ")\nalpha\n"), True),
    ],
)
def test_locate_tells_short_documents_apart_by_what_stands_after_the_cursor(
    one: tuple[str, str], other: tuple[str, str], are_same: bool
) -> None:
    windows = DocumentWindows()
    keys = {windows.locate("a", "", prefix, suffix)[0] for prefix, suffix in (one, other)}
    assert (len(keys) == 1) is are_same


def test_locate_drops_the_least_recently_used_documents() -> None:
    windows = DocumentWindows(num_documents=2)
    texts = [f"{name} = {name}\n" * 50 for name in ("alpha", "bravo", "charlie")]
    first = windows.locate("a", "", texts[0], "")[0]
    for text in texts[1:]:
        windows.locate("a", "", text, "")
    assert windows.locate("a", "", texts[0], "")[0] != first


def test_locate_after_a_jump_upwards_keeps_the_document() -> None:
    windows = DocumentWindows()
    low = windows.locate("a", "", TEXT[30_000:40_000], "")[0]
    key, start = windows.locate("a", "", TEXT[24_000:34_000], "")
    assert (key == low) and 34_000 - 24_000 - start >= 5_000


@pytest.mark.parametrize("num_header_chars", [140, 1_100])
def test_locate_tells_files_with_the_same_licence_apart(num_header_chars: int) -> None:
    windows, header = DocumentWindows(), "# licence and warranty\n" + "#" * num_header_chars + "\n"
    texts = [f"{header}def {name}():\n    return " for name in ("alpha", "beta", "gamma")]
    texts += [header + TEXT[start : start + 3_000] for start in (0, 6_000)]
    keys = [windows.locate("a", "", text, "")[0] for text in texts]
    assert len(set(keys)) == 5
    assert [windows.locate("a", "", text + "x", "")[0] for text in texts] == keys


def test_locate_while_a_line_is_written_anew_keeps_the_document() -> None:
    windows, above = DocumentWindows(), TEXT[:6_000]
    texts = (
        above + "x = comp",
        above + "x = calc",
        "import os\n" + above,
        TEXT[:3_000] + "import re\n" + TEXT[3_000:6_000],
    )
    keys = [windows.locate("a", "", text, "")[0] for text in texts]
    assert len({keys[0], keys[1], keys[3]}) == 1


def test_locate_takes_the_document_that_a_text_has_most_in_common_with() -> None:
    windows, header = DocumentWindows(), "#" * 140 + "\n"
    long = windows.locate("a", "", header + "def alpha():\n    return ", "")[0]
    assert windows.locate("a", "", header + "class Beta:\n", "")[0] != long
    assert windows.locate("a", "", header + "def alpha():\n    return 1", "")[0] == long
