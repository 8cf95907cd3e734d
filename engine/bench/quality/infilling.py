"""Every way of filling a hole that is worth comparing, on the same holes: one JSON file and one answer file each.

    python engine/bench/quality/infilling.py HOLES [--projects HOLES]

Runs `dgemma-engine eval` once per variant: the product as it is; the same without copied texts, without the fill token;
canvases alone, with the true length too; the causal mode alone; the line above copied. `dgemma-engine compare` then
pairs those a claim is about. HOLES is made by `dgemma-engine holes` from packages the model has never seen;
`--projects` takes holes with snippets of other files of their project, on which copied texts are measured once more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record

VARIANTS = {
    "auto": (),
    "no_seeds": ("--no-seeds",),
    "no_fill": ("--no-fill",),
    "diffusion": ("--decode", "diffusion", "--no-seeds"),
    "diffusion_oracle": ("--decode", "diffusion", "--no-seeds", "--length", "oracle"),
    "diffusion_no_fill": ("--decode", "diffusion", "--no-seeds", "--no-fill"),
    "left_to_right": ("--decode", "ltr", "--no-seeds"),
    "copy": ("--decode", "copy"),
}
# Whether the first is better than the second, and by how much.
PAIRS = (
    ("diffusion", "diffusion_oracle"),
    ("diffusion", "left_to_right"),
    ("diffusion", "copy"),
    ("auto", "left_to_right"),
    ("auto", "copy"),
    ("auto", "no_seeds"),
    ("no_fill", "auto"),
)
ON_PROJECTS = ("auto", "no_seeds")


def main() -> None:
    """Runs all variants; prints one line for each, the whole result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("holes", type=Path)
    parser.add_argument("--projects", type=Path)
    record.add_destination(parser)
    parser.add_argument("--answers", type=Path, required=True, help="folder for the single answers")
    args = parser.parse_args()
    args.answers.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"variants": {}, "pairs": {}, "shown": {}, "projects": {}}
    for name, options in VARIANTS.items():
        result["variants"][name] = evaluated(args.holes, args.answers / f"{name}.jsonl", "--no-silence", *options)
    result["shown"] = evaluated(args.holes, args.answers / "shown.jsonl")
    for first, second in PAIRS:
        result["pairs"][f"{first} over {second}"] = compared(args.answers, first, second)
    if args.projects is not None:
        for name in ON_PROJECTS:
            answers = args.answers / f"projects_{name}.jsonl"
            result["projects"][name] = evaluated(args.projects, answers, "--no-silence", *VARIANTS[name])
        result["projects"]["auto over no_seeds"] = compared(args.answers, "projects_auto", "projects_no_seeds")
    record.write("infilling", result, args.out)


def evaluated(holes: Path, answers: Path, *options: str) -> dict[str, Any]:
    """Returns the last line of `dgemma-engine eval`."""
    figures = last_line("eval", str(holes), "--out", str(answers), "--device", "cpu", *options)
    print(
        answers.stem, figures["exact_match"], figures["forwards_mean"], figures["p50_ms"], file=sys.stderr, flush=True
    )
    return figures


def compared(answers: Path, first: str, second: str) -> dict[str, Any]:
    """Returns the last line of `dgemma-engine compare`: how much better the first is than the second."""
    return last_line("compare", str(answers / f"{second}.jsonl"), str(answers / f"{first}.jsonl"))


def last_line(*arguments: str) -> dict[str, Any]:
    """Runs a subcommand of `dgemma-engine` and reads its last line."""
    command = [sys.executable, "-m", "dgemma_engine", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


if __name__ == "__main__":
    main()
