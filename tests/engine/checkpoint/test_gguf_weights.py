"""A GGUF file of DiffusionGemma against a folder of the same weights, and one sentence for each bad file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.gguf_config import read_config, sampler_values
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_weights import GgufWeights
from dgemma_engine.checkpoint.loader import Residence, load_model, open_weights
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.quantization.block_layers import BlockExperts, BlockLinear

from tests.gguf_checkpoints import GgufCheckpoint, metadata, random_tensors, write_checkpoint, write_file

CPU = torch.device("cpu")
# Types whose products read bfloat16 inputs.
FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")
EXACT = ("BF16", "Q8_0", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS")
PROMPT = torch.arange(1, 12)[None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], GgufCheckpoint]:
    """Returns a function that writes a checkpoint of a kind once."""
    written: dict[str, GgufCheckpoint] = {}

    def write(kind: str) -> GgufCheckpoint:
        if kind not in written:
            written[kind] = write_checkpoint(tmp_path_factory.mktemp(kind), kind)
        return written[kind]

    return write


def loaded(path: Path, residence: Residence, dtype: torch.dtype = torch.float32) -> DiffusionGemma:
    return load_model(path, Ops.reference(), device=CPU, dtype=dtype, residence=residence)


def logits_of(model: DiffusionGemma, canvases: list[torch.Tensor]) -> list[torch.Tensor]:
    """Logits [L, V] of each canvas in turn, each conditioned on those before it."""
    cache = PromptCache(model.config, capacity=32, dtype=model.dtype, device=CPU)
    found: list[torch.Tensor] = []
    soft = None
    with torch.inference_mode():
        model.encode(PROMPT, cache)
        for canvas_1L in canvases:
            logits = model.logits(model.decode(canvas_1L, cache, soft_BLD=soft))
            soft = model.soft_embeddings(logits.softmax(-1))
            found.append(logits[0].float())
    return found


def greedy_canvases(model: DiffusionGemma, num_steps: int) -> list[torch.Tensor]:
    canvases = [torch.arange(40, 52)[None]]
    for _ in range(num_steps):
        canvases.append(logits_of(model, canvases)[-1].argmax(-1)[None])
    return canvases


@pytest.mark.numerical
@pytest.mark.parametrize("residence", list(Residence))
@pytest.mark.parametrize("kind", EXACT)
def test_file_computes_what_a_folder_of_its_weights_does(
    kind: str, residence: Residence, checkpoint: Callable[[str], GgufCheckpoint]
) -> None:
    written = checkpoint(kind)
    file, folder = loaded(written.file, residence), loaded(written.folder, Residence.EXPANDED)
    canvases = greedy_canvases(folder, 3)
    expected = logits_of(folder, canvases)
    # Pieces of a product differ from the whole in the order of float32 sums alone.
    for found, own in zip(logits_of(file, canvases), expected, strict=True):
        assert (found - own).abs().max() <= 1e-4 * own.abs().max()
    assert all(one.equal(other) for one, other in zip(greedy_canvases(file, 3), canvases, strict=True))


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", FOUR_BITS)
def test_products_of_four_bits_err_like_bfloat16(
    kind: str, dtype: torch.dtype, checkpoint: Callable[[str], GgufCheckpoint]
) -> None:
    written = checkpoint(kind)
    folder = loaded(written.folder, Residence.EXPANDED)
    # One canvas: a second one, conditioned on the first, would amplify the rounding errors of the first.
    canvases = greedy_canvases(folder, 0)
    (exact,) = logits_of(folder, canvases)
    (found,) = logits_of(loaded(written.file, Residence.PACKED, dtype), canvases)
    (rounded,) = logits_of(loaded(written.folder, Residence.EXPANDED, torch.bfloat16), canvases)
    most, allowed = (found - exact).abs(), (rounded - exact).abs()
    assert most.square().mean() <= 4 * allowed.square().mean()
    best = exact.topk(2, dim=-1).values
    is_clear = best[..., 0] - best[..., 1] > 4 * allowed.max()
    assert is_clear.sum() >= 3
    assert found.argmax(-1)[is_clear].equal(exact.argmax(-1)[is_clear])


@pytest.mark.parametrize("kind", FOUR_BITS)
def test_expanded_file_holds_the_folders_weights(kind: str, checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    written = checkpoint(kind)
    expected = loaded(written.folder, Residence.EXPANDED).state_dict()
    for name, tensor in loaded(written.file, Residence.EXPANDED).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_dimensions_are_those_of_the_folder(checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    written = checkpoint("Q4_K")
    config, expected = read_config(GgufFile(written.file)), ModelConfig.load(written.folder)
    assert config.rms_norm_eps == pytest.approx(expected.rms_norm_eps)
    for name in ModelConfig.__dataclass_fields__:
        if name not in ("rms_norm_eps", "eos_token_ids"):
            assert getattr(config, name) == getattr(expected, name), name
    assert config.eos_token_ids == (1, 6)


def test_sampler_values_are_the_files_own(checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    values = sampler_values(GgufFile(checkpoint("Q4_K").file))
    assert values.keys() == {"max_denoising_steps", "t_min", "sampler_config"}
    assert values["max_denoising_steps"] == 12
    assert values["t_min"] == pytest.approx(0.3)
    assert values["sampler_config"]["entropy_bound"] == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K"])
def test_packed_model_keeps_no_floats_of_quantised_matrices(
    kind: str, checkpoint: Callable[[str], GgufCheckpoint]
) -> None:
    model = loaded(checkpoint(kind).file, Residence.PACKED)
    for layer in model.layers:
        assert isinstance(layer.experts, BlockExperts)
        for module in (layer.self_attn.qkv_proj, layer.self_attn.o_proj, layer.mlp.gate_up_proj, layer.mlp.down_proj):
            assert isinstance(module, BlockLinear)
        assert isinstance(layer.router.proj, torch.nn.Linear)
    names = model.state_dict().keys()
    assert not [name for name in names if "experts" in name.rpartition(".")[0] or "_proj" in name]


def test_packed_bytes_are_what_is_kept(checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    path = checkpoint("Q4_K").file
    model = loaded(path, Residence.PACKED)
    _config, stored = open_weights(path)
    with stored as weights:
        planned = {source.parameter: weights.packed_bytes(source) for source in weights.sources}
    experts = model.layers[0].experts
    assert isinstance(experts, BlockExperts)
    for name, matrices in (("gate_up_proj", experts.gate_up), ("down_proj", experts.down)):
        parts = [vars_of(matrix) for matrix in matrices]
        assert planned[f"layers.0.experts.{name}"] == sum(
            part.numel() * part.element_size() for all in parts for part in all
        )
    assert planned["norm.weight"] is None


def vars_of(matrix: Any) -> list[torch.Tensor]:
    return [part for name in matrix.__slots__ if isinstance(part := getattr(matrix, name), torch.Tensor)]


def test_bf16_file_is_plain(checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    model = loaded(checkpoint("BF16").file, Residence.PACKED)
    assert not any(isinstance(module, BlockLinear | BlockExperts) for module in model.modules())


def test_cards_are_refused_only_for_weights_in_blocks(checkpoint: Callable[[str], GgufCheckpoint]) -> None:
    _config, stored = open_weights(checkpoint("Q4_K").file)
    with pytest.raises(
        CheckpointError, match=r"weights in Q4_K, Q5_0 are multiplied on a processor only.* use --device"
    ):
        stored.require_device("cuda")
    _config, stored = open_weights(checkpoint("BF16").file)
    stored.require_device("cuda")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and metadata of a good file."""
    pytest.importorskip("gguf", reason="GGUF files are not written: the package gguf is not installed")
    return random_tensors("Q8_0", 0).stored, metadata(2)


