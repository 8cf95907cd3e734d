"""The status of an engine: what it is doing, memory, clients, counts and latencies."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from dgemma_engine.protocol.codec import Message

STATUS = "engine/status"
STOP = "engine/stop"
PROGRESS = "engine/progress"


class EngineState(StrEnum):
    """What the engine is doing."""

    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Message):
    """How far loading has come; sent to every client while the engine loads and once when its state changes.

    Attributes:
        state: what the engine is doing.
        percent: 0 to 100.
        message: one line for a person; for `FAILED` it names the cause and the remedy.
    """

    state: EngineState
    percent: int
    message: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ValueError(f"{self.percent=} must be between 0 and 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """Latency of one stage over the last requests, in milliseconds."""

    count: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Message):
    """What `dgemma-engine status` prints.

    Attributes:
        state: what the engine is doing.
        percent: load progress, 0 to 100.
        message: one line for a person; empty when all is well.
        model: name of the model.
        model_path: folder it was loaded from.
        device: `cpu`, `cuda:0`, ...
        pid: process id of the engine.
        version: version of the package the engine runs.
        uptime_s: seconds since the engine started.
        memory_bytes: resident memory of the engine's process.
        device_memory_bytes: memory held on the accelerator; 0 on a CPU.
        clients: connections now open.
        requests: requests so far per `Finish` value, and `fault`.
        denoising_steps: denoising steps since the start, over all requests.
        stages: latency per stage.
        number_format: in which number formats weights are read; empty until the model is loaded.
        compiled: whether the layers are compiled: by TorchScript for a small model on a processor, kernels on CUDA.
        uncompiled_reason: why a small model on a processor runs uncompiled, which takes longer; empty otherwise.
        adapters: of each repository whose adapter was asked for since the start, why the model answers without it;
            empty where the adapter takes part.
    """

    state: EngineState
    percent: int
    message: str
    model: str
    model_path: str
    device: str
    pid: int
    version: str
    uptime_s: float
    memory_bytes: int
    device_memory_bytes: int
    clients: int
    requests: dict[str, int]
    denoising_steps: int
    stages: dict[str, StageTimes]
    number_format: str = ""
    compiled: bool = False
    uncompiled_reason: str = ""
    adapters: dict[str, str] = field(default_factory=dict[str, str])
