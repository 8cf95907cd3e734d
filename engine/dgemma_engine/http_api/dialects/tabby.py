"""Tabby's server: `/v1/completions` with `segments`, `/v1/health`, `/v1/events`. It has no streams.

`/v1/health` is one object for llama.cpp's clients, too, which read its `status` only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from starlette.responses import Response

from dgemma_engine import __version__
from dgemma_engine.http_api.completions.diff_edits import edits_of
from dgemma_engine.http_api.completions.question import Question
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import error_object, json_response
from dgemma_engine.protocol.messages import Snippet

# As Tabby names a language that its editor did not tell.
_UNKNOWN_LANGUAGE = "unknown"
_NEXT_EDIT = "next_edit_suggestion"
# Its editors let the user cycle through them.
_NUM_CHOICES = 3


class TabbySnippet(Struct, kw_only=True):
    """A declaration, or text of another file with a `score`, best first."""

    filepath: str
    body: str


class EditHistory(Struct, kw_only=True):
    """Recent edits of the user."""

    edits_diff: str | None = None


class Segments(Struct, kw_only=True):
    """Text around the cursor and elsewhere. The clipboard is not read: its text was not meant for completion."""

    prefix: str
    suffix: str | None = None
    filepath: str | None = None
    declarations: list[TabbySnippet] | None = None
    relevant_snippets_from_changed_files: list[TabbySnippet] | None = None
    relevant_snippets_from_recently_opened_files: list[TabbySnippet] | None = None
    edit_history: EditHistory | None = None


class TabbyBody(Struct, kw_only=True):
    """The body of a completion; it has no limit and no stop words of its own."""

    segments: Segments
    language: str | None = None
    seed: int | None = None
    mode: str | None = None


class TabbyChoice(Struct, kw_only=True):
    """One text."""

    index: int
    text: str


class TabbyCompletion(Struct, kw_only=True):
    """The answer."""

    id: str
    choices: list[TabbyChoice]
    mode: str


class TabbyEvent(Struct, kw_only=True):
    """The fate of a completion in the editor."""

    type: str
    completion_id: str | None = None
    choice_index: int | None = None
    view_id: str | None = None
    elapsed: float | None = None


class TabbyVersion(Struct, kw_only=True, frozen=True):
    """The server's version."""

    git_describe: str = __version__
    git_sha: str = ""
    build_date: str = ""
    build_timestamp: str = ""


class TabbyHealth(Struct, kw_only=True):
    """Asked for at a client's start; of the machine it holds only the kind of device."""

    model: str
    device: str
    status: str = "ok"
    arch: str = ""
    cpu_info: str = ""
    cpu_count: int = 0
    cuda_devices: tuple[str, ...] = ()
    models: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    version: TabbyVersion = TabbyVersion()


class ServerSetting(Struct, kw_only=True):
    """Asked for after the health."""

    disable_client_side_telemetry: bool = True


class TabbyDialect:
    """Tabby's server."""

    name = "tabby"

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        return (
            Operation(
                method="POST",
                paths=("/v1/completions",),
                run=self._complete,
                summary="the text between the segments",
                body=TabbyBody,
                answer=TabbyCompletion,
                claims=_has_segments,
            ),
            Operation(
                method="GET",
                paths=("/v1/health",),
                run=self._health,
                summary="whether the model is loaded, and its name",
                answer=TabbyHealth,
                needs_key=False,
            ),
            Operation(
                method="POST",
                paths=("/v1/events",),
                run=self._event,
                summary="what became of a completion; checked, and not kept",
                body=TabbyEvent,
            ),
            Operation(
                method="GET",
                paths=("/v1beta/server_setting",),
                run=self._setting,
                summary="what clients may send elsewhere: nothing",
                answer=ServerSetting,
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {"message", "type", "code", "param"}}`; clients read the status only."""
        return error_object(refusal, code=refusal.status)

    async def _complete(self, call: Call) -> Response:
        body = call.read(TabbyBody)
        mode = body.mode or "standard"
        name = f"cmpl-{next(self._ids)}"
        if mode == _NEXT_EDIT:
            # Its answer rewrites a region, which the engine has no mode for.
            return json_response(TabbyCompletion(id=name, choices=[TabbyChoice(index=0, text="")], mode=mode))
        answer = await call.answer(_question(body))
        choices = [TabbyChoice(index=index, text=one.text) for index, one in enumerate(answer.texts)]
        return json_response(TabbyCompletion(id=name, choices=choices, mode=mode))

    async def _health(self, call: Call) -> Response:
        status = await call.service.about()
        return json_response(TabbyHealth(model=await call.service.model_name(), device=status.device.partition(":")[0]))

    async def _event(self, call: Call) -> Response:
        call.read(TabbyEvent)
        return Response()

    async def _setting(self, _call: Call) -> Response:
        return json_response(ServerSetting())


def _has_segments(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a body on the path that OpenAI's API has, too, is of Tabby's: an object `segments` and no `prompt`."""
    return "prompt" not in fields and bytes(fields.get("segments", b"")).startswith(b"{")


def _question(body: TabbyBody) -> Question:
    segments = body.segments
    language, path = body.language or "", segments.filepath or ""
    opened = segments.relevant_snippets_from_recently_opened_files or ()
    changed = segments.relevant_snippets_from_changed_files or ()
    declared = segments.declarations or ()
    # Tabby sends the best first, ours stands last; a declaration of a name at the cursor says most.
    found = [*reversed(opened), *reversed(changed), *reversed(declared)]
    history = segments.edit_history
    return Question(
        prefix=segments.prefix,
        suffix=segments.suffix or "",
        path=path,
        language="" if language == _UNKNOWN_LANGUAGE else language,
        snippets=tuple(Snippet(path=one.filepath, text=one.body) for one in found if one.body),
        edits=edits_of(path, history.edits_diff or "") if history else (),
        num_candidates=_NUM_CHOICES,
        seed=body.seed or 0,
    )
