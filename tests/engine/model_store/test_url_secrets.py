"""No user info, query or fragment of a URL is left in a message."""

from __future__ import annotations

import pytest
from dgemma_engine.model_store.url_secrets import plain_url, split_user, without_secrets

from tests.package_index import basic


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("https://host:8443/simple/x/", "https://host:8443/simple/x/"),
        ("http://bob:SECRET@PW@host/simple", "http://host/simple"),
        ("http://SECRET@host", "http://host"),
        ("http://bob:SECRET/PW@host/simple", "http://..."),
        ("http://bob:SECRET#PW@host/simple", "http://..."),
        ("http://bob:SECRET?PW@host/simple", "http://..."),
        ("http://bob:SECRET@one/PW@host/simple", "http://one/..."),
        ("http://host/x.whl?X-Signature=SECRET#PW", "http://host/x.whl"),
    ],
)
def test_plain_url_drops_user_query_and_fragment(url: str, plain: str) -> None:
    assert plain_url(url) == plain
    assert without_secrets(f"cannot get {url} now") == f"cannot get {plain} now"


def test_query_of_a_relative_url_is_dropped() -> None:
    text = "HTTPConnectionPool(host='h'): failed with url: /x.whl?X-Signature=SECRET (why?)"
    assert without_secrets(text) == "HTTPConnectionPool(host='h'): failed with url: /x.whl (why?)"


def test_user_ends_at_the_last_at_sign_of_the_authority() -> None:
    assert split_user("http://bob:SECRET@PW@host/simple") == (
        "http://host/simple",
        "Basic " + basic("bob", "SECRET@PW"),
    )
    assert split_user("http://host/@scope") == ("http://host/@scope", "")
