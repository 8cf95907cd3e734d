"""FillQuestion -> FillAnswer: candidates for a range of a document, or one sentence that says why there are none.

Knows no protocol types; everything that can be wrong with a question is an answer, not an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.protocol.messages import Finish, Infill, OnDraft

from dgemma_lsp.completion.in_flight import LatestOnly
from dgemma_lsp.documents.positions import PositionEncoding
from dgemma_lsp.documents.store import NOT_OPEN, Document
from dgemma_lsp.engine_client.infill_client import ContextLimits, InfillClient
from dgemma_lsp.fill.candidates import FillCandidate, fill_candidates, fill_request
from dgemma_lsp.fill.target import FillKind, FillTarget, Refusal, fill_target
from dgemma_lsp.settings.settings import Settings

Span = tuple[tuple[int, int], tuple[int, int]]

_CHANGED = "the document has changed since the fill was asked for; nothing was written, ask again"
_CELL_BORDER = "the selection spans several notebook cells; select within one cell"
_NOTHING = "the model found nothing that fits here; select more, or describe the code in a comment"
_SAME = "the model would write the same text; nothing was written"
_LATE = "the time limit was reached; select less, or raise dgemma.fill.deadlineMs"
_GIVEN_UP = "the engine cancelled this fill; ask again"
_CELL_SCHEME = "vscode-notebook-cell:"


@dataclass(frozen=True, slots=True, kw_only=True)
class FillQuestion:
    """A fill request of an editor.

    Attributes:
        uri: names the document.
        version: the document's version that `span` is of; None for whatever is open.
        span: start and end of the selection, each line and column.
        kind: what to do with the selection.
    """

    uri: str
    version: int | None
    span: Span
    kind: FillKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FillAnswer:
    """The answer to a fill request.

    Attributes:
        document: the version that the candidates hold for; None where it is not open.
        start: offset of the first character that a candidate replaces, in code points.
        end: offset after the last.
        candidates: best first; empty where there is nothing to apply.
        message: one sentence that says why there is nothing; empty where there is something.
    """

    document: Document | None
    start: int = 0
    end: int = 0
    candidates: tuple[FillCandidate, ...] = ()
    message: str = ""


class FillService:
    """Answers the fills of one editor.

    Args:
        get: returns the open document of a uri.
        infills: asks the engine.
        cells: returns the text of a notebook's cells before and after one of them; nothing for any other document.
        why_not: returns why nothing may be done in a document; None where something may be.
        on_activity: called when the engine begins and ends to work on a fill.
    """

    def __init__(
        self,
        get: Callable[[str], Document | None],
        infills: InfillClient,
        *,
        cells: Callable[[str], tuple[str, str]],
        why_not: Callable[[Document], str | None],
        on_activity: Callable[[bool], None],
    ) -> None:
        self._get = get
        self._infills = infills
        self._cells = cells
        self._why_not = why_not
        self._on_activity = on_activity
        self._in_flight = LatestOnly()

    async def answer(
        self,
        question: FillQuestion,
        settings: Settings,
        *,
        encoding: PositionEncoding,
        path: str,
        folder: str,
        on_draft: OnDraft,
    ) -> FillAnswer:
        """Returns candidates, or why there are none. Cancelling the caller ends the engine's work.

        A fill of the same document that is under way is cancelled.

        Args:
            question: what is asked.
            settings: those in force.
            encoding: what its columns count.
            path: the file's path for the model to see.
            folder: see `Request.folder`.
            on_draft: called with the drafts.
        """
        if (document := self._get(question.uri)) is None:
            return FillAnswer(document=None, message=NOT_OPEN)
        start, end = sorted(document.lines.offset(line, column, encoding) for line, column in question.span)
        given = FillAnswer(document=document, start=start, end=end)
        target = self._target(question, document, start, end)
        if isinstance(target, Refusal):
            return replace(given, message=target.message)
        replaced = document.text[target.start : target.end]
        deadline_ms, cells = settings.fill_deadline_ms, self._cells(question.uri)
        request = fill_request(document, target, path=path, deadline_ms=deadline_ms, cells=cells, folder=folder)
        limits = ContextLimits(max_middle_tokens=settings.fill_max_tokens, seed=settings.seed)
        with self._in_flight.newest(question.uri):
            self._on_activity(True)
            try:
                outcome = await self._infills.ask(request, limits, on_draft)
            finally:
                self._on_activity(False)
        given = replace(given, start=target.start, end=target.end)
        now = self._get(question.uri)
        # An editor may count its versions wrongly, or not at all.
        if now is None or (now.version, now.text) != (document.version, document.text):
            return replace(given, message=_CHANGED)
        if isinstance(outcome, ConnectionStatus):
            return replace(given, message=_why_no_engine(outcome))
        candidates = fill_candidates(request, target, replaced, outcome)
        return replace(given, candidates=candidates, message="" if candidates else _why_nothing(outcome, replaced))

    def closed(self, uri: str) -> None:
        """Ends the fill of a document that is no longer open, and the engine's work on it."""
        self._in_flight.end(uri)

    def _target(self, question: FillQuestion, document: Document, start: int, end: int) -> FillTarget | Refusal:
        if why := self._why_not(document):
            return Refusal(message=why)
        if question.version is not None and question.version != document.version:
            return Refusal(message=_CHANGED)
        past_end = (document.lines.num_lines, 0)
        if question.uri.startswith(_CELL_SCHEME) and max(question.span) > past_end:
            return Refusal(message=_CELL_BORDER)
        return fill_target(document.text, start, end, kind=question.kind, language_id=document.language)


def _why_no_engine(status: ConnectionStatus) -> str:
    if status.state in {ConnectionState.STARTING, ConnectionState.LOADING}:
        return f"the engine is still loading ({status.percent} %); ask again when it is ready"
    return status.message or "no engine is running; ask again, or run: dgemma-lsp doctor"


def _why_nothing(infill: Infill, replaced: str) -> str:
    if infill.text and infill.text.strip() == replaced.strip():
        return _SAME
    return {Finish.DEADLINE: _LATE, Finish.CANCELLED: _GIVEN_UP}.get(infill.finish, _NOTHING)
