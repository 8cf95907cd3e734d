"""A GGUF file of DiffusionGemma as a family's model: recognised, planned, loaded and run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.cli import main
from dgemma_engine.diffusion.sampler import EntropyBound, UniformNoise
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts
from dgemma_engine.families.diffusion_gemma import DiffusionGemmaFamily
from dgemma_engine.families.family import LoadOptions, PlanOptions
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.engine import Engine
from dgemma_engine.protocol.messages import Context, Finish
from dgemma_engine.quantization.block_layers import BlockExperts
from dgemma_engine.scheduling.timing import Cancel

from tests.gguf_checkpoints import VOCABULARY, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("gguf"), "Q4_K", top_k=2).file


@pytest.fixture(scope="module")
def facts(path: Path) -> CheckpointFacts:
    return read_facts(path)


def test_family_is_recognised_by_the_files_architecture(facts: CheckpointFacts) -> None:
    assert isinstance(family_of(facts), DiffusionGemmaFamily)
    assert family_of(facts).read_format(facts) == InfillFormat.untrained()


def test_sampler_values_come_from_the_file(facts: CheckpointFacts) -> None:
    sampler = family_of(facts).read_sampler(facts, VOCABULARY)
    assert sampler.num_steps == 12
    assert sampler.schedule.t_min == pytest.approx(0.3)
    assert sampler.schedule.t_max == pytest.approx(0.8)
    assert isinstance(sampler.acceptance, EntropyBound)
    assert sampler.acceptance.bound == pytest.approx(0.2)
    assert sampler.noise == UniformNoise(vocab_size=VOCABULARY)


def test_plan_reads_the_file_and_refuses_a_format_or_a_card(
    path: Path, facts: CheckpointFacts, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(path), "--device", "cpu", "--context", "512"]) == 0
    assert "it fits" in capsys.readouterr().out
    assert main(["plan", str(path), "--format", "int4"]) == 1
    assert "a GGUF file cannot be quantised; leave --format out" in capsys.readouterr().err
    options = PlanOptions(device=torch.device("cuda"), weight_format=None, context_tokens=512)
    with pytest.raises(CheckpointError, match="are multiplied on a processor only"):
        family_of(facts).plan(facts, options)


@pytest.mark.parametrize(("small_values", "is_packed"), [(0, True), (2**28, False)])
def test_engine_answers_with_weights_in_blocks_and_with_expanded_ones(
    path: Path, facts: CheckpointFacts, small_values: int, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgemma_engine.model.devices._SMALL_VALUES", small_values)
    options = LoadOptions(device=CPU, ops=None, prompt_tokens=64, report=lambda _percent: None)
    model = family_of(facts).load_model(facts, options)
    assert is_packed == (
        isinstance(model, torch.nn.Module) and any(isinstance(m, BlockExperts) for m in model.modules())
    )
    engine = Engine.load(path, device="cpu", report=lambda _percent, _line: None)
    context = Context(document="a.py", prefix="def x", suffix="\n", language="python")
    infill = engine.infill(context, Cancel(deadline_s=time.monotonic() + 120, clock=time.monotonic))
    assert infill.finish in (Finish.STABLE, Finish.STEP_LIMIT, Finish.EMPTY)
    assert engine.denoising_steps > 0
