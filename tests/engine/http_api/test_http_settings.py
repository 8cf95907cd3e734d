from __future__ import annotations

import pytest
from dgemma_engine.errors import WrongUsage
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.http_settings import BindAddress, HttpSettings

KEYS = ApiKeys.read(None, {"DGEMMA_API_KEY": "0123456789abcdef"})


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:8012", "127.0.0.1", 8_012, True),
        ("127.0.0.1", "127.0.0.1", 8_012, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:9", "::1", 9, True),
        ("::1", "::1", 8_012, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("192.168.1.7:80", "192.168.1.7", 80, False),
    ],
)
def test_parse_reads_an_address(text: str, host: str, port: int, is_loopback: bool) -> None:
    bind = BindAddress.parse(text)
    assert (bind.host, bind.port, bind.is_loopback) == (host, port, is_loopback)


@pytest.mark.parametrize(
    "text", ["", "8012", ":8012", "evil.example:80", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:-1"]
)
def test_parse_of_no_address_is_wrong_usage(text: str) -> None:
    with pytest.raises(WrongUsage, match="--http: "):
        BindAddress.parse(text)


def test_address_that_other_machines_reach_needs_a_key() -> None:
    with pytest.raises(WrongUsage, match=r"0\.0\.0\.0 can be reached from other machines: give keys"):
        HttpSettings(bind=BindAddress(host="0.0.0.0"))
    assert HttpSettings(bind=BindAddress(host="0.0.0.0"), keys=KEYS).keys


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_body_bytes", 0), ("max_header_bytes", 0), ("max_items", 0), ("max_requests", 0), ("max_connections", 0),
        ("num_at_once", 0), ("max_wait_s", 0), ("receive_s", 0), ("send_s", 0), ("deadline_ms", 0),
        ("max_middle_tokens", 4_097),
    ],
)  # fmt: skip
def test_limit_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        HttpSettings(**{field: value})  # pyright: ignore[reportArgumentType]
