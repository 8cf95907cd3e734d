"""The real server over `FakeEngine`, for which `small` is the model of a test's index.

`python store_server.py OPTIONS_JSON RECORD_FILE`; keys of the options: `wheel`, the fields of the wheel that `small`
comes in; `default`, the model that runs where none is chosen; `without_pip`. With a further
argument it is `dgemma-engine`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dgemma_engine.model_store import catalogue, pip_download
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.entry import ModelFile, Wheel

OPTIONS = json.loads(sys.argv[1])
WHEEL = Wheel(**OPTIONS["wheel"])
object.__setattr__(CATALOGUE["small"], "wheels", (WHEEL,))
object.__setattr__(CATALOGUE["small"], "file", ModelFile(name="m.gguf", sha256=WHEEL.model_sha256))
if OPTIONS["without_pip"]:
    pip_download.has_pip = lambda: False
catalogue.DEFAULT_MODEL = OPTIONS.get("default", catalogue.TINY)

# The imports below read the default model from the catalogue.
from dgemma_engine.cli import main as engine_main  # noqa: E402

from dgemma_lsp.engine_client.connector import chosen_model, engine_connector  # noqa: E402
from dgemma_lsp.server.app import build_server  # noqa: E402
from dgemma_lsp.server.log_filter import configure_logs  # noqa: E402
from dgemma_lsp.settings.settings import Settings  # noqa: E402
from tests.lsp.fake_engine import FakeConnector, FakeEngine  # noqa: E402


def main() -> int:
    configure_logs("warning")

    def record(event: str) -> None:
        with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
            file.write(event + "\n")

    fake = FakeConnector(record=record)

    def connector(settings: Settings):
        async def connect(**callbacks) -> FakeEngine:
            choice = chosen_model(settings)
            if choice.missing and not choice.is_stand_in:
                # Refuses before it would start an engine.
                await engine_connector(settings)(**callbacks)
            record(f"runs {choice.runs}")
            return await fake.connect(**callbacks)

        return connect

    server = build_server(connector)
    server.pull_command = lambda name: [sys.executable, __file__, *sys.argv[1:3], "pull", name, "--json"]
    server.start_io()
    return 0 if server.shut_down else 1


sys.exit(engine_main(sys.argv[3:]) if len(sys.argv) > 3 else main())
