from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgemma_lsp.server.log_filter import WithoutValues

SECRET = "hunter2"


def message(method: str, params: Any, **rest: Any) -> bytes:
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **rest}).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.e2e
@pytest.mark.parametrize("level", ["warning", "info"])
def test_source_text_reaches_no_log(tmp_path: Path, level: str):
    uri = {"uri": "file:///w/a.py"}
    position = {"line": 0, "character": 0}
    change = {"textDocument": {**uri, "version": 2}, "contentChanges": [{"text": SECRET}]}
    options = {"logLevel": level}
    stream = b"".join(
        [
            message("initialize", {"capabilities": {}, "initializationOptions": options}, id=1),
            message("initialized", {}),
            message("textDocument/didChange", change),
            message("textDocument/didOpen", {"textDocument": {**uri, "languageId": SECRET, "text": SECRET}}),
            message(
                "textDocument/didOpen",
                {"textDocument": {**uri, "version": 1, "languageId": "python", "text": f"x = {SECRET}"}},
            ),
            message("textDocument/didChange", change | {"contentChanges": [{"range": SECRET, "text": SECRET}]}),
            message(
                "textDocument/inlineCompletion",
                {"textDocument": uri, "position": position, "context": {"triggerKind": 1}},
                id=2,
            ),
            message("textDocument/inlineCompletion", {"textDocument": uri, "position": SECRET}, id=3),
            message(SECRET, {"a": SECRET}, id=4),
            message("shutdown", None, id=5),
        ]
    )
    server = Path(__file__).parents[1] / "fake_server.py"
    command = [sys.executable, str(server), str(tmp_path / "record"), json.dumps({"answers": {"": SECRET}})]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stream)
        process.stdin.flush()
        said = b""
        while b'"id": 5' not in said:
            said += (piece := process.stdout.read1())
            assert piece, "the server runs until `exit`"
        rest, log = process.communicate(message("exit", None), timeout=30)
    assert process.returncode == 0
    assert b"not open" in log, "the log works"
    assert SECRET.encode() not in log
    assert (said + rest).count(b'"id": ') >= 5, "every request is answered"


def test_foreign_records_lose_their_values():
    record = logging.LogRecord("pygls.io", logging.ERROR, "", 1, "Failed on %s", (SECRET,), None)
    assert WithoutValues("%(message)s").format(record) == "Failed on ..."
    assert record.getMessage() == f"Failed on {SECRET}", "other handlers get the record as it was"


def test_our_records_keep_theirs():
    record = logging.LogRecord("dgemma_lsp.server.app", logging.ERROR, "", 1, "took %d ms", (3,), None)
    assert WithoutValues("%(message)s").format(record) == "took 3 ms"
