from __future__ import annotations

import msgspec
import pytest
from dgemma_engine.http_api.json_bodies import decoded

from tests.engine.http_api.running_server import running_server


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"a\uDE00b", "a\ufffdb"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\\ud83d\ud83d", "\\ud83d\ufffd"),
        (rb"\\\ud83d\n", "\\\ufffd\n"),
    ],
)
def test_decoded_replaces_a_lone_surrogate(text: bytes, read: str) -> None:
    assert decoded(b'{"a": "' + text + b'"}', dict[str, str]) == {"a": read}


def test_decoded_of_what_is_no_json_raises() -> None:
    for body in (b"{", rb'{"a": "\ud83d"', rb'{"a": "\q"}'):
        with pytest.raises(msgspec.DecodeError):
            decoded(body, dict[str, str])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", rb'{"prompt": "# \ud83d\nx = ", "suffix": "\ude00", "max_tokens": 8.0}'),
        ("/infill", rb'{"input_prefix": "# \ud83d\nx = ", "input_suffix": "\ude00", "n_predict": 8}'),
        ("/v1/completions", rb'{"prompt": "# \ud83d\nx = ", "n_predict": 8}'),
    ],
)
async def test_character_cut_in_half_is_answered(path: str, body: bytes) -> None:
    async with running_server() as server:
        reply = await server.request("POST", path, body)
    assert reply.status == 200 and server.engine.contexts[0].prefix == "# \ufffd\nx = "
