"""Everything that the checks of `dgemma-lsp doctor` judge, as plain values: no input or output here."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.status_messages import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """The engine that the settings name.

    Attributes:
        refusal: why the runtime directory cannot be used; empty where it can be.
        place: the runtime directory with its mode, for a person.
        log: its log.
        problem: why an engine that runs cannot be used, with the remedy after a semicolon; empty where it can be.
        replaceable: whether the next completion replaces an engine of an older version.
        status: its answer; None where none answers.
        start_command: the command that starts it.
        stop_command: the command that ends it, and no other engine.
        others: engines of other models or devices in the same directory.
    """

    refusal: str = ""
    place: str = ""
    log: str = ""
    problem: str = ""
    replaceable: bool = False
    status: Status | None = None
    start_command: str = "dgemma-engine start"
    stop_command: str = "dgemma-engine stop"
    others: tuple[OtherEngine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherEngine:
    """An engine that runs in the same directory for another model or device.

    Attributes:
        pid: its process id.
        stop_command: the command that ends it.
        version: of the package that it runs; empty where it does not answer.
        model: the model's name; empty where it does not answer.
        memory_bytes: its resident memory; 0 where it does not answer.
    """

    pid: int
    stop_command: str
    version: str = ""
    model: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """The accelerator.

    Attributes:
        driver: version of the NVIDIA driver, such as 535.104.05; empty where none is loaded.
        names: of the cards.
        torch_cuda: CUDA version that torch is built for, such as 12.8; empty for none.
        other: why a card of another maker is not used; empty where there is none.
    """

    driver: str = ""
    names: tuple[str, ...] = ()
    torch_cuda: str = ""
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFacts:
    """A folder that is written to.

    Attributes:
        path: the folder, or what exists of it.
        free_bytes: what a user may still write on its disk.
        problem: why it cannot be written; empty where it can be.
    """

    path: str
    free_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The model folder of the settings.

    Attributes:
        name: of the model that runs.
        notice: that it has a new name, or stands in for the chosen one, with the remedy after a semicolon; else empty.
        problem: why it cannot be loaded, with the remedy after a semicolon; empty where none is known.
    """

    name: str
    notice: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts.

    Attributes:
        python: version and platform.
        versions: of installed packages by name; empty text where the version is unknown.
        missing: packages of the engine extra that are not installed.
        server_version: of dgemma-lsp.
        device: as the settings name it.
        engine: the engine of the settings.
        model: the model of the settings.
        gpu: the graphics cards and their driver.
        memory_bytes: of the machine: total and available.
        home: the user's home folder; None where there is none.
        runtime_disk: where the runtime directory is; None where it is refused.
        state_folder: where the statistics are.
        stats: the statistics file and since when it counts, for a person.
        stats_problem: why it cannot be read, with the remedy after a semicolon; empty where it can be.
    """

    python: str
    versions: dict[str, str]
    missing: tuple[str, ...]
    server_version: str
    device: str
    engine: EngineFacts
    model: ModelFacts
    gpu: GpuFacts
    memory_bytes: tuple[int, int]
    home: str | None
    runtime_disk: FolderFacts | None
    state_folder: FolderFacts
    stats: str
    stats_problem: str = ""
