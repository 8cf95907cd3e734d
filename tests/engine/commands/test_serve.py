"""`dgemma-engine serve`: its options, and the real program with the real engine and the model `tiny`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from dgemma_engine.cli import main
from dgemma_engine.commands import serve
from dgemma_engine.commands.serve import add_arguments, service_command
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.lock_file import holder_pid

KEY = "0123456789abcdef"
PREFIX = 'def f(x):\n    if x is None:\n        raise ValueError("x")\n    return x\n\n\ndef g(x):\n    if x is N'
# The best candidate after this prefix has a score of 0.000.
UNSURE = "x = "
PATIENCE_S = 120.0


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(options)


def test_service_command_keeps_the_options_and_makes_paths_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    options = ["--model", "model", "--api-key-file", "keys", "--allow-host", "a.example", "--idle-minutes", "5"]
    command = service_command(parsed(*options, "--http", "127.0.0.1:9"))
    assert command[:5] == [sys.executable, "-P", "-m", "dgemma_engine", "serve"]
    again = parsed(*command[5:])
    assert (again.model, again.api_key_file) == (str(tmp_path / "model"), tmp_path / "keys")
    assert (again.http, again.allow_host, again.idle_minutes) == ("127.0.0.1:9", ["a.example"], 5.0)
    again = parsed(*service_command(parsed("--model", "tiny", "--insistent"))[5:])
    assert (again.model, again.insistent) == ("tiny", True)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--http", "0.0.0.0:0"], "0.0.0.0 can be reached from other machines"),
        (["--http", "x"], "--http: must be an IP address and a port"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key belong together"),
        (["--api-key-file", "none"], "--api-key-file none: cannot be read"),
        (["--model", "smal"], "smal: no such model; did you mean small?"),
        (["--idle-minutes", "0"], "--idle-minutes 0 must be more than 0"),
    ],
)
def test_option_that_cannot_be_used_is_wrong_usage(
    options: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *options]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--http", "127.0.0.1:8012"], ["--api-key-file", "keys"], ["--tls-cert", "c"], ["--tls-key", "k"],
        ["--allow-host", "a"], ["--allow-origin", "http://a"], ["--insistent"], ["--idle-minutes", "5"],
        ["--end-with-input"], ["--share"], ["--install-service"], ["--uninstall-service"], ["--model", "tiny"],
        ["--device", "cpu"],
    ],
    ids=lambda options: options[0],
)  # fmt: skip
def test_option_without_effect_beside_ray_is_refused_by_name(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--ray", "team.yaml", *options]) == 2
    assert f"{options[0]} has no effect with --ray" in capsys.readouterr().err


def test_example_of_a_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--ray-example", "first_steps"]) == 0
    assert "import_path: dgemma_engine.cluster.application:build" in capsys.readouterr().out


def test_model_that_answers_in_place_of_the_default_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end_at_once(*_arguments: object) -> None:
        pass

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(serve, "_serve", end_at_once)
    assert main(["serve"]) == 0
    assert capsys.readouterr().err == (
        "dgemma-engine: the model small is not there yet, so `tiny` answers in its place; "
        "run: dgemma-engine pull small\n"
    )


def test_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main(["serve"]) == 1
    assert "pip install 'dgemma-lsp[http]'" in capsys.readouterr().err


class Program:
    """Runs `dgemma-engine serve`, which starts an engine."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        environ = os.environ | {"DGEMMA_RUNTIME_DIR": str(directory), "DGEMMA_API_KEY": KEY}
        command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--model", "tiny", "--http", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *options],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().removeprefix("listening on ").strip()
        self.lock = EngineLocation.locate(environ, model="tiny").lock

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers), timeout=60) as reply:
            return json.loads(reply.read())

    def wait_until_loaded(self) -> None:
        give_up_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_s:
            with suppress(urllib.error.HTTPError):
                self.ask("/health")
                return
            time.sleep(0.1)
        raise TimeoutError("the model was not loaded")

    def texts(self, prefix: str) -> list[str]:
        """Returns the answer in each HTTP dialect."""
        template = f"<|fim_prefix|>{prefix}<|fim_suffix|>\n<|fim_middle|>"
        above, _, line = prefix.rpartition("\n")
        both = {"model": "any", "prompt": prefix, "suffix": "\n"}
        vim = self.ask("/infill", {"input_prefix": above + "\n", "prompt": line, "input_suffix": "\n"})
        openai = self.ask("/v1/completions", {"prompt": template, "model": "any"})
        mistral = self.ask("/v1/fim/completions", both)
        ollama = self.ask("/api/generate", both | {"stream": False})
        tabby = self.ask("/v1/completions", {"segments": {"prefix": prefix, "suffix": "\n"}})
        return [
            vim["content"],
            openai["choices"][0]["text"],
            mistral["choices"][0]["message"]["content"],
            ollama["response"],
            tabby["choices"][0]["text"],
        ]

    def end(self) -> None:
        self.end_program()
        if (pid := holder_pid(self.lock)) is not None:
            os.kill(pid, signal.SIGTERM)

    def end_program(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("engine"))
    try:
        program.wait_until_loaded()
        yield program
    finally:
        program.end()


