"""`dgemma-engine calibrate`: fits a model's scores to the probability of being right, and the threshold, on files."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgemma_engine.argument_numbers import not_negative
from dgemma_engine.errors import EngineError, EngineUnavailable, FormatError
from dgemma_engine.ipc.endpoint_options import model_name
from dgemma_engine.tools.evaluation.holes.hole_kind import HoleKind

if TYPE_CHECKING:
    from dgemma_engine.checkpoint.calibration import Calibration
    from dgemma_engine.tools.calibration.collecting import Collected
    from dgemma_engine.tools.calibration.figures import CalibrationFigures
    from dgemma_engine.tools.calibration.samples import Samples
    from dgemma_engine.tools.calibration.score_fit import ScoreFit

REPORT, RELIABILITY, COVERAGE = "calibration_report.json", "reliability.png", "coverage.png"
"""Files written beside the calibration."""

_DEFAULT_KINDS = (HoleKind.LINE, HoleKind.REST, HoleKind.MULTILINE)
# Fewer cannot determine twelve weights and a threshold; several hundred can.
_FEWEST_HOLES = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.add_argument(
        "model",
        type=model_name,
        metavar="MODEL",
        help="folder, GGUF file or short name; calibration.json is written there",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="source file, folder, corpus (its held-out split) or hole file, none of it trained on",
    )  # fmt: skip
    parser.add_argument("--holes", type=_holes, default=600, metavar="N", help="most holes (default: 600)")
    kinds = ",".join(_DEFAULT_KINDS)
    parser.add_argument(
        "--kinds", type=_kinds, default=_DEFAULT_KINDS, metavar="KIND,...",
        help=f"kinds of holes to cut: {', '.join(HoleKind)} (default: {kinds})",
    )  # fmt: skip
    parser.add_argument(
        "--glob", action="append", metavar="PATTERN", help="files of a folder to take; repeatable (default: *.py)"
    )
    parser.add_argument("--seed", type=not_negative, default=0, metavar="N", help="seed of random draws (default: 0)")
    parser.add_argument(
        "--precision", type=_share, default=0.5, metavar="P",
        help="share of shown answers that should be right: 0 shows all, 1 next to none (default: 0.5)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N: where the model runs")
    parser.add_argument("--dry-run", action="store_true", help="write nothing beside the model")
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="folder for the report and its plots (default: the model's)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: the model is not there.
        EngineError: the model or the files cannot be used, teach too little, or a folder cannot be written.
    """
    for module in ("torch", "numpy"):
        if importlib.util.find_spec(module) is None:
            raise EngineUnavailable(f"{module} is not installed; run: pip install 'dgemma-lsp[engine]'")
    from dgemma_engine.checkpoint.builtin import model_folder, require_model
    from dgemma_engine.checkpoint.calibration import fingerprint
    from dgemma_engine.tools.calibration.figures import CalibrationFigures
    from dgemma_engine.tools.calibration.score_fit import fit_score
    from dgemma_engine.tools.evaluation.provenance import provenance

    require_model(arguments.model)
    model = model_folder(arguments.model)
    folder = model if model.is_dir() else model.parent
    out = arguments.plots or (None if arguments.dry_run else folder)
    # Before minutes of work: what cannot be written is known at once.
    if not arguments.dry_run:
        _require_writable(folder)
    if out is not None:
        _require_writable(out)
    mark = fingerprint(model)
    samples = _samples(arguments)
    collected = _collected(arguments, model, samples)
    fit = fit_score(collected.holes, target=arguments.precision, seed=arguments.seed)
    figures = CalibrationFigures.of(collected.holes, fit, collected.lengths, collected.no_lengths)
    facts = provenance(collected.device)
    result = {
        "command": "calibrate",
        "model": collected.model,
        "fingerprint": mark,
        "files": [path.name for path in arguments.files],
        **figures.result(),
        "written": not arguments.dry_run,
        "device": collected.device,
        "seed": arguments.seed,
        **facts,
    }
    if out is not None:
        _write_report(out, result, figures, fit, collected.model)
    # Last, so that an interrupted run leaves the model as it was.
    if not arguments.dry_run:
        _save(_calibration(mark, collected, fit, samples, facts), model)
    sys.stdout.writelines(f"{line}\n" for line in figures.table())
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _samples(arguments: argparse.Namespace) -> Samples:
    from dgemma_engine.tools.calibration.samples import draw_samples
    from dgemma_engine.tools.calibration.score_fit import NUM_FOLDS

    samples = draw_samples(
        arguments.files,
        kinds=arguments.kinds,
        count=arguments.holes,
        globs=arguments.glob or ["*.py"],
        seed=arguments.seed,
    )
    if len(samples.holes) < _FEWEST_HOLES or samples.num_files < NUM_FOLDS:
        raise FormatError(
            f"{len(samples.holes)} holes in {samples.num_files} files are too few: at least {_FEWEST_HOLES} "
            f"in {NUM_FOLDS} files are needed, several hundred are better; name more files or other --kinds"
        )
    return samples


