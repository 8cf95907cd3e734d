"""The reference server, llama.cpp's own, side by side with ours: the same requests, the same fields and types.

Ours may have more fields. The fields that ours lacks are listed here, with the reasons.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.clients.conftest import CLIENTS
from tests.engine.http_api.running_server import AnsweringEngine, Reply, RunningServer, running_server

FOLDER = CLIENTS / "llama.cpp"
PATIENCE_S = 60.0
# The server requires fill-in-the-middle tokens. The test compares no text, so any three ids serve.
FIM_TOKENS = ",".join(f"tokenizer.ggml.fim_{name}_token_id=int:{3 + i}" for i, name in enumerate(("pre", "suf", "mid")))

LACKING = {
    # How each token is sampled: the engine denoises, and ignores these.
    "generation_settings.*",
    "default_generation_settings.params.*",
    # Facts of the weights that a client cannot use: the engine does not report them.
    "data[].meta.vocab_type",
    "data[].meta.n_vocab",
    "data[].meta.n_embd",
    "data[].meta.n_params",
    "data[].meta.size",
    "data[].meta.ftype",
    # Markers and templates of chats.
    "chat_template_caps.*",
    "media_marker",
    # Settings of the page that comes with the server.
    "ui_settings.*",
}
"""Fields of the reference server that ours lacks."""
LACKING_IN_OPENAI = LACKING | {
    # What llama.cpp adds to the API.
    "timings",
    "system_fingerprint",
    "usage.prompt_tokens_details",
    # A string or null in OpenAI's own API.
    "error.code",
}

PREFIX = {"input_prefix": "def f(x):\n    ", "prompt": "return ", "input_suffix": "\n", "n_predict": 4}
REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/v1/health", None),
    ("GET", "/props", None),
    ("GET", "/v1/models", None),
    ("GET", "/models", None),
    ("POST", "/infill", PREFIX),
    ("POST", "/infill", PREFIX | {"input_extra": [{"filename": "a.py", "text": "x = 1\n"}], "stop": ["\n"]}),
    ("POST", "/infill", PREFIX | {"n_cmpl": 2}),
    ("POST", "/infill", PREFIX | {"stream": True}),
    ("POST", "/infill", PREFIX | {"response_fields": ["content", "timings/prompt_ms", "tokens_cached", "no/such"]}),
    ("POST", "/infill", PREFIX | {"n_predict": 0, "response_fields": [""]}),
    ("POST", "/infill", PREFIX | {"t_max_predict_ms": 1_000, "samplers": ["top_k"], "top_k": 40, "cache_prompt": True}),
    ("POST", "/infill", {"input_prefix": "x"}),
    ("POST", "/infill", PREFIX | {"input_suffix": 1}),
    ("POST", "/infill", PREFIX | {"n_predict": "many"}),
    ("POST", "/infill", []),
    ("POST", "/completion", {"prompt": "x = ", "n_predict": 4}),
    ("POST", "/completion", {"prompt": "x = ", "n_predict": 4, "stream": True}),
    ("POST", "/completions", {"prompt": "x = ", "n_predict": 4}),
    ("POST", "/v1/completions", {"model": "m", "prompt": "x = ", "max_tokens": 4}),
    ("POST", "/v1/completions", {"model": "m", "prompt": "x = ", "max_tokens": 4, "stream": True}),
    ("POST", "/v1/completions", {"model": "m", "max_tokens": 4}),
    ("POST", "/nothing", {}),
]


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@asynccontextmanager
async def reference(port: int) -> AsyncIterator[RunningServer]:
    """Runs llama.cpp's server with the loader and the libraries that came with it."""
    (libraries,) = (FOLDER / "usr/lib").glob("*-linux-gnu")
    loader = next(libraries.glob("ld-linux-*.so.*"))
    process = await asyncio.create_subprocess_exec(
        *(loader, "--library-path", f"{libraries}:{libraries / 'llama'}", FOLDER / "usr/bin/llama-server"),
        *("--model", FOLDER / "model.gguf", "--alias", "small", "--host", "127.0.0.1", "--port", f"{port}"),
        *("--ctx-size", "2048", "--threads", "1", "--parallel", "2", "--override-kv", FIM_TOKENS),
        # Code for this processor is loaded from the working directory.
        cwd=libraries / "ggml/backends0",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    running = RunningServer(AnsweringEngine(), port, f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await is_ready(running):
                await asyncio.sleep(0.1)
        yield running
    finally:
        process.kill()
        await process.wait()


async def is_ready(running: RunningServer) -> bool:
    try:
        return (await running.get("/health")).status == 200
    except OSError:
        return False


async def test_answers_have_the_fields_and_types_of_the_reference_server(port: int) -> None:
    wrong: list[str] = []
    async with reference(port) as theirs, running_server(AnsweringEngine("alpha", "beta")) as ours:
        for method, path, body in REQUESTS:
            data = None if body is None else json.dumps(body).encode()
            expected, found = [await running.request(method, path, data) for running in (theirs, ours)]
            wrong += [f"{method} {path} {body}: {fault}" for fault in compared(path, expected, found)]
    assert wrong == [], "\n".join(wrong)


def compared(path: str, expected: Reply, found: Reply) -> list[str]:
    """Returns what the second answer lacks or has with another type."""
    if expected.status != found.status:
        return [f"status {found.status}, not {expected.status}"]
    kinds = [one.headers["content-type"].partition(";")[0] for one in (expected, found)]
    if kinds[0] != kinds[1]:
        return [f"content type {kinds[1]}, not {kinds[0]}"]
    lacking = LACKING_IN_OPENAI if path.startswith("/v1/") else LACKING
    if kinds[0] == "text/event-stream":
        # OpenAI sends the usage in a stream where it is asked for only.
        lacking = lacking | {"usage"}
        # Each server splits the text in its own way: the last piece is compared, and the events after it.
        pairs = zip(expected.events[-len(found.events) :], found.events, strict=True)
    else:
        pairs = [(expected.json, found.json)]
    return [
        fault
        for theirs, ours in pairs
        for place, fault in differences("", theirs, ours)
        if not is_known(place.removeprefix("[]."), lacking)
    ]


def differences(place: str, theirs: Any, ours: Any) -> list[tuple[str, str]]:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        found: list[tuple[str, str]] = []
        for name, value in theirs.items():
            below = f"{place}.{name}".lstrip(".")
            if name not in ours:
                found.append((below, f"{below} is missing"))
            else:
                found += differences(below, value, ours[name])
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        both = zip(theirs[:1], ours[:1], strict=False)
        found = [one for pair in both for one in differences(f"{place}[]", *pair)]
        is_answer_short = place == "" and len(theirs) != len(ours)
        return [*found, (place, f"{len(ours)} entries, not {len(theirs)}")] if is_answer_short else found
    if isinstance(theirs, float) and isinstance(ours, int) and not isinstance(ours, bool):
        return []
    if type(theirs) is not type(ours):
        return [(place, f"{place} is {type(ours).__name__}, not {type(theirs).__name__}")]
    return []


def is_known(place: str, lacking: set[str]) -> bool:
    parts = place.split(".")
    whole = [".".join(parts[: num + 1]) for num in range(len(parts))]
    return any(one in lacking or (index and f"{whole[index - 1]}.*" in lacking) for index, one in enumerate(whole))
