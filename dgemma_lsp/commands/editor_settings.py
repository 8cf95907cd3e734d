"""An editor's settings as a JSON file -> settings, read as the server reads them, and a finding for each problem.

Settings that switch completions off, everywhere or in a language, are among the findings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from dgemma_lsp.commands.checks.finding import Finding, Severity
from dgemma_lsp.settings.reader import read_settings
from dgemma_lsp.settings.settings import SECTION, Settings

STANDARD_INPUT = "-"
_REMEDY = "see dgemma-lsp settings"


def read_editor_settings(name: str | None, base: Settings) -> tuple[Settings, list[Finding]]:
    """Reads a file of settings.

    Args:
        name: path of the file; `-` reads standard input, None reads nothing.
        base: supplies every value that the file leaves out.

    Raises:
        ValueError: the file cannot be read, or holds no JSON.
    """
    raw = None if name is None else _json(name)
    settings, problems = read_settings(raw, base)
    unread = [Finding(name="settings", verdict=Severity.WARN, detail=problem, remedy=_REMEDY) for problem in problems]
    return settings, [*unread, *_switched_off(settings)]


def _switched_off(settings: Settings) -> Iterator[Finding]:
    if not settings.enabled:
        yield Finding(
            name="settings",
            verdict=Severity.FAIL,
            detail=f"{SECTION}.enabled is false: nothing is offered",
            remedy=f"set {SECTION}.enabled to true",
        )
    if settings.paused_languages:
        yield Finding(
            name="settings",
            verdict=Severity.WARN,
            detail=f"nothing is offered in {', '.join(settings.paused_languages)}",
            remedy=f"take the language out of {SECTION}.pausedLanguages",
        )
    if not settings.engine_autostart and not settings.engine_url:
        yield Finding(
            name="settings",
            verdict=Severity.WARN,
            detail=f"{SECTION}.engine.autostart is false: the editor starts no engine",
            remedy=f"run dgemma-engine start, or set {SECTION}.engine.autostart to true",
        )


def _json(name: str) -> object:
    is_input = name == STANDARD_INPUT
    try:
        with open(0 if is_input else name, "rb", closefd=not is_input) as file:
            return json.load(file)
    except OSError as error:
        raise ValueError(f"cannot read the settings in {name}: {error.strerror or error}; name a JSON file") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the settings in {name} are no JSON ({error}); write one JSON object") from None
