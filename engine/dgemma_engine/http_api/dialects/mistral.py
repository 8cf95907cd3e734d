"""`POST /v1/fim/completions` as Mistral and Inception define it, which share the path.

Mistral's clients read `message` or `delta` of a choice, Inception's `text`: each choice has both. A stream is sent
whole once the answer is final: a draft of a canvas may change up to the end, and clients can only append.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from dgemma_engine.http_api.completions.fim_prompt import read_prompt, with_file_markers
from dgemma_engine.http_api.completions.question import Question, stop_words
from dgemma_engine.http_api.dialects.openai import Usage, finish_reason, usage_of
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import DONE, error_object, event, event_response, json_response

# The second for clients whose base address has no version.
_PATHS = ("/v1/fim/completions", "/fim/completions")


class FimBody(Struct, kw_only=True):
    """What clients send; sampling parameters, `min_tokens` and `metadata` have no counterpart here and are ignored."""

    model: str
    prompt: str
    suffix: str | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    stop: str | list[str] | None = None
    random_seed: int | None = None
    stream: bool | None = None


class FimMessage(Struct, kw_only=True):
    """The text as a message of a chat, or a part of it."""

    content: str
    role: Literal["assistant"] = "assistant"


class FimChoice(Struct, kw_only=True):
    """The text of an answer that is no stream."""

    text: str
    message: FimMessage
    finish_reason: Literal["stop", "length"]
    index: int = 0


class FimCompletion(Struct, kw_only=True):
    """An answer that is no stream."""

    id: str
    created: int
    model: str
    choices: list[FimChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class FimDelta(Struct, kw_only=True):
    """The text in one event of a stream."""

    text: str
    delta: FimMessage
    finish_reason: Literal["stop", "length"] | None
    index: int = 0


class FimChunk(Struct, kw_only=True):
    """One event of a stream; only the last one has `usage`."""

    id: str
    created: int
    model: str
    choices: list[FimDelta]
    usage: Usage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class MistralDialect:
    """Mistral's and Inception's fill-in-the-middle completions."""

    name = "mistral"

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        return (
            Operation(
                method="POST",
                paths=_PATHS,
                run=self._complete,
                summary="the text between a prompt and a suffix",
                body=FimBody,
                answer=FimCompletion,
                invalid_status=422,
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {"message", "type", "code", "param"}}`.

        With 422 it also has `detail`, a list of `{"loc", "msg", "type"}`: Mistral's SDK raises a typed error for that.
        """
        if refusal.status != 422:
            return error_object(refusal, code=refusal.status)
        places = refusal.field.split(".") if refusal.field else []
        detail = {"loc": ["body", *places], "msg": refusal.message, "type": "value_error"}
        return error_object(refusal, code=refusal.status, further={"detail": [detail]})

    async def _complete(self, call: Call) -> Response:
        body = call.read(FimBody)
        answer = await call.answer(_question(body))
        text, reason = answer.best.text, finish_reason(answer.best)
        shared: dict[str, Any] = {
            "id": f"fim-{next(self._ids)}",
            "created": int(time.time()),
            "model": answer.model,
        }
        if not body.stream:
            choice = FimChoice(text=text, message=FimMessage(content=text), finish_reason=reason)
            return json_response(FimCompletion(choices=[choice], usage=usage_of(answer), **shared))
        whole = FimDelta(text=text, delta=FimMessage(content=text), finish_reason=None)
        end = FimDelta(text="", delta=FimMessage(content=""), finish_reason=reason)
        last = FimChunk(choices=[end], usage=usage_of(answer), **shared)
        return event_response([event(FimChunk(choices=[whole], **shared)), event(last), DONE])


def _question(body: FimBody) -> Question:
    found = with_file_markers(read_prompt(body.prompt, body.suffix))
    return Question(
        prefix=found.prefix,
        suffix=found.suffix,
        path=found.path,
        snippets=found.snippets,
        max_tokens=body.max_tokens,
        stop=stop_words(body.stop),
        seed=body.random_seed or 0,
    )
