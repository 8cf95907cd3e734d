// Settings, folders and search path -> the ways to start the server, best first; and the message when none works. Pure.

import { posix, win32 } from "node:path";

/** A way to start the server. `python` names the interpreter to ask whether it holds the server. */
export interface Candidate {
  command: string;
  args: readonly string[];
  python: string | undefined;
  /** Where it comes from, for the user. */
  origin: string;
}

/** The result of probing a candidate. */
export type Verdict =
  | { kind: "usable" }
  | { kind: "absent" }
  | { kind: "old"; version: string }
  | { kind: "without"; version: string }
  | { kind: "broken"; message: string };

export interface Surroundings {
  /** The setting `dgemma.server.path`; empty where it is not set. */
  serverPath: string;
  /** The setting `dgemma.server.python`; empty where it is not set. */
  serverPython: string;
  /** Folders of the workspace; empty where the workspace is not trusted: their programs must not be run. */
  trustedFolders: readonly string[];
  /** The variable PATH. */
  searchPath: string;
  /** The user's home, for `~/` in a setting. */
  home: string;
  /** The system, as `process.platform` names it. */
  platform: string;
}

/** What programs are called, and how paths are written. */
interface System {
  path: typeof posix;
  venvPython: readonly string[];
  server: string;
  pythons: readonly string[];
}

const UNIX: System = { path: posix, venvPython: ["bin", "python"], server: "dgemma-lsp", pythons: ["python3"] };
// An alias of the Store opens the Store and gives no answer.
const WINDOWS: System = {
  path: win32,
  venvPython: ["Scripts", "python.exe"],
  server: "dgemma-lsp.exe",
  pythons: ["py.exe", "python.exe"],
};

const MODULE = ["-m", "dgemma_lsp"] as const;

/** Returns the ways to start the server. A setting stands alone: without fallback to another program. */
export function candidates(around: Surroundings): Candidate[] {
  if (around.serverPath) {
    return [{ command: expand(around.serverPath, around), args: [], python: undefined, origin: "dgemma.server.path" }];
  }
  if (around.serverPython) {
    return [module(expand(around.serverPython, around), "dgemma.server.python")];
  }
  const { path, venvPython, server, pythons } = systemOf(around);
  // A relative entry of PATH is a folder of the opened workspace, whose programs must not be run.
  const folders = around.searchPath.split(path.delimiter).filter((folder) => isWhole(folder, path));
  return [
    ...around.trustedFolders.map((folder) => module(path.join(folder, ".venv", ...venvPython), "the workspace's .venv")),
    ...folders.map((folder) => ({
      command: path.join(folder, server),
      args: [],
      python: undefined,
      origin: "PATH",
    })),
    ...folders.flatMap((folder) => pythons.map((python) => module(path.join(folder, python), "PATH"))),
  ];
}

/** Returns the way to start the server with a Python. */
export function module(python: string, origin: string): Candidate {
  return { command: python, args: MODULE, python, origin };
}

/** Returns in one or two sentences why none of the candidates can be started. */
export function whyNone(tried: readonly { candidate: Candidate; verdict: Verdict }[]): string {
  const chosen = tried.find(({ candidate }) => candidate.origin.startsWith("dgemma."));
  if (chosen) {
    return `The setting ${chosen.candidate.origin} names ${chosen.candidate.command}: ${because(chosen.verdict)}.`;
  }
  const found = tried.filter(({ verdict }) => verdict.kind !== "absent");
  const best = found.find(({ verdict }) => verdict.kind === "without") ?? found[0];
  if (best === undefined) {
    return "The server dgemma-lsp is not installed, and no Python was found.";
  }
  return `The server dgemma-lsp is not installed: ${best.candidate.command} ${because(best.verdict)}.`;
}

/** Returns what is wrong with a candidate, as the end of a sentence. */
export function because(verdict: Verdict): string {
  switch (verdict.kind) {
    case "usable":
      return "has the server";
    case "absent":
      return "there is no such program";
    case "old":
      return `is Python ${verdict.version}, and the server needs 3.11 or newer`;
    case "without":
      return `(Python ${verdict.version}) has no package dgemma_lsp`;
    case "broken":
      return `could not be asked (${verdict.message})`;
  }
}

function expand(setting: string, around: Surroundings): string {
  const folder = around.trustedFolders[0];
  const filled = folder === undefined ? setting : setting.replaceAll("${workspaceFolder}", folder);
  return /^~[/\\]/.test(filled) ? systemOf(around).path.join(around.home, filled.slice(2)) : filled;
}

function systemOf(around: Surroundings): System {
  return around.platform === "win32" ? WINDOWS : UNIX;
}

// On Windows `\tools` is absolute, but on the current drive, whichever that is.
function isWhole(folder: string, path: typeof posix): boolean {
  return path.isAbsolute(folder) && (path !== win32 || path.parse(folder).root.length > 1);
}
