"""Files and variables that configure the connection to a remote engine: each fault is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import HttpSettings
from dgemma_engine.protocol.messages import Infill
from dgemma_engine.remote import loading_watch
from dgemma_engine.remote.remote_location import RemoteLocation

from tests.engine.http_api.running_server import FREE_PORT, running_server
from tests.engine.remote.test_bad_input import KEY, answering, outcome, said

NO_TEXT = "cannot be read (it is not text in UTF-8 or in UTF-16 with a byte order mark); write it again"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line", [KEY, f"kim {KEY}", f"# \u00e4\r\n{KEY}\r\n", f"{KEY}\n" + "\U0001f511" * 2_000])
async def test_key_file_is_read_in_each_encoding(tmp_path: Path, line: str, encoding: str) -> None:
    file = tmp_path / "key"
    file.write_text(line, encoding=encoding)
    keys = ApiKeys.read(None, {"DGEMMA_API_KEY": KEY})
    async with running_server(settings=HttpSettings(bind=FREE_PORT.bind, keys=keys)) as server:
        answer = await outcome(RemoteLocation(url=server.url, key_file=str(file)))
    assert isinstance(answer, Infill)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read (No such file"),
        (b"", "holds no key; its first line must be the key"),
        (b"\n# only\n", "holds no key"),
        (b"\xff\xfe", "holds no key"),
        (b"\xff\xfek", NO_TEXT),
        (b"\xe4", NO_TEXT),
        (KEY.encode("utf-16-le"), NO_TEXT),
        (b"k" * 5_000, "its first line is longer than any key; put the key alone there"),
        (b"one two three", "its first line is no key; it must be KEY or NAME KEY, in ASCII"),
        ("\u043a\u043b\u044e\u0447".encode(), "its first line is no key"),
    ],
)
async def test_key_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    message = await said(RemoteLocation(url="http://127.0.0.1:9", key_file=str(file)))
    assert f"engine.keyFile {file}" in message and sentence in message


async def test_file_relative_to_the_current_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor starts its server in the opened folder, whose certificate authorities must not be trusted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text(KEY)
    message = await said(RemoteLocation(url="http://127.0.0.1:9", key_file="key"))
    assert message == "engine.keyFile key: must be an absolute path, or begin with ~; write it out"
    message = await said(RemoteLocation(url="https://127.0.0.1:9", ca_file="./ca.pem"))
    assert message == "engine.caFile ca.pem: must be an absolute path, or begin with ~; write it out"


async def test_folder_as_key_file(tmp_path: Path) -> None:
    message = await said(RemoteLocation(url="http://127.0.0.1:9", key_file=str(tmp_path)))
    assert "cannot be read (Is a directory)" in message


@pytest.mark.parametrize("name", ["/a\0b", "/a\ud800b"])
async def test_impossible_file_name(name: str) -> None:
    message = await said(RemoteLocation(url="http://127.0.0.1:9", key_file=name))
    assert message.startswith(
        "engine.keyFile /a\N{REPLACEMENT CHARACTER}b: cannot be read (no file can have this name); "
    )
    message = await said(RemoteLocation(url="https://127.0.0.1:9", ca_file=name))
    assert message.startswith(
        "engine.caFile /a\N{REPLACEMENT CHARACTER}b: cannot be used (no file can have this name); "
    )


async def test_file_of_authorities_that_cannot_be_used(tmp_path: Path) -> None:
    for content, sentence in ((None, "No such file"), (b"nothing", "it holds no certificate")):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)
        message = await said(RemoteLocation(url="https://127.0.0.1:9", ca_file=str(file)))
        assert f"engine.caFile {file}" in message and sentence in message


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSLKEYLOGFILE"])
async def test_unreadable_system_certificates(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/nowhere/at/all")
    message = await said(RemoteLocation(url="https://127.0.0.1:9"))
    assert message.startswith("the certificates of this machine cannot be read (No such file or directory); check the")


@pytest.mark.parametrize("proxy", ["foo:bar", "socks5://127.0.0.1:9", "ftp://127.0.0.1:9", "\x7f"])
async def test_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    message = await said(RemoteLocation(url="https://gpu.invalid"))
    assert message == (
        "gpu.invalid: the proxy of the environment cannot be used, as it is none of HTTP; check HTTPS_PROXY, ALL_PROXY "
        "and NO_PROXY"
    )


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "http://127.0.0.1:99999", "http://proxy.invalid:80"])
async def test_proxy_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, name: str, proxy: str) -> None:
    monkeypatch.setenv(name, proxy)
    message = await said(RemoteLocation(url="https://gpu.invalid"))
    assert message.startswith("gpu.invalid: the proxy of the environment refuses the connection or cannot be reached")


async def test_proxy_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_watch, "_ANSWER_S", 0.1)
    async with answering(b"") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        message = await said(RemoteLocation(url="https://gpu.invalid"))
    assert message.startswith("gpu.invalid does not answer through the proxy of the environment")
    assert message.endswith("HTTPS_PROXY, ALL_PROXY and NO_PROXY")


async def test_proxy_that_is_not_used_for_the_host_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "gpu.invalid")
    assert "gpu.invalid is not found" in await said(RemoteLocation(url="https://gpu.invalid"))
