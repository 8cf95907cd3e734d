"""Messages with missing, null or unknown values: the server reads the rest of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lsp.raw_client import events, framed, question, raw_client
from tests.lsp.waiting import until

METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record.txt"


@pytest.mark.parametrize(
    "params",
    [
        {
            "capabilities": {
                "textDocument": {"completion": {"completionItem": {"tagSupport": {"valueSet": [1, 2, -1]}}}}
            }
        },
        {"capabilities": {"workspace": {"symbol": {"symbolKind": {"valueSet": [1, 27]}}}}},
        {"capabilities": {"workspace": {"workspaceEdit": {"resourceOperations": ["create", "copy"]}}}},
        {"capabilities": {"textDocument": {"completion": {"completionItemKind": {"valueSet": [118_115, "x"]}}}}},
        {"capabilities": {"workspace": {"workspaceEdit": {"failureHandling": "hope"}}}},
        {"capabilities": {"textDocument": {"inlineCompletion": True, "hover": None, "rename": 7}}},
        {"capabilities": {"general": {"positionEncodings": ["utf-7", None, "utf-16"], "staleRequestSupport": None}}},
        {"capabilities": {"window": {"workDoneProgress": "yes", "showMessage": []}}},
        {"capabilities": None, "trace": None, "clientInfo": None, "workspaceFolders": None, "locale": None},
        {"capabilities": {}, "trace": "compact", "processId": "me", "clientInfo": {"version": 3}},
        {"capabilities": {}, "rootUri": "file://[x", "workspaceFolders": [{"uri": "file://[y"}]},
        {"capabilities": {}, "rootPath": ""},
        {},
    ],
)
async def test_initialize_ignores_values_that_are_not_known(record: Path, params: dict[str, Any]):
    async with raw_client(record) as client:
        response = await client.request("initialize", params)
        assert "result" in response, response
        client.send({"method": "initialized"})
        assert await client.lives()


async def test_folder_without_a_name_is_added(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        folder = {"uri": "file:///w/sub", "name": None}
        client.notify("workspace/didChangeWorkspaceFolders", event={"added": [folder], "removed": None})
        client.open("PATH x = ", uri="file:///w/sub/b.py")
        await client.ask(0, 9, uri="file:///w/sub/b.py")
        assert "path b.py" in events(record)


async def test_initialize_without_params_is_answered(record: Path):
    async with raw_client(record) as client:
        assert "result" in await client.request("initialize")
        assert await client.lives()


@pytest.mark.parametrize("params", [{}, {"params": None}, {"params": []}])
async def test_initialized_without_params_pulls_the_settings(record: Path, params: dict[str, Any]):
    async with raw_client(record) as client:
        client.replies["workspace/configuration"] = {"result": [{"enabled": False}]}
        await client.request("initialize", {"capabilities": {"workspace": {"configuration": True}}})
        client.send({"method": "initialized"} | params)
        await until(lambda: any("enabled" in one["params"]["message"] for one in client.sent("dgemma/status")))


@pytest.mark.parametrize("params", [{}, {"params": None}, {"params": []}, {"params": {}}])
async def test_request_without_params(record: Path, params: dict[str, Any]):
    async with raw_client(record) as client:
        await client.initialize()
        client.send({"id": "tally", "method": "dgemma/tally", "traceparent": "00-1"} | params)
        assert "superseded" in (await client.response("tally"))["result"]
        client.send({"id": "stats", "method": "dgemma/stats"} | params)
        assert "result" in await client.response("stats")
        for number, (method, code) in enumerate(
            {
                "dgemma/unheardOf": METHOD_NOT_FOUND,
                "textDocument/hover": METHOD_NOT_FOUND,
                "textDocument/inlineCompletion": INVALID_PARAMS,
                "workspace/executeCommand": INVALID_PARAMS,
                "dgemma/fill": INVALID_PARAMS,
                "dgemma/denoise": INVALID_PARAMS,
            }.items()
        ):
            client.send({"id": f"n{number}", "method": method} | params)
            assert (await client.response(f"n{number}"))["error"]["code"] == code, method
        client.send({"id": "end", "method": "shutdown"} | params)
        assert (await client.response("end"))["result"] is None


async def test_wrong_params_are_refused_with_the_place_of_the_fault(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        response = await client.request("textDocument/inlineCompletion", {"position": "here", "textDocument": {}})
        assert response["error"]["code"] == INVALID_PARAMS
        assert "position" in response["error"]["message"]
        assert "text_document" in response["error"]["message"] or "textDocument" in response["error"]["message"]
        assert "here" not in response["error"]["message"], "no text of a document"


async def test_message_without_a_version_of_the_protocol_is_read(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.write(framed(b'{"id": "bare", "method": "dgemma/tally"}'))
        assert "result" in await client.response("bare")


@pytest.mark.parametrize(
    "params", [{"jsonrpc": "2.0"}, {"a": {"jsonrpc": "2.0", "id": 9, "method": "x"}}, {"type_name": "1 x"}]
)
async def test_object_within_params_that_looks_like_a_message_is_none(record: Path, params: dict[str, Any]):
    async with raw_client(record) as client:
        await client.initialize(initializationOptions=params)
        assert "result" in await client.request("dgemma/tally", params)
        assert await client.lives()


async def test_trigger_that_is_not_known_is_an_automatic_one(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        client.open("x = ")
        params = question(0, 4)
        for kind in (7, 0, 1, 2):
            params["context"] = {"triggerKind": kind, "selectedCompletionInfo": None}
            assert len((await client.request("textDocument/inlineCompletion", params))["result"]) == 1, kind
        for kind in ("later", None, True, []):
            params["context"] = {"triggerKind": kind}
            assert (await client.request("textDocument/inlineCompletion", params))["error"]["code"] == INVALID_PARAMS


async def test_headers_are_read_in_either_case_and_again_after_a_wrong_length(record: Path):
    async with raw_client(record) as client:
        await client.initialize()
        for name in ("content-length", "CONTENT-LENGTH", "Content-Length"):
            for length in (None, 1_000, 12):
                client.send({"id": f"{name} {length}", "method": "dgemma/tally"}, name=name, length=length)
                assert "result" in await client.request("dgemma/tally")
                assert bool(client.responses(f"{name} {length}")) == (length != 12)
