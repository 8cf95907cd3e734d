"""`dgemma-engine compare`: two evaluations of the same holes, hole by hole; says whether one is really better."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.argument_numbers import not_negative
from dgemma_engine.errors import FormatError

if TYPE_CHECKING:
    from dgemma_engine.tools.evaluation.intervals import Difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument("first", type=Path, metavar="FIRST", help="written by `eval --out`")
    parser.add_argument("second", type=Path, metavar="SECOND", help="written by `eval --out`; compared with FIRST")
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of the resampling (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        EngineError: the files cannot be read or have no hole in common.
    """
    from dgemma_engine.tools.evaluation.intervals import compare_means
    from dgemma_engine.tools.evaluation.result_files import read_results

    first, second = read_results(arguments.first), read_results(arguments.second)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise FormatError(f"{arguments.first} and {arguments.second} have no hole in common; evaluate the same holes")
    if left_out := len(first) + len(second) - 2 * len(shared):
        sys.stderr.write(f"dgemma-engine: warning: {left_out} results are in one file only and left out\n")
    differences = {
        "exact_match": compare_means(
            [first[key].exact for key in shared], [second[key].exact for key in shared], seed=arguments.seed
        ),
        "edit_similarity": compare_means(
            [first[key].similarity for key in shared], [second[key].similarity for key in shared], seed=arguments.seed
        ),
    }
    for name, difference in differences.items():
        sys.stdout.write(f"{name:<17}{_words(difference)}\n")
    result = {
        "command": "compare",
        "first": arguments.first.name,
        "second": arguments.second.name,
        "n": len(shared),
        "left_out": left_out,
        "seed": arguments.seed,
        **{name: asdict(difference) for name, difference in differences.items()},
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _words(difference: Difference) -> str:
    low, high = difference.difference_ci
    words = f"{difference.first:.4f} -> {difference.second:.4f}, difference {difference.difference:+.4f} "
    words += f"[{low:+.4f} {high:+.4f}]"
    if difference.ratio is not None:
        words += f", ratio {difference.ratio:.3f}"
    if difference.ratio_ci is not None:
        words += f" [{difference.ratio_ci[0]:.3f} {difference.ratio_ci[1]:.3f}]"
    return words
