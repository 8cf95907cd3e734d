"""Paths of an engine, and the directories that are refused."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from dgemma_engine.errors import SocketRefused
from dgemma_engine.ipc.endpoint import EngineLocation


def locate(directory: Path, **options: object) -> EngineLocation:
    return EngineLocation.locate({"DGEMMA_RUNTIME_DIR": str(directory)}, **options)  # type: ignore[arg-type]


def check_refused(location: EngineLocation, *, path: Path, reason: str) -> None:
    with pytest.raises(SocketRefused) as caught:
        location.prepare()
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason}")
    assert "DGEMMA_RUNTIME_DIR" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"DGEMMA_RUNTIME_DIR": "/run/mine", "XDG_RUNTIME_DIR": "/run/user/7"}, "/run/mine"),
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/dgemma-lsp"),
        ({"DGEMMA_RUNTIME_DIR": "", "XDG_RUNTIME_DIR": ""}, "{tmp}/dgemma-lsp-7"),
    ],
)
def test_locate_takes_the_first_directory_that_is_set(
    environ: dict[str, str], directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    assert EngineLocation.locate(environ, uid=7).directory == Path(directory.format(tmp="/tmp"))


def test_locate_names_one_file_per_model_and_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (tmp_path / "model").mkdir()
    direct = locate(tmp_path, model=str(tmp_path / "model"))
    assert locate(tmp_path, model=str(tmp_path / "link")) == direct
    others = [locate(tmp_path), locate(tmp_path, model=str(tmp_path)), locate(tmp_path, device="cpu"), direct]
    assert len({location.socket for location in others}) == 4
    assert len({direct.socket, direct.lock, direct.log}) == 3


def test_locate_refuses_a_path_too_long_for_a_socket() -> None:
    with pytest.raises(SocketRefused, match="set DGEMMA_RUNTIME_DIR to a shorter"):
        locate(Path("/" + "x" * 100))


def test_prepare_creates_a_directory_that_only_its_user_can_enter(tmp_path: Path) -> None:
    location = locate(tmp_path / "deep" / "run")
    location.prepare()
    assert stat.S_IMODE(location.directory.stat().st_mode) == 0o700


def test_prepare_closes_our_directory_that_is_open_to_others(tmp_path: Path) -> None:
    location = locate(tmp_path)
    location.lock.touch()
    tmp_path.chmod(0o755)
    location.prepare()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_prepare_leaves_a_shared_directory_with_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    tmp_path.chmod(0o755)
    check_refused(locate(tmp_path), path=tmp_path, reason="holds other files")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_prepare_refuses_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(tmp_path / "real")
    check_refused(locate(tmp_path / "run"), path=tmp_path / "run", reason="is a symbolic link")


def test_prepare_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    check_refused(locate(tmp_path / "run"), path=tmp_path / "run", reason="cannot be created")


def test_prepare_refuses_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_refused(locate(tmp_path / "file" / "run"), path=tmp_path / "file" / "run", reason="cannot be created")


def test_prepare_refuses_a_directory_of_another_user(tmp_path: Path) -> None:
    reason = f"belongs to user {os.getuid()}"
    check_refused(locate(tmp_path, uid=os.getuid() + 1), path=tmp_path, reason=reason)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away; not checked: a socket of another user")
def test_prepare_refuses_a_socket_of_another_user(tmp_path: Path) -> None:
    location = locate(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(location.socket))
    os.chown(location.socket, 65_534, 65_534)
    check_refused(location, path=location.socket, reason="belongs to user 65534")


def test_prepare_refuses_a_file_where_the_socket_should_be(tmp_path: Path) -> None:
    location = locate(tmp_path)
    location.socket.touch()
    with pytest.raises(SocketRefused, match="is not a socket; remove it"):
        location.prepare()


@pytest.mark.parametrize("name", ["lock", "log"])
def test_prepare_refuses_a_folder_where_a_file_should_be(tmp_path: Path, name: str) -> None:
    location = locate(tmp_path)
    path: Path = getattr(location, name)
    path.mkdir()
    with pytest.raises(SocketRefused, match=rf"{path.name}: is not a regular file; remove it"):
        location.prepare()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere; not checked: a directory without write access")
def test_prepare_refuses_a_directory_without_write_access(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    check_refused(locate(tmp_path / "closed" / "run"), path=tmp_path / "closed" / "run", reason="cannot be")


def test_hub_name_is_kept_unless_a_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"DGEMMA_RUNTIME_DIR": str(tmp_path)}
    assert EngineLocation.locate(environ, model="owner/name").model == "owner/name"
    (tmp_path / "owner/name").mkdir(parents=True)
    assert EngineLocation.locate(environ, model="owner/name").model == str(tmp_path / "owner/name")
