"""The embedded checkpoint, exported: `transformers` computes the same logits and generates the same tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler_config import load_sampler
from dgemma_engine.diffusion.token_distribution import sample
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.conversion.converter import export_folder

from tests.rounding import TRAINED_GROWTH, model_error
from tests.transformers_versions import cache_name

# Tolerance as a share of the largest value.
CLOSE = model_error(256, TRAINED_GROWTH)

CPU = torch.device("cpu")
CODE = "import os\n\n\ndef home(user):\n    path = os.path.join('/home', user)\n    return "
CANVAS = 24


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_folder("tiny")


@pytest.fixture(scope="module")
def ours(folder: Path) -> DiffusionGemma:
    return load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module")
def theirs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion

    plain = tmp_path_factory.mktemp("embedded") / "plain"
    export_folder(folder, plain, torch.float32, report=lambda _percent: None)
    model, info = DiffusionGemmaForBlockDiffusion.from_pretrained(plain, dtype=torch.float32, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not [key for key in info["missing_keys"] if "vision" not in key]
    return model.eval()


@pytest.fixture(scope="module")
def prompt(folder: Path) -> torch.Tensor:
    return torch.tensor([[2, *Tokenizer.load(folder).encode(CODE * 4)]])


def encoded(ours: DiffusionGemma, prompt: torch.Tensor) -> PromptCache:
    cache = PromptCache(ours.config, capacity=16, dtype=torch.float32, device=CPU)
    with torch.inference_mode():
        ours.encode(prompt, cache)
    return cache


@pytest.mark.numerical
def test_logits_match_transformers(ours: DiffusionGemma, theirs: Any, prompt: torch.Tensor) -> None:
    cache, canvas = encoded(ours, prompt), torch.arange(100, 100 + CANVAS)[None]
    earlier_logits = torch.randn(1, CANVAS, ours.config.vocab_size, generator=torch.Generator().manual_seed(1)) * 3
    with torch.inference_mode():
        prefix = theirs.model.encoder(input_ids=prompt)
        fresh = PromptCache(ours.config, capacity=16, dtype=torch.float32, device=CPU)
        hidden, expected = ours.encode(prompt, fresh), prefix.last_hidden_state
        assert (hidden - expected).abs().max() < CLOSE * expected.abs().max()
        for signal in (None, earlier_logits):
            expected = theirs(
                **{cache_name(): getattr(prefix, cache_name())},
                decoder_input_ids=canvas,
                self_conditioning_logits=signal,
            ).logits
            soft = None if signal is None else ours.soft_embeddings(signal.softmax(-1))
            logits = ours.logits(ours.decode(canvas, cache, soft_BLD=soft))
            assert (logits - expected).abs().max() < CLOSE * expected.abs().max()


@pytest.mark.numerical
@pytest.mark.parametrize("seed", range(6))
def test_one_block_of_generate_is_the_same(
    seed: int, folder: Path, ours: DiffusionGemma, theirs: Any, prompt: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same draws: same tokens, hence same text, and the same number of steps."""
    theirs.config.canvas_length = CANVAS

    def draw(probs: torch.Tensor, num_samples: int) -> torch.Tensor:
        levels = torch.rand(probs.shape[0], generator=torch.default_generator)
        return sample(probs, levels[:, None])[:, None]

    monkeypatch.setattr(torch, "multinomial", draw)
    torch.manual_seed(seed)
    generated = theirs.generate(input_ids=prompt, max_new_tokens=CANVAS, eos_token_id=9_999, pad_token_id=10_000)
    sampler = load_sampler(folder, ours.config.vocab_size)
    generator = torch.default_generator.manual_seed(seed)
    canvas = canvases.start([Row(num_free=CANVAS)], sampler.noise, ours.device, [generator])
    nothing = torch.tensor([], dtype=torch.int64)
    executor = EagerExecutor(ours, encoded(ours, prompt), canvas, sampler, suppressed_ids=nothing)
    done = finished(
        denoise(
            Denoiser(executor, sampler),
            cancel=Cancel(deadline_s=1.0, clock=lambda: 0.0),
            on_step=lambda _: None,
        )
    )
    assert done.guesses[0].ids == generated.sequences[0, -CANVAS:].tolist()
    assert done.steps == round(CANVAS / float(generated.tokens_per_forward))


def test_folder_is_complete(folder: Path, ours: DiffusionGemma) -> None:
    form = InfillFormat.load(folder)
    assert form.fill_token_id is not None
    assert form.more_token_id is not None
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.vocab_size == ours.config.vocab_size
    assert tokenizer.decode(tokenizer.encode(CODE)) == CODE
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Held out whole" in card
    assert "minutes" in card


def test_middle_on_demand_leaves_its_block_only_where_it_may(folder: Path) -> None:
    """The replaced text reached from within a method to the end of the next."""
    engine = Engine.load(folder, device="cpu", report=lambda _percent, _message: None)
    begins = "class Square:\n    def __init__(self, side):\n        self.side = side\n\n    def area(self):\n        "
    body = "return self.side * self.side\n\n    def perimeter(self):\n        return 4 * self.side"
    ends = "\n\n    def scaled(self, factor):\n        return Square(self.side * factor)\n"
    asked = Context(
        document="a",
        prefix=begins + body + ends + "\n\n" + begins,
        suffix=ends,
        language="python",
        extent=Extent.BLOCK,
        max_middle_tokens=256,
        on_demand=True,
    )

    def left(context: Context) -> bool:
        cancel = Cancel(deadline_s=float("inf"), clock=lambda: 0.0)
        answer = finished(engine.filling(context, cancel))
        return any("\n    def " in candidate.text for candidate in answer.candidates)

    assert not left(asked)
    assert left(replace(asked, least_column=4))


def test_engine_has_the_short_name_of_its_model() -> None:
    engine = Engine.load(model_folder("tiny"), device="cpu", report=lambda _percent, _message: None)
    assert engine.model_name == "tiny"
