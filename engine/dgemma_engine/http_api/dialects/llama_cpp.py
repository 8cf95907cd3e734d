"""llama.cpp's server: `/infill`, `/completion`, `/props`, `/health`, and the model listing that OpenAI's clients read.

A stream is sent whole once the answer is final.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import msgspec
from starlette.responses import Response

from dgemma_engine import __version__
from dgemma_engine.http_api.completions.fim_prompt import read_prompt
from dgemma_engine.http_api.completions.question import (
    CONTEXT_TOKENS,
    Answer,
    AnswerText,
    Question,
    StopKind,
    stop_words,
)
from dgemma_engine.http_api.dialects.llama_cpp_messages import (
    Health,
    LlamaCompletion,
    LlamaCompletionBody,
    LlamaInfillBody,
    Models,
    Props,
    Sampling,
    StopType,
    Timings,
)
from dgemma_engine.http_api.dialects.model_entries import model_entry, ollama_like_entry
from dgemma_engine.http_api.operation import Call, Operation
from dgemma_engine.http_api.refusal import Refusal
from dgemma_engine.http_api.responses import error_object, event, event_response, json_response
from dgemma_engine.protocol.messages import Snippet

# The reference server's limit excludes the reading of the prompt and cuts no first line; a short one here must not.
_LEAST_DEADLINE_MS = 1_000.0
_STOP_TYPES: dict[StopKind, StopType] = {StopKind.END: "eos", StopKind.WORD: "word", StopKind.LIMIT: "limit"}


# Several texts are a list; the fields that a client chooses with `response_fields` are an object of those.
_ANSWERS = (LlamaCompletion, list[LlamaCompletion], dict[str, Any], list[dict[str, Any]])


class LlamaCppDialect:
    """llama.cpp's server."""

    name = "llama.cpp"

    def operations(self) -> Sequence[Operation]:
        """Returns what it answers."""
        native = Operation(
            method="POST",
            paths=("/completion",),
            run=self._complete,
            summary="the text after a prompt, or at the middle token of a template",
            body=LlamaCompletionBody,
            answer=_ANSWERS,
        )
        return (
            Operation(
                method="POST",
                paths=("/infill",),
                run=self._infill,
                summary="the text between a prefix and a suffix",
                body=LlamaInfillBody,
                answer=_ANSWERS,
            ),
            native,
            replace(native, paths=("/completions",), claims=_is_native),
            Operation(
                method="GET",
                paths=("/health", "/ready"),
                run=self._health,
                summary="whether the model is loaded",
                answer=Health,
                needs_key=False,
            ),
            Operation(method="GET", paths=("/props",), run=self._props, summary="the server", answer=Props),
            Operation(
                method="GET", paths=("/v1/models", "/models"), run=self._models, summary="the model", answer=Models
            ),
        )

    def error(self, refusal: Refusal) -> Response:
        """Returns `{"error": {"code", "message", "type", "param"}}`; `code` is the status."""
        return error_object(refusal, code=refusal.status)

    async def _infill(self, call: Call) -> Response:
        body = call.read(LlamaInfillBody)
        prefix = body.input_prefix + (body.prompt or "")
        snippets = tuple(Snippet(path=one.filename or "", text=one.text) for one in body.input_extra or () if one.text)
        question = _question(body, prefix, body.input_suffix, snippets=snippets)
        return await _answered(call, body, question)

    async def _complete(self, call: Call) -> Response:
        body = call.read(LlamaCompletionBody)
        found = read_prompt(body.prompt, None)
        question = _question(body, found.prefix, found.suffix, path=found.path, snippets=found.snippets)
        return await _answered(call, body, question)

    async def _health(self, call: Call) -> Response:
        await call.service.about()
        return json_response(Health())

    async def _props(self, call: Call) -> Response:
        model = await call.service.model_name()
        settings = {"n_ctx": CONTEXT_TOKENS, "params": {"n_predict": call.service.settings.max_middle_tokens}}
        return json_response(
            Props(
                default_generation_settings=settings,
                total_slots=1,
                model_path=model,
                model_alias=model,
                build_info=f"dgemma-engine {__version__}",
            )
        )

    async def _models(self, call: Call) -> Response:
        model = await call.service.model_name()
        return json_response(Models(data=[model_entry(model)], models=[ollama_like_entry(model)]))


