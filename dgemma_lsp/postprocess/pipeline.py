"""Infill -> Completions: what of the engine's text is shown, and which part of the line it replaces.

Pure; puts the rules of shaping in order, each from its own module. The span is one line only, from the line's start
to the cursor plus what the completion covers of the rest: every client draws that without flicker. What is not worth
showing is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.messages import Extent, Infill

from dgemma_lsp.postprocess.brackets import with_closed_brackets, with_closed_strings, without_closed_twice
from dgemma_lsp.postprocess.cursor_context import CursorContext
from dgemma_lsp.postprocess.deduplicate import num_covered, without_next_lines, without_repetition
from dgemma_lsp.postprocess.extent import cut_to_block, extent_of
from dgemma_lsp.postprocess.indent_style import indent_of
from dgemma_lsp.postprocess.indentation import with_document_indentation
from dgemma_lsp.request import Request, Trigger, as_if_accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Text to show, where it goes, and for which version of the document it holds.

    Attributes:
        lead: replaces what stands between `start` and the cursor: the same again, or the selected entry of the menu.
        inserted: what follows the cursor; line ends are `\\n`.
        start: offset in the document of the line's start (in a very long line, of a place in it), or of what the
            selected entry replaces, in code points.
        cursor: offset of the cursor.
        end: offset behind the covered part of the line's rest.
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
    asked = as_if_accepted(request)
    around = CursorContext.of(asked)
    extent = extent_of(asked)
    middles = [infill.text]
    if infill.text and request.trigger is Trigger.INVOKED:
        middles += [candidate.text for candidate in infill.candidates]
    shaped = dict.fromkeys(shape(middle, around, extent) for middle in middles)
    return tuple(completion_at(request, inserted, covered) for inserted, covered in shaped if inserted)


def completion_at(request: Request, inserted: str, covered: int) -> Completion:
    """Returns what puts a text at the cursor, behind the menu's selected entry where there is one.

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


def shape(middle: str, around: CursorContext, extent: Extent) -> tuple[str, int]:
    """Returns what to insert, and how many characters of the line's rest it replaces; an empty text is nothing.

    Args:
        middle: what the engine says.
        around: where.
        extent: how far it may reach.
    """
    middle = middle.replace("\r\n", "\n").replace("\r", "\n")
    if extent is Extent.LINE:
        middle = middle.partition("\n")[0]
    else:
        middle = cut_to_block(with_document_indentation(middle, around), around)
    middle = without_next_lines(without_repetition(middle, around), around)
    covered = num_covered(before=around.before, middle=middle, rest=around.rest)
    once = without_closed_twice(middle, around, covered=covered)
    if once != middle:
        middle, covered = once, num_covered(before=around.before, middle=once, rest=around.rest)
    if not around.rest[covered:].strip():
        middle, covered = middle.rstrip(), len(around.rest[:covered].rstrip())
    if not middle.strip() or middle == around.rest[:covered]:
        return "", 0
    middle = with_closed_strings(middle, around, covered=covered)
    middle = with_closed_brackets(middle, around, covered=covered)
    if "\n" in middle and around.rest[covered:].strip():
        # What closes the block stands on a line of its own.
        middle = f"{middle.rstrip()}\n{indent_of(around.before)}"
    return middle, covered
