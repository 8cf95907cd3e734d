import assert from "node:assert/strict";
import test from "node:test";
import type { ServerStatus } from "../src/protocol.ts";
import { type Situation, statusText } from "../src/statusText.ts";

const READY: ServerStatus = { kind: "ready", message: "", percent: 100 };

function shown(status: Partial<ServerStatus>, now: Partial<Situation> = {}, warning?: string) {
  return statusText({
    server: { kind: "running", status: { ...READY, ...status }, warning },
    paused: undefined,
    languageId: "python",
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

test("loading shows how far", () => {
  assert.equal(shown({ kind: "loading", percent: 40 }).text, "$(loading~spin) dgemma 40 %");
});

test("silence and errors say why, once", () => {
  const inactive = shown({ kind: "inactive", message: "private: .env", reason: "private: .env" });
  assert.deepEqual(inactive, { text: "$(circle-slash) dgemma", tooltip: "private: .env", severity: "none" });
  const error = shown({ kind: "error", message: "no memory", reason: "choose a smaller model" });
  assert.deepEqual(error, { text: "$(error) dgemma", tooltip: "no memory\n\nchoose a smaller model", severity: "error" });
});

test("a server that does not fit stays a warning while it works", () => {
  const { text, tooltip, severity } = shown({}, {}, "older");
  assert.deepEqual([text, tooltip, severity], ["$(warning) dgemma", "older", "warning"]);
});

test("a pause hides what the server says, a stopped server hides the pause", () => {
  assert.match(shown({ kind: "error" }, { paused: "language" }).tooltip, /Paused for the language python/);
  assert.match(shown({}, { paused: "workspace" }).tooltip, /dgemma\.enabled/);
  const stopped = shown({}, { paused: "workspace", server: { kind: "stopped", message: "not installed" } });
  assert.deepEqual(stopped, { text: "$(error) dgemma", tooltip: "not installed", severity: "error" });
});
