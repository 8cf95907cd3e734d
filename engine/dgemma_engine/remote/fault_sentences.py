"""A fault on the way to an engine elsewhere -> one sentence for the status: cause, then remedy. Pure."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Generator

import httpx2

_EXPIRED, _NOT_YET = 10, 9
_OTHER_NAME = (62, 64)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_PROXIES = "HTTPS_PROXY, ALL_PROXY and NO_PROXY"
_CHECK_PROXY = f"check {_PROXIES}"
_SIGN_IN = "sign in to this network with a browser, or check engine.url"


def of_connecting(error: Exception, place: str, *, is_proxied: bool) -> str:
    """Returns why no connection could be made.

    Args:
        error: of the HTTP library; its causes count too.
        place: host and port.
        is_proxied: whether the environment names a proxy for it, so that it is the proxy that was connected to.
    """
    causes = [*_causes(error)]
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{place}: {_of_certificate(cause)}"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"{place} does not answer in HTTPS; check the scheme and the port of engine.url"
    if is_proxied or isinstance(error, httpx2.ProxyError):
        return f"{place}: the proxy of the environment refuses the connection or cannot be reached; {_CHECK_PROXY}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"{place} is not found: the network is down, or engine.url names another host than it should; check both"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"{place} refuses connections; start there: dgemma-engine serve"
    if any(isinstance(cause, OSError) and cause.errno in _UNREACHABLE for cause in causes):
        return f"{place} cannot be reached: the network is down; connect this machine to that network"
    return no_answer(place, is_proxied=False)


def wrong_proxy(place: str) -> str:
    """Returns the sentence for a proxy that cannot be used at all."""
    return f"{place}: the proxy of the environment cannot be used, as it is none of HTTP; {_CHECK_PROXY}"


def no_answer(place: str, *, is_proxied: bool) -> str:
    """Returns the sentence for a machine that does not answer.

    Args:
        place: host and port.
        is_proxied: whether the environment names a proxy for it, which may be what does not answer.
    """
    asleep = "the network is down, or the machine sleeps or is off"
    if is_proxied:
        return f"{place} does not answer through the proxy of the environment: {asleep}; check both, and {_PROXIES}"
    return f"{place} does not answer: {asleep}; check both, and the port of engine.url"


def late(place: str) -> str:
    """Returns the sentence for a question without an answer at its deadline; its machine may still answer others."""
    return f"{place} has not answered by the deadline; the next request asks again"


def of_tls(place: str) -> str:
    """Returns the sentence for a machine that was asked in plain HTTP and answers in HTTPS only."""
    return f"{place} answers in HTTPS only; write https in engine.url in place of http"


def broken(place: str) -> str:
    """Returns the sentence for a connection that broke when no time was left for a second one."""
    return f"{place} broke the connection off before its answer; the next request tries again"


def broken_twice(place: str) -> str:
    """Returns the sentence for a connection that broke twice."""
    return f"{place} broke the connection off before its answer, twice; the next request tries again"


def broken_at_first(place: str) -> str:
    """Returns the sentence for a connection that broke twice while connecting to an engine."""
    return (
        f"{place} broke the connection off before its answer, twice; check the port of engine.url, and that "
        "dgemma-engine serve runs there"
    )


def of_foreign_answer(status: int, place: str) -> str:
    """Returns the sentence for an answer that is none of an engine.

    Args:
        status: of HTTP.
        place: host and port.
    """
    if 300 <= status < 400 or status == 511 or status == 200:
        return f"{place}: something else than an engine answers, a web page perhaps; {_SIGN_IN}"
    if status == 407:
        return f"{place}: a proxy on the way needs a password; {_CHECK_PROXY}"
    if status == 404:
        return f"{place} has no engine at this address; check engine.url, or update dgemma-lsp there"
    if status in (502, 503, 504):
        return f"{place}: a proxy on the way does not reach the engine; start there: dgemma-engine serve"
    return f"{place} answers with HTTP status {status}, which an engine does not send; check engine.url"


def of_refusal(status: int, place: str) -> str:
    """Returns the sentence for an engine that refuses to be asked.

    Args:
        status: of HTTP.
        place: host and port.
    """
    if status == 401:
        return (
            f"{place} does not accept the key, or was sent none; put one that it was started with into the file of "
            "engine.keyFile (on the command line: --key-file)"
        )
    if status == 403:
        host = place.rpartition(":")[0] or place
        return (
            f"{place} does not answer to this name; start there: dgemma-engine serve --allow-host {host}, or name it "
            "in allow_hosts of the cluster's configuration"
        )
    return f"{place} refuses the question (HTTP status {status}); update dgemma-lsp on both machines"


def held_back(place: str) -> str:
    """Returns the sentence for drafts that come together with their answer."""
    return (
        f"{place}: a proxy on the way holds answers back, so that drafts come late; let it pass streams on, in nginx "
        "with proxy_buffering off"
    )


def of_version(other: int, own: int, place: str) -> str:
    """Returns the sentence for an engine of another version.

    Args:
        other: its protocol.
        own: the protocol here.
        place: host and port.
    """
    older, where = ("an older", "there") if other < own else ("a newer", "here")
    return f"{place} has {older} version of dgemma-lsp; update it {where}: pip install --upgrade dgemma-lsp"


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "its certificate has expired; renew it there, or correct the clock of this machine"
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet; correct the clock of this machine"
    if error.verify_code in _OTHER_NAME:
        return "its certificate is for another name; use that name in engine.url"
    return (
        "its certificate is of an unknown authority; name the file of that authority in engine.caFile, or sign in "
        "where the network asks for that"
    )


def _causes(error: BaseException) -> Generator[BaseException]:
    """Yields an error and everything that led to it."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
