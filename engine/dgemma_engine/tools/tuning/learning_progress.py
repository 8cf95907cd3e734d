"""Progress of the training within a tuning, of which measuring takes the first 10 and the last 18 percent."""

from __future__ import annotations

_BEGIN, _SHARE = 10, 72


def learning_progress(elapsed_s: float, total_s: float) -> tuple[int, str]:
    """Returns the percentage of the whole tuning, and the line for a person.

    Args:
        elapsed_s: seconds of training; the last step may end after `total_s`, then `total_s` is reported.
        total_s: seconds planned for training.
    """
    elapsed_s = min(elapsed_s, total_s)
    percent = _BEGIN + round(_SHARE * elapsed_s / total_s)
    return percent, f"learning, {elapsed_s / 60:.1f} of {total_s / 60:.1f} minutes"
