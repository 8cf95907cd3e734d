import assert from "node:assert/strict";
import test from "node:test";
import { candidates, type Surroundings, type Verdict, whyNone } from "../src/candidates.ts";

const AROUND: Surroundings = {
  serverPath: "",
  serverPython: "",
  trustedFolders: ["/home/user/project"],
  searchPath: "/usr/bin:bin:./tools:/opt/bin",
  home: "/home/kim",
  platform: "linux",
};

const ON_WINDOWS: Surroundings = {
  serverPath: "",
  serverPython: "",
  trustedFolders: ["c:\\Users\\kim\\project"],
  searchPath: "C:\\Python;bin;.\\tools;\\rooted;C:tools;\\\\server\\tools;D:\\bin\\",
  home: "C:\\Users\\kim",
  platform: "win32",
};

const commands = (around: Partial<Surroundings>) => candidates({ ...AROUND, ...around }).map(({ command }) => command);

test("a server path is the only candidate", () => {
  assert.deepEqual(commands({ serverPath: "~/bin/dgemma-lsp", serverPython: "/usr/bin/python3" }), ["/home/kim/bin/dgemma-lsp"]);
});

test("a chosen Python runs the module and is the only candidate", () => {
  const [only, ...others] = candidates({ ...AROUND, serverPython: "${workspaceFolder}/env/bin/python" });
  assert.deepEqual([only?.command, only?.args, others], ["/home/user/project/env/bin/python", ["-m", "dgemma_lsp"], []]);
});

test("the workspace's environment comes before the search path", () => {
  assert.deepEqual(commands({}), [
    "/home/user/project/.venv/bin/python",
    "/usr/bin/dgemma-lsp",
    "/opt/bin/dgemma-lsp",
    "/usr/bin/python3",
    "/opt/bin/python3",
  ]);
});

test("a workspace that is not trusted offers no program", () => {
  assert.deepEqual(commands({ trustedFolders: [] }), [
    "/usr/bin/dgemma-lsp",
    "/opt/bin/dgemma-lsp",
    "/usr/bin/python3",
    "/opt/bin/python3",
  ]);
});

test("relative entries of the search path are left out", () => {
  assert.deepEqual(commands({ trustedFolders: [], searchPath: "bin:.:" }), []);
});

test("the message names the setting that is wrong", () => {
  const [candidate] = candidates({ ...AROUND, serverPath: "/nowhere/dgemma-lsp" });
  assert.ok(candidate);
  assert.equal(
    whyNone([{ candidate, verdict: { kind: "absent" } }]),
    "The setting dgemma.server.path names /nowhere/dgemma-lsp: there is no such program.",
  );
});

test("of what was found, the Python without the package is named first", () => {
  const verdicts: Verdict[] = [{ kind: "old", version: "3.9" }, { kind: "absent" }, { kind: "absent" }, { kind: "without", version: "3.12" }];
  const tried = candidates(AROUND).slice(0, 4).map((candidate, index) => ({ candidate, verdict: verdicts[index]! }));
  assert.equal(whyNone(tried), "The server dgemma-lsp is not installed: /usr/bin/python3 (Python 3.12) has no package dgemma_lsp.");
});

test("the message for an old Python names the version that is needed", () => {
  const [candidate] = candidates(AROUND);
  assert.ok(candidate);
  const message = whyNone([{ candidate, verdict: { kind: "old", version: "3.9" } }]);
  assert.match(message, /is Python 3\.9, and the server needs 3\.11 or newer/);
});

test("the message says that neither the server nor a Python was found", () => {
  assert.equal(whyNone([]), "The server dgemma-lsp is not installed, and no Python was found.");
});

test("on Windows programs have other names and paths another form", () => {
  assert.deepEqual(
    candidates(ON_WINDOWS).map(({ command }) => command),
    [
      "c:\\Users\\kim\\project\\.venv\\Scripts\\python.exe",
      "C:\\Python\\dgemma-lsp.exe",
      "\\\\server\\tools\\dgemma-lsp.exe",
      "D:\\bin\\dgemma-lsp.exe",
      "C:\\Python\\py.exe",
      "C:\\Python\\python.exe",
      "\\\\server\\tools\\py.exe",
      "\\\\server\\tools\\python.exe",
      "D:\\bin\\py.exe",
      "D:\\bin\\python.exe",
    ],
  );
});

test("on Windows a setting may begin with the home folder in either form", () => {
  for (const serverPath of ["~\\bin\\dgemma-lsp.exe", "~/bin/dgemma-lsp.exe"]) {
    const [only, ...others] = candidates({ ...ON_WINDOWS, serverPath });
    assert.deepEqual([only?.command, others], ["C:\\Users\\kim\\bin\\dgemma-lsp.exe", []]);
  }
  const [python] = candidates({ ...ON_WINDOWS, serverPython: "${workspaceFolder}\\env\\Scripts\\python.exe" });
  assert.deepEqual(
    [python?.command, python?.args],
    ["c:\\Users\\kim\\project\\env\\Scripts\\python.exe", ["-m", "dgemma_lsp"]],
  );
});
