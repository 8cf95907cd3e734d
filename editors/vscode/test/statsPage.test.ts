import assert from "node:assert/strict";
import test from "node:test";
import { statsPage } from "../src/statsPage.ts";

test("figures of any depth become rows; what is not known is a dash", () => {
  const page = statsPage({ shown: 3, kept: { "30_s": { kept: 2, characters_share: null } } });
  assert.match(page, /\| shown \| 3 \|\n\| kept, 30 s, kept \| 2 \|\n\| kept, 30 s, characters share \| - \|/);
});

test("no figures are said to be none", () => {
  assert.match(statsPage({}), /Nothing was counted yet\./);
});
