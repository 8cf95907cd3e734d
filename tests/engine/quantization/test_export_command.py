"""`dgemma-engine export`: `transformers` computes from the exported folder what we compute from the folder itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine import cli
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops

from tests.rounding import TRAINED_GROWTH, model_error

pytestmark = pytest.mark.numerical

# Tolerance as a share of the largest value.
CLOSE = model_error(256, TRAINED_GROWTH)

CPU = torch.device("cpu")
PROMPT, CANVAS = torch.arange(300, 360)[None], torch.arange(100, 124)[None]


def ours(folder: Path) -> torch.Tensor:
    model = load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32)
    cache = PromptCache(model.config, capacity=16, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        model.encode(PROMPT, cache)
        return model.logits(model.decode(CANVAS, cache))


def theirs(folder: Path) -> torch.Tensor:
    from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion

    loaded: tuple[Any, dict[str, Any]] = DiffusionGemmaForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    model, info = loaded
    assert not info["unexpected_keys"]
    assert not [key for key in info["missing_keys"] if "vision" not in key]
    with torch.no_grad():
        return model.eval()(input_ids=PROMPT, decoder_input_ids=CANVAS).logits


def export(source: str | Path, place: Path, dtype: str) -> Path:
    assert cli.main(["export", str(source), str(place), "--dtype", dtype]) == 0
    return place


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in bfloat16."""
    return export("embedded", tmp_path_factory.mktemp("model") / "bfloat16", "bfloat16")


@pytest.mark.parametrize("form", ["int8", "int4", "fp8", "nvfp4"])
def test_quantised_model_has_the_same_logits_in_transformers(form: str, plain: Path, tmp_path: Path) -> None:
    assert cli.main(["quantize", str(plain), str(tmp_path / form), "--format", form]) == 0
    exported = export(tmp_path / form, tmp_path / "plain", "float32")
    expected = ours(tmp_path / form)
    assert (theirs(exported) - expected).abs().max() < CLOSE * expected.abs().max()
    assert (ours(plain) - expected).abs().max() > 2 * CLOSE * expected.abs().max(), "the logits must differ"


def test_embedded_model_has_the_same_logits_in_transformers(tmp_path: Path) -> None:
    exported = export("embedded", tmp_path / "plain", "float32")
    expected = ours(model_folder("tiny"))
    assert (theirs(exported) - expected).abs().max() < CLOSE * expected.abs().max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_plain_model_has_the_same_logits_in_transformers(dtype: str, plain: Path, tmp_path: Path) -> None:
    exported = export(plain, tmp_path / "plain", dtype)
    expected = ours(plain)
    assert (theirs(exported) - expected).abs().max() < CLOSE * expected.abs().max()
    config = json.loads((exported / "config.json").read_text())
    assert config["dtype"] == dtype


def test_exported_folder_is_plain_and_can_be_served(plain: Path, tmp_path: Path) -> None:
    from dgemma_engine.infill.engine import Engine
    from dgemma_engine.protocol.messages import Context
    from dgemma_engine.scheduling.timing import Cancel

    assert cli.main(["quantize", str(plain), str(tmp_path / "small"), "--format", "int8"]) == 0
    exported = export(tmp_path / "small", tmp_path / "plain", "bfloat16")
    assert "quantization_config" not in json.loads((exported / "config.json").read_text())
    context = Context(document="", prefix="def area(width, height):\n    return width * ", suffix="\n\n\narea(2, 3)\n")
    answers = []
    for folder in (tmp_path / "small", exported):
        engine = Engine.load(folder, device="cpu", report=lambda _percent, _message: None)
        answers.append(engine.infill(context, Cancel(deadline_s=600.0, clock=lambda: 0.0)))
    assert answers[0].text == answers[1].text
    assert answers[0].score == pytest.approx(answers[1].score, abs=0.02)


@pytest.mark.parametrize(
    ("command", "done"), [(["export"], "exported"), (["quantize", "--format", "int8"], "quantised")]
)
def test_gguf_file_is_refused_with_what_can_be_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], done: str
) -> None:
    (tmp_path / "model.gguf").touch()
    assert cli.main([*command, str(tmp_path / "model.gguf"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        f"dgemma-engine: {tmp_path}/model.gguf: a GGUF file cannot be {done}; name a folder of safetensors of a "
        "DiffusionGemma, or `tiny`\n"
    )


def test_exporting_onto_the_source_is_refused(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(plain), str(plain)]) == 1
    assert "is the source itself" in capsys.readouterr().err
