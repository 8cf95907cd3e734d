"""The engine's answer to a request whose canvas is shown, or why there is none -> completions and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from dgemma_engine.engine_client.connection_status import ConnectionStatus
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.request import Completion, Request, build_completions


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The outcome of a request whose canvas is shown.

    Attributes:
        completions: best first; empty for nothing.
        finish: why the engine stopped; `EMPTY` where it was not asked.
        steps: denoising steps.
        message: why the engine was not asked or did not answer, in one sentence; empty where it answered.
    """

    completions: tuple[Completion, ...] = ()
    finish: Finish = Finish.EMPTY
    steps: int = 0
    message: str = ""

    @classmethod
    def of(cls, request: Request, outcome: Infill | ConnectionStatus) -> Self:
        """Returns the preview of a request that the engine was asked."""
        if not isinstance(outcome, Infill):
            return cls(message=outcome.message or "no engine is running yet; ask again in a moment")
        return cls(completions=build_completions(request, outcome), finish=outcome.finish, steps=outcome.steps)