def opened(path: Path) -> GgufWeights:
    file = GgufFile(path)
    return GgufWeights(file, read_config(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blk.1.ffn_norm.weight"), r"lacks blk\.1\.ffn_norm\.weight; get a complete conversion"),
        (lambda t: t.pop("token_embd.weight"), r"lacks token_embd\.weight; get a complete"),
        (
            lambda t: t.update({"output.weight": t["token_embd.weight"]}),
            r"holds output\.weight, an output matrix of its",
        ),
        (lambda t: t.update({"blk.0.ffn_gate_exps.weight": t["output_norm.weight"]}), "which is not part of the model"),
        (lambda t: t.pop("blk.0.attn_v.weight"), r"lacks blk\.0\.attn_v\.weight"),
    ],
)
def test_wrong_tensors_are_reported_in_one_sentence(
    change: Callable[[dict[str, Any]], object], message: str, parts: Any, tmp_path: Path
) -> None:
    tensors = dict(parts[0])
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        opened(write_file(tmp_path / "m.gguf", tensors, parts[1]))


OWN = "diffusion-gemma."


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"{OWN}embedding_length": 0}, r"embedding_length=0 must be at least 1"),
        ({f"{OWN}attention.sliding_window_pattern": [True]}, "has 1 entries for 2 layers"),
        ({f"{OWN}attention.head_count_kv": [2]}, "must be one number for each kind of layer"),
        ({f"{OWN}expert_used_count": 9}, r"m\.gguf: self\.top_k_experts=9 must not exceed"),
        ({"diffusion.canvas_length": None}, r"lacks the key diffusion\.canvas_length"),
        ({f"{OWN}rope.dimension_count_swa": 16}, "sliding layers that rotate in part cannot be run"),
        ({f"{OWN}attention.key_length": 32}, r"rope_freqs\.weight has shape \[32\], \[16\] by its metadata"),
        ({"split.count": 3}, "is one of 3 parts of a model.*join them with llama-gguf-split --merge"),
    ],
)
def test_wrong_metadata_is_reported_in_one_sentence(
    changed: dict[str, Any], message: str, parts: Any, tmp_path: Path
) -> None:
    keys = {key: value for key, value in (parts[1] | changed).items() if value is not None}
    with pytest.raises(CheckpointError, match=message) as caught:
        opened(write_file(tmp_path / "m.gguf", parts[0], keys))
    assert "\n" not in str(caught.value)


