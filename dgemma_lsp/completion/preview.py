"""A question whose canvas is watched: Request -> drafts on the way, then completions and how it went.

Asks the engine anew, past everything that was said before: who watches wants to see it happen. Knows no protocol types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dgemma_engine.protocol.messages import Finish, Infill, OnDraft

from dgemma_lsp.context.builder import ContextLimits, build_context
from dgemma_lsp.context.collector import Gathered
from dgemma_lsp.engine_client.connection import EngineLink
from dgemma_lsp.postprocess.pipeline import Completion, build_completions
from dgemma_lsp.request import Request
from dgemma_lsp.selected import as_if_accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What came of a question that was watched.

    Attributes:
        completions: best first; empty for nothing.
        finish: why the engine stopped; `EMPTY` where it was not asked.
        steps: denoising steps.
        message: why nothing was asked or answered, in one sentence; empty where the engine answered.
    """

    completions: tuple[Completion, ...] = ()
    finish: Finish = Finish.EMPTY
    steps: int = 0
    message: str = ""


async def watch(
    request: Request,
    link: EngineLink,
    gather: Callable[[Request], Awaitable[Gathered]],
    limits: ContextLimits,
    *,
    on_draft: OnDraft,
) -> Preview:
    """Asks the engine and tells its drafts. Cancelling the caller cancels the work.

    Args:
        request: the question, of a channel of its own: the engine takes ghost text's question of the same document for
            another one.
        link: the way to the engine.
        gather: finds text from elsewhere for the question.
        limits: how much text to send, how much to ask for.
        on_draft: told what the canvas says, oldest first; a slow reader is not told everything.
    """
    asked = as_if_accepted(request)
    gathered = await gather(asked)
    context = build_context(asked, limits, snippets=gathered.snippets, edits=gathered.edits)
    infill = await link.infill(context, on_draft)
    if not isinstance(infill, Infill):
        return Preview(message=infill.message or "there is no engine yet; ask again in a moment")
    return Preview(completions=build_completions(request, infill), finish=infill.finish, steps=infill.steps)
