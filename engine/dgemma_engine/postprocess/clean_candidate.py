"""Cleans up a candidate: cuts its text to the part that may be shown, before `shape` fits it to its place.

Text in, text out. Works on lines, words, brackets and quotes of any language, without tokens or a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from dgemma_engine.postprocess.brackets import without_strings
from dgemma_engine.postprocess.lexer import OPENER_OF
from dgemma_engine.protocol.messages import Context, Extent

_COMMENT_LINE = re.compile(r"^[ \t]*(?:#|//).*", re.MULTILINE)
_NO_BRACKETS = re.compile(r"[^()\[\]{}]+")
_TOKEN = re.compile(r"\w+|[^\w\s]")
_INSIDE_WORD = re.compile(r"\w\w")
_LETTER = re.compile(r"[^\W\d_]")
_MEMBER = re.compile(r"[,.(\[]")
_ESCAPE = re.compile(r"[\\%&]")

_CHARS_EACH_SIDE = 4_000
_ANY_NUMBER = 1_000
_LONGEST_UNIT = 8
_COPIES = 4
_COPIES_OF_LINES = 3
# People write `int, int, int, int`, `.parent.parent.parent.parent` and `dirname(dirname(dirname(dirname(` too.
_COPIES_OF_MEMBERS = 6


def clean_candidate(text: str, context: Context) -> str:
    """Returns the part of a candidate that may be inserted at the cursor; empty where nothing may.

    Args:
        text: the candidate.
        context: the request.
    """
    prefix, suffix = context.prefix, context.suffix
    if context.extent is Extent.LINE:
        text = cut_to_line(text)
    text = cut_repetition(trim_overlap(drop_suffix_copy(text, suffix), prefix=prefix, suffix=suffix))
    # U+FFFD stands for a character cut in two: no text the user could want.
    return "" if not text.strip() or "\ufffd" in text else text


def cut_to_line(text: str) -> str:
    """Returns `text` up to its first line break of any kind."""
    lines = text.splitlines()
    return lines[0] if lines else ""


def drop_suffix_copy(text: str, suffix: str) -> str:
    """Cuts a copy of the suffix's head off the end of `text`.

    A checkpoint that was not trained to fill writes the clamped suffix again into its spare positions. The copy may be
    cut short by the end of the slot; one of less than four visible characters is kept, since closing brackets and the
    like recur rightly.

    Args:
        text: text of the slot.
        suffix: text after the cursor.
    """
    for start in range(len(text)):
        copy = text[start:]
        if len(copy.strip()) < 4:
            break
        if suffix.startswith(copy) or (len(suffix.strip()) >= 4 and copy.startswith(suffix)):
            return text[:start]
    return text


def trim_overlap(text: str, *, prefix: str, suffix: str) -> str:
    """Cuts the end of `text` that the suffix repeats right after it: the rest of the line, or the next lines.

    Of all overlaps the one that leaves fewest brackets and quotes without partner wins, the longest among equals, and
    none that leaves more of them than the whole text does: `foo(|)` takes `a, b` of `a, b)`, `foo(bar(|)` all of `x)`.
    A copy of whole lines is cut whatever it leaves. Blanks around a line do not count; but one line of one word
    (`break`, `end`, `}`), which may by right stand below another, is a copy at another indentation only if that leaves
    fewer brackets without partner.

    Args:
        text: what is to be inserted at the cursor.
        prefix: text before the cursor.
        suffix: text after the cursor.
    """
    near, following = prefix[-_CHARS_EACH_SIDE:], suffix[:_CHARS_EACH_SIDE]
    overlaps = [*_copied_characters(text, near, following), *_copied_lines(text, near, following)]
    if not overlaps:
        return text
    num_unmatched = _counter_of_unmatched(prefix, suffix)
    whole = num_unmatched(text)
    kept, fewest = len(text), whole
    for length, slack in sorted(overlaps, reverse=True):
        unmatched = num_unmatched(text[:length])
        if slack > 0 or unmatched <= min(fewest, whole + slack):
            kept, fewest = length, unmatched
            whole = unmatched if slack > 0 else whole
    return text[:kept]


def splits_word(said: str, rest: str, count: int) -> bool:
    """Whether `rest[:count]` ends inside a word, or is only the last letter of the word that `said` ends with."""
    ends_inside = _INSIDE_WORD.fullmatch(rest[count - 1 : count + 1])
    return bool(ends_inside or (count == 1 and _INSIDE_WORD.fullmatch(said[-2:])))


def cut_repetition(text: str) -> str:
    """Cuts a text that repeats itself to the first occurrence.

    Three equal lines or groups of lines at the end are too many, and four equal pieces within a line (six of a list, a
    chain or a nest). What has no letters may recur. A piece is cut where the text ended within it, so that
    `x + x + x + x + x` becomes `x`. A line that goes on after its repetition is not shown, nor what follows it.

    Args:
        text: a candidate.

    Returns:
        A beginning of `text`, maybe empty.
    """
    lines = text.rstrip().split("\n")
    keys = [line.rstrip() for line in lines]
    if any(keys[1:]):
        # The prefix has the first line's indentation.
        keys[0] = _indentation(keys[1:]) + keys[0].lstrip()
    for size in range(1, _LONGEST_UNIT + 1):
        for start, stop, ends in _runs(keys, size):
            unit = "\n".join(keys[start : start + size])
            needed = _COPIES_OF_MEMBERS if unit.endswith(",") else _COPIES_OF_LINES
            if ends and (stop - start) // size >= needed and _LETTER.search(unit):
                return "\n".join(lines[: start + size]).rstrip()
    for index, line in enumerate(lines):
        end = _end_of_first_time(line)
        if end is not None:
            return "\n".join([*lines[:index], line[:end]] if end else lines[:index])
    return text


def _copied_characters(text: str, prefix: str, suffix: str) -> Iterator[tuple[int, int]]:
    """Yields how much of `text` stands before a copy of what the cursor's line goes on with, and 0; see `_slack`."""
    rest = suffix.partition("\n")[0]
    for said in {text, text.rstrip(" \t")}:
        for count in range(len(rest) - len(rest.lstrip()) + 1, min(len(said), len(rest)) + 1):
            length = len(said) - count
            # `max_len` before `len(x)` would be one word with it; `this ` before `is` would not.
            parts_word = text[-1:].isspace() and _INSIDE_WORD.fullmatch(said[max(0, length - 1) : length + 1])
            if said.endswith(rest[:count]) and not parts_word and not splits_word(prefix + said, rest, count):
                yield length, 0


