"""What text from other files costs per key: prompt tokens encoded again, and time spent on collecting.

Types 20 lines of one module of `asyncio` back in, character by character, with the others open, for a model whose
prompt has room for snippets (`tiny` has none: its tokenizer is used, the model is not run). The server's choice is
compared with one made again for every line, and with none.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.task import build_prompt
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.syntax.definitions import DefinitionFinder
from dgemma_engine.tokenization.tokenizer import Tokenizer
from workspace import Workspace

from dgemma_lsp.context.collector import CollectorLimits
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context

FOLDER = Path(asyncio.__file__).resolve().parent
MODULE, FUNCTION, LINES = "base_events.py", "    async def shutdown_default_executor", 20
VARIANTS = {
    "as_served": CollectorLimits(),
    "chosen_anew_every_line": CollectorLimits(moved_lines=0),
    "none": CollectorLimits(num_chunks=0, definition_chars=0),
}


def main() -> None:
    """Runs the variants; the whole result is the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    args = parser.parse_args()
    result: dict[str, Any] = {"variants": {name: asyncio.run(typed(limits)) for name, limits in VARIANTS.items()}}
    record.write("context_keys", result, args.out)


async def typed(limits: CollectorLimits) -> dict[str, Any]:
    """Returns the figures of one variant."""
    model = model_folder(TINY)
    tokenizer, config = Tokenizer.load(model), ModelConfig.load(model)
    form = replace(InfillFormat.load(model), prefix_tokens=1_800, suffix_tokens=200, snippet_tokens=2_048)
    workspace = Workspace(FOLDER.parent, DefinitionFinder(), limits)
    path = FOLDER / MODULE
    workspace.open([file for file in sorted(FOLDER.glob("*.py")) if file != path])
    whole = path.read_text(encoding="utf-8")
    start = whole.index(FUNCTION)
    end = start + len("".join(whole[start:].splitlines(keepends=True)[:LINES]))
    last: list[int] = []
    encoded: list[int] = []
    gather_ms: list[float] = []
    changes, snippets = 0, None
    for cursor in range(start, end):
        text = whole[:cursor] + whole[end:]
        started_s = time.perf_counter()
        request, gathered = await workspace.gather(path, text, cursor)
        gather_ms.append((time.perf_counter() - started_s) * 1e3)
        changes += gathered != snippets
        snippets = gathered
        context = build_context(request, ContextLimits(), snippets=gathered.snippets, edits=gathered.edits)
        ids = build_prompt(context, tokenizer, form, config).prompt_ids
        shared = next(
            (at for at, (a, b) in enumerate(zip(last, ids, strict=False)) if a != b), min(len(last), len(ids))
        )
        encoded.append(len(ids) - shared)
        last = ids
        # As between two keys.
        await asyncio.sleep(0.002)
    warm = encoded[1:]
    return {
        "keys": len(encoded),
        "prompt_tokens_last": len(last),
        "encoded_first": encoded[0],
        "encoded_again_mean": round(statistics.mean(warm), 2),
        "encoded_again_p95": record.quantile(warm, 0.95),
        "encoded_again_most": max(warm),
        "choices": changes,
        "gather_first_ms": round(gather_ms[0], 2),
        "gather_ms_median": round(statistics.median(gather_ms[1:]), 3),
        "gather_ms_p95": round(record.quantile(gather_ms[1:], 0.95), 3),
    }


if __name__ == "__main__":
    main()
