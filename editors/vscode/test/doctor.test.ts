import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import type { Candidate } from "../src/candidates.ts";
import { doctorReport } from "../src/doctor.ts";

let folder = "";
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "doctor-"));
});
after(() => rm(folder, { recursive: true }));

async function reportOf(script: string, settings: Record<string, unknown>) {
  const program = path.join(folder, `program-${crypto.randomUUID()}`);
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  const candidate: Candidate = { command: program, args: ["-m", "dgemma_lsp"], python: program, origin: "a test" };
  return doctorReport(candidate, settings, folder);
}

test("the doctor reads the settings of the editor", async () => {
  const settings = { seed: 1, engine: { url: "https://gpu.example", keyFile: "~/key", plainHttpHosts: ["gpu"] } };
  assert.equal(await reportOf('echo "$@"; cat', settings), `-m dgemma_lsp doctor --settings -\n${JSON.stringify(settings)}`);
});

test("without a report, the error is shown", async () => {
  const many = { privateFiles: ["x".repeat(1_000_000)] };
  assert.equal(await reportOf("echo unrecognized arguments >&2; exit 2", many), "unrecognized arguments\n");
  assert.match(await reportOf("exit 1", {}), /^Command failed: /);
  assert.equal(await reportOf("exit 0", {}), "the doctor printed nothing");
});

test("a program that is not there is no crash", async () => {
  const candidate: Candidate = { command: "/nowhere/dgemma-lsp", args: [], python: undefined, origin: "a test" };
  assert.match(await doctorReport(candidate, {}, folder), /ENOENT/);
});
