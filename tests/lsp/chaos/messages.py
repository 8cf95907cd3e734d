"""Valid and invalid values for each field of a client's messages, the simplest first. Data only."""

from __future__ import annotations

from typing import Any

from tests.lsp.chaos.ledger import CANCELLED, FAILED, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, RESULT

# A newer request or `$/cancelRequest` may end every request that waits for the engine.
ANSWERED = frozenset({RESULT, CANCELLED})
MAY_FAIL = ANSWERED | {FAILED}
REFUSED = frozenset({INVALID_PARAMS})
# By a handler, which may be cancelled before it reads the parameters.
REFUSED_LATER = REFUSED | {CANCELLED}
EITHER = ANSWERED | {INVALID_PARAMS}
NOT_FOUND = frozenset({METHOD_NOT_FOUND})
INVALID = frozenset({INVALID_REQUEST})

FOLDER = "file:///w"
URIS = [
    f"{FOLDER}/a.py",
    f"{FOLDER}/b.py",
    f"{FOLDER}/b.js",
    "untitled:Untitled-1",
    f"{FOLDER}/%F0%9F%98%80/%C3%A9.md",
    "vscode-notebook-cell:/w/n.ipynb#c1",
    f"{FOLDER}/.env",
    "file://[x/a.py",
    f"{FOLDER}/never-opened.py",
]
TEXTS = [
    "x = ",
    "",
    "def f(a):\n    return \n\n\nf(",
    "😀 = 'é'\r\nb = \r\n",
    "\ta\rb = \n\u2028c",
    "# adds two numbers\ndef add(a, b):\n    ...\n",
    "LATER = ",
    "FAULT = ",
    "GARBAGE = ",
    "DIE = ",
    "\x00\ud83d = ",
    "if (a) { b(c, [d, {e: ",
]
WORK = ["x = ", "def f(a):\n    return ", "😀 = ", "LATER = "]
LANGUAGES = ["python", "javascript", "", "klingon"]
POSITIONS: list[Any] = [
    {"line": 0, "character": 4},
    {"line": 0, "character": 0},
    {"line": 1, "character": 11},
    {"line": 0, "character": 1},  # Inside a surrogate pair.
    {"line": 2**31 - 1, "character": 2**31 - 1},
]
BAD_POSITIONS: list[Any] = [
    None,
    {},
    {"line": 0},
    {"line": "0", "character": "0"},
    {"line": None, "character": None},
    {"line": [], "character": {}},
    [0, 0],
    "0:0",
    7,
]
ODD_POSITIONS: list[Any] = [  # The protocol does not define them, but an answer is due.
    {"line": -1, "character": -1},
    {"line": 2**32 - 1, "character": 0},
    {"line": 2**64, "character": 2**70},
    {"line": 0.5, "character": 1.0},
    {"line": True, "character": False},
    {"line": 1e308, "character": -1e308},
    {"line": 0, "character": 4, "jsonrpc": "2.0"},
]
# Parameters that lack what every request with required fields needs.
BAD_PARAMS: list[Any] = [{}, [], None, 7, "text", {"textDocument": None}, {"textDocument": []}, {"textDocument": {}}]

HERE: dict[str, Any] = {"textDocument": {"uri": URIS[0]}}
LAST = {"line": 99, "character": 0}
FIRST = {"line": 0, "character": 0}
RANGES: list[Any] = [
    {"start": FIRST, "end": FIRST},
    {"start": FIRST, "end": LAST},
    {"start": LAST, "end": FIRST},
    {"start": {"line": 0, "character": 1}, "end": {"line": 0, "character": 1}},
    {"start": {"line": 2**31 - 1, "character": 0}, "end": {"line": 2**31 - 1, "character": 0}},
]
BAD_RANGES: list[Any] = [
    None,
    {},
    {"start": FIRST},
    {"start": None, "end": None},
    {"start": {"line": -1}, "end": 7},
    [],
]

