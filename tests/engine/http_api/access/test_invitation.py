from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.access.invitation import Invitation, add_key, new_key

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


def test_server_of_this_machine_only_is_reached_through_a_tunnel() -> None:
    lines = invitation(scheme="http", host="127.0.0.1", is_tunnelled=True).lines()
    assert "  ssh -N -L 8012:127.0.0.1:8012 gpu\n" in lines
    assert pasted(lines)["dgemma.engine.url"] == "http://127.0.0.1:8012"
    assert "unencrypted" not in lines


def test_plain_http_is_allowed_by_name_and_warned_of() -> None:
    lines = invitation(scheme="http", host="10.0.0.7").lines()
    assert pasted(lines)["dgemma.engine.plainHttpHosts"] == ["10.0.0.7"]
    assert "plainHttpHosts = { '10.0.0.7' }" in lines
    assert "Text travels unencrypted" in lines


def test_address_of_version_6_has_brackets() -> None:
    assert invitation(host="fd00::7").url == "https://[fd00::7]:8012"


@pytest.mark.parametrize("before", ["", "kim 0123456789abcdef\n", "kim 0123456789abcdef"])
def test_key_is_added_to_the_file(tmp_path: Path, before: str) -> None:
    file, key = tmp_path / "keys", new_key()
    if before:
        file.write_text(before)
    add_key(file, "share-1", key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = ApiKeys.read(file, {})
    assert keys.name_of({"authorization": f"Bearer {key}"}) == "share-1"
    assert keys.name_of({"authorization": "Bearer 0123456789abcdef"}) == ("kim" if before else None)


def test_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match=r"--api-key-file .*: cannot be written"):
        add_key(tmp_path / "no/folder", "share-1", new_key())


def test_key_of_this_run_is_one_more() -> None:
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": "0123456789abcdef"}).with_key("share", KEY)
    assert keys.name_of({"authorization": f"Bearer {KEY}"}) == "share"
    assert keys.name_of({"authorization": "Bearer 0123456789abcdef"}) == "environment"
