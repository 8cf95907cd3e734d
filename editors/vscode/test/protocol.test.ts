import assert from "node:assert/strict";
import test from "node:test";
import { incompatibility, PROTOCOL } from "../src/protocol.ts";

test("the same protocol is compatible, whatever the versions", () => {
  assert.equal(incompatibility({ dgemma: { version: "9.9.9", protocol: PROTOCOL } }, "9.9.9"), undefined);
});

test("a server without a protocol number is older, and the message names the remedy", () => {
  for (const said of [undefined, null, {}, { dgemma: null }, { dgemma: {} }, { dgemma: { protocol: "1" } }, { dgemma: { protocol: 0 } }]) {
    assert.match(incompatibility(said, "0.0.9") ?? "", /^dgemma-lsp 0\.0\.9 is older .* run "pip install --upgrade dgemma-lsp/);
  }
});

test("a newer server asks for a newer extension", () => {
  assert.match(incompatibility({ dgemma: { protocol: PROTOCOL + 1 } }, undefined) ?? "", /newer than this extension.*the extension that belongs to it/);
});
