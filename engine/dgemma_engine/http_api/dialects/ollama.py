"""Ollama's server: `/api/generate`, `/api/show`, `/api/tags`, `/api/ps`, `/api/version`.

A stream, which is the default, is sent whole once the answer is final: a draft of a canvas may change up to the end,
and clients can only append.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.responses import PlainTextResponse, Response

from dgemma_engine import __version__
from dgemma_engine.http_api.completions.fim_prompt import read_prompt
from dgemma_engine.http_api.completions.question import CONTEXT_TOKENS, Answer, Question, StopKind, stop_words
from dgemma_engine.http_api.dialects.ollama_messages import (
    DoneReason,
    GenerateBody,
    Generated,
    GenerateOptions,
    GeneratePiece,
    ListedModel,
    Running,
    RunningModel,
    ShowBody,
    Shown,
    Tags,
    Version,
)
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import json_response, lines_response

_ARCHITECTURE = "dgemma"
# The engine's own settings say how long a model stays.
_NEVER = "9999-12-31T23:59:59Z"
_NS_PER_MS = 1_000_000


class OllamaDialect:
    """Ollama's server. Its `/v1/completions` is OpenAI's."""

    name = "ollama"

    def __init__(self) -> None:
        self._since = _now()

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        return (
            Operation(
                method="POST",
                paths=("/api/generate",),
                run=self._generate,
                summary="the text between a prompt and a suffix, or at the middle token of a template",
                body=GenerateBody,
                answer=Generated,
                stream_type="application/x-ndjson",
            ),
            Operation(
                method="POST", paths=("/api/show",), run=self._show, summary="the model", body=ShowBody, answer=Shown
            ),
            Operation(method="GET", paths=("/api/tags",), run=self._tags, summary="the model", answer=Tags),
            Operation(method="GET", paths=("/api/ps",), run=self._running, summary="the model", answer=Running),
            Operation(method="GET", paths=("/api/version",), run=self._version, summary="the server", answer=Version),
            Operation(method="GET", paths=("/",), run=self._greet, summary="a line of text"),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": "text"}`."""
        return json_response({"error": refusal.message}, status=refusal.status, headers=refusal.headers)

    async def _generate(self, call: Call) -> Response:
        body = call.read(GenerateBody)
        if body.raw and (body.template or body.system or body.context):
            raise Refusal(status=400, message="raw mode takes no template, system or context.")
        if not body.prompt:
            # A client that loads or unloads the model; the engine ends by its own settings only.
            reason: DoneReason = "unload" if _is_zero(body.keep_alive) else "load"
            model = await call.service.model_name()
            return json_response(Generated(model=model, created_at=_now(), response="", done_reason=reason))
        answer = await call.answer(_question(body, body.prompt))
        text = answer.best.text
        if body.stream is False:
            return json_response(_generated(answer, text))
        piece = GeneratePiece(model=answer.model, created_at=_now(), response=text)
        return lines_response([piece, _generated(answer, "")])

    async def _show(self, call: Call) -> Response:
        body = call.read(ShowBody)
        if not (body.model or body.name):
            raise Refusal(status=400, message="model is required", field="model")
        # Any name is accepted: there is one model.
        model = await call.service.model_name()
        info = {
            "general.architecture": _ARCHITECTURE,
            "general.basename": model,
            f"{_ARCHITECTURE}.context_length": CONTEXT_TOKENS,
        }
        return json_response(Shown(modified_at=self._since, model_info=info))

    async def _tags(self, call: Call) -> Response:
        model = await call.service.model_name()
        listed = ListedModel(name=model, model=model, modified_at=self._since, digest=_digest(model))
        return json_response(Tags(models=[listed]))

    async def _running(self, call: Call) -> Response:
        model = await call.service.model_name()
        running = RunningModel(
            name=model,
            model=model,
            modified_at=self._since,
            digest=_digest(model),
            expires_at=_NEVER,
            size_vram=0,
            context_length=CONTEXT_TOKENS,
        )
        return json_response(Running(models=[running]))

    async def _version(self, _call: Call) -> Response:
        return json_response(Version(version=__version__))

    async def _greet(self, _call: Call) -> Response:
        # Clients look for this very line.
        return PlainTextResponse("Ollama is running")


def _question(body: GenerateBody, prompt: str) -> Question:
    options = body.options or GenerateOptions()
    found = read_prompt(prompt, body.suffix)
    most = options.num_predict or 0
    return Question(
        prefix=found.prefix,
        suffix=found.suffix,
        path=found.path,
        snippets=found.snippets,
        # 0 and less are no limit.
        max_tokens=most if most > 0 else None,
        stop=stop_words(options.stop) + stop_words(body.stop),
        seed=options.seed or 0,
    )


def _generated(answer: Answer, text: str) -> Generated:
    prompt_ns, middle_ns = (round(one * _NS_PER_MS) for one in (answer.prompt_ms, answer.middle_ms))
    return Generated(
        model=answer.model,
        created_at=_now(),
        response=text,
        done_reason="length" if answer.best.stop is StopKind.LIMIT else "stop",
        total_duration=prompt_ns + middle_ns,
        prompt_eval_count=answer.num_prompt_tokens,
        prompt_eval_duration=prompt_ns,
        eval_count=answer.best.num_tokens,
        eval_duration=middle_ns,
    )


def _is_zero(keep_alive: float | str | None) -> bool:
    """Whether a number of seconds, or a duration such as `5m`, is nothing."""
    if isinstance(keep_alive, str):
        return keep_alive.rstrip("smh") == "0"
    return keep_alive == 0


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _digest(model: str) -> str:
    """Returns 64 digits that stand for a model: clients shorten and compare them, and read nothing else from them."""
    return hashlib.sha256(model.encode()).hexdigest()
