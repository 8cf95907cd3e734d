"""`--insistent`: every dialect answers the best text, however unlikely it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.engine.http_api.running_server import FREE_PORT, running_server

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/infill", {"prefix": "x = ", "suffix": ""}),
    ("/infill", {"input_prefix": "x = ", "input_suffix": ""}),
    ("/completion", {"prompt": "x = "}),
    ("/v1/completions", {"prompt": "x = "}),
    ("/v1/completions", {"segments": {"prefix": "x = "}}),
    ("/v1/fim/completions", {"model": "m", "prompt": "x = "}),
    ("/api/generate", {"model": "m", "prompt": "x = "}),
]


@pytest.mark.parametrize("is_insistent", [True, False])
@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_setting_holds_in_every_dialect(path: str, body: dict[str, Any], is_insistent: bool) -> None:
    async with running_server(settings=replace(FREE_PORT, insistent=is_insistent)) as server:
        assert (await server.post(path, body)).status == 200
    assert server.engine.contexts[0].insistent is is_insistent


async def test_request_of_our_own_api_may_insist_by_itself() -> None:
    async with running_server() as server:
        await server.post("/v1/infill", {"prefix": "x = ", "suffix": "", "insistent": True})
    assert server.engine.contexts[0].insistent
