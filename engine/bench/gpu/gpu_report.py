"""Checks and measures the kernels and a model of the released one's size on the GPU at hand, in five minutes, one JSON.

    python engine/bench/gpu/gpu_report.py [--seconds 300] [--parts layers,tokens] [--formats fp8,int4] [--out D]
        [--resume]

Parts run in order of worth: is what the kernels compute right, in the sizes that serve; how long are 16 fixed steps of
a canvas of 256 after 1,024 tokens (comparable with vLLM's published figure), and which kernels take most of them; each
kernel against the card's own rates; what the launch tables leave off, with and without; requests, `transformers` beside
ours, long contexts; the launch table, with the seconds that are left. Each part is a process of its own: one that
breaks the device or hangs loses one case, and the part goes on after it.

`DIR/gpu_<card>.json` is written after every case, and runs add up in it: `results` has a row for each case and format,
`failed` and `left_out` the rest. A card's launch table grows in `DIR/launch_tables`. Needs torch, triton, numpy,
safetensors and pytest. `--tiny` runs the whole path on a processor; its times mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_plan import ALL_FORMATS, BUDGET_S, LEAST_S, REPOSITORY, Part, parts_of
from gpu_process import in_process
from gpu_result import CASE_S, Report

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent
NEEDED = ("torch", "triton", "numpy", "safetensors", "pytest")
NO_GPU = (
    "gpu-report needs a CUDA device, and torch {torch} of {python} finds none. Run it on a machine with one (another "
    "Python: make gpu-report GPU_PYTHON=python3), or try its path on a processor: engine/bench/gpu/gpu_report.py --tiny"
)
COMMIT = "DGEMMA_COMMIT"
# Where the packages lie: they need not be installed.
PACKAGES = [str(REPOSITORY), str(REPOSITORY / "engine"), str(REPOSITORY / "kernels")]


def main() -> int:
    """Returns 1 where there is nothing to measure on, a check failed, or nothing passed; 2 for wrong options."""
    sys.path[:0] = PACKAGES
    options = parsed()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{sys.executable} lacks {', '.join(missing)}: install them, or name another GPU_PYTHON", file=sys.stderr)
        return 1
    if options.part:
        return one_part(options)
    started = time.monotonic()
    card = probe()
    if card["gpu"] is None and not options.tiny:
        print(NO_GPU.format(torch=card["torch"], python=sys.executable), file=sys.stderr)
        return 1
    try:
        report = report_of(options, card)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    report.begin("card")
    report.guard("versions", "", lambda: report.keep("card", card) or [])
    chosen = [part for part in parts_of(options.formats) if not options.parts or part.name in options.parts]
    for part in chosen:
        run_part(part, report, options, started)
    print(json.dumps(summary(report)))
    return 1 if is_bad(report, chosen) else 0


def parsed() -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BENCH / "measured", help="folder of the report; default: measured")
    parser.add_argument("--record", dest="out", action="store_const", const=BENCH / "results", help="write to results")
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="for everything (default: %(default).0f)")
    parser.add_argument("--parts", type=names, default=(), help="some of them, in their own order; default: all")
    parser.add_argument("--formats", type=names, default=("fp8", "int4"), help=f"of {', '.join(ALL_FORMATS)}")
    parser.add_argument("--resume", action="store_true", help="skip what passed on this commit with these versions")
    parser.add_argument("--commit", help=f"where there is no repository; default: ${COMMIT}")
    parser.add_argument("--tiny", action="store_true", help="on a processor")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--stamp", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for form in options.formats:
        if form not in ALL_FORMATS:
            parser.error(f"there is no format {form!r}: choose from {', '.join(ALL_FORMATS)}")
    known = [part.name for part in parts_of(options.formats)]
    for part in options.parts:
        if part not in known:
            parser.error(f"there is no part {part!r}: choose from {', '.join(known)}")
    return options


def names(text: str) -> tuple[str, ...]:
    """Returns what commas separate."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def probe() -> dict[str, Any]:
    """Returns the card and the versions, asked for in a process of its own."""
    asked = subprocess.run(
        [sys.executable, str(HERE / "gpu_card.py")], capture_output=True, text=True, timeout=120, check=False
    )
    if asked.returncode:
        sys.exit(f"gpu-report cannot ask torch for a card: {asked.stderr[-1_500:]}")
    return json.loads(asked.stdout.strip().rpartition("\n")[2])