def _is_native(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a body on the path that both APIs have is of llama.cpp's own."""
    return "n_predict" in fields


def _question(
    body: Sampling, prefix: str, suffix: str, *, path: str = "", snippets: tuple[Snippet, ...] = ()
) -> Question:
    given = (body.n_predict, body.max_tokens, body.max_completion_tokens)
    max_tokens = next((one for one in given if one is not None), -1)
    limit_ms = body.t_max_predict_ms or 0
    return Question(
        prefix=prefix,
        suffix=suffix,
        path=path,
        snippets=snippets,
        max_tokens=None if max_tokens < 0 else max_tokens,
        num_candidates=body.n_cmpl or body.n or 1,
        stop=stop_words(body.stop),
        seed=body.seed or 0,
        deadline_ms=max(limit_ms, _LEAST_DEADLINE_MS) if limit_ms > 0 else None,
    )


async def _answered(call: Call, body: Sampling, question: Question) -> Response:
    answer = await call.answer(question)
    found = [_completion(answer, one, index) for index, one in enumerate(answer.texts)]
    if body.stream:
        return event_response([event(piece) for one in found for piece in _pieces(one)])
    # A client that names a place in the answer gets a flat key of that name; an empty list is the whole answer.
    fields = body.response_fields
    shown: list[Any] = [_chosen(one, fields) for one in found] if fields else list(found)
    is_list = (body.n_cmpl or body.n or 1) > 1
    return json_response(shown if is_list else shown[0])


def _completion(answer: Answer, text: AnswerText, index: int) -> LlamaCompletion:
    all_n, cache_n, predicted_n = answer.num_prompt_tokens, answer.num_cached_tokens, text.num_tokens
    prompt_n = all_n - cache_n
    prompt_ms, predicted_ms = answer.prompt_ms, answer.middle_ms
    return LlamaCompletion(
        content=text.text,
        index=index,
        model=answer.model,
        prompt="",
        tokens_predicted=predicted_n,
        tokens_evaluated=all_n,
        tokens_cached=all_n + predicted_n,
        has_new_line="\n" in text.text,
        stop_type=_STOP_TYPES[text.stop],
        stopping_word=text.stop_word,
        timings=Timings(
            cache_n=cache_n,
            prompt_n=prompt_n,
            prompt_ms=prompt_ms,
            prompt_per_token_ms=_ratio(prompt_ms, prompt_n),
            prompt_per_second=_ratio(prompt_n * 1_000, prompt_ms),
            predicted_n=predicted_n,
            predicted_ms=predicted_ms,
            predicted_per_token_ms=_ratio(predicted_ms, predicted_n),
            predicted_per_second=_ratio(predicted_n * 1_000, predicted_ms),
        ),
    )


def _ratio(amount: float, per: float) -> float:
    return amount / per if per else 0.0


def _pieces(whole: LlamaCompletion) -> list[dict[str, Any]]:
    """Returns the text, and then the end, which has everything but the text."""
    piece = {
        "index": whole.index,
        "content": whole.content,
        "tokens": [],
        "stop": False,
        "id_slot": whole.id_slot,
        "tokens_predicted": whole.tokens_predicted,
        "tokens_evaluated": whole.tokens_evaluated,
    }
    return [piece, msgspec.to_builtins(whole) | {"content": ""}]


def _chosen(whole: LlamaCompletion, places: Sequence[str]) -> dict[str, Any]:
    fields = msgspec.to_builtins(whole)
    found: dict[str, Any] = {}
    for place in places:
        value: Any = fields
        for name in place.split("/"):
            here = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            value = here.get(name, msgspec.UNSET)
        if value is not msgspec.UNSET:
            found[place] = value
    return found
