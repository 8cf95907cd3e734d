import assert from "node:assert/strict";
import test from "node:test";
import { pausedBy, toggled } from "../src/paused.ts";

test("the workspace's pause comes before the language's", () => {
  assert.equal(pausedBy(false, ["python"], "python"), "workspace");
  assert.equal(pausedBy(true, ["python"], "python"), "language");
  assert.equal(pausedBy(true, ["python"], "go"), undefined);
  assert.equal(pausedBy(true, ["python"], undefined), undefined);
});

test("a language is added, and taken away again", () => {
  assert.deepEqual(toggled(["go"], "python"), ["go", "python"]);
  assert.deepEqual(toggled(["go", "python"], "go"), ["python"]);
});

test("a language is compared without case, and by what people call it", () => {
  assert.equal(pausedBy(true, ["Python"], "python"), "language");
  assert.equal(pausedBy(true, ["C++"], "cpp"), "language");
  assert.equal(pausedBy(true, ["Shell"], "shellscript"), "language");
  assert.equal(pausedBy(true, ["C"], "cpp"), undefined);
  assert.deepEqual(toggled(["Python", "go"], "python"), ["go"]);
});

test("entries that are no text are kept", () => {
  const odd = [null, 7, "python"] as unknown as string[];
  assert.equal(pausedBy(true, odd, "python"), "language");
  assert.deepEqual(toggled(odd, "go"), [null, 7, "python", "go"]);
});
