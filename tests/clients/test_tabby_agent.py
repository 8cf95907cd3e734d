"""Tabby's own client `tabby-agent` from npm, which Tabby's plugins for Vim, Neovim and VS Code run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.clients.conftest import run
from tests.engine.http_api.running_server import AnsweringEngine, running_server

COMPLETE = """
const { TabbyAgent } = (await import("tabby-agent")).default;
const agent = new TabbyAgent();
const dataStore = { data: {}, load: async () => {}, save: async () => {} };
await agent.initialize({ dataStore });
const text = "def f(x):\\n    return \\n\\n\\ndef g():\\n    pass\\n";
const place = { filepath: "/src/a.py", workspace: "/src", language: "python", text, position: 21, manually: true };
const answer = await agent.provideCompletions(place);
const event = { type: "view", completion_id: answer.id, choice_index: 0 };
console.log(JSON.stringify({
  status: agent.getStatus(),
  model: agent.getServerHealthState().model,
  choices: answer.choices.map((one) => one.text),
  isTold: await agent.postEvent(event),
}));
process.exit(0);
"""


async def test_agent_completes_and_reports_that_the_text_was_shown(tmp_path: Path) -> None:
    config = tmp_path / ".tabby-client/agent/config.toml"
    config.parent.mkdir(parents=True)
    async with running_server(AnsweringEngine("alpha + beta", "x")) as server:
        config.write_text(
            f'[server]\nendpoint = "{server.url}"\ntoken = "none"\n\n[anonymousUsageTracking]\ndisable = true\n'
        )
        out = await run(server, "node", "--input-type=module", "-e", COMPLETE, HOME=str(tmp_path))
    said = json.loads(out)
    assert (said["status"], said["model"], said["isTold"]) == ("ready", "fake", True)
    assert said["choices"][0] == "alpha + beta"
    (context,) = server.engine.contexts
    assert (context.prefix, context.suffix) == ("def f(x):\n    return ", "\n\n\ndef g():\n    pass\n")
    assert (context.path, context.language) == ("a.py", "python")
