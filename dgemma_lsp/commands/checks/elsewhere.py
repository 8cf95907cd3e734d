"""Settings with an engine on another machine -> findings: what this machine needs, and whether the engine answers."""

from __future__ import annotations

from dgemma_engine.errors import EngineFault, EngineUnavailable

from dgemma_lsp.commands.checks.finding import Finding, Severity
from dgemma_lsp.commands.checks.packages import package_versions, python_version
from dgemma_lsp.engine_client.connector import engine_host, ready_engine
from dgemma_lsp.settings.settings import Settings

_PATIENCE_S = 10.0
_REMEDY = "see the log of the engine on that machine"


async def examine_elsewhere(settings: Settings) -> list[Finding]:
    """Checks everything that a completion needs with an engine on another machine. Sends no source text.

    Args:
        settings: where the engine is.
    """
    return [
        Finding(name="python", verdict=Severity.OK, detail=python_version()),
        Finding(name="server", verdict=Severity.OK, detail=package_versions()),
        await _engine(settings),
    ]


async def _engine(settings: Settings) -> Finding:
    name = "engine"
    try:
        async with ready_engine(settings, timeout_s=_PATIENCE_S, on_progress=lambda _progress: None) as (_, status):
            detail = f"{status.model} on {status.device}, at {engine_host(settings)}, version {status.version}"
            return Finding(name=name, verdict=Severity.OK, detail=detail)
    except (EngineUnavailable, EngineFault) as error:
        return Finding.split(name, Severity.FAIL, str(error), remedy=_REMEDY)
