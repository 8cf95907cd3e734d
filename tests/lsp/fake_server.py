"""The real server on stdio over `FakeEngine`: `python fake_server.py RECORD_FILE CONNECTOR_JSON`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dgemma_engine.model_store import catalogue

# With `tiny` as the default, no message says that a model is missing. The imports below read the default.
catalogue.DEFAULT_MODEL = catalogue.TINY

from dgemma_lsp.server.app import build_server  # noqa: E402
from dgemma_lsp.server.log_filter import configure_logs  # noqa: E402
from tests.lsp.fake_engine import FakeConnector  # noqa: E402


def main() -> int:
    record_path, options = Path(sys.argv[1]), json.loads(sys.argv[2])

    def record(event: str) -> None:
        with record_path.open("a", encoding="utf-8") as file:
            file.write(event + "\n")

    options["loading"] = tuple(options.get("loading", ()))
    fake = FakeConnector(record=record, **options)
    configure_logs("warning")
    server = build_server(lambda settings: fake.connect)
    server.start_io()
    record("ended")
    return 0 if server.shut_down else 1


sys.exit(main())
