"""A language server that answers by its script: for behaviour that the real server does not show on demand.

`python scripted_server.py SCRIPT_JSON RECORD_FILE`. Keys of the script, all optional:

- `experimental`: that field of the answer to `initialize`; without it, the field of a server of protocol 1.
- `automatic`, `invoked`: texts offered at the cursor, by what made the editor ask; `delay_s` before each answer.
- `by_line`: texts offered, by the cursor's line; takes precedence over both.
- `fill`: candidates' texts; `fill_message`; `fill_delay_s` until the answer, with progress, unless it is cancelled.
- `drafts`: texts sent one after the other before `dgemma/denoise` is answered; `denoised`: texts of its answer.

Every method that arrives goes into the record, with its id for a cancellation.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

REQUEST_CANCELLED = {"code": -32800, "message": "Request Cancelled"}


class ScriptedServer:
    def __init__(self, script: dict[str, Any], record: Path) -> None:
        self._script = script
        self._record = record
        self._writing = threading.Lock()
        self._cancelled: dict[Any, threading.Event] = {}
        self._texts: dict[str, list[str]] = {}

    def serve(self) -> int:
        while (message := self._read()) is not None:
            method, number = message.get("method"), message.get("id")
            if method is None:
                continue
            self._note(method, message.get("params") or {})
            if method == "exit":
                return 0
            if number is not None:
                self._cancelled[number] = threading.Event()
                threading.Thread(target=self._answer, args=(message,), daemon=True).start()
        return 1

    def _note(self, method: str, params: dict[str, Any]) -> None:
        with self._record.open("a", encoding="utf-8") as file:
            file.write(f"{method} {json.dumps(params)}\n")
        if method == "$/cancelRequest" and params["id"] in self._cancelled:
            self._cancelled[params["id"]].set()
        elif method == "textDocument/didOpen":
            self._texts[params["textDocument"]["uri"]] = params["textDocument"]["text"].split("\n")
        elif method == "textDocument/didChange":
            self._change(params)

    def _change(self, params: dict[str, Any]) -> None:
        uri = params["textDocument"]["uri"]
        for change in params["contentChanges"]:
            if "range" not in change:
                self._texts[uri] = change["text"].split("\n")
                continue
            start, end = change["range"]["start"], change["range"]["end"]
            lines = [*self._texts[uri], ""]
            head = lines[start["line"]].encode()[: start["character"]].decode()
            tail = lines[end["line"]].encode()[end["character"] :].decode()
            lines[start["line"] : end["line"] + 1] = (head + change["text"] + tail).split("\n")
            self._texts[uri] = lines

    def _answer(self, message: dict[str, Any]) -> None:
        number, method, params = message["id"], message["method"], message.get("params") or {}
        handlers = {
            "initialize": self._initialize,
            "textDocument/inlineCompletion": self._complete,
            "dgemma/fill": self._fill,
            "dgemma/denoise": self._denoise,
            "shutdown": lambda _params, _cancelled: None,
            "workspace/executeCommand": lambda _params, _cancelled: None,
        }
        result = handlers[method](params, self._cancelled[number])
        if self._cancelled[number].is_set():
            self._write({"id": number, "error": REQUEST_CANCELLED})
        else:
            self._write({"id": number, "result": result})

    def _initialize(self, params: dict[str, Any], cancelled: threading.Event) -> dict[str, Any]:
        told = self._script.get("experimental", {"dgemma": {"version": "0.1.0", "protocol": 1}})
        capabilities = {
            "positionEncoding": "utf-8",
            "textDocumentSync": {"openClose": True, "change": 2},
            "inlineCompletionProvider": {},
            "codeActionProvider": {"codeActionKinds": ["refactor.rewrite.fill"]},
            "experimental": told,
        }
        return {"capabilities": capabilities, "serverInfo": {"name": "scripted", "version": "0.0.9"}}

    def _complete(self, params: dict[str, Any], cancelled: threading.Event) -> list[dict[str, Any]]:
        position = params["position"]
        line = self._texts[params["textDocument"]["uri"]][position["line"]].rstrip("\r")
        kind = "invoked" if params["context"]["triggerKind"] == 1 else "automatic"
        texts = self._script.get("by_line", {}).get(line, self._script.get(kind, []))
        cancelled.wait(self._script.get("delay_s", 0))
        here = {"start": position, "end": position}
        command = {"title": "", "command": "dgemma.accepted", "arguments": [1]}
        return [{"insertText": text, "range": here, "command": command} for text in texts]

    def _fill(self, params: dict[str, Any], cancelled: threading.Event) -> dict[str, Any]:
        token = params.get("workDoneToken")
        self._notify("$/progress", {"token": token, "value": {"kind": "begin", "title": "Filling", "percentage": 0}})
        cancelled.wait(self._script.get("fill_delay_s", 0))
        self._notify("$/progress", {"token": token, "value": {"kind": "end"}})
        texts = self._script.get("fill", [])
        return {
            "uri": params["textDocument"]["uri"],
            "version": params["textDocument"]["version"],
            "range": params["range"],
            "candidates": [{"newText": text, "label": text.strip(), "score": 0.5} for text in texts],
            "message": self._script.get("fill_message", ""),
        }

    def _denoise(self, params: dict[str, Any], cancelled: threading.Event) -> dict[str, Any]:
        drafts = self._script.get("drafts", [])
        for step, text in enumerate(drafts, start=1):
            spans = [{"text": text, "confidence": step / len(drafts), "settled": step == len(drafts)}]
            draft = {
                "token": params["token"],
                "step": step,
                "stepsLimit": len(drafts),
                "elapsedMs": step,
                "spans": spans,
            }
            self._notify("dgemma/draft", draft)
            cancelled.wait(0.4)
        here = {"start": params["position"], "end": params["position"]}
        items = [{"insertText": text, "range": here} for text in self._script.get("denoised", [])]
        return {"items": items, "finish": "stable", "steps": len(drafts), "elapsedMs": 5.0, "message": "no engine yet"}

    def _notify(self, method: str, params: dict[str, Any]) -> None:
        self._write({"method": method, "params": params})

    def _write(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        with self._writing:
            sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            sys.stdout.buffer.flush()

    def _read(self) -> dict[str, Any] | None:
        length = 0
        while line := sys.stdin.buffer.readline().strip():
            length = int(line.removeprefix(b"Content-Length:"))
        return json.loads(sys.stdin.buffer.read(length)) if length else None


if __name__ == "__main__":
    sys.exit(ScriptedServer(json.loads(sys.argv[1]), Path(sys.argv[2])).serve())