def test_scaled_rotary_positions_are_refused(parts: Any, tmp_path: Path) -> None:
    raw, kind = parts[0]["rope_freqs.weight"]
    scaled = parts[0] | {"rope_freqs.weight": (raw * 2, kind)}
    with pytest.raises(CheckpointError, match="scaled rotary positions cannot be run"):
        opened(write_file(tmp_path / "m.gguf", scaled, parts[1]))


def test_shapes_are_compared_with_the_metadata(parts: Any, tmp_path: Path) -> None:
    raw, kind = parts[0]["blk.0.ffn_down.weight"]
    path = write_file(tmp_path / "m.gguf", parts[0] | {"blk.0.ffn_down.weight": (raw[:-16], kind)}, parts[1])
    for residence in Residence:
        with pytest.raises(CheckpointError, match=r"ffn_down\.weight has shape \[240, 96\], \[256, 96\] by the file's"):
            loaded(path, residence)


def test_tensor_name_of_an_earlier_converter_is_read(parts: Any, tmp_path: Path) -> None:
    old = {name.replace("enc_layer_output_scale", "enc_layer_out_scale"): stored for name, stored in parts[0].items()}
    path, now = write_file(tmp_path / "old.gguf", old, parts[1]), write_file(tmp_path / "now.gguf", *parts)
    scalars = [loaded(one, Residence.EXPANDED).state_dict()["layers.1.encoder_layer_scalar"] for one in (path, now)]
    assert torch.equal(*scalars)
