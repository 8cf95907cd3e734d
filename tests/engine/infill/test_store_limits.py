"""The stores of documents are bounded in bytes, not in documents: prompts of a team's sessions stay cached."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.store_limits import StoreLimits
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel

CPU = torch.device("cpu")
NUM_SESSIONS = 24


def load(limits: StoreLimits) -> Engine:
    return Engine.load(
        model_folder(TINY), device="cpu", report=lambda _percent, _message: None, limits=lambda _device: limits
    )


def question(session: int, typed: str) -> Context:
    lines = "".join(f"value_{session}_{line} = {line}\n" for line in range(12))
    return Context(document=f"{session}/a.py", prefix=f"{lines}total = {typed}", suffix="\n", max_middle_tokens=4)


def encoded(engine: Engine, context: Context) -> tuple[int, int]:
    """Returns the tokens that were encoded, and those of the whole prompt."""
    infill = engine.infill(context, Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic))
    return infill.encoded_tokens, infill.prompt_tokens


def test_sessions_in_turn_stay_warm() -> None:
    engine = load(StoreLimits.of_one_user(CPU))
    for session in range(NUM_SESSIONS):
        new, whole = encoded(engine, question(session, ""))
        assert new == whole > 40
    for typed in ("v", "va"):
        for session in range(NUM_SESSIONS):
            assert encoded(engine, question(session, typed))[0] <= 4


def test_prompts_that_do_not_fit_leave_least_recently_used_first() -> None:
    engine = load(StoreLimits.of_one_user(CPU))
    encoded(engine, question(0, ""))
    ((_, prompt),) = engine._pipeline.prompts._prompts.items()[-1:]
    engine = load(StoreLimits(prompt_bytes=2 * prompt.cache.num_bytes))
    for session in (0, 1, 2):
        encoded(engine, question(session, ""))
    assert encoded(engine, question(2, "v"))[0] <= 4
    assert encoded(engine, question(1, "v"))[0] <= 4
    new, whole = encoded(engine, question(0, "v"))
    assert new == whole


def test_a_users_machine_keeps_less_than_a_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 64 * 2**30, "cuda": 50 * 2**30}
    monkeypatch.setattr("dgemma_engine.infill.store_limits.free_memory", lambda device: free[device.type])
    card = torch.device("cuda")
    # 43 of the longest prompts of DiffusionGemma, 1.72 GiB each at 8,192 tokens, fit 80 GB: a card has room for twenty.
    assert StoreLimits.of_team(card).prompt_bytes == int(0.7 * free["cuda"]) > 20 * 1.72 * 2**30
    assert StoreLimits.of_team(CPU).prompt_bytes == free["cpu"] // 4
    assert StoreLimits.of_team(card, prompt_bytes=5).prompt_bytes == 5
    assert StoreLimits.of_team(CPU).text_bytes == 2**30
    for device in (card, CPU):
        one, team = StoreLimits.of_one_user(device), StoreLimits.of_team(device)
        assert one.prompt_bytes < team.prompt_bytes and one.text_bytes < team.text_bytes
        assert one.indexed_characters < team.indexed_characters and one.parsed_bytes < team.parsed_bytes


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="prompt_bytes=-1 must not be negative"):
        StoreLimits(prompt_bytes=-1)
    with pytest.raises(ValueError, match="text_bytes=-1 must not be negative"):
        replace(StoreLimits(prompt_bytes=1), text_bytes=-1)
