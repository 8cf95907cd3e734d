"""`dgemma-lsp doctor`: facts about this installation -> one finding for each check, with its remedy.

Only reads; starts no engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dgemma_lsp.commands.checks import engine_checks, machine_checks
from dgemma_lsp.commands.checks.elsewhere import examine_elsewhere
from dgemma_lsp.commands.checks.facts import Facts
from dgemma_lsp.commands.checks.finding import Finding, Severity
from dgemma_lsp.commands.checks.packages import package_versions
from dgemma_lsp.settings.settings import Settings

_CHECKS = (
    engine_checks.check_engine_packages,
    engine_checks.check_place,
    engine_checks.check_engine,
    engine_checks.check_others,
    engine_checks.check_model,
    engine_checks.check_execution,
    machine_checks.check_device,
    machine_checks.check_memory,
    machine_checks.check_disk,
    machine_checks.check_home,
    machine_checks.check_stats,
)


async def examine(settings: Settings) -> list[Finding]:
    """Checks everything that a completion with these settings needs.

    Args:
        settings: model and device to check, or where the engine is.
    """
    if settings.engine_url or sys.platform == "win32":
        return await examine_elsewhere(settings)
    # Imported here: it uses the engine's socket, which Windows does not have.
    from dgemma_lsp.commands.checks.probes import look_up

    return judge(await look_up(settings, os.environ))


def judge(facts: Facts) -> list[Finding]:
    """Returns the findings of all checks that apply."""
    server = Finding(name="server", verdict=Severity.OK, detail=package_versions())
    found = [check(facts) for check in _CHECKS]
    return [machine_checks.check_python(facts), server, *(finding for finding in found if finding is not None)]


def is_usable(findings: Sequence[Finding]) -> bool:
    """Whether completions work: no check failed."""
    return all(finding.verdict is not Severity.FAIL for finding in findings)


def to_table(findings: Sequence[Finding]) -> str:
    """Returns the findings for a person, a line each, remedies below."""
    width = max(len(finding.name) for finding in findings)
    rows: list[str] = []
    for finding in findings:
        rows.append(f"{finding.verdict.value:<4}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            rows.append(f"{'':<4}  {'':<{width}}  -> {finding.remedy}")
    rows.append(
        "No problem found that prevents completions."
        if is_usable(findings)
        else "Completions do not work yet: see the lines marked fail."
    )
    return "\n".join(rows)
