"""One completion at one place, outside any editor: text and offset -> answer -> lines on a terminal or JSON.

Takes the same steps as the server (Request, Context, Infill, Completion). Independent of files and of how the engine
was reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgemma_engine.engine_client.infill_source import InfillSource
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Finish, Infill
from dgemma_engine.protocol.status_messages import Status

from dgemma_lsp.commands.file_location import FilePosition, language_of
from dgemma_lsp.documents.uri import folder_of
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Completion, Request, Trigger, build_completions

_LINES_AROUND = 3
_ENDS = {
    Finish.STABLE: "ended by the model",
    Finish.STEP_LIMIT: "ended by a limit",
    Finish.DEADLINE: "ended by the deadline",
}
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The engine's answer for one place.

    Attributes:
        request: what was asked.
        infill: the engine's answer, to a request by hand: its best candidate, however unlikely.
        completion: the part that is shown; None for nothing.
        wall_ms: milliseconds from the request to the completion.
    """

    request: Request
    infill: Infill
    completion: Completion | None
    wall_ms: float

    @property
    def text(self) -> str:
        """What follows the cursor; empty for nothing."""
        return self.completion.inserted if self.completion else ""

    @property
    def document(self) -> str:
        """The whole text with the completion accepted."""
        text, end = self.request.text, self.completion.end if self.completion else self.request.offset
        return text[: self.request.offset] + self.text + text[end:]

    def to_json(self, status: Status) -> dict[str, Any]:
        """Returns the object that `--json` prints."""
        return {
            "text": self.text,
            "replaces": self.completion.end - self.completion.cursor if self.completion else 0,
            "unlikely": self.infill.unlikely,
            "finish": self.infill.finish.value,
            "score": self.infill.score,
            "steps": self.infill.steps,
            "model": status.model,
            "device": status.device,
            "adapter": None if self.infill.adapter.fault else self.infill.adapter.root or None,
            "timings_ms": self.infill.timings_ms,
        }


def request_at(place: FilePosition, *, trigger: Trigger, deadline_ms: float) -> Request:
    """Returns the request for the cursor's position in a file.

    Args:
        place: text and cursor.
        trigger: what made the user ask.
        deadline_ms: milliseconds until the answer is due.
    """
    uri = place.path.absolute().as_uri()
    return Request(
        uri=uri,
        version=0,
        text=place.text,
        offset=place.offset,
        path=place.path.name,
        folder=folder_of(uri, ()),
        language=language_of(place.path),
        trigger=trigger,
        deadline_ms=deadline_ms,
    )


async def answer_at(
    place: FilePosition,
    source: InfillSource,
    *,
    trigger: Trigger,
    limits: ContextLimits,
    deadline_ms: float,
    clock: Callable[[], float],
) -> Answer:
    """Asks the engine for the completion at a place.

    Args:
        place: text and cursor.
        source: the engine.
        trigger: INVOKED shows the best candidate however unlikely it is, AUTOMATIC what would appear while typing.
        limits: how much text to send, how much to ask for, the seed.
        deadline_ms: milliseconds until the answer is due.
        clock: seconds that never go backwards.

    Raises:
        EngineFault: the engine answered with an error.
        EngineUnavailable: the connection or the engine ended before the answer.
    """
    # By hand in either case: the engine sends no score of an answer that it keeps back.
    request = request_at(place, trigger=Trigger.INVOKED, deadline_ms=deadline_ms)
    start_s = clock()
    infill = await source.infill(build_context(request, limits))
    require_answer(infill)
    is_kept_back = trigger is Trigger.AUTOMATIC and infill.unlikely
    completion = None if is_kept_back else next(iter(build_completions(request, infill)), None)
    return Answer(request=request, infill=infill, completion=completion, wall_ms=(clock() - start_s) * 1_000)


def require_answer(infill: Infill) -> None:
    """Refuses the answer of an engine that was stopped: only its end cancels the one request of a command.

    Raises:
        EngineUnavailable: the request was cancelled.
    """
    if infill.finish is Finish.CANCELLED:
        raise EngineUnavailable("the engine was stopped before it had answered; run the command again")


def render(answer: Answer, *, colour: bool) -> str:
    """Returns the completion between the lines around it, for a person.

    Args:
        answer: what to show.
        colour: True dims the surroundings with ANSI codes; False marks the completion with `>>` and `<<`.
    """
    request = answer.request
    before = _last_lines(request.text[: request.offset])
    end = answer.completion.end if answer.completion else request.offset
    after = _first_lines(request.text[end:])
    if colour:
        shown = f"{_RESET}{_BOLD}{_visible(answer.text)}{_RESET}{_DIM}"
        body = f"{_DIM}{_visible(before)}{shown}{_visible(after)}{_RESET}"
    else:
        body = f"{_visible(before)}>>{_visible(answer.text)}<<{_visible(after)}"
    return f"{body.rstrip(chr(10))}\n{summary(answer)}\n"


def summary(answer: Answer) -> str:
    """Returns one line: what is shown and how likely it is, what ended it, passes of the model and time."""
    infill = answer.infill
    score, end = f"score {infill.score:.2f}", _ENDS.get(infill.finish)
    if answer.completion:
        parts = [f"{'unlikely' if infill.unlikely else 'shown'}: {score}", end]
    elif infill.text:
        parts = ["nothing to show: the best candidate is too unlikely", score, end]
    else:
        parts = [f"nothing to show: {end or 'no candidate'}"]
    parts += [f"{infill.forwards} passes of the model", f"{answer.wall_ms:.0f} ms"]
    return f"[{', '.join(filter(None, parts))}]"


def _last_lines(text: str) -> str:
    return "\n".join(normalize_newlines(text).split("\n")[-_LINES_AROUND - 1 :])


def _first_lines(text: str) -> str:
    return "\n".join(normalize_newlines(text).split("\n")[: _LINES_AROUND + 1])


def _visible(text: str) -> str:
    """Returns the text without control characters that would act on a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
