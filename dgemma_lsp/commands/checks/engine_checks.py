"""Facts about the engine and its model -> findings. Pure."""

from __future__ import annotations

from dgemma_engine.protocol.status_messages import EngineState, Status

from dgemma_lsp.commands.checks.facts import Facts
from dgemma_lsp.commands.checks.finding import Finding, Severity

_INSTALL = "pip install 'dgemma-lsp[engine]'"
_STOP = "dgemma-engine stop; the next completion starts the version of this server"
_GIB = 1 << 30


def check_engine_packages(facts: Facts) -> Finding:
    """Whether the packages that the engine needs are installed; an engine that runs already does without."""
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
        found = Finding.split(name, verdict, engine.problem, remedy="dgemma-engine stop")
        return Finding(name=name, verdict=verdict, detail=known + found.detail, remedy=found.remedy)
    status = engine.status
    if status is None:
        detail = "none runs now; the first completion starts it"
        return Finding(name=name, verdict=Severity.WARN, detail=detail, remedy="dgemma-engine start")
    if status.state is EngineState.FAILED:
        return Finding.split(name, Severity.FAIL, status.message, remedy=f"see {engine.log}")
    if status.version != facts.server_version:
        return Finding(name=name, verdict=Severity.WARN, detail=_about(status), remedy=_STOP)
    return Finding(name=name, verdict=Severity.OK, detail=_about(status))


def check_others(facts: Facts) -> Finding | None:
    """Whether other engines hold models in memory, too; None where there are none."""
    others = facts.engine.others
    if not others:
        return None
    told = [
        f"process {other.pid} serves {other.model}, {other.memory_bytes / _GIB:.1f} GiB"
        if other.model
        else f"process {other.pid} does not answer"
        for other in others
    ]
    pids = " ".join(str(other.pid) for other in others)
    return Finding(
        name="other engines",
        verdict=Severity.WARN,
        detail=f"each holds a model in memory: {'; '.join(told)}",
        remedy=f"end those that no window needs: kill {pids}",
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


def _about(status: Status) -> str:
    return f"{status.state.value}, process {status.pid}, version {status.version}, up {status.uptime_s:.0f} s"
