import assert from "node:assert/strict";
import test from "node:test";
import { Latency } from "../src/latency.ts";

test("latency knows nothing before the first suggestion", () => {
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

test("nothing is known after clearing", () => {
  const latency = new Latency();
  latency.add(40);
  latency.clear();
  assert.equal(latency.last, undefined);
});
