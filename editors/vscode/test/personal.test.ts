import assert from "node:assert/strict";
import test from "node:test";
import { withoutPersonal } from "../src/personal.ts";

test("what decides where text goes is left out", () => {
  const engine = { url: "https://gpu.example", keyFile: "k", caFile: "c", plainHttpHosts: ["gpu"], model: "tiny" };
  assert.deepEqual(withoutPersonal({ seed: 1, engine }), { seed: 1, engine: { model: "tiny" } });
});

test("settings without an engine stay as they are", () => {
  assert.deepEqual(withoutPersonal({ seed: 1 }), { seed: 1 });
  assert.deepEqual(withoutPersonal({ engine: null }), { engine: null });
});
