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
