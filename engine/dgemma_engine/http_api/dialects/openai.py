"""OpenAI's `POST /v1/completions`, with `suffix` or with a fill-in-the-middle template in the prompt.

A stream is sent whole once the answer is final: text of a canvas that still changes cannot be appended.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from dgemma_engine.http_api.completions.fim_prompt import read_prompt
from dgemma_engine.http_api.completions.question import Answer, AnswerText, Question, StopKind, stop_words
from dgemma_engine.http_api.dialects.model_entries import model_entry
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import DONE, error_object, event, event_response, json_response

_Tokens = Annotated[int, Meta(ge=0, le=2**31)]
_PATHS = ("/v1/completions", "/beta/completions", "/completions", "/v1/engines/copilot-codex/completions")


class StreamOptions(Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class CompletionBody(Struct, kw_only=True):
    """What clients send; sampling parameters have no counterpart here and are ignored, as are other unknown fields."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]
    model: str | None = None
    suffix: str | None = None
    max_tokens: _Tokens | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    stream: bool | None = None
    echo: bool | None = None
    stream_options: StreamOptions | None = None


class Choice(Struct, kw_only=True):
    """One text."""

    text: str
    index: int
    finish_reason: Literal["stop", "length"] | None
    logprobs: None = None


class Usage(Struct, kw_only=True):
    """Tokens as the engine counts them; those of the prompt are estimated where no model ran: bytes over four."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Struct, kw_only=True, omit_defaults=False):
    """The answer, and each event of a stream; `usage` is null in all events but the last."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None
    object: Literal["text_completion"] = "text_completion"


class OpenAiDialect:
    """OpenAI's completions."""

    name = "openai"

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        return (
            Operation(
                method="POST",
                paths=_PATHS,
                run=self._complete,
                summary="the text between a prompt and a suffix, or at the middle token of a template",
                body=CompletionBody,
                answer=Completion,
            ),
            Operation(
                method="GET",
                paths=("/v1/models/{model}", "/models/{model}"),
                run=self._model,
                summary="the model, under its name",
                answer=dict[str, Any],
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {"message", "type", "code", "param"}}`; `code` is null, as OpenAI's mostly is."""
        return error_object(refusal, code=None)

    async def _model(self, call: Call) -> Response:
        model = await call.service.model_name()
        if call.parameters["model"] != model:
            # Its name is not repeated: it may be a path of the client's machine.
            refusal = Refusal(
                status=404, message="There is no model of this name; GET /v1/models lists the one there is."
            )
            return error_object(refusal, code="model_not_found")
        return json_response(model_entry(model))

    async def _complete(self, call: Call) -> Response:
        body = call.read(CompletionBody)
        question = _question(body)
        answer = await call.answer(question)
        echoed = _prompt(body) if body.echo else ""
        choices = [
            Choice(text=echoed + one.text, index=index, finish_reason=finish_reason(one))
            for index, one in enumerate(answer.texts)
        ]
        whole = Completion(
            id=f"cmpl-{next(self._ids)}",
            created=int(time.time()),
            model=answer.model,
            choices=choices,
            usage=usage_of(answer),
        )
        if not body.stream:
            return json_response(whole)
        return event_response(
            _events(whole, with_usage=bool(body.stream_options and body.stream_options.include_usage))
        )


def _question(body: CompletionBody) -> Question:
    found = read_prompt(_prompt(body), body.suffix)
    return Question(
        prefix=found.prefix,
        suffix=found.suffix,
        path=found.path,
        snippets=found.snippets,
        max_tokens=body.max_tokens,
        num_candidates=body.n or 1,
        stop=stop_words(body.stop),
        seed=body.seed or 0,
    )


def _prompt(body: CompletionBody) -> str:
    return body.prompt if isinstance(body.prompt, str) else body.prompt[0]


def finish_reason(text: AnswerText) -> Literal["stop", "length"]:
    """Returns why a text ends where it does, as OpenAI and Mistral call it."""
    return "length" if text.stop is StopKind.LIMIT else "stop"


def usage_of(answer: Answer) -> Usage:
    """Returns the counts of an answer."""
    prompt, middle = answer.num_prompt_tokens, answer.num_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=middle, total_tokens=prompt + middle)


def _events(whole: Completion, *, with_usage: bool) -> list[bytes]:
    """Returns an event for each text and its end: some clients see no other end than the reason in a choice."""
    events: list[bytes] = []
    for choice in whole.choices:
        text = Choice(text=choice.text, index=choice.index, finish_reason=None)
        end = Choice(text="", index=choice.index, finish_reason=choice.finish_reason)
        events += [event(_event_of(whole, [one], None)) for one in (text, end)]
    if with_usage:
        events.append(event(_event_of(whole, [], whole.usage)))
    return [*events, DONE]


def _event_of(whole: Completion, choices: list[Choice], usage: Usage | None) -> Completion:
    return Completion(id=whole.id, created=whole.created, model=whole.model, choices=choices, usage=usage)
