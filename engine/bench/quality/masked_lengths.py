"""Automatic length of a masked diffusion model against the true length, before and after calibration.

    python engine/bench/quality/masked_lengths.py [--minutes M] [--holes N] [--model FOLDER]

The tiny Qwen2 of `masked_model` is trained for M minutes of a core, as published models are. Holes are names in made-up
functions of which one in five is held out; a name follows from the text around it, and has 1 to 12 tokens. Each hole of
a held-out function is filled with the true number of masks, with fixed ones, and with the length that the engine finds,
all by the canvas alone. Then `dgemma-engine calibrate` fits a calibration on holes of other held-out functions, and the
length is found with that, without and with text found elsewhere among the candidates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import masked_model
import record
from dgemma_engine.cli import main as cli
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel

CALIBRATION_HOLES = 120
FIXED = (4, 8, 16)
CANVAS_ALONE = InfillOptions(seeds=False)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--minutes", type=float, default=12.0, help="of training (default: 12)")
    parser.add_argument("--holes", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--model", type=Path, help="keep the trained model in this folder, or take it from there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = args.model or Path(temporary)
        about = masked_model.trained(folder, args.minutes * 60)
        engine = Engine.load(folder, device="cpu", report=lambda _percent, _message: None)
        random_ = random.Random(1)
        holes = [masked_model.hole(random_, masked_model.Split.EVALUATION) for _ in range(args.holes)]
        figures = {f"fixed:{size}": exact(engine, holes, [size] * len(holes)) for size in FIXED}
        figures["oracle"] = exact(engine, holes, [engine.count_tokens(middle) for _, middle, _ in holes])
        figures |= found(engine, holes, "auto")
        fitted, seeded = calibrated(folder), InfillOptions()
        figures |= found(fitted, holes, "auto, calibrated")
        figures |= found(fitted, holes, "auto, calibrated, and text found elsewhere", seeded)
    share = round(figures["auto"] / figures["oracle"], 4) if figures["oracle"] else None
    about |= {"calibration_holes": CALIBRATION_HOLES, "holes": len(holes), "exact": figures, "auto_of_oracle": share}
    record.write("masked_lengths", about, args.out)


def exact(engine: Engine, holes: list[tuple[str, str, str]], lengths: list[int]) -> float:
    """Returns the share of holes whose answer is right with as many masks as `lengths` say."""
    right = 0
    for (prefix, middle, suffix), length in zip(holes, lengths, strict=True):
        options = InfillOptions(slot_tokens=length + 1, seeds=False, silence=False)
        # One more: the prefix gives up its last token, which the middle spells again.
        right += engine.infill(context(prefix, suffix), never(), options=options).text == middle
    return round(right / len(holes), 4)


def found(
    engine: Engine, holes: list[tuple[str, str, str]], name: str, options: InfillOptions = CANVAS_ALONE
) -> dict[str, float]:
    """Returns the shares that are right with the length found: the first candidate, and any."""
    first = among = 0
    for prefix, middle, suffix in holes:
        ranked = engine.ranked(context(prefix, suffix), never(), options=options)
        texts = [one.proposal.text for one in ranked]
        first += texts[:1] == [middle]
        among += middle in texts
    return {name: round(first / len(holes), 4), f"{name}, among the candidates": round(among / len(holes), 4)}


def calibrated(folder: Path) -> Engine:
    """Calibrates a copy of a model on holes of held-out functions, and returns its engine."""
    random_ = random.Random(3)
    with tempfile.TemporaryDirectory() as temporary:
        copy, holes = Path(temporary) / "model", Path(temporary) / "holes.jsonl"
        shutil.copytree(folder, copy)
        with holes.open("w") as file:
            for number in range(CALIBRATION_HOLES):
                prefix, middle, suffix = masked_model.hole(random_, masked_model.Split.CALIBRATION)
                task = {"task_id": str(number), "kind": "rest", "path": f"{number}.py", "language": "python"}
                file.write(json.dumps(task | {"prefix": prefix, "middle": middle, "suffix": suffix}) + "\n")
        with contextlib.redirect_stdout(sys.stderr):
            assert cli(["calibrate", str(copy), str(holes), "--holes", str(CALIBRATION_HOLES), "--device", "cpu"]) == 0
        return Engine.load(copy, device="cpu", report=lambda _percent, _message: None)


def context(prefix: str, suffix: str) -> Context:
    """Returns a question."""
    return Context(document="d", prefix=prefix, suffix=suffix, path="f.py", language="python", max_middle_tokens=32)


def never() -> Cancel:
    """Returns a cancel that is never set and a deadline that never comes."""
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


if __name__ == "__main__":
    main()
