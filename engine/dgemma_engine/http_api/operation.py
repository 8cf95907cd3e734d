"""The interface of the dialects: a `Dialect` lists `Operation`s, and each turns a `Call` into a response.

To add a dialect: one file in `dialects/` with a class that has `name`, `operations` and `error`, and one line in
`app.DIALECTS`. Two dialects may answer one path; `claims` tells their bodies apart.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, cast

import msgspec
from starlette.responses import Response

from dgemma_engine.http_api.completions.completion_service import CompletionService
from dgemma_engine.http_api.completions.question import Answer, Question
from dgemma_engine.http_api.json_bodies import decoded
from dgemma_engine.http_api.refusal import Refusal

_Body = TypeVar("_Body")
_MOST_REASON_CHARS = 200
_MISSING = re.compile(r"missing required field `(\w+)`")

InvalidStatus = Literal[400, 422]
"""Status of a body with a wrong field; Mistral's clients read 422."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that has passed the gate.

    Attributes:
        service: answers questions.
        caller: who asks.
        path: that was asked for.
        parameters: parts of the path by their names in `Operation.paths`.
        body: as it came; empty for GET.
        invalid_status: of a body that cannot be used.
    """

    service: CompletionService
    caller: str
    path: str
    parameters: Mapping[str, str]
    body: bytes
    invalid_status: InvalidStatus = 400

    def read(self, kind: type[_Body]) -> _Body:
        """Returns the body as a value of a `msgspec.Struct`; unknown fields are ignored, as all clients expect.

        A whole number may be written with a fraction of zero, as JSON Schema has it and some editors' JSON does.

        Raises:
            Refusal: it is no such value; the message names the field and repeats nothing of the body.
        """
        try:
            value = decoded(self.body, kind)
        except msgspec.ValidationError as error:
            try:
                value = msgspec.convert(_whole_numbers(decoded(self.body, object)), type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                # The first one names the field, also of a number that is out of range.
                message, field = _reason(error)
                raise Refusal(status=self.invalid_status, message=message, field=field) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refusal(status=self.invalid_status, message="The body is not JSON.") from None
        self._require_short_lists(value)
        return value

    async def answer(self, question: Question) -> Answer:
        """Answers a question; see `CompletionService.answer`."""
        return await self.service.answer(question, self.caller)

    def document_of(self, path: str, prefix: str, suffix: str) -> str:
        """Returns the key of a document; see `CompletionService.document_of`."""
        return self.service.document_of(self.caller, path, prefix, suffix)

    def _require_short_lists(self, value: object, place: str = "") -> None:
        """Raises `Refusal` where a list is too long, also one in a field of a field."""
        most = self.service.settings.max_items
        for name in getattr(value, "__struct_fields__", ()):
            field: object = getattr(value, name)
            if isinstance(field, list | tuple | dict) and len(cast("list[object]", field)) > most:
                message = f"The list {place}{name} has more than {most} entries."
                raise Refusal(status=self.invalid_status, message=message, field=f"{place}{name}")
            self._require_short_lists(field, f"{place}{name}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one dialect does on one or several paths.

    Attributes:
        method: of HTTP; a GET answers HEAD too.
        paths: where; a `{name}` at the end stands for the rest of the path, which the call has as a parameter.
        run: answers a call; its task is cancelled when the client closes the connection.
        summary: one line for the published document.
        body: type of the body, for the published document; None for GET.
        answer: type of the answer, likewise; a tuple where there are several; None is an answer that is no JSON.
        stream_type: media type of the answer to a body with `stream`.
        invalid_status: of a body that cannot be used.
        needs_key: whether a key is needed where keys are configured.
        claims: whether a body is this dialect's, where two share a path, by its fields as they came; the first that
            claims a body answers it. None takes what no other dialect claims.
    """

    method: Literal["GET", "POST"]
    paths: tuple[str, ...]
    run: Callable[[Call], Awaitable[Response]]
    summary: str
    body: type[Any] | None = None
    answer: Any = None
    stream_type: Literal["text/event-stream", "application/x-ndjson"] = "text/event-stream"
    invalid_status: InvalidStatus = 400
    needs_key: bool = True
    claims: Callable[[Mapping[str, msgspec.Raw]], bool] | None = None


class Dialect(Protocol):
    """One API that clients speak."""

    @property
    def name(self) -> str:
        """Its name in the published document."""
        ...

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        ...

    def error(self, refusal: Refusal) -> Response:
        """Returns a refusal in its shape."""
        ...


def _whole_numbers(value: Any) -> Any:
    """Returns decoded JSON with whole numbers in place of floats that are whole."""
    if isinstance(value, dict):
        return {name: _whole_numbers(one) for name, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_whole_numbers(one) for one in cast("list[Any]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _reason(error: msgspec.ValidationError) -> tuple[str, str]:
    """Returns the fault of a field and the field's place, without the value that the message quotes."""
    problem, at, place = str(error).partition(" - at ")
    problem = problem.partition("'")[0].strip()
    missing = _MISSING.search(problem)
    names = [place.strip("`").removeprefix("$").strip("."), missing[1] if missing else ""]
    return f"{problem}{at}{place}"[:_MOST_REASON_CHARS], ".".join(name for name in names if name)
