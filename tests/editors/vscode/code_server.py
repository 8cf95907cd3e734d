"""A code-server process: a real VS Code workbench and extension host, with our extension, in folders of its own.

A window of it is a remote one: settings that belong to a machine lie in one file, the user's in another.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.editors.get_vscode import NODE, entry_point

# Nothing of the workbench's own may answer Tab, move the cursor, draw over a screenshot or use the network.
QUIET: dict[str, Any] = {
    "chat.disableAIFeatures": True,
    "editor.quickSuggestions": {"other": "off", "comments": "off", "strings": "off"},
    "editor.suggestOnTriggerCharacters": False,
    "editor.wordBasedSuggestions": "off",
    "editor.parameterHints.enabled": False,
    "editor.autoClosingBrackets": "never",
    "editor.autoClosingQuotes": "never",
    "editor.autoIndent": "none",
    "editor.minimap.enabled": False,
    "editor.detectIndentation": False,
    "editor.inlineSuggest.minShowDelay": 0,
    "extensions.ignoreRecommendations": True,
    "files.autoSave": "off",
    "files.eol": "\n",
    "security.workspace.trust.banner": "never",
    "security.workspace.trust.startupPrompt": "never",
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "window.title": "${activeEditorShort}",
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "workbench.enableExperiments": False,
    "git.enabled": False,
}

# The browser runs without a sandbox and a graphics card, and makes no requests of its own.
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)

# Commands that the workbench gives no key.
KEYS = [{"key": "ctrl+alt+l", "command": "editor.action.inlineSuggest.acceptNextLine"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeServer:
    """A running code-server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        home: its folders: `data` for settings, `extensions`, `logs`.
    """

    port: int
    home: Path

    def url(self, folder: Path, file: Path | None = None) -> str:
        """Returns the address of a window on `folder`, with `file` open."""
        query = {"folder": str(folder)}
        if file is not None:
            query["payload"] = json.dumps([["openFile", f"vscode-remote://127.0.0.1:{self.port}{file}"]])
        return f"http://127.0.0.1:{self.port}/?{urllib.parse.urlencode(query)}"

    def user_settings(self, settings: Mapping[str, Any]) -> None:
        """Sets the user's settings, on top of the quiet ones, for windows that are opened from now on."""
        _write(self.home / "data/User/settings.json", QUIET | settings)

    def machine_settings(self, settings: Mapping[str, Any]) -> None:
        """Sets the machine's settings; open windows apply them too, and they override the user's settings.

        Where no model is named, it is `tiny`.
        """
        _write(self.home / "data/Machine/settings.json", {"dgemma.engine.model": "tiny", **settings})


def install_extension(home: Path, vsix: Path, environ: Mapping[str, str]) -> None:
    """Installs an extension from its file.

    Raises:
        subprocess.CalledProcessError: code-server refused it.
    """
    command = _command(home, "--install-extension", str(vsix))
    subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(home, environ), timeout=120)


@contextlib.contextmanager
def serving(home: Path, environ: Mapping[str, str], *, trusting: bool = True) -> Iterator[CodeServer]:
    """Starts code-server, and ends it and whatever it started.

    Args:
        home: a folder for it alone.
        environ: of its extensions and their servers.
        trusting: whether every workspace is trusted without being asked about.
    """
    port = _free_port()
    options = [
        *("--auth", "none", "--bind-addr", f"127.0.0.1:{port}", "--disable-telemetry", "--disable-update-check"),
        *("--disable-getting-started-override", "--ignore-last-opened", "--reconnection-grace-time", "2"),
        *(["--disable-workspace-trust"] if trusting else []),
    ]
    server = CodeServer(port=port, home=home)
    server.user_settings({})
    _write(home / "data/User/keybindings.json", KEYS)
    with (home / "code-server.log").open("wb") as log:
        process = subprocess.Popen(
            _command(home, *options),
            env=_environment(home, environ),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _wait_healthy(port, process)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def _command(home: Path, *options: str) -> list[str]:
    config = home / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.touch()
    folders = ["--user-data-dir", str(home / "data"), "--extensions-dir", str(home / "extensions")]
    return [str(NODE), str(entry_point()), "--config", str(config), *folders, *options]


def _environment(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    places = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}
    return {**environ, **places, "EXTENSIONS_GALLERY": '{"serviceUrl":""}'}


def _wait_healthy(port: int, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s:
        assert process.poll() is None, "code-server has ended; see its log"
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2)
            return
        time.sleep(0.2)
    raise TimeoutError("code-server does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write(path: Path, settings: Mapping[str, Any] | list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
