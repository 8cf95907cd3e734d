// A candidate -> whether it can start the server, by reading the disk and running the Python once.

import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import type { Candidate, Verdict } from "./candidates.ts";
import { whyNoProgram } from "./launch.ts";

const QUESTION =
  "import sys, importlib.util as u; print('.'.join(map(str, sys.version_info[:2])), u.find_spec('dgemma_lsp') is not None)";
const TIMEOUT_MS = 10_000;
const OLDEST = [3, 11] as const;

/** Functions of the system. */
export interface ProbedSystem {
  /** As `process.platform` names it. */
  platform: string;
  /** Rejects for a file that is missing or not executable; on Windows every file is. */
  access(path: string, mode: number): Promise<void>;
  /** Runs a program to its end, without a shell. */
  execFile(
    command: string,
    args: readonly string[],
    options: { cwd: string; timeout: number; windowsHide: boolean },
    done: (error: Error | null, stdout: string) => void,
  ): void;
}

const THIS_SYSTEM: ProbedSystem = {
  platform: process.platform,
  access,
  execFile: (command, args, options, done) => void execFile(command, args, options, done),
};

/**
 * Probes a candidate.
 *
 * @param cwd a folder of our own: Python imports from the folder it starts in first, and opening a folder must not run
 *   its files.
 * @param system the functions to probe with.
 */
export async function probe(candidate: Candidate, cwd: string, system: ProbedSystem = THIS_SYSTEM): Promise<Verdict> {
  try {
    await system.access(candidate.command, constants.X_OK);
  } catch {
    return { kind: "absent" };
  }
  const why = whyNoProgram(candidate.command, system.platform);
  if (why !== undefined) {
    return { kind: "broken", message: why };
  }
  if (candidate.python === undefined) {
    return { kind: "usable" };
  }
  return new Promise((resolve) => {
    system.execFile(candidate.command, ["-c", QUESTION], { cwd, timeout: TIMEOUT_MS, windowsHide: true }, (error, stdout) => {
      const answer = /^(\d+)\.(\d+) (True|False)\s*$/.exec(stdout);
      if (error !== null || answer === null) {
        resolve({ kind: "broken", message: error?.message.split("\n")[0] ?? "its output is not that of a Python" });
        return;
      }
      const [major, minor] = [Number(answer[1]), Number(answer[2])];
      const version = `${major}.${minor}`;
      if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
        resolve({ kind: "old", version });
      } else {
        resolve(answer[3] === "True" ? { kind: "usable" } : { kind: "without", version });
      }
    });
  });
}
