"""How well a model fills holes in packages it has never seen: exact match and similarity per kind of hole.

Holes come from the held-out split of a corpus with a fixed seed and go through the engine as an editor's would. An
answer is exact if it equals what was left out, white space at both ends aside. As a floor, the line before the hole is
taken as the answer too; that is a guess worth making for whole lines only.
"""

from __future__ import annotations

import argparse
import difflib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import record
from dgemma_engine.cancel import Cancel
from dgemma_engine.engine import Engine
from dgemma_engine.location import EMBEDDED
from dgemma_engine.messages import Context, Extent
from dgemma_engine.model_folder import model_folder
from dgemma_engine.training.corpus import Corpus

SEED = 7


def main() -> None:
    """Runs the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="made by `dgemma-engine corpus`")
    parser.add_argument("--out", type=Path, default=record.HERE / "results")
    parser.add_argument("--holes", type=int, default=300, help="of each kind")
    parser.add_argument("--model", type=Path, default=model_folder(EMBEDDED))
    args = parser.parse_args()
    corpus = Corpus.load(args.corpus, "held_out")
    engine = Engine.load(args.model, device="cpu", report=lambda _percent, _message: None)
    kinds = {kind: evaluate(engine, holes(corpus, kind, args.holes)) for kind in ("whole line", "rest of line", "call")}
    result = {"model": engine.model_name, "holes_of_each_kind": args.holes, "seed": SEED, "kinds": kinds}
    record.write("held_out", result, args.out)


def holes(corpus: Corpus, kind: str, count: int) -> Iterator[tuple[str, str, str]]:
    """Yields prefix, middle and suffix of `count` holes of one kind."""
    random = Random(f"{SEED} {kind}")
    while count:
        text = corpus.text(corpus.at_byte(random.randrange(corpus.num_bytes)))
        lines = text.splitlines(keepends=True)
        number = random.randrange(len(lines))
        line = lines[number].rstrip("\r\n")
        code = line.strip()
        if len(code) < 8 or code.startswith(("#", '"""', "'''")):
            continue
        indent = len(line) - len(line.lstrip())
        start, end = indent, len(line)
        if kind == "rest of line":
            start = random.randrange(indent + 2, len(line) - 2)
        elif kind == "call":
            start, end = line.find("(") + 1, line.rfind(")")
            if not 0 < start < end:
                continue
        before, after = "".join(lines[:number]), "".join(lines[number + 1 :])
        rest = lines[number][end:]
        count -= 1
        yield before + line[:start], line[start:end], rest + after


def evaluate(engine: Engine, questions: Iterator[tuple[str, str, str]]) -> dict[str, Any]:
    """Returns shares and means over the questions."""
    exact, shown, copied, similarity, times_ms, steps = [], [], [], [], [], []
    for number, (prefix, middle, suffix) in enumerate(questions):
        context = Context(document=str(number), prefix=prefix, suffix=suffix, extent=Extent.LINE, deadline_ms=60_000)
        cancel = Cancel(deadline_s=time.monotonic() + 60, clock=time.monotonic)
        infill = engine.infill(context, cancel)
        exact.append(infill.text.strip() == middle.strip())
        shown.append(bool(infill.text))
        similarity.append(difflib.SequenceMatcher(None, infill.text, middle).ratio())
        times_ms.append(infill.timings_ms["total"])
        steps.append(infill.steps)
        copied.append(line_before(prefix).strip() == middle.strip())
    return {
        "n": len(exact),
        "exact_match": round(statistics.mean(exact), 4),
        "edit_similarity": round(statistics.mean(similarity), 4),
        "shown_share": round(statistics.mean(shown), 4),
        "copy_line_before": round(statistics.mean(copied), 4),
        "steps_mean": round(statistics.mean(steps), 2),
        "p50_ms": round(record.quantile(times_ms, 0.5), 1),
        "p95_ms": round(record.quantile(times_ms, 0.95), 1),
    }


def line_before(prefix: str) -> str:
    """Returns the line above the one that `prefix` ends in; empty for the first."""
    above = prefix[: prefix.rfind("\n") + 1].splitlines()
    return above[-1] if above else ""


if __name__ == "__main__":
    main()
