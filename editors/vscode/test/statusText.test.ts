import assert from "node:assert/strict";
import test from "node:test";
import type { ServerStatus } from "../src/protocol.ts";
import { type Situation, statusText } from "../src/statusText.ts";

const READY: ServerStatus = { kind: "ready", message: "", percent: 100 };

function shown(status: Partial<ServerStatus>, now: Partial<Situation> = {}, warning?: string) {
  return statusText({
    server: { kind: "running", status: { ...READY, ...status }, elsewhere: READY, warning },
    paused: undefined,
    languageId: "python",
    uri: "file:///here",
    silent: undefined,
    lastMs: undefined,
    medianMs: undefined,
    ...now,
  });
}

test("ready without a suggestion yet", () => {
  assert.deepEqual(shown({}), { text: "$(sparkle) dgemma", tooltip: "Ready.", severity: "none" });
});

test("ready with the time of the last suggestion", () => {
  const { text, tooltip } = shown({}, { lastMs: 61.4, medianMs: 48.9 });
  assert.equal(text, "$(sparkle) dgemma 61 ms");
  assert.equal(tooltip, "Last suggestion 61 ms, median 49 ms.");
});

test("loading shows its percentage", () => {
  assert.equal(shown({ kind: "loading", percent: 40 }).text, "$(loading~spin) dgemma 40 %");
});

test("inactive and error states show the reason once", () => {
  const inactive = shown({ kind: "inactive", message: "private: .env", reason: "private: .env" });
  assert.deepEqual(inactive, { text: "$(circle-slash) dgemma", tooltip: "private: .env", severity: "none" });
  const error = shown({ kind: "error", message: "no memory", reason: "choose a smaller model" });
  assert.deepEqual(error, { text: "$(error) dgemma", tooltip: "no memory\n\nchoose a smaller model", severity: "error" });
});

test("a status of one document is not shown for another", () => {
  const why: Partial<ServerStatus> = { kind: "inactive", message: "this file is private", reason: "this file is private" };
  assert.equal(shown({ ...why, uri: "file:///here" }).tooltip, "this file is private");
  assert.equal(shown({ ...why, uri: "file:///there" }).tooltip, "Ready.");
  assert.equal(shown({ ...why, uri: "" }).tooltip, "this file is private");
});

test("a slow state shows the reason once, and the times", () => {
  const slow = shown({ kind: "slow", message: "slow: another window", reason: "another window" }, { lastMs: 900, medianMs: 800 });
  assert.deepEqual(slow, {
    text: "$(watch) dgemma 900 ms",
    tooltip: "slow: another window\n\nLast suggestion 900 ms, median 800 ms.",
    severity: "none",
  });
});

test("a document in which the editor would draw nothing shows the reason", () => {
  const silent = shown({}, { silent: "too large" });
  assert.deepEqual(silent, { text: "$(circle-slash) dgemma", tooltip: "too large", severity: "none" });
});

test("an incompatible server that works is shown as a warning", () => {
  const { text, tooltip, severity } = shown({}, {}, "older");
  assert.deepEqual([text, tooltip, severity], ["$(warning) dgemma", "older", "warning"]);
});

test("a pause hides the status of the server, a stopped server hides the pause", () => {
  assert.match(shown({ kind: "error" }, { paused: "language" }).tooltip, /Paused for the language python/);
  assert.match(shown({}, { paused: "workspace" }).tooltip, /dgemma\.enabled/);
  const stopped = shown({}, { paused: "workspace", server: { kind: "stopped", message: "not installed" } });
  assert.deepEqual(stopped, { text: "$(error) dgemma", tooltip: "not installed", severity: "error" });
});

test("the repository whose adapter took part is named", () => {
  assert.equal(shown({ adapter: "/w/mine" }).tooltip, "The adapter of /w/mine takes part.");
  assert.equal(shown({ adapter: "" }).tooltip, "Ready.");
  const off = shown({ message: "the adapter of /w/mine is off" });
  assert.deepEqual([off.tooltip, off.severity], ["the adapter of /w/mine is off", "none"]);
});
