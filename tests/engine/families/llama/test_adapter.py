"""Adapters of a Llama: merged into the weights or kept beside them, and refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.llama import adapter
from dgemma_engine.families.llama.adaptation import adapt
from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.infill.task import build_prompt
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel
from safetensors.torch import load_file
from torch import Tensor

from tests.llama_checkpoints import LlamaCheckpoint, make_llama, write_adapter
from tests.transformers_versions import cache_name

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
IDS = torch.tensor([[8, 40, 41, 9, 60, 61, 62]])
CANVAS = torch.tensor([[15, 70, 15, 15, 71]])


@pytest.fixture
def checkpoint(tmp_path: Path) -> LlamaCheckpoint:
    return make_llama(tmp_path, max_position_embeddings=2_048)


def adapted(path: Path) -> LlamaModel:
    model = load_llama(path, Ops.reference(), device=CPU, dtype=torch.float32)
    adapt(model, Adapters.find(path))
    return model


@torch.inference_mode()
def logits(model: DiffusionModel) -> tuple[Tensor, Tensor]:
    """Returns the logits of a prompt, and those of a canvas after it."""
    cache = PromptCache(model.config, capacity=16, dtype=model.dtype, device=CPU)
    prompt = model.logits(model.encode(IDS, cache))
    return prompt, model.logits(model.decode(CANVAS, cache))


@torch.inference_mode()
def reference(checkpoint: LlamaCheckpoint, *paths: Path) -> tuple[Tensor, Tensor]:
    """Returns the logits of `transformers` with the products of the adapters added to its weights.

    The prompt is encoded with the causal adapter; the canvas reads its keys and values with both added.
    """
    from transformers import DynamicCache

    model = checkpoint.reference
    embedding = model.model.embed_tokens.weight.detach().clone()

    def put(path: Path, marks: tuple[int, ...]) -> None:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        for i, layer in enumerate(model.model.layers):
            for key, projection in {
                "q": layer.self_attn.q_proj, "k": layer.self_attn.k_proj, "v": layer.self_attn.v_proj,
                "o": layer.self_attn.o_proj, "g": layer.mlp.gate_proj, "u": layer.mlp.up_proj, "d": layer.mlp.down_proj,
            }.items():  # fmt: skip
                projection.weight += tensors[f"layers.{i}.{key}.b"] @ tensors[f"layers.{i}.{key}.a"]
        for mark in marks:
            embedding[mark] = tensors[f"rows.{mark}"]

    def run(ids: Tensor, **more: Any) -> Tensor:
        return model(inputs_embeds=torch.nn.functional.embedding(ids, embedding), **more).logits

    causal, canvas = paths
    put(causal, ())
    cache = DynamicCache(config=model.config)
    prompt = run(IDS, **{cache_name(): cache}, use_cache=True)
    cache.crop(-1)
    put(canvas, (15,))
    ids = torch.cat((IDS[:, -1:], CANVAS), dim=1)
    mask = torch.zeros(1, 1, ids.shape[1], cache.get_seq_length() + ids.shape[1])
    return prompt, run(ids, **{cache_name(): cache}, attention_mask=mask, use_cache=True)[:, :-1]


def test_adapters_compute_what_the_reference_does_with_their_products(checkpoint: LlamaCheckpoint) -> None:
    paths = [write_adapter(checkpoint.gguf, stage) for stage in ("causal", "canvas")]
    ours = logits(adapted(checkpoint.gguf))
    base = logits(load_llama(checkpoint.gguf, Ops.reference(), device=CPU, dtype=torch.float32))
    theirs = reference(checkpoint, *paths)
    for mine, expected, plain in zip(ours, theirs, base, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-3)
        assert (mine - plain).abs().max() > 0.1


def test_loaded_model_has_both_adapters(checkpoint: LlamaCheckpoint) -> None:
    """In whichever number format this machine loads, it errs by far less than an adapter changes."""
    options = LoadOptions(device=CPU, ops=None, prompt_tokens=64, report=lambda _percent: None)
    plain = logits(load_llama(checkpoint.gguf, Ops.reference(), device=CPU, dtype=torch.float32))
    for stage in ("causal", "canvas"):
        write_adapter(checkpoint.gguf, stage)
        exact = logits(adapted(checkpoint.gguf))
        loaded = logits(LlamaFamily().load_model(read_facts(checkpoint.gguf), options))
        for mine, expected, base in zip(loaded, exact, plain, strict=True):
            assert (mine - expected).abs().max() < 0.2 * (expected - base).abs().max(), stage


def test_canvas_adapter_leaves_the_causal_mode_as_it_was(checkpoint: LlamaCheckpoint) -> None:
    write_adapter(checkpoint.gguf, "causal")
    before = logits(adapted(checkpoint.gguf))
    write_adapter(checkpoint.gguf, "canvas")
    after = logits(adapted(checkpoint.gguf))
    torch.testing.assert_close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 0.1


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_sha256": "0" * 64}, "is an adapter of another base than model.gguf; remove it or get that base"),
        ({"rank": 3, "layers__0__q__a": torch.ones(2, 64)}, "layers.0.q.a has shape [2, 64], this base with rank 3"),
        ({"layers__1__d__b": torch.ones(32, 2)}, "layers.1.d.b has shape [32, 2], this base with rank 2 asks for [64"),
        ({"layers__2__u__a": torch.full((2, 64), torch.nan)}, "layers.2.u.a holds values that are no numbers"),
        ({"layers__2__u__a": torch.ones(2, 64, dtype=torch.int8)}, "lacks layers.2.u.a"),
        ({"layers__2__u__a__scale": torch.ones(3)}, "layers.2.u.a has shape [2, 64]"),
        ({"stage": "canvas"}, "holds the stage 'canvas'; name the file canvas.safetensors"),
        ({"stage": "sideways"}, "holds the stage 'sideways'"),
        ({"tokens": "{}"}, "is no adapter, its metadata lacks 'end'; remove the file"),
        ({"tokens": '{"end": 999999, "name": 6}'}, "token end=999999 must be below the"),
        ({"tokens": '{"end": 0, "name": 999999}'}, "token name=999999 must be below the"),
        ({"tokens": '{"end": 0, "name": 6, "mask": 999999}'}, "token mask=999999 must be below the"),
        ({"tokens": '{"end": 0, "name": 6, "mask": -2}'}, "token mask=-2 must be at least 0"),
        ({"tokens": '{"end": Infinity, "name": 6}'}, "token end must be a whole number, not inf"),
        ({"tokens": "7"}, "is no adapter"),
    ],
)
def test_adapter_that_does_not_fit_is_reported_in_one_sentence(
    checkpoint: LlamaCheckpoint, changed: dict[str, Any], message: str
) -> None:
    write_adapter(checkpoint.gguf, "causal", **changed)
    assert message in refusal(checkpoint.gguf)


@pytest.mark.parametrize(
    "damage", [shortened, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"\xff" * 64)]
)
def test_damaged_adapter_is_reported_in_one_sentence(
    checkpoint: LlamaCheckpoint, damage: Callable[[Path], None]
) -> None:
    damage(write_adapter(checkpoint.gguf, "causal"))
    assert "cannot be read" in refusal(checkpoint.gguf)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        adapted(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_adapter_that_came_with_the_package_is_found_by_its_base(
    checkpoint: LlamaCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(adapter, "_SHIPPED", shipped)
    assert Adapters.find(checkpoint.gguf).tokens is None
    made = write_adapter(checkpoint.gguf, "canvas")
    sha256 = adapter.Adapter.read(made).base_sha256
    (shipped / ("0" * 64)).mkdir(parents=True)
    shutil.move(made.parent, shipped / sha256)
    found = Adapters.find(checkpoint.gguf)
    assert found.canvas is not None and found.canvas.path.parent == shipped / sha256 and found.causal is None
    beside = checkpoint.gguf.parent / "adapters"
    beside.mkdir(exist_ok=True)
    assert Adapters.find(checkpoint.gguf).tokens is None, "an empty folder beside the model takes precedence"
    beside.rmdir()
    checkpoint.gguf.write_bytes(checkpoint.gguf.read_bytes() + b"0")
    assert Adapters.find(checkpoint.gguf).tokens is None


def test_causal_adapter_is_prompted_as_it_was_trained(checkpoint: LlamaCheckpoint) -> None:
    write_adapter(checkpoint.gguf, "causal")
    family, facts = LlamaFamily(), read_facts(checkpoint.gguf)
    tokenizer, form = family.read_tokenizer(facts), family.read_format(facts)
    assert not family.has_canvas(facts)
    options = LoadOptions(device=CPU, ops=None, prompt_tokens=64, report=lambda _percent: None)
    config = family.load_model(facts, options).config
    context = Context(document="d", prefix="ab(x", suffix=")\n", path="src/f.py")
    hole = build_prompt(context, tokenizer, form, config)
    name, suffix, prefix = (tokenizer.encode(text) for text in ("f.py\n", ")\n", "ab("))
    assert (hole.prompt_ids, hole.parallel_ids, hole.end_ids) == ([6, *name, *prefix], suffix, {0})
    unnamed = build_prompt(Context(document="d", prefix="ab(x", suffix=")\n"), tokenizer, form, config)
    assert unnamed.prompt_ids == [0, *prefix]


def test_base_without_adapter_has_no_fill_token_and_no_name_token(checkpoint: LlamaCheckpoint) -> None:
    form = LlamaFamily().read_format(read_facts(checkpoint.gguf))
    assert (form.fill_token_id, form.name_token_id, form.parallel_suffix_tokens) == (None, None, 56)


@pytest.mark.parametrize("stage", ["causal", "canvas"])
def test_adapter_of_8_bits_differs_by_rounding_only(checkpoint: LlamaCheckpoint, stage: str) -> None:
    path = write_adapter(checkpoint.gguf, stage)
    exact = adapter.Adapter.read(path).tensors(adapted(checkpoint.gguf).config)
    rounded = adapter.Adapter.read(write_adapter(checkpoint.gguf, stage, in_bytes=True)).tensors(
        adapted(checkpoint.gguf).config
    )
    assert exact.keys() == rounded.keys()
    for name, tensor in exact.items():
        assert (rounded[name] - tensor).abs().max() <= tensor.abs().max() / 127, name


def test_engine_denoises_with_a_canvas_adapter(checkpoint: LlamaCheckpoint) -> None:
    for stage in ("causal", "canvas"):
        write_adapter(checkpoint.gguf, stage)
    engine = Engine.load(checkpoint.gguf, device="cpu", report=lambda _percent, _message: None)
    context = Context(document="d", prefix="def f(a):\n    return a.", suffix="\n", path="f.py", max_middle_tokens=12)
    cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
    answer = engine.infill(context, cancel, options=InfillOptions(decode=Decode.DIFFUSION, silence=False))
    assert answer.steps > 0
    assert engine.denoising_steps > 0


def test_canvas_adapter_without_a_mask_is_reported_in_one_sentence(checkpoint: LlamaCheckpoint) -> None:
    write_adapter(checkpoint.gguf, "canvas", tokens='{"end": 0, "name": 6}')
    assert "canvas.safetensors: is no adapter, its metadata lacks 'mask'" in refusal(checkpoint.gguf)