def _collected(arguments: argparse.Namespace, model: Path, samples: Samples) -> Collected:
    from dgemma_engine.families.checkpoint_facts import read_facts
    from dgemma_engine.families.registry import family_of
    from dgemma_engine.infill.engine import Engine
    from dgemma_engine.tools.calibration.collecting import RankingEngine, collect

    def load(calibration: Calibration) -> RankingEngine:
        _say(f"loading {model.name}")
        # The calibration beside the model may be another model's, or damaged: this run is to replace it.
        return Engine.load(
            model, device=arguments.device, report=lambda _percent, _message: None, calibration=calibration
        )

    facts = read_facts(model)
    family = family_of(facts)
    return collect(
        samples.holes,
        load,
        has_canvas=family.has_canvas(facts),
        searches_length=family.read_format(facts).fill_token_id is None,
        seed=arguments.seed,
        clock=time.monotonic,
        report=_say,
    )


def _calibration(
    mark: str, collected: Collected, fit: ScoreFit, samples: Samples, facts: dict[str, Any]
) -> Calibration:
    from dgemma_engine.checkpoint.calibration import Calibration, Provenance
    from dgemma_engine.checkpoint.features import NAMES

    lengths, default = collected.lengths, Calibration.default()
    return Calibration(
        fingerprint=mark,
        length_bias=lengths.bias if lengths else default.length_bias,
        prior_weight=lengths.prior_weight if lengths else default.prior_weight,
        weights=tuple(zip(NAMES, fit.logistic.weights, strict=True)),
        intercept=fit.logistic.intercept,
        threshold=fit.choice.point.threshold,
        provenance=Provenance(
            date=facts["date"],
            commit="" if facts["commit"] == "unknown" else facts["commit"],
            num_files=samples.num_files,
            num_holes=len(samples.holes),
            file_share=samples.num_files / samples.num_files_at_hand,
        ),
    )


def _write_report(out: Path, result: dict[str, Any], figures: CalibrationFigures, fit: ScoreFit, model: str) -> None:
    from dgemma_engine.tools.calibration.plots import draw_coverage, draw_reliability
    from dgemma_engine.tools.evaluation.result_files import write_result

    title = f"{model}: first candidate of a hole, in files not fitted on"
    try:
        drawn = draw_reliability(fit.reliability, fit.predictions, out / RELIABILITY, title=title)
        drawn = draw_coverage(fit.points, fit.choice, out / COVERAGE, title=title) and drawn
    except OSError as error:
        raise EngineError(f"{out}: cannot be written ({error.strerror or error}); choose another --plots") from error
    write_result(out / REPORT, result)
    if not drawn:
        _say("no pictures: matplotlib is not installed; run: pip install 'dgemma-lsp[train]'")


def _save(calibration: Calibration, model: Path) -> None:
    try:
        calibration.save(model)
    except OSError as error:
        raise _unwritable(model, error) from error


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> EngineError:
    return EngineError(
        f"{folder}: cannot be written ({error.strerror or error}); "
        "calibrate a copy of the model, choose another --plots, or use --dry-run"
    )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _holes(text: str) -> int:
    number = not_negative(text)
    if number < _FEWEST_HOLES:
        raise argparse.ArgumentTypeError(f"{text} must be at least {_FEWEST_HOLES}")
    return number


def _kinds(text: str) -> tuple[HoleKind, ...]:
    try:
        return tuple(HoleKind(name) for name in dict.fromkeys(text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; choose from {', '.join(HoleKind)}") from error


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1")
    return share
