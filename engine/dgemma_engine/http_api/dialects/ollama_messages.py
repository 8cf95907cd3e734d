"""Bodies and answers of Ollama's API, as far as clients send and read them; `null` counts as absent in a body."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

DoneReason = Literal["stop", "length", "load", "unload"]


class GenerateOptions(Struct, kw_only=True):
    """`options`; sampling parameters and the size of the context have no counterpart here and are ignored."""

    num_predict: Annotated[int, Meta(ge=-(2**31), le=2**31)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None


class GenerateBody(Struct, kw_only=True):
    """The body of `/api/generate`; a stream is the default. One client puts `stop` beside `options`."""

    model: str
    prompt: str | None = None
    suffix: str | None = None
    raw: bool | None = None
    stream: bool | None = None
    options: GenerateOptions | None = None
    stop: str | list[str] | None = None
    keep_alive: float | str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None


class GeneratePiece(Struct, kw_only=True):
    """A line of a stream that is not the last."""

    model: str
    created_at: str
    response: str
    done: Literal[False] = False


class Generated(Struct, kw_only=True):
    """The last line of a stream, or the whole answer; durations in nanoseconds."""

    model: str
    created_at: str
    response: str
    done_reason: DoneReason
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    done: Literal[True] = True


class ShowBody(Struct, kw_only=True):
    """The body of `/api/show`: one of the two names."""

    model: str | None = None
    name: str | None = None


class ModelDetails(Struct, kw_only=True, frozen=True):
    """Facts of a model's file: empty, since no file of the machine is named."""

    parent_model: str = ""
    format: str = ""
    family: str = "dgemma"
    families: tuple[str, ...] = ("dgemma",)
    parameter_size: str = ""
    quantization_level: str = ""


class Shown(Struct, kw_only=True):
    """The model: clients read from `template` and `capabilities` that it takes a suffix."""

    modified_at: str
    model_info: dict[str, Any]
    details: ModelDetails = ModelDetails()
    template: str = "{{ .Prompt }}{{ .Suffix }}"
    capabilities: tuple[str, ...] = ("completion", "insert")
    parameters: str = ""
    license: str = ""
    modelfile: str = ""


class ListedModel(Struct, kw_only=True):
    """The one model, in `/api/tags`."""

    name: str
    model: str
    modified_at: str
    digest: str
    size: int = 0
    details: ModelDetails = ModelDetails()


class Tags(Struct, kw_only=True):
    """The models that are there."""

    models: list[ListedModel]


class RunningModel(ListedModel, kw_only=True):
    """The one model, in `/api/ps`."""

    expires_at: str
    size_vram: int
    context_length: int


class Running(Struct, kw_only=True):
    """The models that are loaded."""

    models: list[RunningModel]


class Version(Struct, kw_only=True):
    """The server's version."""

    version: str
