"""Placeholders of code that is still to be written: `pass`, `...`, `todo!()`, a `TODO` comment; where each ends.

Pure. A table of patterns by language; reads only the lines around one offset, so that it can run at every move of the
cursor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgemma_engine.postprocess.cursor_context import opens_block
from dgemma_engine.postprocess.lexer import Language, language_named, read

_MOST_LINE_CHARS = 1_000
_MOST_COMMENT_LINES = 20
# Text before a placeholder that is read for open strings: takes about 1 ms, only where one was found.
_CHARS_ABOVE = 20_000

_QUOTED = r"(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)"
_ARGUMENTS = rf"\((?:[^()\"'`]|{_QUOTED}|\((?:[^()\"'`]|{_QUOTED})*\))*\)"
_UNWRITTEN = (
    r"\(\s*[\"'`][^\"'`\n]*(?i:\bnot (?:yet )?implemented|\bunimplemented|\btodo\b|\bimplement me)[^\"'`\n]*[\"'`]\s*\)"
)
_JAVASCRIPT = rf"throw\s+(?:new\s+)?\w*Error{_UNWRITTEN}"
_KOTLIN = rf"\bTODO{_ARGUMENTS}"
# Patterns that are placeholders anywhere in a line.
_PLAIN = {
    "cpp": rf"throw\s+std::\w+{_UNWRITTEN}",
    "csharp": rf"throw\s+new\s+(?:System\.)?NotImplementedException{_ARGUMENTS}",
    "go": rf"\bpanic{_UNWRITTEN}",
    "java": rf"throw\s+new\s+(?:UnsupportedOperationException{_ARGUMENTS}|\w+Exception{_UNWRITTEN})",
    "javascript": _JAVASCRIPT,
    "javascriptreact": _JAVASCRIPT,
    "kotlin": _KOTLIN,
    "php": rf"throw\s+new\s+\\?\w*Exception{_UNWRITTEN}",
    "ruby": r"\braise\s+NotImplementedError\b(?:\s*,\s*[^\n#]*[^\s#])?",
    "rust": rf"\b(?:todo|unimplemented)!\s*{_ARGUMENTS}",
    "scala": r"\?\?\?",
    "swift": rf"\bfatalError{_UNWRITTEN}",
    "typescript": _JAVASCRIPT,
    "typescriptreact": _JAVASCRIPT,
}
# A whole statement, the body after a colon, or a value.
_PYTHON = re.compile(
    r"(?P<before>^[ \t]*|:[ \t]*)(?P<hole>pass\b|\.\.\.|raise\s+NotImplementedError\b(?:\s*" + _ARGUMENTS + r")?)"
    r"(?=[ \t]*(?:#.*)?$)|(?P<value>(?:=|\breturn)[ \t]*)(?P<ellipsis>\.\.\.)(?=[ \t]*(?:#.*)?$)",
    re.MULTILINE,
)
_ANY_SIGN = r"(?://|\#|--|;|%)"
_MARK = r"(?:TODO|FIXME)\b(?:\([^()\n]*\))?[ \t]*:?[ \t]*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """A range of a text that is to be replaced by code.

    Attributes:
        start: offset of its first character, in code points.
        end: offset after its last.
        says: its description, as comment lines of its language with their line ends and the indentation of what
            follows; empty for nothing.
    """

    start: int
    end: int
    says: str = ""


def placeholder_at(text: str, offset: int, language_id: str) -> Placeholder | None:
    """Returns the placeholder that an offset touches; anywhere on its line where nothing else stands there.

    Text inside a string or a comment is none, except a comment on its own line that begins with TODO or FIXME.

    Args:
        text: a whole document.
        offset: in code points.
        language_id: as LSP spells it.
    """
    start, end = _line_at(text, offset)
    if end - start > _MOST_LINE_CHARS:
        return None
    language = language_named(language_id)
    found = _comment(text, start, end, language, language_id) or _code(text, start, end, offset, language_id)
    if found is None:
        return None
    above = text[max(0, start - _CHARS_ABOVE) : start]
    if start > _CHARS_ABOVE:
        above = above.partition("\n")[2]
    return None if read(above + text[start : found.start], language).inside else found


def _code(text: str, start: int, end: int, offset: int, language_id: str) -> Placeholder | None:
    """Returns the placeholder of a line that is code."""
    for first, last in _spans(text, start, end, language_id):
        whole = None if text[start:first].strip() else _statement_end(text, last)
        if first <= offset <= last or whole:
            return Placeholder(start=first, end=whole or last)
    return None


def _statement_end(text: str, last: int) -> int | None:
    """Returns where a placeholder that is a whole statement ends, its semicolon included; None if more code follows."""
    behind = text[last : _line_at(text, last)[1]]
    return None if behind.strip(" \t;") else last + len(behind.rstrip())


def _spans(text: str, start: int, end: int, language_id: str) -> list[tuple[int, int]]:
    # Arguments may go on in the lines below.
    piece = text[start : end + _MOST_LINE_CHARS].replace("\r", "\n")
    if language_id != "python":
        pattern = _PLAIN.get(language_id)
        found = re.finditer(pattern, piece) if pattern else ()
        return [(start + one.start(), start + one.end()) for one in found if start + one.start() < end]
    spans: list[tuple[int, int]] = []
    for one in _PYTHON.finditer(piece):
        first = one.start("ellipsis") if one["ellipsis"] else one.start("hole")
        if start + first >= end:
            break
        if not one["ellipsis"] and one["before"].startswith(":"):
            # `x: ...` is an annotation. A body may begin on the next line, so the blanks after the colon go.
            first = one.start("before") + 1
            if not opens_block(piece[:first].rpartition("\n")[2], language_named("python")):
                continue
        spans.append((start + first, start + one.end()))
    return spans


def _comment(text: str, start: int, end: int, language: Language, language_id: str) -> Placeholder | None:
    """Returns the TODO comment on a line, with the comment lines that continue it and a placeholder right below."""
    line = text[start:end]
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    if language.block_comment:
        begin, close = language.block_comment
        block = re.fullmatch(rf"(?P<open>{begin}\**[ \t]*){_MARK}(?P<says>.*?)(?P<close>[ \t]*{close})", line.strip())
        if block:
            said = f"{block['open']}{block['says']}{block['close']}" if block["says"] else ""
            return _with_code_below(text, start + len(indent), end, [said] if said else [], indent, language_id)
    if not (language.comment or language.has_brackets):
        return None
    sign = re.escape(language.comment) if language.comment else _ANY_SIGN
    one = re.match(rf"(?P<open>{sign}[/!#]*[ \t]*){_MARK}(?P<says>.*)", line[len(indent) :])
    if one is None:
        return None
    said = [f"{one['open'].rstrip()} {one['says']}".rstrip()] if one["says"].strip() else []
    for _ in range(_MOST_COMMENT_LINES):
        first, last = _line_at(text, _next_line(text, end))
        below = text[first:last]
        goes_on = re.match(rf"{re.escape(indent)}{sign}(?![ \t]*(?:TODO|FIXME)\b)[ \t]*\S", below)
        if first <= end or last - first > _MOST_LINE_CHARS or not goes_on:
            break
        said.append(below.strip())
        end = last
    return _with_code_below(text, start + len(indent), end, said, indent, language_id)


def _with_code_below(text: str, start: int, end: int, said: list[str], indent: str, language_id: str) -> Placeholder:
    """Returns a comment together with the next line, where that is nothing but a placeholder."""
    first, last = _line_at(text, _next_line(text, end))
    is_below = end < first and last - first <= _MOST_LINE_CHARS and text[first:last].startswith(indent)
    if is_below and text[first:last].strip():
        body = first + len(indent)
        if below := next(((a, b) for a, b in _spans(text, first, last, language_id) if a == body), None):
            end = _statement_end(text, below[1]) or end
    return Placeholder(start=start, end=end, says="".join(f"{line}\n{indent}" for line in said))


def _line_at(text: str, offset: int) -> tuple[int, int]:
    """Returns where the line of an offset starts and ends, without its line end; searches 1,001 characters each way."""
    first, last = max(0, offset - _MOST_LINE_CHARS - 1), min(len(text), offset + _MOST_LINE_CHARS + 1)
    start = max(text.rfind("\n", first, offset), text.rfind("\r", first, offset), first - 1) + 1
    end = text.find("\n", offset, last)
    end = last if end < 0 else end
    lone = text.find("\r", offset, end)
    return start, end if lone < 0 else lone


def _next_line(text: str, end: int) -> int:
    """Returns where the line below starts, given a line's end; the end itself where there is none."""
    return end + (2 if text.startswith("\r\n", end) else 1) if end < len(text) else end
