"""Continue's own wire code, `@continuedev/openai-adapters` from npm."""

from __future__ import annotations

from tests.clients.conftest import run
from tests.engine.http_api.front_door import front_door

FIM = """
const { constructLlmApi } = await import("@continuedev/openai-adapters");
const api = constructLlmApi({ provider: "deepseek", apiKey: "none", apiBase: process.env.URL + "/" });
const body = { model: "tiny", prompt: "def f(x):\\n    return ", suffix: "\\n", max_tokens: 16, stream: true };
let text = "";
for await (const part of api.fimStream(body, new AbortController().signal)) {
  text += part.choices[0]?.delta?.content ?? "";
}
console.log(text);
"""


async def test_deepseek_adapter_streams_a_middle() -> None:
    async with front_door() as door:
        out = await run(door, "node", "--input-type=module", "-e", FIM)
    assert out == "alpha + beta"
    assert (door.engine.contexts[0].prefix, door.engine.contexts[0].suffix) == ("def f(x):\n    return ", "\n")