def _copied_lines(text: str, prefix: str, suffix: str) -> Iterator[tuple[int, int]]:
    """Yields the same for a copy of the next lines, maybe after one of the rest of the cursor's line."""
    rest, _, after = suffix.partition("\n")
    rest, below = rest.strip(), [line for line in after.split("\n") if line.strip()]
    lines = text.split("\n")
    whole = [prefix.rpartition("\n")[2] + lines[0], *lines[1:]]
    if not rest and (slack := _slack(whole, below)) is not None:
        yield 0, slack
    line_start = 0
    for index, line in enumerate(lines):
        if (slack := _slack(lines[index + 1 :], below)) is not None:
            yield line_start + len(line), slack
            if rest and line.rstrip().endswith(rest):
                yield line_start + len(line.rstrip()) - len(rest), 0
        line_start += len(line) + 1


def _slack(lines: list[str], below: list[str]) -> int | None:
    """Returns how many brackets may lose their partner by a cut of `lines` above `below`; None if they are no copy."""
    said = [line.strip() for line in lines if line.strip()]
    there = [line.strip() for line in below[: len(said)]]
    # The text may have ended within the last of several.
    cut_short = len(there) == len(said) > 1 and said[:-1] == there[:-1] and there[-1].startswith(said[-1])
    if not said or not (said == there or cut_short):
        return None
    if len(said) > 1 or len(said[0].split()) > 1:
        return _ANY_NUMBER if any(map(_LETTER.search, said)) else 0
    return 0 if _indentation(lines) == _indentation(below) else -1


