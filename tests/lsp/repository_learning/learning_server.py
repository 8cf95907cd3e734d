"""The real server over `FakeEngine`, with a stand-in for `dgemma-engine tune` and `dgemma-engine adapters rm`.

`python learning_server.py RECORD_FILE MODE`; with further arguments it is the stand-in, whose MODE is `better`,
`worse`, `fails`, `slow` (until it is ended) or `silent`. The model takes adapters, unless MODE is `tiny`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from dgemma_engine.model_store import catalogue
from dgemma_engine.model_store.catalogue import CATALOGUE, TINY
from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import AdapterStore

RECORD, MODE = Path(sys.argv[1]), sys.argv[2]
FIGURES = HeldOutFigures(num_holes=40, rest=0.3, line=0.2, edit_similarity=0.6, precision_shown=0.5, shown=0.4)

# The imports below read the default model from the catalogue.
catalogue.DEFAULT_MODEL = TINY
if MODE != "tiny":
    object.__setattr__(CATALOGUE[TINY], "config", {"model_type": "llama"})

from dgemma_lsp.server.app import build_server  # noqa: E402
from dgemma_lsp.server.log_filter import configure_logs  # noqa: E402
from tests.lsp.fake_engine import FakeConnector  # noqa: E402


def record(event: str) -> None:
    with RECORD.open("a", encoding="utf-8") as file:
        file.write(event + "\n")


def serve() -> int:
    fake = FakeConnector(record=record, answers={"= ": "1", "= y": "1"})
    configure_logs("warning")
    record("serves")
    server = build_server(lambda _settings: fake.connect)
    server.engine_program = [sys.executable, __file__, *sys.argv[1:3]]
    server.start_io()
    return 0 if server.shut_down else 1


def say(values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def engine(arguments: list[str]) -> int:
    record(" ".join(arguments))
    store = AdapterStore.locate(os.environ)
    if arguments[:2] == ["adapters", "rm"]:
        store.remove(Path(arguments[2]))
        return 0
    state = store.training_folder(Path(arguments[1])).path / "state.pt"
    record("goes on" if state.exists() and "--resume-if-possible" in arguments else "begins")
    say({"percent": 1, "message": "measuring without an adapter"})
    if MODE == "slow":
        # It ends after its step, which takes longer than another process needs to start, and keeps its state.
        signal.signal(signal.SIGTERM, lambda *_any: (time.sleep(1.5), record("ended"), os._exit(1)))
        state.parent.mkdir(parents=True, exist_ok=True)
        state.touch()
        say({"percent": 40, "message": "training"})
        time.sleep(60)
    if MODE == "fails":
        sys.stderr.write("dgemma-engine: 12 files are too few; tune needs 20\n")
        return 1
    if MODE == "silent":
        return 0
    root, is_better = arguments[1], MODE == "better"
    if is_better:
        about = About(
            root=root, base_name="b", base_sha256="", merged_sha256="", created="2026-01-31T12:00:00+00:00",
            minutes=20.0, holes=900, before=FIGURES, after=FIGURES,
        )  # fmt: skip
        store.install(about, adapter=b"factors", calibration=None)
    sys.stdout.write("a line of a library\n")
    message = "installed: of 40 holes 9 were right before and 14 after" if is_better else "not installed"
    say({"before": 0.225, "after": 0.35, "installed": is_better, "message": message, "command": "tune"})
    return 0


sys.exit(engine(sys.argv[3:]) if len(sys.argv) > 3 else serve())