def report_of(options: argparse.Namespace, card: dict[str, Any]) -> Report:
    """Returns the report of this card, with the cases of earlier runs.

    Raises:
        ValueError: the file that is there is no report.
    """
    from dgemma_engine.tools.evaluation.provenance import commit, cpu_name

    now = datetime.datetime.now(datetime.UTC)
    stamp = {name: card[name] for name in ("gpu", "torch", "triton")}
    stamp |= {"commit": options.commit or os.environ.get(COMMIT) or commit(), "date": now.strftime("%Y-%m-%d")}
    stamp |= {"cpu": cpu_name()}
    name = "tiny" if options.tiny else re.sub(r"[^a-z0-9]+", "_", card["gpu"].lower()).strip("_")
    report = Report(stamp=stamp, run=now.isoformat(), path=options.out / f"gpu_{name}.json", resume=options.resume)
    report.read()
    return report


def run_part(part: Part, report: Report, options: argparse.Namespace, started: float) -> None:
    """Runs a part, and again after a case that ended its process, while there is time."""
    report.begin(part.name)
    began = time.monotonic()
    while True:
        left_s = options.seconds - (time.monotonic() - started)
        if not options.tiny:
            left_s = min(left_s, part.limit_s - (time.monotonic() - began))
        if left_s < LEAST_S:
            report.leave_out("rest", "", "no time was left: run it again with --resume")
            return
        done = report.num_done()
        wrong = in_process(part_command(part, report, options, left_s), left_s, environment(options))
        report.read()
        if wrong is None:
            for earlier in ("rest", "process"):
                report.drop(earlier)
            return
        if not report.end_running(wrong) and report.num_done() == done:
            report.fail("process", "", wrong)
            return


def part_command(part: Part, report: Report, options: argparse.Namespace, left_s: float) -> list[str]:
    """Returns the command that runs one part."""
    command = [sys.executable, "-X", "faulthandler", str(HERE / "gpu_report.py"), "--part", part.name]
    command += ["--stamp", json.dumps([report.stamp, report.run]), "--out", str(report.path)]
    command += ["--formats", ",".join(options.formats), "--seconds", f"{left_s:.0f}"]
    return command + ["--tiny"] * options.tiny + ["--resume"] * options.resume


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Returns the environment of a part: where packages lie, and how Triton runs."""
    paths = [*PACKAGES, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)} | ({"TRITON_INTERPRET": "1"} if options.tiny else {})


def one_part(options: argparse.Namespace) -> int:
    """Runs one part in this process."""
    import gpu_parts
    import torch
    from gpu_setting import GpuSetting
    from tune import is_broken

    device = torch.device("cpu" if options.tiny else "cuda")
    stamp, run = options.stamp
    report = Report(
        stamp=stamp, run=run, path=options.out, resume=options.resume, is_broken=lambda: is_broken(device),
        # The tuner may use all the time that is left.
        case_s=0.0 if options.tiny or options.part == "tune" else CASE_S,
    )  # fmt: skip
    report.read()
    make = GpuSetting.of_processor if options.tiny else GpuSetting.of_card
    gpu_parts.run_part(
        options.part, make(options.formats), report, options.out.parent / "launch_tables", options.seconds
    )
    return 0


def summary(report: Report) -> dict[str, Any]:
    """Returns the last line that is printed: the file without its details."""
    whole = report.whole()
    return {name: whole[name] for name in ("benchmark", *report.stamp, "results", "failed", "left_out")}


def is_bad(report: Report, chosen: Sequence[Part]) -> bool:
    """Returns whether a check failed in this run, or no case passed."""
    checks = {part.name for part in chosen if part.is_check}
    now = [case for case in report.cases.values() if case["run"] == report.run]
    failed = any(case["state"] == "failed" and case["part"] in checks for case in now)
    return failed or not any(case["state"] == "passed" and case["part"] != "card" for case in report.cases.values())


if __name__ == "__main__":
    sys.exit(main())
