from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.http_api.user_service import UserService, plist, unit

COMMAND = ["/usr/bin/python 3", "-m", "dgemma_engine", "serve", "--allow-origin", 'https://a/%20$x"']


class Machine:
    def __init__(self, home: Path, platform: str, code: int = 0) -> None:
        self.ran: list[str] = []
        self._code = code
        environ = {"DGEMMA_RUNTIME_DIR": "/run/mine", "SECRET": "s"}
        self.service = UserService(platform=platform, home=home, environ=environ, run=self._run)

    def _run(self, command: Sequence[str]) -> int:
        self.ran.append(" ".join(command))
        return self._code


def test_install_on_linux_writes_a_unit_and_starts_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "linux")
    machine.service.install(COMMAND)
    path = tmp_path / ".config/systemd/user/dgemma-engine-http.service"
    text = path.read_text()
    assert 'Environment="DGEMMA_RUNTIME_DIR=/run/mine"' in text and "SECRET" not in text
    assert machine.ran == [
        "systemctl --user daemon-reload",
        "systemctl --user enable dgemma-engine-http.service",
        "systemctl --user restart dgemma-engine-http.service",
    ]
    assert machine.service.uninstall() and not path.exists()
    assert machine.ran[3] == "systemctl --user disable --now dgemma-engine-http.service"
    assert not machine.service.uninstall()


def test_unit_escapes_what_systemd_reads() -> None:
    line = next(line for line in unit(COMMAND, {}).splitlines() if line.startswith("ExecStart="))
    assert line.startswith('ExecStart="/usr/bin/python 3" "-m"') and line.endswith('"https://a/%%20$$x\\""')


