"""Models on one published set of holes, in one run: HumanEval-Infilling, single lines, judged by each task's tests.

    python engine/bench/quality/single_lines.py HOLES.jsonl.gz --models tiny small [--limit 400] [--record]
    python engine/bench/quality/single_lines.py HOLES --models small coder --bases --once --limit 200 --name coder_lines

Every answer counts, whatever its score. Executes programs that the models wrote, in the sandbox of
`dgemma-engine eval --execute`. The set: github.com/openai/human-eval-infilling (MIT licence).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder

KEPT = ("n", "pass_at_1", "exact_match", "edit_similarity", "forwards_mean", "p50_ms", "p95_ms", "model")


def judge(model: str, holes: Path, limit: int, *options: str) -> dict[str, Any]:
    """Returns the result of `dgemma-engine eval` of one model, with these options besides."""
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        out = Path(folder) / "result.json"
        usual = ["--execute", "--no-silence", "--limit", str(limit), "--json", str(out)]
        command = [sys.executable, "-m", "dgemma_engine", "eval", "--model", model, *usual, *options, str(holes)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"DGEMMA_RUNTIME_DIR": folder})
        result = json.loads(out.read_text(encoding="utf-8"))
    return {name: result[name] for name in KEPT}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("holes", type=Path, help="HumanEval-SingleLineInfilling.jsonl.gz")
    parser.add_argument("--models", nargs="+", default=["tiny", "small"], help="as `dgemma-engine eval --model` takes")
    parser.add_argument("--bases", nargs="*", default=["small"], help="GGUF models also judged without their adapters")
    parser.add_argument("--once", nargs="*", default=["small"], help="models also judged with one candidate written")
    parser.add_argument("--limit", type=int, default=400, help="holes, evenly spread over the file; default: 400")
    parser.add_argument("--name", default="single_lines", help="of the result; default: single_lines")
    args = parser.parse_args()
    models = {Path(model).stem: judge(model, args.holes, args.limit) for model in args.models}
    models |= {f"{Path(model).stem}_once": judge(model, args.holes, args.limit, "--no-forks") for model in args.once}
    for model in args.bases:
        with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
            bare = Path(folder) / f"{model}.gguf"
            bare.symlink_to(model_folder(model).resolve())
            # An empty folder of adapters: the base as it was.
            (Path(folder) / "adapters").mkdir()
            models[f"{Path(model).stem}_without_adapter"] = judge(str(bare), args.holes, args.limit)
    record.write(args.name, {"holes": args.holes.name, "models": models}, args.out)


if __name__ == "__main__":
    main()
