"""`dgemma-engine plan` for each family: what is planned is what is held, before anything is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dgemma_engine.cli import main
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.memory_plan import llama_plan
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import CATALOGUE

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.mark.parametrize("has_head", [False, True])
def test_planned_llama_is_what_a_model_holds(has_head: bool) -> None:
    config = LlamaConfig.from_hf(
        dict(CATALOGUE["small"].config) | {"vocab_size": 300, "hidden_size": 36, "num_hidden_layers": 2}
    )
    model = LlamaModel(config, Ops.reference(), has_head=has_head)
    plan = llama_plan(config, has_head=has_head, context_tokens=100, device_type="cpu", dtype=torch.float32)
    assert sum(item.num_bytes for item in plan.weights) == sum(each.nbytes for each in model.parameters())
    assert plan.prompt.num_bytes == PromptCache(config, capacity=100, dtype=torch.float32, device=CPU).num_bytes
    assert ("weights: output matrix" in {item.name for item in plan.weights}) == has_head


def test_small_is_planned_before_it_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "--memory", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("small is not there yet; this is planned from its dimensions; run: dgemma-engine pull small")
    # 134.5 million weights in bfloat16.
    weights = [int(line.split()[-2].replace(",", "")) for line in lines if line.startswith("weights: ")]
    assert sum(weights) == pytest.approx(134.5e6 * 2 / 2**20, abs=2)
    assert any(line.startswith("keys and values of 8,192 tokens") for line in lines)
    assert [line.split() for line in lines if line.startswith("number format")] == [["number", "format", "bfloat16"]]
    assert lines[-1] == "it fits"


def test_model_that_does_not_fit_is_refused_with_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "--memory", "0.5"]) == 1
    assert "the model needs 1.1 GiB (weights 0.3, prompt 0.2, workspace 0.1), such a card has 0.5 GiB free" in (
        capsys.readouterr().err
    )


def test_model_of_unknown_dimensions_is_planned_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "diffusiongemma", "--memory", "8"]) == 1
    said = capsys.readouterr()
    assert said.out == "diffusiongemma is not there yet; it needs about 20,700 MB, such a card has 8,590 MB free\n"
    assert said.err == (
        "dgemma-engine: diffusiongemma needs 20,700 MB, such a card has 8,590 MB free; `dgemma-engine models` lists "
        "smaller models\n"
    )
    assert main(["plan", "diffusiongemma", "--memory", "24"]) == 0
    assert capsys.readouterr().out.endswith(
        "it fits; download its Hugging Face folder and name that with --model PATH\n"
    )


def test_tiny_is_planned_on_a_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "weights: experts" in out
    assert "weights in the processor's order" in out
    assert "free on cpu" in out
    assert out.endswith("it fits\n")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["smal"], 2, "smal: no such model; did you mean small?"),
        (["small", "--format", "int8"], 1, "small: a llama model cannot be quantised; leave --format out"),
        (["small", "--context", "10"], 1, "it must be more than the canvas of 64 and at most 8192"),
    ],
)
def test_wrong_wish_is_one_sentence(
    argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv, "--memory", "8"]) == code
    assert message in capsys.readouterr().err


def test_llama_folder_needs_its_configuration_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dict(CATALOGUE["small"].config) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["plan", str(tmp_path), "--memory", "8"]) == 0
    assert "weights: output matrix" in capsys.readouterr().out
