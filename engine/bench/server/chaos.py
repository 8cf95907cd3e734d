"""A client that misbehaves at random against the real server: counts steps, requests, and wrong or missing answers.

    make chaos

First with an engine that answers at once and dies now and then, then with the real one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from typing_traces import watched

sys.path.insert(0, str(record.HERE.parents[1]))
from tests.lsp.chaos.ledger import Report
from tests.lsp.chaos.run import instant_engine, play

SORTS = ("unanswered", "late", "answered_twice", "unknown_id", "wrong_code", "wrong_result", "malformed", "too_early")
ENDS = ("crash", "traceback", "not_ended", "exit_code")


def with_instant_engine(num_steps: int, first_seed: int) -> Report:
    """Plays against an engine without a model."""
    with instant_engine() as (folder, engine):
        return play(folder, engine, num_steps=num_steps, first_seed=first_seed, raises=False)


def with_real_engine(num_steps: int, first_seed: int) -> Report:
    """Plays against the embedded model."""

    async def playing() -> Report:
        with tempfile.TemporaryDirectory(prefix="t-") as folder:
            async with watched(Path(folder)):
                return await asyncio.to_thread(
                    play, Path(folder), None, num_steps=num_steps, first_seed=first_seed, raises=False
                )

    return asyncio.run(playing())


def measured(run: Callable[[int, int], Report], num_steps: int, first_seed: int) -> dict[str, Any]:
    """Plays, and returns the result."""
    started_s = time.monotonic()
    report = run(num_steps, first_seed)
    seconds = time.monotonic() - started_s
    for fault in report.faults[:20]:
        print(fault, file=sys.stderr)
    return {
        "steps": report.steps.total(),
        "requests": report.requests.total(),
        "sessions": report.sessions,
        "first_seed": report.seeds[0],
        "seeds": len(report.seeds),
        "seconds": round(seconds, 1),
        **{sort: report.wrong[sort].total() if sort in report.wrong else 0 for sort in (*SORTS, *ENDS)},
        "wrong_by_kind": {sort: dict(kinds) for sort, kinds in report.wrong.items()},
        "steps_by_kind": dict(report.steps.most_common()),
        "requests_by_kind": dict(report.requests.most_common()),
        "offered_by_kind": dict(report.offered.most_common()),
        "endings": dict(report.endings.most_common()),
    }


def main() -> int:
    """Plays both; the exit code is 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--steps", type=int, default=300_000, help="with the instant engine")
    parser.add_argument("--real-steps", type=int, default=2_000, help="with the real engine")
    parser.add_argument("--first-seed", type=int, default=1)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    result = {
        "instant_engine": measured(with_instant_engine, args.steps, args.first_seed),
        "real_engine": measured(with_real_engine, args.real_steps, args.first_seed),
    }
    record.write("chaos", result, args.out)
    wrong = [f"{name}: {sort}" for name, one in result.items() for sort in one["wrong_by_kind"]]
    if wrong:
        print(f"chaos: {', '.join(wrong)}; one session: pytest tests/lsp/chaos/test_chaos.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