def _indentation(lines: list[str]) -> str:
    """Returns the blanks that the first line with a text begins with."""
    first = next(line for line in lines if line.strip())
    return first[: len(first) - len(first.lstrip())]


def _counter_of_unmatched(prefix: str, suffix: str) -> Callable[[str], int]:
    """Returns a function that counts brackets and quotes without partner, given a text between prefix and suffix.

    Where not all of the document is there, the partner of a closing bracket, or of one opened above, may be elsewhere.
    """
    begun_before = len(prefix) > _CHARS_EACH_SIDE or prefix[:1].isspace()
    goes_on = len(suffix) > _CHARS_EACH_SIDE
    above, _, before = prefix[-_CHARS_EACH_SIDE:].rpartition("\n")
    rest, _, below = suffix[:_CHARS_EACH_SIDE].partition("\n")
    opened_above: list[str] = []
    _match_brackets(without_strings(_COMMENT_LINE.sub("", above)), opened_above)

    def num_unmatched(text: str) -> int:
        opened, line = opened_above.copy(), before + text + rest
        bare = without_strings(_COMMENT_LINE.sub("", f"{line}\n{below}"))
        num_closing, num_passed, num_kept = _match_brackets(bare, opened)
        num_quotes = sum(map(without_strings(_COMMENT_LINE.sub("", line)).count, "\"'`"))
        return num_quotes + num_passed + len(opened) - num_kept * goes_on + num_closing * (not begun_before)

    return num_unmatched


def _match_brackets(bare: str, opened: list[str]) -> tuple[int, int, int]:
    """Changes `opened`, the open brackets from the outermost in, as `bare`, a text without strings, does.

    Returns how many closing brackets had no partner, how many open ones were skipped for one further out, and how many
    that were open before still are.
    """
    num_closing, num_passed, num_kept = 0, 0, len(opened)
    num_open = {opener: opened.count(opener) for opener in OPENER_OF.values()}
    for bracket in _NO_BRACKETS.sub("", bare):
        opener = OPENER_OF.get(bracket)
        if opener is None:
            opened.append(bracket)
            num_open[bracket] += 1
        elif not num_open[opener]:
            num_closing += 1
        else:
            while (closed := opened.pop()) != opener:
                num_open[closed] -= 1
                num_passed += 1
            num_open[opener] -= 1
            num_kept = min(num_kept, len(opened))
    return num_closing, num_passed, num_kept


def _end_of_first_time(line: str) -> int | None:
    """Returns where the first of many equal pieces of `line` ends; 0 if it goes on after them, None without any."""
    tokens = list(_TOKEN.finditer(line))
    words = [token.group() for token in tokens]
    for size in range(1, _LONGEST_UNIT + 1):
        for start, stop, ends in _runs(words, size):
            unit = "".join(words[start : start + size])
            members = _MEMBER.search(unit)
            may_recur = not _LETTER.search(unit) or _ESCAPE.search(unit)
            if may_recur or (stop - start) // size < (_COPIES_OF_MEMBERS if members else _COPIES):
                continue
            if ends:
                return tokens[start + ((stop - start) % size or size) - 1].end()
            if not members:
                return 0
    return None


def _runs(items: list[str], size: int) -> Iterator[tuple[int, int, bool]]:
    """Yields the stretches in which each item equals the one `size` before it, and whether nothing else follows."""
    # The text may have ended within the last.
    if len(items) > size and items[-1] != items[-1 - size] and items[-1 - size].startswith(items[-1]):
        items = items[:-1]
    start = 0
    for index in range(size, len(items) + 1):
        if index == len(items) or items[index] != items[index - size]:
            yield start, index, index == len(items)
            start = index - size + 1
