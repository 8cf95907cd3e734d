import assert from "node:assert/strict";
import test from "node:test";
import { Latency } from "../src/latency.ts";

test("there is no latency before the first suggestion", () => {
  const latency = new Latency();
  assert.deepEqual([latency.last, latency.median], [undefined, undefined]);
});

test("latency keeps the last twenty", () => {
  const latency = new Latency();
  for (const ms of [9_000, ...Array<number>(10).fill(40), ...Array<number>(10).fill(50)]) {
    latency.add(ms);
  }
  assert.deepEqual([latency.last, latency.median], [50, 50]);
});

test("there is no latency after clearing", () => {
  const latency = new Latency();
  latency.add(40);
  latency.clear();
  assert.equal(latency.last, undefined);
});
