import assert from "node:assert/strict";
import test from "node:test";
import { draftParts, levelOf } from "../src/draftParts.ts";

const span = (text: string, confidence: number, settled = false) => ({ text, confidence, settled });

test("levels go by confidence, except that of a settled span", () => {
  const levels = [span("", 0), span("", 0.39), span("", 0.4), span("", 0.74), span("", 0.75), span("", 0.1, true)].map(levelOf);
  assert.deepEqual(levels, ["unsure", "unsure", "likely", "likely", "sure", "settled"]);
});

test("neighbours of one level are one piece", () => {
  assert.deepEqual(draftParts([span("a", 0.1), span("b", 0.2), span("c", 0.9), span("d", 0.1)]), [
    { text: "ab", level: "unsure" },
    { text: "c", level: "sure" },
    { text: "d", level: "unsure" },
  ]);
});

test("line breaks become signs, and spaces do not shrink", () => {
  assert.equal(draftParts([span("a:\n    b\r\n\tc", 1)])[0]?.text, "a:⏎\u00a0\u00a0\u00a0\u00a0b⏎\u00a0\u00a0\u00a0\u00a0c");
});

test("long drafts are cut between characters, not inside one", () => {
  const parts = draftParts([span("x".repeat(299), 0.9), span("😀😀", 0.9), span("more", 0.1)]);
  assert.deepEqual(parts, [{ text: `${"x".repeat(299)}😀`, level: "sure" }]);
});

test("a draft without text has no parts", () => {
  assert.deepEqual(draftParts([span("", 0.5)]), []);
});
