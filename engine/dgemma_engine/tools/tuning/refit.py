"""The calibration of a base with a repository's adapter, where there are enough holes to fit one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from dgemma_engine.checkpoint.calibration import Calibration, Provenance
from dgemma_engine.checkpoint.features import NAMES
from dgemma_engine.errors import EngineError
from dgemma_engine.tools.calibration.judged_hole import JudgedHole
from dgemma_engine.tools.calibration.score_fit import NUM_FOLDS, fit_score

MIN_HOLES = 120
"""Fewer decide too little about twelve weights and a threshold."""

# Of what is shown, where the base's own precision is not known.
_PRECISION = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """A fitted calibration.

    Attributes:
        calibration: of the base with the adapter.
        precision: share of the answers it shows that are right, in files it was not fitted on.
        shown: share of the holes with an answer that it shows, in the same.
    """

    calibration: Calibration
    precision: float
    shown: float

    @classmethod
    def of(
        cls,
        holes: Sequence[JudgedHole],
        base: Calibration,
        *,
        fingerprint: str,
        precision: float | None,
        num_files: int,
        today: date,
        seed: int,
    ) -> Refit | None:
        """Fits weights and threshold on holes that were filled with the adapter.

        Args:
            holes: with all candidates.
            base: of the base alone; its biases of lengths are kept.
            fingerprint: of the base.
            precision: of what was shown without the adapter; the threshold is chosen so that it does not fall.
            num_files: that holes could have come from.
            today: the day.
            seed: deals files into folds.

        Returns:
            None where there are too few holes or files, or no threshold is that precise: the base's own is used then.
        """
        used = {hole.file for hole in holes}
        if len(holes) < MIN_HOLES or len(used) < NUM_FOLDS:
            return None
        try:
            fit = fit_score(holes, target=_PRECISION if precision is None else precision, seed=seed)
        except EngineError:
            # Every candidate is right, or none is.
            return None
        if not fit.choice.reached:
            return None
        calibration = replace(
            base,
            fingerprint=fingerprint,
            weights=tuple(zip(NAMES, fit.logistic.weights, strict=True)),
            intercept=fit.logistic.intercept,
            threshold=fit.choice.point.threshold,
            provenance=Provenance(
                date=today.isoformat(),
                commit="",
                num_files=len(used),
                num_holes=len(holes),
                file_share=len(used) / num_files,
            ),
        )
        return cls(calibration=calibration, precision=fit.choice.point.precision, shown=fit.choice.point.coverage)
