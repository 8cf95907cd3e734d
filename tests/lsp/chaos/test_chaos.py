"""Whatever a client sends or omits, every request is answered once, with a result or code that the protocol allows."""

from __future__ import annotations

import pytest

from tests.lsp.chaos.run import instant_engine, play

NUM_STEPS = 5_000
SEED = 1


@pytest.mark.e2e
@pytest.mark.slow
def test_every_request_is_answered_once_whatever_the_client_does():
    with instant_engine() as (folder, engine):
        report = play(folder, engine, num_steps=NUM_STEPS, first_seed=SEED, raises=True)
    assert report.steps.total() >= NUM_STEPS
    assert min(report.offered[kind] for kind in ("inlineCompletion", "fill", "denoise", "codeAction")) > 0
    assert not report.wrong, "\n".join(report.faults)
