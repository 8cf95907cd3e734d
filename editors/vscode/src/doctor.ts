// A way to start the server, and settings -> the report of its doctor. Uses no VS Code API.

import { execFile } from "node:child_process";
import type { Candidate } from "./candidates.ts";

const TIMEOUT_MS = 60_000;

/**
 * Returns the doctor's report, or why there is none.
 *
 * @param settings as the server starts with them: they decide which engine is examined.
 * @param cwd a folder of our own; see `probe`.
 */
export function doctorReport(candidate: Candidate, settings: Record<string, unknown>, cwd: string): Promise<string> {
  return new Promise((resolve) => {
    const args = [...candidate.args, "doctor", "--settings", "-"];
    const options = { cwd, timeout: TIMEOUT_MS, windowsHide: true };
    const child = execFile(candidate.command, args, options, (error, stdout, stderr) => {
      resolve(stdout || stderr || error?.message || "the doctor printed nothing");
    });
    // A doctor that ends before it has read them is reported by its output.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(JSON.stringify(settings));
  });
}
