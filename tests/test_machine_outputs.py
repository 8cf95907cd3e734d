"""Outputs that scripts outside this repository read, as docs/cli.md lists them.

The line of `demo` is tested in tests/lsp/commands, that of `tune` in tests/engine/tools/tuning, GPU results in
tests/engine/bench, `DGEMMA_RUNTIME_DIR` in tests/engine/ipc, imports without torch in tests/test_architecture.py.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tomllib
from collections import namedtuple
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dgemma_engine.cli import main
from dgemma_engine.protocol.messages import AdapterUse, Finish, Infill
from dgemma_engine.protocol.status_messages import Status
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.repository_adapters.training_folder import TrainingFacts

from dgemma_lsp.commands.complete import Answer, request_at
from dgemma_lsp.commands.file_location import FilePosition
from dgemma_lsp.request import Trigger
from tests.engine.repository_adapters.conftest import MakeAbout, factors, make_about  # noqa: F401, a fixture
from tests.engine.tools.evaluation.conftest import HUMAN_EVAL
from tests.engine.tools.evaluation.kernel import needs_confinement
from tests.engine.tools.evaluation.table_engine import TableEngine, install

ROOT = Path(__file__).parents[1]
# pygls makes such classes of JSON objects.
Sources = namedtuple("Sources", ["engine", "not_asked"])
Tally = namedtuple("Tally", ["sources", "steps_used", "speculative_steps_used", "prepared_used", "adopted"])


def documented(command: str) -> set[str]:
    """Returns the keys that docs/cli.md promises of a command's last line."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{command}` \| ([^;\n]*)", text, re.MULTILINE)
    assert row
    return set(re.findall(r"`(\w+)`", row[1]))


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_programs_are_installed_under_their_names() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts.keys() == {"dgemma-lsp", "dgemma-engine"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_status_has_the_documented_keys() -> None:
    keys = documented("dgemma-engine status --json")
    assert len(keys) == 15
    assert keys <= {field.name for field in fields(Status)}


def test_adapters_are_reported_by_the_documented_keys(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_about: MakeAbout,  # noqa: F811
) -> None:
    """One that is whole, one that is damaged, and an unfinished training."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = AdapterStore.locate(os.environ)
    store.install(make_about(), adapter=factors(), calibration=None)
    store.install(make_about(root="/elsewhere"), adapter=b"", calibration=None)
    training = store.training_folder(Path("/third"))
    with training.exclusive():
        training.begin(
            TrainingFacts(root="/third", base_name="b", started="2026-01-31T10:00:00+00:00", minutes=20.0, seed=0)
        )
        (training.path / "state.pt").touch()
    assert main(["adapters", "--json"]) == 1
    lines = {line["state"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert lines.keys() == {"on", "damaged", "unfinished"}
    assert documented("dgemma-engine adapters --json") == {"root", "base_name", "state", "bytes", "message"}
    for state, keys in (("on", "an installed one"), ("damaged", "an installed one"), ("unfinished", "an unfinished")):
        assert documented("dgemma-engine adapters --json") | also(keys) <= lines[state].keys()


def also(whose: str) -> set[str]:
    """Returns the keys that docs/cli.md promises of a kind of line of `adapters`."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    row = re.search(rf"; {whose} also ([^;|\n]*)", text)
    assert row
    return set(re.findall(r"`(\w+)`", row[1]))


@pytest.mark.parametrize(
    ("use", "adapter"),
    [
        (AdapterUse(), None),
        (AdapterUse(root="/repo"), "/repo"),
        (AdapterUse(root="/repo", fault="the adapter of /repo is off"), None),
    ],
)
def test_completion_has_the_documented_keys(tmp_path: Path, use: AdapterUse, adapter: str | None) -> None:
    place = FilePosition(path=tmp_path / "a.py", text="x = ", offset=4)
    infill = Infill(text="1", finish=Finish.STABLE, steps=3, score=0.5, timings_ms={"total": 1.0}, adapter=use)
    request = request_at(place, trigger=Trigger.INVOKED, deadline_ms=500)
    answer = Answer(request=request, infill=infill, completion=None, wall_ms=1.0)
    status: Any = SimpleNamespace(model="m", device="cpu")
    values = answer.to_json(status)
    assert documented("dgemma-lsp complete --json") == values.keys() and values["adapter"] == adapter


@needs_confinement
@pytest.mark.parametrize("length", ["auto", "oracle"])
def test_eval_ends_with_the_documented_keys(
    length: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(TableEngine({"def double(x):\n": "    y = 2 * x"}), monkeypatch)
    holes = tmp_path / "holes.jsonl"
    rows = [HUMAN_EVAL | {"task_id": f"SingleLineInfilling/HumanEval/0/L{number}"} for number in range(3)]
    holes.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    options = ["--length", length, "--limit", "2", "--execute", "--decode", "all"]
    assert main(["eval", str(holes), *options]) == 0
    result = last_line(capsys)
    assert len(documented("dgemma-engine eval")) == 9
    assert documented("dgemma-engine eval") <= result.keys()
    assert (result["n"], result["pass_at_1"], result["recipe"]["length"]) == (2, 1.0, length)


def test_typing_benchmark_ends_with_the_documented_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One window: an answer in time, one that came after an edit, and a request without an answer."""
    monkeypatch.syspath_prepend(ROOT / "engine/bench/server")
    traces, window = importlib.import_module("typing_traces"), importlib.import_module("window")

    def asked(answered_s: float | None, stale_s: float) -> Any:
        return window.AskedItem(uri="a", version=1, sent_s=0.0, expected=None, answered_s=answered_s, stale_s=stale_s)

    played = SimpleNamespace(asked=[asked(1.0, 0.0), asked(2.0, 1.5), asked(None, 0.0)], keys=3, accepted=0)

    @asynccontextmanager
    async def watched(folder: Path, _model: str) -> AsyncGenerator[Any]:
        (folder / "server.log").touch()
        (folder / "engine.err").write_text(failure)
        (folder / "runs.jsonl").write_text(json.dumps(run) + "\n" if run else "")
        cpu_s = iter((1.0, 1.75))
        yield traces.Watched(
            runs=folder / "runs.jsonl",
            errors=folder / "engine.err",
            process=SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=next(cpu_s), system=0.5)),
        )

    async def play(*_: object) -> tuple[list[Any], list[Tally]]:
        return [played], [Tally(Sources(2, 0), 0, 0, 0, 0)]

    async def storm(*_: object) -> dict[str, Any]:
        return {}

    run: dict[str, Any] = {"document": "0/a", "speculative": False, "steps": 1, "encoded": 1, "finish": "stable"}
    run |= {"arrived_s": 0.0, "started_s": 0.0, "cancelled_s": None, "ended_s": 1.0, "steps_s": [0.5]}
    failure = ""
    for name, function in (("watched", watched), ("play", play), ("storm", storm)):
        monkeypatch.setattr(traces, name, function)
    monkeypatch.setattr(sys, "argv", ["typing_traces.py", "--traces", "1", "--out", str(tmp_path)])
    traces.main()
    result = last_line(capsys)
    assert {key: result[key] for key in documented("make bench-typing")} == {"unanswered": 1, "stale_applied": 1}
    assert result["engine_cpu_s_per_100_keys"] == 25.0
    failure = "Traceback (most recent call last):\nValueError: no"
    with pytest.raises(SystemExit, match=r"(?s)the engine failed or.*nothing was measured.*ValueError: no") as raised:
        traces.main()
    assert raised.value.code
    run = {}
    with pytest.raises(SystemExit, match="never asked"):
        traces.main()
