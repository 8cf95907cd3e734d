"""litellm over OpenAI's, Mistral's and Inception's completions, and the command `llm` over OpenAI's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import CLIENTS, run
from tests.engine.http_api.running_server import running_server

PYTHON = CLIENTS / "venv/bin/python"
LITELLM = """
import os, litellm
options = {"api_base": os.environ["URL"] + os.environ["BASE"], "api_key": "none", "model": os.environ["MODEL"]}
body = {"prompt": "def f(x):\\n    return ", "suffix": "\\n", "max_tokens": 16, "stop": ["!"]}
answer = litellm.text_completion(**options, **body)
print(answer.choices[0].text, answer.choices[0].finish_reason)
print("".join(part.choices[0].text or "" for part in litellm.text_completion(**options, **body, stream=True)))
"""


@pytest.mark.parametrize(
    ("provider", "base"),
    [
        ("text-completion-openai", "/v1"),
        ("text-completion-codestral", "/v1/fim/completions"),
        ("text-completion-inception", "/v1"),
    ],
)
async def test_litellm_completes_whole_and_in_a_stream(provider: str, base: str) -> None:
    environ = {"MODEL": f"{provider}/tiny", "BASE": base, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    async with running_server() as server:
        out = await run(server, PYTHON, "-c", LITELLM, **environ)
    assert out.splitlines() == ["alpha + beta stop", "alpha + beta"]
    for context in server.engine.contexts:
        assert (context.prefix, context.suffix, context.max_middle_tokens) == ("def f(x):\n    return ", "\n", 16)


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
async def test_llm_completes(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with running_server() as server:
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: dgemma\n  model_name: tiny\n  api_base: {server.url}/v1\n  completion: true\n"
        )
        command = (PYTHON, "-m", "llm", "-m", "dgemma", "--key", "none", "--no-log", *options, "x = ")
        out = await run(server, *command, LLM_USER_PATH=str(tmp_path))
    assert out == "alpha + beta"
    assert server.engine.contexts[0].prefix.endswith("x = ")
