"""The examples of docs/EXTENDING.md do what the page says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import PositionScores, StopRule
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.masked.kinds import KINDS
from dgemma_engine.families.registry import family_of
from dgemma_engine.http_api import app
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel

from dgemma_lsp.settings.settings import SECTION
from tests.documents.blocks import blocks
from tests.engine.http_api.running_server import running_server

pytestmark = pytest.mark.documents
PAGE = "docs/EXTENDING.md"


def example(name: str) -> str:
    """Returns the code that defines a name."""
    found = [block.text for block in blocks() if block.place.startswith(PAGE) and name in block.text]
    assert len(found) == 1, name
    return found[0]


def defined(name: str) -> Any:
    """Returns what the page defines under a name."""
    namespace: dict[str, Any] = {"__name__": "extending"}
    exec(compile(example(name), PAGE, "exec", dont_inherit=True), namespace)
    return namespace[name]


def test_stop_rule_decides_by_the_positions_of_a_row() -> None:
    entropy_RM = torch.tensor([[0.01, 0.02, 5.0], [0.01, 0.02, 0.03]])
    valid_RM = torch.tensor([[True, True, False], [True, True, True]])
    scores = PositionScores(best_RM=torch.zeros(2, 3), entropy_RM=entropy_RM, valid_RM=valid_RM)
    rule = defined("MostlySure")
    assert rule(share=1.0).finished((), scores).tolist() == [True, True]
    valid_RM[0, 2] = True
    assert rule(share=0.9).finished((), scores).tolist() == [False, True]
    assert rule(share=0.6).finished((), scores).tolist() == [True, True]


@torch.inference_mode()
def test_stop_rule_ends_a_denoising() -> None:
    facts = read_facts(model_folder("tiny"))
    family, device = family_of(facts), torch.device("cpu")
    options = LoadOptions(device=device, ops=None, prompt_tokens=64, report=lambda _percent: None)
    model = family.load_model(facts, options)
    given = family.read_sampler(facts, model.config.vocab_size)
    cache = PromptCache(model.config, capacity=64, dtype=model.dtype, device=device)
    model.encode(torch.arange(20, 40)[None], cache)

    def steps(stop: StopRule) -> int:
        sampler = replace(given, num_steps=6, stop=stop)
        generators = [torch.Generator().manual_seed(1)]
        canvas = canvases.start((Row(num_free=8, head_ids=()),), sampler.noise, device, generators)
        banned = torch.tensor([], dtype=torch.int64)
        denoiser = Denoiser(EagerExecutor(model, cache, canvas, sampler, suppressed_ids=banned), sampler)
        cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
        return finished(denoise(denoiser, cancel=cancel, on_step=lambda _denoising: None)).steps

    rule = defined("MostlySure")
    assert steps(rule(share=0.0)) == 1
    assert steps(rule(share=1.0, nats=0.0)) == 6


def test_kind_fits_a_checkpoint_with_its_architecture(tmp_path: Path) -> None:
    kind = defined("OURS")
    text = '{"model_type": "ours-qwen2", "architectures": ["OursForMaskedLM"]}'
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    facts = read_facts(tmp_path)
    assert kind.fits(facts)
    assert not any(other.fits(facts) for other in KINDS)


def test_setting_refuses_a_number_out_of_its_range() -> None:
    option = defined("PATIENCE")
    assert option.problem(300, section=SECTION) is None
    assert "dgemma.patienceMs must be a whole number from 0 to 2000" in option.problem(3_000, section=SECTION)


async def test_dialect_answers_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "DIALECTS", (*app.DIALECTS, defined("GapDialect")))
    async with running_server() as server:
        reply = await server.post("/gap", {"before": "x = ", "after": "\n"})
        assert (reply.status, reply.json) == (200, {"text": "alpha + beta"})
        refused = await server.post("/gap", {"after": "\n"})
        assert refused.status == 400
        assert "before" in refused.json["error"]["message"]


@pytest.mark.skipif(sys.platform != "linux", reason="Triton exists for Linux only: the kernel was not run")
def test_kernel_computes_what_its_reference_does(tmp_path: Path) -> None:
    check = """
x, scale = torch.randn(3, 123).bfloat16(), torch.rand(3)
assert scale_rows(x, scale).equal(scale_rows_reference(x, scale))
print("equal")
"""
    # Triton reads a kernel's source from its file, and its mode from the environment when it is imported.
    program = tmp_path / "scale_rows.py"
    program.write_text(example("scale_rows") + check, encoding="utf-8")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == "equal\n", result.stderr[-2000:]
