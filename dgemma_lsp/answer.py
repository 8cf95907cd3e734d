"""Infill -> Completions: which part of the document the engine's texts replace.

Pure. The engine has shaped the texts; here they get their place. The span is one line only, from the line's start to
the cursor plus what the completion covers of the rest: every client draws that without flicker.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.messages import Infill

from dgemma_lsp.request import Request, Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to show, where it goes, and for which version of the document it holds.

    Attributes:
        lead: replaces the text between `start` and the cursor: that same text, or the selected entry of the menu.
        inserted: what follows the cursor; line ends are `\n`.
        start: offset in the document of the line's start (in a very long line, of a position in it), or of what the
            selected entry replaces, in code points.
        cursor: offset of the cursor.
        end: offset after the covered part of the line's rest.
        version: the document's version that the offsets hold for.
    """

    lead: str
    inserted: str
    start: int
    cursor: int
    end: int
    version: int

    def __post_init__(self) -> None:
        if not self.start <= self.cursor <= self.end:
            raise ValueError(f"{self.start=} <= {self.cursor=} <= {self.end=} must hold")

    @property
    def text(self) -> str:
        """What replaces the span."""
        return self.lead + self.inserted


def build_completions(request: Request, infill: Infill) -> tuple[Completion, ...]:
    """Returns what to show at the cursor, best first: at most one unless the user asked for it.

    Args:
        request: the question, with the text it was asked about.
        infill: the engine's answer to it; one without a text offers nothing.
    """
    texts = {infill.text: infill.covered} if infill.text else {}
    if infill.text and request.trigger is Trigger.INVOKED:
        texts |= {candidate.text: candidate.covered for candidate in infill.candidates}
    return tuple(completion_at(request, text, covered) for text, covered in texts.items())


def completion_at(request: Request, inserted: str, covered: int) -> Completion:
    """Returns what puts a text at the cursor, after the menu's selected entry where there is one.

    Args:
        request: the question.
        inserted: text to insert.
        covered: characters right of the cursor that it replaces.
    """
    selected, skipped = request.selected, request.skipped
    start = selected.start if selected else request.lead_start
    return Completion(
        lead=selected.text if selected else request.text[start : request.offset],
        inserted=inserted,
        start=skipped + start,
        cursor=request.cursor,
        end=skipped + (selected.end if selected else request.offset) + covered,
        version=request.version,
    )
