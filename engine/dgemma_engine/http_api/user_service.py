"""`serve` as a service of the user, started at login: a systemd user unit on Linux, a launchd agent on macOS."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgemma_engine.errors import EngineUnavailable

_UNIT = "dgemma-engine-http.service"
_LABEL = "dgemma-engine.http"
_UNRUNNABLE = {'"', "'", "\\"}
_KEPT_VARIABLES = ("DGEMMA_RUNTIME_DIR", "XDG_DATA_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserService:
    """The service of one user.

    Attributes:
        platform: `sys.platform`.
        home: the user's home folder.
        environ: has the folder of configurations; some of its variables go into the service.
        run: runs a command and returns its exit code.
    """

    platform: str
    home: Path
    environ: Mapping[str, str]
    run: Callable[[Sequence[str]], int]

    @classmethod
    def of_this_user(cls) -> UserService:
        """Returns the service of this process's user."""
        return cls(platform=sys.platform, home=Path.home(), environ=os.environ, run=_run)

    @property
    def path(self) -> Path:
        """The file that describes the service."""
        if self.platform == "darwin":
            return self.home / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
        return Path(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config") / "systemd" / "user" / _UNIT

    def install(self, command: Sequence[str]) -> None:
        """Writes the description and starts the service, now and at every login.

        Args:
            command: what it runs.

        Raises:
            EngineUnavailable: the system's own program refuses it, or cannot run what is installed at such a path.
        """
        if self.platform != "darwin" and _UNRUNNABLE & set(command[0]):
            message = (
                f"{command[0]}: systemd runs no program whose path has quotes or backslashes; install it elsewhere"
            )
            raise EngineUnavailable(message)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: self.environ[name] for name in _KEPT_VARIABLES if self.environ.get(name)}
        if self.platform == "darwin":
            self.path.write_bytes(plist(command, kept))
            self.run(["launchctl", "bootout", f"gui/{os.getuid()}/{_LABEL}"])
            self._require(["launchctl", "bootstrap", f"gui/{os.getuid()}", str(self.path)])
        else:
            self.path.write_text(unit(command, kept), encoding="utf-8")
            self._require(["systemctl", "--user", "daemon-reload"])
            self._require(["systemctl", "--user", "enable", _UNIT])
            self._require(["systemctl", "--user", "restart", _UNIT])

    def uninstall(self) -> bool:
        """Stops the service and removes its description; returns whether there was one."""
        if not self.path.exists():
            return False
        if self.platform == "darwin":
            self.run(["launchctl", "bootout", f"gui/{os.getuid()}/{_LABEL}"])
            self.path.unlink()
        else:
            self.run(["systemctl", "--user", "disable", "--now", _UNIT])
            self.path.unlink()
            self.run(["systemctl", "--user", "daemon-reload"])
        return True

    def _require(self, command: Sequence[str]) -> None:
        if self.run(command) != 0:
            raise EngineUnavailable(f"{' '.join(command)}: failed; the service is described in {self.path}")


def unit(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Returns a systemd unit. An engine that it started outlives it, and ends by itself when it is not used."""
    variables = "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environ.items())
    # systemd replaces variables in the arguments only, not in the program's own path.
    program, *rest = map(_quoted, command)
    words = " ".join([program, *(word.replace("$", "$$") for word in rest)])
    return (
        "[Unit]\nDescription=HTTP server of dgemma-engine\n\n"
        f"[Service]\nExecStart={words}\n{variables}"
        "Restart=on-failure\nRestartSec=5\nKillMode=process\nNoNewPrivileges=yes\n\n"
        "[Install]\nWantedBy=default.target\n"
    )


def plist(command: Sequence[str], environ: Mapping[str, str]) -> bytes:
    """Returns a launchd agent; like `unit`."""
    return plistlib.dumps(
        {
            "Label": _LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": dict(environ),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "AbandonProcessGroup": True,
        }
    )


def _quoted(word: str) -> str:
    """Returns a word as systemd reads it back: quotes, and `%` for specifiers, are escaped."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _run(command: Sequence[str]) -> int:
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        return 127
