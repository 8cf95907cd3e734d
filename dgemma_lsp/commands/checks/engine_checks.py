"""Facts about the engine and its model -> findings. Pure."""

from __future__ import annotations

from dgemma_engine.protocol.status_messages import EngineState, Status

from dgemma_lsp.commands.checks.facts import Facts, OtherEngine
from dgemma_lsp.commands.checks.finding import Finding, Severity

_INSTALL = "pip install 'dgemma-lsp[engine]'"
_RESTART = "the next completion starts the version of this server"
_GIB = 1 << 30


def check_engine_packages(facts: Facts) -> Finding:
    """Whether the packages that the engine needs are installed; only a warning while an engine runs."""
    name = "engine extra"
    if facts.missing:
        verdict = Severity.FAIL if facts.engine.status is None else Severity.WARN
        return Finding(name=name, verdict=verdict, detail=f"not installed: {', '.join(facts.missing)}", remedy=_INSTALL)
    detail = ", ".join(f"{package} {version}" for package, version in facts.versions.items())
    return Finding(name=name, verdict=Severity.OK, detail=detail)


def check_place(facts: Facts) -> Finding:
    """Whether the directory of socket, lock and log can be used."""
    name = "socket directory"
    if facts.engine.refusal:
        remedy = "set DGEMMA_RUNTIME_DIR to a directory of your own"
        return Finding.split(name, Severity.FAIL, facts.engine.refusal, remedy=remedy)
    return Finding(name=name, verdict=Severity.OK, detail=facts.engine.place)


def check_engine(facts: Facts) -> Finding:
    """Whether an engine runs, can be reached, and is of a version that this server understands."""
    name, engine = "engine", facts.engine
    if engine.refusal:
        return Finding(
            name=name,
            verdict=Severity.FAIL,
            detail="not reachable without its socket",
            remedy="see socket directory",
        )
    if engine.problem:
        verdict = Severity.WARN if engine.replaceable else Severity.FAIL
        known = "" if engine.status is None else f"{_about(engine.status)}; "
        found = Finding.split(name, verdict, engine.problem, remedy=engine.stop_command)
        return Finding(name=name, verdict=verdict, detail=known + found.detail, remedy=found.remedy)
    status = engine.status
    if status is None and facts.model.problem:
        return Finding(name=name, verdict=Severity.WARN, detail="none runs for this model", remedy="see model")
    if status is None:
        detail = "none runs now; the first completion starts it"
        return Finding(name=name, verdict=Severity.WARN, detail=detail, remedy=engine.start_command)
    if status.state is EngineState.FAILED:
        return Finding.split(name, Severity.FAIL, status.message, remedy=f"see {engine.log}")
    if status.version != facts.server_version:
        detail = f"{_about(status)}; this server is version {facts.server_version}"
        remedy = f"{engine.stop_command}; {_RESTART}"
        return Finding(name=name, verdict=Severity.WARN, detail=detail, remedy=remedy)
    return Finding(name=name, verdict=Severity.OK, detail=_about(status))


def check_others(facts: Facts) -> Finding | None:
    """Whether other engines hold models in memory, too; None where there are none, or this model cannot be loaded."""
    others = facts.engine.others
    if not others or facts.model.problem:
        return None
    told = "; ".join(_about_other(other, facts.server_version) for other in others)
    commands = "; ".join(dict.fromkeys(other.stop_command for other in others))
    return Finding(
        name="other engines",
        verdict=Severity.WARN,
        detail=f"each holds a model in memory: {told}",
        remedy=f"end those that no window needs: {commands}",
    )


def check_model(facts: Facts) -> Finding:
    """Whether the model can be loaded, as far as its folder shows."""
    status, model = facts.engine.status, facts.model
    if model.problem and status is None:
        return Finding.split("model", Severity.FAIL, model.problem, remedy="name another model folder")
    detail = model.name if status is None else f"{status.model} ({status.model_path})"
    if model.notice:
        found = Finding.split("model", Severity.WARN, model.notice, remedy="")
        return Finding(name="model", verdict=Severity.WARN, detail=f"{detail}; {found.detail}", remedy=found.remedy)
    return Finding(name="model", verdict=Severity.OK, detail=detail)


def check_execution(facts: Facts) -> Finding | None:
    """Number format, and whether the layers run compiled; None where no engine answers or its model is not loaded."""
    name, status = "execution", facts.engine.status
    if status is None or status.state in (EngineState.LOADING, EngineState.FAILED):
        return None
    numbers = f"{status.number_format}; " if status.number_format else ""
    if status.compiled:
        return Finding(name=name, verdict=Severity.OK, detail=f"{numbers}compiled")
    if not status.uncompiled_reason:
        detail = f"{numbers}not compiled: this model on this device has no such path"
        return Finding(name=name, verdict=Severity.OK, detail=detail)
    detail = f"{numbers}not compiled, so slower: {status.uncompiled_reason}"
    return Finding(name=name, verdict=Severity.WARN, detail=detail, remedy="update torch")


def _about_other(other: OtherEngine, server_version: str) -> str:
    if not other.model:
        return f"process {other.pid} does not answer"
    version = "" if other.version == server_version else f", of version {other.version} (this server: {server_version})"
    return f"process {other.pid} serves {other.model}, {other.memory_bytes / _GIB:.1f} GiB{version}"


def _about(status: Status) -> str:
    return f"{status.state.value}, process {status.pid}, version {status.version}, up {status.uptime_s:.0f} s"
