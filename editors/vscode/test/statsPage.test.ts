import assert from "node:assert/strict";
import test from "node:test";
import { statsPage } from "../src/statsPage.ts";

test("figures of any depth become lines; what is not known is a dash", () => {
  const page = statsPage({ shown: 3, kept: { "30_s": { kept: 2, characters_share: null } } });
  const lines = page.split("\n").filter((line) => /\d|-/.test(line));
  assert.deepEqual(lines.map((line) => line.split(/ {2,}/)), [
    ["shown", "3"],
    ["kept, 30 s, kept", "2"],
    ["kept, 30 s, characters share", "-"],
  ]);
  assert.equal(new Set(lines.map((line) => line.length)).size, 1, "the figures stand below each other");
});

test("a page without figures says so", () => {
  assert.match(statsPage({}), /Nothing was counted yet\./);
});
