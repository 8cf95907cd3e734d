import assert from "node:assert/strict";
import type { ChildProcess, SpawnOptions } from "node:child_process";
import { EventEmitter } from "node:events";
import test from "node:test";
import { candidates, module, type Surroundings, whyNone } from "../src/candidates.ts";
import { launch, whyNoProgram } from "../src/launch.ts";
import { probe, type ProbedSystem } from "../src/probe.ts";

const HOME = "C:\\Users\\kim\\.vscode\\extensions\\dgemma";
const WINDOWS: Surroundings = {
  serverPath: "",
  serverPython: "",
  trustedFolders: ["c:\\Users\\kim\\project"],
  searchPath: "C:\\Users\\kim\\AppData\\Local\\Microsoft\\WindowsApps;C:\\Python312",
  home: "C:\\Users\\kim",
  platform: "win32",
};

/** Programs by path, in whatever case, and what each prints; it ends with an error where that is undefined. */
function windows(programs: Record<string, string | undefined>): { system: ProbedSystem; asked: unknown[][] } {
  const byName = new Map(Object.entries(programs).map(([path, printed]) => [path.toLowerCase(), printed]));
  const asked: unknown[][] = [];
  const system: ProbedSystem = {
    platform: "win32",
    access: (path) => (byName.has(path.toLowerCase()) ? Promise.resolve() : Promise.reject(new Error("ENOENT"))),
    execFile: (command, args, options, done) => {
      asked.push([command, ...args.slice(0, 1), options.cwd, options.windowsHide]);
      if (/\.(bat|cmd)$/i.test(command)) {
        throw new Error("spawn EINVAL"); // as Node does since CVE-2024-27980
      }
      const printed = byName.get(command.toLowerCase());
      done(printed === undefined ? new Error("Command failed: exit code 9009\r\nPython was not found") : null, printed ?? "");
    },
  };
  return { system, asked };
}

async function firstUsable(around: Partial<Surroundings>, programs: Record<string, string | undefined>) {
  const { system } = windows(programs);
  const looked = [];
  for (const candidate of candidates({ ...WINDOWS, ...around })) {
    const verdict = await probe(candidate, HOME, system);
    looked.push({ candidate, verdict });
    if (verdict.kind === "usable") {
      return candidate;
    }
  }
  return whyNone(looked);
}

test("on Windows a Python answers with its line end, in the extension's folder and without a window", async () => {
  const { system, asked } = windows({ "C:\\Python312\\python.exe": "3.12 True\r\n" });
  const verdict = await probe(module("c:\\python312\\PYTHON.EXE", "a test"), HOME, system);
  assert.deepEqual(verdict, { kind: "usable" });
  assert.deepEqual(asked, [["c:\\python312\\PYTHON.EXE", "-c", HOME, true]]);
});

test("on Windows an alias of the Store is passed over for a Python that answers", async () => {
  const found = await firstUsable(
    { trustedFolders: [] },
    {
      "C:\\Users\\kim\\AppData\\Local\\Microsoft\\WindowsApps\\python.exe": undefined,
      "C:\\Python312\\python.exe": "3.12 True\r\n",
    },
  );
  assert.equal(typeof found === "string" ? found : found.command, "C:\\Python312\\python.exe");
});

test("on Windows the workspace's environment and the server's program are found", async () => {
  const venv = "c:\\Users\\kim\\project\\.venv\\Scripts\\python.exe";
  const inVenv = await firstUsable({}, { [venv]: "3.11 True\r\n" });
  assert.equal(typeof inVenv === "string" ? inVenv : inVenv.command, venv);
  const program = await firstUsable({}, { "C:\\Python312\\dgemma-lsp.exe": "" });
  assert.deepEqual(typeof program === "string" ? program : [program.command, program.args], ["C:\\Python312\\dgemma-lsp.exe", []]);
});

test("on Windows a batch file is refused in a sentence, whatever setting names it", async () => {
  const shims = { "C:\\pyenv\\python.bat": "3.12 True\r\n", "C:\\shims\\dgemma-lsp.CMD": "" };
  const batch = "could not be asked (a batch file starts in a shell only; name the .exe beside it).";
  assert.equal(
    await firstUsable({ serverPython: "C:\\pyenv\\python.bat" }, shims),
    `The setting dgemma.server.python names C:\\pyenv\\python.bat: ${batch}`,
  );
  assert.equal(
    await firstUsable({ serverPath: "C:\\shims\\dgemma-lsp.CMD" }, shims),
    `The setting dgemma.server.path names C:\\shims\\dgemma-lsp.CMD: ${batch}`,
  );
  assert.equal(whyNoProgram("/opt/tools/run.cmd", "linux"), undefined);
});

test("on Windows the server is started without a shell and without a window, in the extension's folder", async () => {
  const started: [string, readonly string[], SpawnOptions][] = [];
  const candidate = module("C:\\Program Files\\Python312\\python.exe", "a test");
  const child = await launch(candidate, HOME, (command, args, options) => {
    started.push([command, args, options]);
    const process = new EventEmitter();
    queueMicrotask(() => process.emit("spawn"));
    return process as ChildProcess;
  });
  assert.deepEqual(started, [["C:\\Program Files\\Python312\\python.exe", ["-m", "dgemma_lsp"], { cwd: HOME, windowsHide: true }]]);
  assert.ok(child instanceof EventEmitter);
});

test("launching a program that the system cannot start fails with the reason", async () => {
  const failing = () => {
    const process = new EventEmitter();
    queueMicrotask(() => process.emit("error", new Error("spawn EACCES")));
    return process as ChildProcess;
  };
  await assert.rejects(launch(module("C:\\x.exe", "a test"), HOME, failing), /spawn EACCES/);
});
