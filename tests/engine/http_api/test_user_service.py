from __future__ import annotations

import plistlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import EngineUnavailable
from dgemma_engine.http_api.user_service import UserService, unit

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
