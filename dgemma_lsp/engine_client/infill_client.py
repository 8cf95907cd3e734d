"""Request -> Context -> Infill: gathers text from other files, builds the message, asks the engine; the only such path.

`build_context` is pure: which part of the user's text is sent to the engine, and how far its answer may reach. The
engine gets `\\n` line ends and no lone surrogates, whatever the document has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from dgemma_engine.engine_client.connection import EngineConnection
from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.postprocess.cursor_context import SHAPING_CHARS, extent_of, normalize_newlines
from dgemma_engine.protocol.messages import Context, DocumentEdges, Infill, OnDraft, Snippet

from dgemma_lsp.context.collector import CollectedContext
from dgemma_lsp.request import Channel, Request, Trigger, as_if_accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLimits:
    """How much text is sent to the engine, and limits of the answer.

    Attributes:
        prefix_chars: most characters before the cursor, of which three quarters are always sent; 0 shows the model
            nothing of them, large costs encoding time.
        suffix_chars: most characters after the cursor; likewise.
        max_middle_tokens: most tokens in an answer; small cuts long answers, large takes more time per step.
        seed: the same seed gives the same answer.
    """

    prefix_chars: int = 16_000
    suffix_chars: int = 8_000
    max_middle_tokens: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.prefix_chars, self.suffix_chars) < 0:
            raise ValueError(f"{self.prefix_chars=} and {self.suffix_chars=} must not be negative")


class InfillClient:
    """Asks the engine for ghost text, fills and previews.

    Args:
        connection: the connection to the engine.
        collect: returns text from other files for a request.
        clock: seconds that never go backwards.

    Attributes:
        connection: the connection to the engine.
        is_elsewhere: whether the engine is on another machine, where waiting for it is part of a request's deadline.
    """

    def __init__(
        self,
        connection: EngineConnection,
        collect: Callable[[Request], Awaitable[CollectedContext]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self.connection = connection
        self.is_elsewhere = False
        self._collect = collect
        self._clock = clock

    async def ask(
        self, request: Request, limits: ContextLimits, on_draft: OnDraft | None = None
    ) -> Infill | ConnectionStatus:
        """Returns the engine's answer, or the connection's state where there is none. Cancelling cancels the work.

        Args:
            request: the question.
            limits: how much text to send, how much to ask for.
            on_draft: called with the drafts, oldest first, some left out for a slow reader; None asks for none.

        Returns:
            The answer; its timings have the stage `context`, milliseconds for gathering and building.
        """
        since_s = self._clock()
        found = await self._collect(request)
        context = build_context(request, limits, snippets=found.snippets, edits=found.edits)
        context_ms = (self._clock() - since_s) * 1_000
        answer = await self.connection.infill(context, on_draft)
        if not isinstance(answer, Infill):
            return answer
        return replace(answer, timings_ms=answer.timings_ms | {"context": context_ms})


def build_context(
    request: Request, limits: ContextLimits, *, snippets: Sequence[Snippet] = (), edits: Sequence[Snippet] = ()
) -> Context:
    """Returns the question to put to the engine.

    Args:
        request: the editor's question.
        limits: how much of its text to send.
        snippets: text from elsewhere, most relevant last.
        edits: recent edits, newest last.
    """
    request = as_if_accepted(request)
    before, after = request.text[: request.offset], request.text[request.offset :]
    # Where the cell itself is cut, the part that is left out is nearer than the cells around it.
    above, below = "" if request.skipped else request.above, "" if request.beyond else request.below
    with_cells = request
    if above or below:
        with_cells = replace(request, text=f"{above}{request.text}{below}", offset=len(above) + request.offset)
    prefix, suffix = _tail(with_cells, limits.prefix_chars), _head(with_cells, limits.suffix_chars)
    # The engine needs more of the document's own text than the model reads, without that of other cells.
    cells_before, prefix = prefix[: -len(before) or None], prefix[-len(before) :] if before else ""
    suffix, cells_after = suffix[: len(after)], suffix[len(after) :]
    cells_before, cells_after = _sendable(cells_before), _sendable(cells_after)
    start = max(0, len(before) - SHAPING_CHARS)
    return Context(
        # The menu shares the engine's caches, and its request under way, with ghost text.
        document=request.uri if request.channel is Channel.MENU else request.key,
        prefix=cells_before + _sendable(prefix),
        suffix=_sendable(suffix) + cells_after,
        path=_sendable(request.path),
        language=request.language,
        snippets=tuple(map(_sendable_snippet, snippets)),
        edits=tuple(map(_sendable_snippet, edits)),
        extent=request.extent or extent_of(request.before, request.rest, request.language),
        max_middle_tokens=limits.max_middle_tokens,
        deadline_ms=request.deadline_ms,
        seed=limits.seed,
        speculative=request.speculative,
        on_demand=request.channel is Channel.FILL,
        insistent=request.trigger is Trigger.INVOKED,
        least_column=request.least_column,
        edges=DocumentEdges(
            above=_sendable(before[start : len(before) - len(prefix)]),
            below=_sendable(after[len(suffix) : SHAPING_CHARS]),
            num_before=len(cells_before),
            num_after=len(cells_after),
            is_cut=start + request.skipped > 0,
        ),
        folder=request.folder,
    )


def _tail(request: Request, num_chars: int) -> str:
    """Returns the text before the cursor, cut at a line's start where it is too long.

    The cut stays where it is while the user types and then moves by a quarter of the limit: it would otherwise pass a
    line with every line typed, and no prompt would begin like the last one.
    """
    if request.cursor <= num_chars:
        return request.text[: request.offset]
    jump = max(1, num_chars // 4)
    start = min(max(-(-(request.cursor - num_chars) // jump) * jump - request.skipped, 0), request.offset)
    # Where lines are very long the cut falls inside one: little would be left.
    line_start = request.text.find("\n", max(start - 1, 0), min(request.offset, start + jump)) + 1
    return request.text[line_start or start : request.offset]


def _head(request: Request, num_chars: int) -> str:
    """Returns the text after the cursor, cut at a line's start where it is too long."""
    end = request.offset + num_chars
    if end >= len(request.text):
        return request.text[request.offset :]
    line_start = request.text.rfind("\n", request.offset + num_chars * 3 // 4, end) + 1
    return request.text[request.offset : line_start or end]


def _sendable_snippet(snippet: Snippet) -> Snippet:
    return Snippet(path=_sendable(snippet.path), text=_sendable(snippet.text))


def _sendable(text: str) -> str:
    text = normalize_newlines(text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair cannot be tokenized; editors send one while a character is being typed or cut.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