CAPABILITIES: list[dict[str, Any]] = [
    {},
    {
        "window": {"workDoneProgress": True},
        "workspace": {
            "configuration": True,
            "applyEdit": True,
            "executeCommand": {},
            "didChangeConfiguration": {"dynamicRegistration": True},
            "didChangeWatchedFiles": {"dynamicRegistration": True},
        },
        "textDocument": {"inlineCompletion": {}, "completion": {"dynamicRegistration": True}},
        "notebookDocument": {"synchronization": {}},
        "general": {"positionEncodings": ["utf-8"]},
    },
    {"window": {"workDoneProgress": True}, "workspace": {"executeCommand": {}, "configuration": True}},
    # Values that only a later version of the protocol may define.
    {
        "general": {"positionEncodings": ["utf-7", "utf-32"]},
        "textDocument": {
            "completion": {"completionItem": {"tagSupport": {"valueSet": [1, 2, -1]}}, "contextSupport": True},
            "codeAction": {"codeActionLiteralSupport": {"codeActionKind": {"valueSet": ["", "x.y"]}}},
            "publishDiagnostics": {"tagSupport": {"valueSet": [1, 99]}},
            "unheardOf": {"a": [1]},
        },
        "workspace": {
            "symbol": {"symbolKind": {"valueSet": [1, 27]}, "tagSupport": {"valueSet": [7]}},
            "workspaceEdit": {"resourceOperations": ["copy"], "failureHandling": "hopeful"},
        },
    },
    # Clients in languages without absent fields send null.
    {"window": None, "workspace": None, "textDocument": None, "notebookDocument": None, "general": None},
    {
        "window": {"workDoneProgress": None},
        "workspace": {"configuration": None, "executeCommand": None},
        "textDocument": {"inlineCompletion": None, "completion": {"completionItem": None}},
        "general": {"positionEncodings": None},
    },
]
# Without it a session whose engine has died would start the real one.
NO_START = {"engine": {"autostart": False}}
OPTIONS: list[Any] = [
    NO_START,
    NO_START | {"completionFallback": True, "deadlineMs": 500},
    NO_START | {"enabled": "yes", "deadlineMs": {}, "privateFiles": ["*.js", "", "[z-a]"], "x": [1]},
    {"dgemma": {"engine.autostart": False, "logLevel": "debug", "stats": False}},
]
TRACES: list[Any] = ["off", "messages", "verbose", "compact", None]
FOLDERS: list[Any] = [
    {"rootUri": FOLDER},
    {"rootUri": None},
    {"rootUri": None, "rootPath": "/w"},
    {"rootUri": FOLDER, "workspaceFolders": None},
    {"rootUri": FOLDER, "workspaceFolders": [{"uri": FOLDER, "name": "w"}, {"uri": "file://[x", "name": ""}]},
    {"rootUri": "file://[x"},
]
BAD_INITIALIZE: list[Any] = [
    None,
    {},
    [],
    7,
    {"capabilities": None},
    {"capabilities": 7, "processId": None, "rootUri": None},
    {"capabilities": {"workspace": "all"}, "processId": "x", "rootUri": 7},
    {"capabilities": {}, "processId": [], "rootUri": {}, "workspaceFolders": "w"},
]
ALL_ON: dict[str, Any] = {"enabled": True, "pausedLanguages": [], "privateFiles": []}
SETTINGS: list[Any] = [
    {},
    None,
    {"dgemma": ALL_ON | {"deadlineMs": 500}},
    {"dgemma": ALL_ON | {"completionFallback": True}},
    {"dgemma": ALL_ON | {"speculation": False, "maxTokens": 3}},
    {"dgemma": ALL_ON},
    {"dgemma": {"enabled": False}},
    {"dgemma": {"privateFiles": ["*.py", ""]}},
    {"dgemma": {"privateFiles": ["[z-a]", "**/[", "\\"]}},
    {"dgemma": {"pausedLanguages": ["python", 7]}},
    {"dgemma": {"engine": {"device": "cuda:77"}}},
    {"dgemma": {"engine": {"device": "auto"}} | ALL_ON},
    {"dgemma": {"logLevel": "debug"} | ALL_ON},
    {"dgemma": {"stats": False}},
    {"dgemma": [1], "enabled": {}, "dgemma.seed": -1},
    [1, "x"],
    "all",
    7,
    {"jsonrpc": "2.0", "id": 17, "method": "shutdown"},
    {"jsonrpc": "2.0", "id": 18, "method": "initialize", "params": 7},
]
# Notifications that should change nothing, or nothing that matters here.
ODD_NOTIFICATIONS: list[tuple[str, Any]] = [
    ("$/unheardOf", None),
    ("dgemma/unheardOf", {"x": 1}),
    ("$/setTrace", {"value": "verbose"}),
    ("$/setTrace", {"value": "compact"}),
    ("$/setTrace", None),
    ("window/workDoneProgress/cancel", {"token": "never begun"}),
    ("window/workDoneProgress/cancel", {"token": "dgemma-fill-1"}),
    ("window/workDoneProgress/cancel", {}),
    ("workspace/didChangeWatchedFiles", {"changes": [{"uri": f"{FOLDER}/.gitignore", "type": 2}]}),
    ("workspace/didChangeWatchedFiles", {"changes": "all"}),
    ("workspace/didChangeWatchedFiles", {"changes": [{"uri": None, "type": 9}]}),
    ("workspace/didChangeWorkspaceFolders", {"event": {"added": [], "removed": [{"uri": "file:///n", "name": ""}]}}),
    ("workspace/didChangeWorkspaceFolders", {"event": {"added": [{"uri": "file://[x", "name": "x"}], "removed": []}}),
    ("workspace/didChangeWorkspaceFolders", {"event": None}),
    ("textDocument/didSave", {"textDocument": {"uri": URIS[0]}}),
    ("textDocument/willSave", {"textDocument": {"uri": URIS[0]}, "reason": 9}),
    ("initialized", {}),
    ("textDocument/inlineCompletion", {"textDocument": {"uri": URIS[0]}}),  # A request without an id.
    ("initialize", {"capabilities": {}}),
    ("shutdown", None),
]
ODD_METHODS: list[tuple[Any, Any, frozenset[int]]] = [
    ("dgemma/unheardOf", {}, NOT_FOUND),
    ("$/unheardOf", {}, NOT_FOUND),
    ("textDocument/hover", {"textDocument": {"uri": URIS[0]}, "position": FIRST}, NOT_FOUND),
    ("textDocument/hover", {"textDocument": 7}, NOT_FOUND | REFUSED),
    ("workspace/symbol", None, NOT_FOUND | REFUSED),
    ("", {}, NOT_FOUND | INVALID),
    ("\ud83d", {}, NOT_FOUND),
    (7, {}, INVALID),
    (None, {}, INVALID),
    (["shutdown"], {}, INVALID),
    ({"jsonrpc": "2.0", "id": 17, "method": "shutdown"}, {}, INVALID),
    # Notifications with an id.
    ("exit/", {}, NOT_FOUND),
    ("initialized", {}, NOT_FOUND | INVALID | ANSWERED),
    ("textDocument/didSave", {"textDocument": {"uri": URIS[0]}}, NOT_FOUND | INVALID | ANSWERED),
    ("$/cancelRequest", {"id": "nothing"}, NOT_FOUND | INVALID | ANSWERED),
]
# Messages that are neither request nor notification nor answer: at most an error without an id comes back.
SHAPELESS: list[Any] = [
    {"jsonrpc": "2.0"},
    {"jsonrpc": "2.0", "id": None, "method": "dgemma/tally", "params": {}},
    {"jsonrpc": "2.0", "id": 1.5, "method": "dgemma/tally", "params": {}},
    {"jsonrpc": "2.0", "id": [1], "method": "dgemma/tally", "params": {}},
    {"jsonrpc": "2.0", "id": {}, "method": "dgemma/tally", "params": {}},
    {"jsonrpc": "2.0", "method": None},
    {"jsonrpc": "2.0", "method": 7, "params": 7},
    {"method": "dgemma/tally"},
    {"jsonrpc": "1.0", "method": "dgemma/tally"},
    {"jsonrpc": "2.0", "id": None, "result": None},
    {"jsonrpc": "2.0", "id": [1], "error": {"code": 1, "message": ""}},
    {"jsonrpc": "2.0", "id": "never asked", "error": None},
    {"jsonrpc": "2.0", "error": {"code": 1, "message": ""}},
    {"jsonrpc": "2.0", "result": 7},
    [{"jsonrpc": "2.0", "method": "$/unheardOf"}, 7],
    [[]],
]
ODD_IDS: list[Any] = ["never asked", 4_711, None, [], {}, 1.5, True, ""]
COMMANDS: list[tuple[Any, Any, frozenset[int]]] = [
    ("dgemma.accepted", [1], MAY_FAIL),
    ("dgemma.accepted", [], EITHER),
    ("dgemma.accepted", [1, 2], EITHER),
    ("dgemma.accepted", ["one"], EITHER),
    ("dgemma.accepted", [{"jsonrpc": "2.0", "id": 19, "method": "initialize", "params": 7}], EITHER),
    ("dgemma.accepted", None, EITHER),
    ("dgemma.accepted", 7, REFUSED),
    ("dgemma.fill", [], REFUSED_LATER),
    ("dgemma.fill", [None], REFUSED_LATER),
    ("dgemma.fill", [{}], REFUSED_LATER),
    ("dgemma.fill", [{"textDocument": {"uri": 7}, "range": RANGES[0], "kind": "selection"}], REFUSED_LATER),
    ("dgemma.unheardOf", [], NOT_FOUND | REFUSED | {FAILED}),
    (None, None, REFUSED),
    (7, [], REFUSED | NOT_FOUND),
]
OWN: list[tuple[str, Any, frozenset[int]]] = [
    ("dgemma/tally", {}, ANSWERED),
    ("dgemma/stats", {}, MAY_FAIL),
    ("dgemma/tally", None, ANSWERED),
    ("dgemma/stats", [], MAY_FAIL),
    ("dgemma/tally", 7, EITHER),
    ("dgemma/tally", {"jsonrpc": "2.0", "id": 16, "method": "initialize", "params": 7}, ANSWERED),
    ("dgemma/denoise", {}, REFUSED_LATER),
    ("dgemma/denoise", None, REFUSED_LATER),
    ("dgemma/denoise", [7], REFUSED_LATER),
    (
        "dgemma/denoise",
        {"textDocument": {"uri": URIS[0]}, "position": {"line": -1, "character": 0}, "token": "t"},
        REFUSED,
    ),
    ("dgemma/denoise", {"textDocument": {"uri": URIS[0]}, "position": FIRST, "token": 7}, REFUSED_LATER),
    ("dgemma/fill", {}, REFUSED_LATER),
    ("dgemma/fill", None, REFUSED_LATER),
    ("dgemma/fill", HERE | {"range": RANGES[0], "kind": "everything"}, REFUSED_LATER),
    ("dgemma/fill", HERE | {"range": BAD_RANGES[4], "kind": "selection"}, REFUSED_LATER),
]
FILL_KINDS = ["selection", "description", "placeholder"]
TOKENS: list[Any] = ["t", 1, None, [1]]