@pytest.mark.e2e
def test_every_dialect_gives_the_answer_of_the_real_engine(program: Program) -> None:
    own = program.ask(
        "/v1/infill",
        {
            "prefix": PREFIX,
            "suffix": "\n",
            "path": "a.py",
            "language": "python",
            "insistent": True,
            "deadline_ms": 20_000,
        },
    )
    assert own["finish"] in ("stable", "step_limit") and own["timings_ms"]["total"] > 0 and own["candidates"]
    texts = set(program.texts(PREFIX))
    # Whether the score of a text reaches the threshold may differ between processors; the text does not.
    assert own["text"].startswith("one")
    assert len(texts) == 1 and own["text"].startswith(*texts)
    vim = program.ask("/infill", {"input_prefix": PREFIX, "input_suffix": "\n"})
    assert vim["model"] == "tiny" and vim["timings"]["prompt_ms"] > 0


@pytest.mark.e2e
def test_insistent_program_answers_a_text_in_every_dialect(program: Program) -> None:
    insistent = Program(program.directory, "--insistent")
    try:
        insistent.wait_until_loaded()
        assert all(insistent.texts(UNSURE)) and not any(program.texts(UNSURE))
    finally:
        insistent.end_program()


@pytest.mark.e2e
def test_candidates_and_warm_up_of_the_real_engine(program: Program) -> None:
    warm = program.ask("/infill", {"input_prefix": PREFIX, "input_suffix": "\n", "n_predict": 0})
    assert warm["tokens_evaluated"] > 0 and warm["tokens_predicted"] <= 1
    several = program.ask("/infill", {"input_prefix": PREFIX, "input_suffix": "\n", "n_cmpl": 3})
    assert 1 <= len(several) <= 3 and len({one["content"] for one in several}) == len(several)


@pytest.mark.e2e
def test_process_loads_no_torch_and_holds_at_most_80_mib(program: Program) -> None:
    program.ask("/props")
    process = psutil.Process(program.process.pid)
    assert process.memory_info().rss <= 80 * 2**20
    if sys.platform == "linux":
        assert not any("torch" in one.path for one in process.memory_maps())


@pytest.mark.e2e
def test_key_is_needed_and_the_end_of_the_program_leaves_the_engine(tmp_path: Path) -> None:
    program = Program(tmp_path)
    try:
        program.wait_until_loaded()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{program.url}/props", timeout=30)
        engine = holder_pid(program.lock)
        program.process.send_signal(signal.SIGTERM)
        out, err = program.process.communicate(timeout=30)
        assert (program.process.returncode, out, err) == (0, "", "")
        assert engine is not None and holder_pid(program.lock) == engine
        follower = Program(tmp_path, "--end-with-input")
        taken = follower.url.removeprefix("http://")
        environ = os.environ | {"DGEMMA_RUNTIME_DIR": str(tmp_path)}
        command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--model", "tiny", "--http", taken]
        second = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 3 and f"Cannot listen on {taken}: the port is in use" in second.stderr
        assert follower.process.stdin is not None
        follower.process.stdin.close()
        assert follower.process.wait(30) == 0
    finally:
        program.end()
