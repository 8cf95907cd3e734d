"""Cases of `shapes/*.txt`, one language a file: the part of an engine's answer that an editor shows.

A line `DOCUMENT <- ANSWER -> TEXT` is a case, its document one line with the cursor at `|`; `⏎` is a line break, and
the text `nothing` means that nothing is shown. `=== NAME` begins a case of several lines: document, `--- answer`,
answer, `--- text`, text, or `--- nothing`. `→` is a tab, `␣` a blank at a line's end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("shapes")
_SHORT = re.compile(r"(.*?) *<- (.*?) *-> (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCase:
    """One case; `text` is what the document becomes, None where nothing is shown."""

    name: str
    language: str
    document: str
    answer: str
    text: str | None


def shape_cases() -> list[ShapeCase]:
    """Returns all cases of all files."""
    return [case for path in sorted(FOLDER.glob("*.txt")) for case in _cases(path)]


def _cases(path: Path) -> Iterator[ShapeCase]:
    title, long = "", ""
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), "== end"], start=1):
        if line.startswith("=="):
            if long:
                yield _long(path.stem, title, long)
            title, long = line.strip("= "), f"{line}\n" if line.startswith("===") else ""
        elif long:
            long += f"{line}\n"
        elif line.strip():
            short = _SHORT.fullmatch(line)
            assert short, f"{path.name}:{number}: neither a case nor a heading: {line!r}"
            document, answer, text = (_plain(part.replace("⏎", "\n")) for part in short.groups())
            yield ShapeCase(
                name=f"{path.stem}:{number} {title}",
                language=path.stem,
                document=f"{document}\n",
                answer=answer,
                text=None if text == "nothing" else f"{text}\n",
            )


def _long(language: str, title: str, block: str) -> ShapeCase:
    body = block.partition("\n")[2].rstrip("\n")
    document, mark, said = body.partition("\n--- answer\n")
    assert mark, f"{title}: no '--- answer'"
    answer, mark, text = said.partition("\n--- text\n")
    if not mark:
        answer, mark, text = said.partition("\n--- nothing")
        assert mark, f"{title}: neither '--- text' nor '--- nothing'"
        text = None
    return ShapeCase(
        name=f"{language}: {title}",
        language=language,
        document=_plain(document) + "\n",
        answer=_plain(answer),
        text=None if text is None else _plain(text) + "\n",
    )


def _plain(text: str) -> str:
    return text.replace("→", "\t").replace("␣", " ")
