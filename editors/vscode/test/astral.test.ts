import assert from "node:assert/strict";
import test from "node:test";
import { unitsToLeaveOut } from "../src/astral.ts";

test("text of the basic plane is left as it is", () => {
  assert.equal(unitsToLeaveOut("say('é中', ", "say('é中', width)"), 0);
});

test("everything up to and including the last astral character is left out", () => {
  assert.equal(unitsToLeaveOut("'🚀' + '𐍈', ", "'🚀' + '𐍈', width)"), "'🚀' + '𐍈".length);
});

test("what the suggestion changes is not left out", () => {
  assert.equal(unitsToLeaveOut("'🚀', x", "'𝄞', x"), 0);
  assert.equal(unitsToLeaveOut("'🚀', '😀", "'🚀', y"), "'🚀".length);
});
