from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.access.invitation import Invitation, shared_key

KEY = "k" * 48


def invitation(**other: Any) -> Invitation:
    values: dict[str, Any] = {
        "scheme": "https", "host": "gpu.example", "port": 8012, "key": KEY, "is_tunnelled": False,
        "tunnel_host": "gpu", "key_place": "",
    }  # fmt: skip
    return Invitation(**(values | other))


def pasted(lines: str) -> dict[str, Any]:
    """Returns the settings that the line for VS Code makes."""
    line = lines.split("VS Code, user settings:\n")[1].split("\n")[0]
    return json.loads("{" + line + "}")


def test_lines_name_address_key_and_settings() -> None:
    lines = invitation().lines()
    assert lines.startswith(f"address: https://gpu.example:8012\nkey: {KEY} (valid as long as this runs")
    assert pasted(lines) == {
        "dgemma.engine.url": "https://gpu.example:8012",
        "dgemma.engine.keyFile": "~/.dgemma-key",
    }
    assert (
        "require('dgemma').setup({ settings = { engine = { url = 'https://gpu.example:8012', "
        "keyFile = '~/.dgemma-key' } } })" in lines
    )
    assert "unencrypted" not in lines and "ssh" not in lines


def test_key_is_written_to_its_file_by_each_shell() -> None:
    lines = invitation().lines()
    assert f"  (umask 077; echo {KEY} > ~/.dgemma-key)\n" in lines
    assert f'  Set-Content -Encoding ascii -Path "$env:USERPROFILE\\.dgemma-key" -Value {KEY}\n' in lines


def test_file_that_holds_the_key_is_named() -> None:
    assert f"key: {KEY} (in /srv/keys)\n" in invitation(key_place="/srv/keys").lines()


def test_server_of_this_machine_only_is_reached_through_a_tunnel() -> None:
    lines = invitation(scheme="http", host="127.0.0.1", is_tunnelled=True).lines()
    assert "  ssh -N -L 8012:127.0.0.1:8012 gpu\n" in lines
    assert pasted(lines)["dgemma.engine.url"] == "http://127.0.0.1:8012"
    assert "unencrypted" not in lines


@pytest.mark.parametrize(
    ("host", "end", "begin"),
    [("::1", "[::1]", "[::1]"), ("127.0.0.2", "127.0.0.2", "127.0.0.1"), ("localhost", "localhost", "127.0.0.1")],
)
def test_tunnel_leads_to_the_address_that_is_listened_on(host: str, end: str, begin: str) -> None:
    """On the client's machine it begins at a loopback address, whatever address the server listens on."""
    lines = invitation(scheme="http", host=host, is_tunnelled=True).lines()
    assert f"  ssh -N -L 8012:{end}:8012 gpu\n" in lines
    assert pasted(lines)["dgemma.engine.url"] == f"http://{begin}:8012"


def test_plain_http_is_allowed_by_name_and_warned_of() -> None:
    lines = invitation(scheme="http", host="10.0.0.7").lines()
    assert pasted(lines)["dgemma.engine.plainHttpHosts"] == ["10.0.0.7"]
    assert "plainHttpHosts = { '10.0.0.7' }" in lines
    assert "Text travels unencrypted" in lines


def test_ipv6_address_has_brackets() -> None:
    assert invitation(host="fd00::7").url == "https://[fd00::7]:8012"


@pytest.mark.parametrize("before", ["", "kim 0123456789abcdef\n", "kim 0123456789abcdef"])
def test_key_is_added_to_the_file(tmp_path: Path, before: str) -> None:
    file = tmp_path / "keys"
    if before:
        file.write_text(before)
    key = shared_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = ApiKeys.read(file, {})
    assert keys.name_of({"authorization": f"Bearer {key}"}) == f"share-{key[:4]}"
    assert keys.name_of({"authorization": "Bearer 0123456789abcdef"}) == ("kim" if before else None)


def test_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"--api-key-file .*: cannot be used"):
        shared_key(tmp_path / "no/folder")


def test_key_that_was_added_is_used_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("share-1 0123456789abcdef\nkim share-0000\n")
    key = shared_key(file)
    content = file.read_bytes()
    assert shared_key(file) == key != shared_key(tmp_path / "others")
    assert file.read_bytes() == content


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_key_is_added_in_the_encoding_of_the_file(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "keys"
    file.write_text("kim 0123456789abcdef\r\n", encoding=encoding)
    keys = {"kim": "0123456789abcdef", "share": shared_key(file)}
    found = ApiKeys.read(file, {})
    assert [(found.name_of({"x-api-key": key}) or "")[:5] for key in keys.values()] == ["kim", "share"]
    assert shared_key(file) == keys["share"]


def test_file_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(b"\xff\x00key")
    with pytest.raises(WrongUsage, match="it is not text in UTF-8 or in UTF-16"):
        shared_key(file)
    assert file.read_bytes() == b"\xff\x00key"


def test_with_key_keeps_the_other_keys() -> None:
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": "0123456789abcdef"}).with_key("share", KEY)
    assert keys.name_of({"authorization": f"Bearer {KEY}"}) == "share"
    assert keys.name_of({"authorization": "Bearer 0123456789abcdef"}) == "environment"
