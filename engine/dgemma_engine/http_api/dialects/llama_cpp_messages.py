"""Bodies and answers of llama.cpp's server, as far as clients send and read them; `null` counts as absent in a body.

In an answer `content` stands without a blank after its colon: some clients look for that in the raw text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

StopType = Literal["none", "eos", "limit", "word"]
_Tokens = Annotated[int, Meta(ge=-1, le=2**31)]
_Count = Annotated[int, Meta(ge=1, le=128)]


class Extra(Struct, kw_only=True):
    """One of `input_extra`: text of another file."""

    text: str | None = None
    filename: str | None = None


class Sampling(Struct, kw_only=True):
    """Fields that both paths have."""

    n_predict: _Tokens | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    n_cmpl: _Count | None = None
    n: _Count | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    t_max_predict_ms: Annotated[float, Meta(ge=-1, le=2**31)] | None = None
    response_fields: list[str] | None = None
    stream: bool | None = None


class LlamaInfillBody(Sampling, kw_only=True):
    """The body of `/infill`; the text before the cursor is `input_prefix` and then `prompt`."""

    input_prefix: str
    input_suffix: str
    prompt: str | None = None
    input_extra: list[Extra] | None = None


class LlamaCompletionBody(Sampling, kw_only=True):
    """The body of `/completion`; a fill-in-the-middle template in the prompt is read."""

    prompt: str


class Timings(Struct, kw_only=True):
    """Tokens of the prompt: those known from an earlier request, and those that were encoded for this one."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class LlamaCompletion(Struct, kw_only=True):
    """One text; with `n_cmpl` above 1 the answer is a list of these."""

    content: str
    index: int
    model: str
    prompt: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    has_new_line: bool
    stop_type: StopType
    stopping_word: str
    timings: Timings
    generation_settings: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    tokens: list[int] = msgspec.field(default_factory=list[int])
    id_slot: int = 0
    stop: bool = True
    truncated: bool = False


class Health(Struct, kw_only=True):
    """Only what every client asks for: nothing of the machine."""

    status: Literal["ok"] = "ok"


class Props(Struct, kw_only=True):
    """What clients read of the server; `model_path` holds the model's name, never a path."""

    default_generation_settings: dict[str, Any]
    total_slots: int
    model_path: str
    model_alias: str
    build_info: str
    model_ftype: str = ""
    chat_template: str = ""
    chat_template_caps: dict[str, bool] = msgspec.field(default_factory=dict[str, bool])
    bos_token: str = ""
    eos_token: str = ""
    modalities: dict[str, bool] = msgspec.field(
        default_factory=lambda: dict.fromkeys(("vision", "video", "audio"), False)
    )
    endpoint_slots: bool = False
    endpoint_props: bool = False
    endpoint_metrics: bool = False
    ui: bool = False
    ui_settings: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    is_sleeping: bool = False
    cors_proxy_enabled: bool = False


class Models(Struct, kw_only=True):
    """OpenAI's `data`, and `models` as llama.cpp has it besides."""

    data: list[dict[str, Any]]
    models: list[dict[str, Any]]
    object: Literal["list"] = "list"
