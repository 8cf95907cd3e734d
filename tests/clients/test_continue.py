"""Continue's own wire code, `@continuedev/openai-adapters` from npm."""

from __future__ import annotations

import pytest

from tests.clients.conftest import run
from tests.engine.http_api.running_server import running_server

FIM = """
const { constructLlmApi } = await import("@continuedev/openai-adapters");
const { URL: url, PROVIDER: provider, BASE: base } = process.env;
const api = constructLlmApi({ provider, apiKey: "none", apiBase: url + base });
const body = { model: "tiny", prompt: "def f(x):\\n    return ", suffix: "\\nf(1)\\n", max_tokens: 16, stream: true };
let text = "";
for await (const part of api.fimStream(body, new AbortController().signal)) {
  text += part.choices[0]?.delta?.content ?? "";
}
console.log(text);
"""


@pytest.mark.parametrize(("provider", "base"), [("deepseek", "/"), ("mistral", "/v1/"), ("inception", "/v1/")])
async def test_adapter_streams_a_middle(provider: str, base: str) -> None:
    async with running_server() as server:
        out = await run(server, "node", "--input-type=module", "-e", FIM, PROVIDER=provider, BASE=base)
    assert out == "alpha + beta"
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix, context.max_middle_tokens) == ("def f(x):\n    return ", "\nf(1)\n", 16)
