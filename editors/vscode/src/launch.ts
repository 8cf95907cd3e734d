// A candidate -> the server's process. The parts of the system that differ on Windows are arguments.

import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { once } from "node:events";
import type { Candidate } from "./candidates.ts";

/** Starts a program without a shell. */
export type Spawn = (command: string, args: readonly string[], options: SpawnOptions) => ChildProcess;

/**
 * Starts the server and returns its process once it runs.
 *
 * @param cwd a folder of our own; see `probe`.
 * @param start starts a program.
 * @throws Error where the system cannot start it; the message says why.
 */
export async function launch(candidate: Candidate, cwd: string, start: Spawn = spawn): Promise<ChildProcess> {
  const child = start(candidate.command, [...candidate.args], { cwd, windowsHide: true });
  await once(child, "spawn");
  return child;
}

/** Returns why a program cannot be started as it is, as the end of a sentence; undefined where it may. */
export function whyNoProgram(command: string, platform: string): string | undefined {
  // Windows starts batch files in a shell only, which interprets characters of arguments.
  return platform === "win32" && /\.(bat|cmd)$/i.test(command) ? "a batch file starts in a shell only; name the .exe beside it" : undefined;
}