def test_unit_keeps_the_dollars_of_variables() -> None:
    assert 'Environment="XDG_DATA_HOME=/home/$me/100%%"\n' in unit(COMMAND, {"XDG_DATA_HOME": "/home/$me/100%"})


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own reading of the unit is not checked")
@pytest.mark.parametrize("name", ["dgemma-engine", "a b", "100%n", "$HOME", "{x}", "é", "a;b", "#"])
def test_systemd_reads_the_unit_and_finds_the_program(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` reports lines that it cannot parse, and a program that it does not find."""
    program = tmp_path / name
    program.symlink_to(sys.executable)
    path = tmp_path / "dgemma-engine-http.service"
    environ = {"DGEMMA_RUNTIME_DIR": str(program), "XDG_DATA_HOME": "/home/$me/100%"}
    path.write_text(unit([str(program), *COMMAND[1:]], environ), encoding="utf-8")
    assert verified(path) == (0, "")
    program.unlink()
    code, said = verified(path)
    assert code != 0 and "is not executable" in said


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's own reading of the unit is not checked")
def test_systemd_names_what_it_does_not_understand(tmp_path: Path) -> None:
    path = tmp_path / "dgemma-engine-http.service"
    text = unit([sys.executable], {}).replace("RestartSec=5", "RestartSec=soon").replace("KillMode", "KillMood")
    path.write_text(text, encoding="utf-8")
    said = verified(path)[1]
    assert "soon" in said and "KillMood" in said


@pytest.mark.parametrize("name", ['a"b', "a'b", "a\\b"])
def test_install_of_a_program_that_systemd_cannot_run_writes_nothing(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path, "linux")
    with pytest.raises(EngineUnavailable, match="systemd runs no program whose path has quotes or backslashes"):
        machine.service.install([f"/opt/{name}/python", "-m"])
    assert not machine.ran and not machine.service.path.exists()


def verified(path: Path) -> tuple[int, str]:
    """Returns the exit code of `systemd-analyze verify` on a unit, and what it says of that unit."""
    command = ["systemd-analyze", "--user", "--man=no", "--generators=no", "verify", str(path)]
    # A container has no session bus, and verifying needs none.
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(path.parent), "XDG_RUNTIME_DIR": str(path.parent)}
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, result.stderr


# launchd.plist(5), the keys of an agent that may stand in the property list.
AGENT_KEYS: dict[str, type] = {
    "Label": str,
    "Disabled": bool,
    "Program": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "KeepAlive": dict,
    "RunAtLoad": bool,
    "RootDirectory": str,
    "WorkingDirectory": str,
    "Umask": int,
    "TimeOut": int,
    "ExitTimeOut": int,
    "ThrottleInterval": int,
    "InitGroups": bool,
    "WatchPaths": list,
    "QueueDirectories": list,
    "StartOnMount": bool,
    "StartInterval": int,
    "StartCalendarInterval": dict,
    "StandardInPath": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "Debug": bool,
    "WaitForDebugger": bool,
    "SoftResourceLimits": dict,
    "HardResourceLimits": dict,
    "Nice": int,
    "ProcessType": str,
    "AbandonProcessGroup": bool,
    "LowPriorityIO": bool,
    "LowPriorityBackgroundIO": bool,
    "LaunchOnlyOnce": bool,
    "MachServices": dict,
    "Sockets": dict,
    "LaunchEvents": dict,
    "EnableTransactions": bool,
    "EnablePressuredExit": bool,
    "LimitLoadToSessionType": str,
    "LimitLoadToHosts": list,
    "LimitLoadFromHosts": list,
    "AssociatedBundleIdentifiers": list,
    "SessionCreate": bool,
}
KEEP_ALIVE_KEYS: dict[str, type] = {
    "SuccessfulExit": bool,
    "Crashed": bool,
    "NetworkState": bool,
    "PathState": dict,
    "OtherJobEnabled": dict,
    "AfterInitialDemand": bool,
}


def test_agent_has_only_keys_that_launchd_documents_with_their_types() -> None:
    data = plist(COMMAND, {"DGEMMA_RUNTIME_DIR": "/run/a & <b>"})
    assert b'"-//Apple//DTD PLIST 1.0//EN"' in data
    agent = plistlib.loads(data, fmt=plistlib.FMT_XML)

    def wrong(values: dict[str, Any], known: dict[str, type]) -> list[str]:
        return [name for name, value in values.items() if name not in known or type(value) is not known[name]]

    assert wrong(agent, AGENT_KEYS) == wrong(agent["KeepAlive"], KEEP_ALIVE_KEYS) == []
    assert agent["ProgramArguments"] == COMMAND and Path(COMMAND[0]).is_absolute()
    assert agent["EnvironmentVariables"] == {"DGEMMA_RUNTIME_DIR": "/run/a & <b>"}
    assert Machine(Path("/home"), "darwin").service.path.stem == agent["Label"]


def test_install_on_macos_writes_an_agent(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "darwin")
    machine.service.install(COMMAND)
    agent = plistlib.loads((tmp_path / "Library/LaunchAgents/dgemma-engine.http.plist").read_bytes())
    assert agent["ProgramArguments"] == COMMAND and agent["RunAtLoad"]
    assert agent["EnvironmentVariables"] == {"DGEMMA_RUNTIME_DIR": "/run/mine"}
    assert machine.ran[-1].startswith("launchctl bootstrap gui/")
    assert machine.service.uninstall() and not machine.service.path.exists()


def test_install_that_the_system_refuses_says_where_the_service_is_described(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"systemctl --user daemon-reload: failed; .*\.service"):
        Machine(tmp_path, "linux", code=1).service.install(COMMAND)


def test_install_with_a_certificate_that_cannot_be_used_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path, "linux")
    monkeypatch.setattr(UserService, "of_this_user", lambda: machine.service)
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        files = ["--tls-cert", str(tmp_path / name), "--tls-key", str(tmp_path / name)]
        assert main(["serve", "--install-service", *files]) == 2
        assert "--tls-cert and --tls-key cannot be used" in capsys.readouterr().err
    assert not machine.ran and not machine.service.path.exists()
