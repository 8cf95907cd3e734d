import assert from "node:assert/strict";
import test from "node:test";
import { forTheStart, forTheWorkspace, type Inspected } from "../src/personal.ts";

const nothing = () => undefined;
const lists = (values: Inspected) => (key: string) => (key === "privateFiles" ? values : undefined);

test("settings that decide where text goes are left out", () => {
  const engine = { url: "https://gpu.example", keyFile: "k", caFile: "c", plainHttpHosts: ["gpu"], model: "tiny" };
  assert.deepEqual(forTheWorkspace({ seed: 1, engine }, nothing), { seed: 1, engine: { model: "tiny" } });
});

test("settings without an engine stay as they are", () => {
  assert.deepEqual(forTheWorkspace({ seed: 1 }, nothing), { seed: 1 });
  assert.deepEqual(forTheWorkspace({ engine: null }, nothing), { engine: null });
});

test("private files of the user start the server, and those of the workspace come through its configuration", () => {
  const settings = { seed: 1, privateFiles: [] };
  const both = lists({ defaultValue: [], globalValue: ["secret/"], workspaceValue: ["!.env"] });
  assert.deepEqual(forTheStart(settings, both), { seed: 1, privateFiles: ["secret/"] });
  assert.deepEqual(forTheWorkspace(settings, both), { seed: 1, privateFiles: ["!.env"] });
});

test("private files that nobody chose are those of the default, and none of the workspace", () => {
  const settings = { seed: 1, privateFiles: [] };
  assert.deepEqual(forTheStart(settings, lists({ defaultValue: [] })), { seed: 1, privateFiles: [] });
  assert.deepEqual(forTheWorkspace(settings, lists({ defaultValue: [] })), { seed: 1 });
  const ofFolder = lists({ globalValue: ["a"], workspaceValue: ["b"], workspaceFolderValue: ["c"] });
  assert.deepEqual(forTheWorkspace(settings, ofFolder), { seed: 1, privateFiles: ["c"] });
});
