import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import * as path from "node:path";
import { after, before, test } from "node:test";
import { module } from "../src/candidates.ts";
import { probe } from "../src/probe.ts";

let folder = "";
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "probe-"));
});
after(() => rm(folder, { recursive: true }));

async function verdictOn(script: string) {
  const program = path.join(folder, `python-${crypto.randomUUID()}`);
  await writeFile(program, `#!/bin/sh\n${script}\n`);
  await chmod(program, 0o755);
  return probe(module(program, "a test"), folder);
}

test("a Python with the package is usable", async () => {
  assert.deepEqual(await verdictOn("echo 3.11 True"), { kind: "usable" });
});

test("a Python without the package is told from one that is too old", async () => {
  assert.deepEqual(await verdictOn("echo 3.13 False"), { kind: "without", version: "3.13" });
  assert.deepEqual(await verdictOn("echo 3.10 True"), { kind: "old", version: "3.10" });
  assert.deepEqual(await verdictOn("echo 2.7 True"), { kind: "old", version: "2.7" });
});

test("a program that is no Python is broken", async () => {
  assert.equal((await verdictOn("exit 1")).kind, "broken");
  assert.equal((await verdictOn("echo hello")).kind, "broken");
});

test("a program that is missing or not executable is absent", async () => {
  assert.deepEqual(await probe(module("/nowhere/python", "a test"), folder), { kind: "absent" });
  const file = path.join(folder, "no-program");
  await writeFile(file, "");
  await chmod(file, 0o644);
  assert.deepEqual(await probe(module(file, "a test"), folder), { kind: "absent" });
});

test("the program is started in the given folder", async () => {
  assert.deepEqual(await verdictOn(`[ "$PWD" = "${folder}" ] && echo 3.11 True`), { kind: "usable" });
});
