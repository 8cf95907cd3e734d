"""A text beside the prompt: the prompt does not attend to it, a continuation of the prompt attends to both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.infill.likelihood import Branch, likelihoods
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_kernels.packing.few_bits import DENSE
from torch import Tensor

from tests.llama_checkpoints import LlamaCheckpoint, make_llama
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
RESERVED, BESIDE, PROMPT, NEW = 9, 6, 11, 4
FIRST = RESERVED - BESIDE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LlamaCheckpoint:
    return make_llama(tmp_path_factory.mktemp("llama"), spread=0.1)


def load(path: Path) -> LlamaModel:
    return load_llama(path, Ops.reference(), device=CPU, dtype=torch.float32)


@pytest.fixture(scope="module", params=["plain", "packed"])
def model(request: pytest.FixtureRequest, checkpoint: LlamaCheckpoint) -> DiffusionModel:
    plain = load(checkpoint.gguf)
    return plain if request.param == "plain" else PackedLlama(plain, DENSE)


def draw_ids(seed: int, length: int) -> Tensor:
    return torch.randint(0, 288, (1, length), generator=torch.Generator().manual_seed(seed))


def filled_cache(model: DiffusionModel, beside: Tensor) -> PromptCache:
    """A prompt encoded in two pieces, the second of one token, and a text beside it, encoded between the pieces."""
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU, parallel_tokens=RESERVED)
    prompt = draw_ids(2, PROMPT)
    model.prefill(prompt[:, :-1], cache)
    with cache.beside_prompt(beside.shape[1]):
        if beside.numel():
            model.prefill(beside, cache)
    model.prefill(prompt[:, -1:], cache)
    return cache


def reference_logits(checkpoint: LlamaCheckpoint, beside: Tensor, new: Tensor, *, looks_ahead: bool) -> Tensor:
    """Returns the logits of `transformers` with one mask over everything, from the prompt's last token on."""
    ids = torch.cat((beside, draw_ids(2, PROMPT), new), dim=1)
    num_beside, length = beside.shape[1], ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[num_beside : num_beside + PROMPT, :num_beside] = False
    if looks_ahead:
        # The prompt's last token is part of the canvas.
        seen[num_beside + PROMPT - 1 :] = True
    mask = torch.zeros(1, 1, length, length).masked_fill(~seen, torch.finfo(torch.float32).min)
    positions = torch.arange(RESERVED - num_beside, RESERVED - num_beside + length)[None]
    logits = checkpoint.reference(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[:, num_beside + PROMPT - 1 :]


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() / theirs.abs().max() < model_error(64)


@pytest.mark.parametrize("num_beside", [0, 1, BESIDE, RESERVED])
@pytest.mark.parametrize("num_new", [1, NEW])
@torch.inference_mode()
def test_continuation_attends_to_both_and_the_prompt_to_itself(
    model: DiffusionModel, checkpoint: LlamaCheckpoint, num_beside: int, num_new: int
) -> None:
    beside, new = draw_ids(3, num_beside), draw_ids(4, num_new)
    cache = filled_cache(model, beside)
    ours = model.logits(model.encode(new, cache))
    assert cache.num_prompt == PROMPT + num_new and cache.seen_from == RESERVED - num_beside
    assert_close(ours, reference_logits(checkpoint, beside, new, looks_ahead=False)[:, 1:])


@torch.inference_mode()
def test_canvas_attends_to_the_prompt_and_to_the_text_beside_it(
    model: DiffusionModel, checkpoint: LlamaCheckpoint
) -> None:
    beside, canvas = draw_ids(3, BESIDE), draw_ids(4, NEW)
    cache = filled_cache(model, beside)
    ours = model.logits(model.decode(canvas, cache))
    assert_close(ours, reference_logits(checkpoint, beside, canvas, looks_ahead=True)[:, :-1])
    with cache.beside_prompt(2):
        model.prefill(draw_ids(5, 2), cache)
    again = model.logits(model.decode(canvas, cache))
    assert_close(again, reference_logits(checkpoint, draw_ids(5, 2), canvas, looks_ahead=True)[:, :-1])


@torch.inference_mode()
def test_suffix_is_judged_without_its_own_copy(model: DiffusionModel) -> None:
    """The middle's last token attends to the copy and predicts the suffix's first; the suffix predicts the others."""
    prompt_ids = draw_ids(2, PROMPT)[0].tolist()
    branch = Branch(middle_ids=(40,), suffix_ids=(42, 43))
    alone = Branch(middle_ids=(40, 42), suffix_ids=(43,))
    cache = filled_cache(model, draw_ids(3, BESIDE))
    judged, other = (
        likelihoods(model, cache, prompt_ids[-1], [one], end_ids=frozenset(), banned_ids=[])[0]
        for one in (branch, alone)
    )
    assert [*other.middle[:1], other.middle[1]] == pytest.approx([*judged.middle, judged.suffix[0]], abs=1e-3)
    assert other.suffix[0] != pytest.approx(judged.suffix[1], abs=1e-3)


def test_text_that_does_not_fit_is_refused(checkpoint: LlamaCheckpoint) -> None:
    model = load(checkpoint.gguf)
    cache = PromptCache(model.config, capacity=4, dtype=model.dtype, device=CPU, parallel_tokens=RESERVED)
    with pytest.raises(ValueError, match="num_tokens=10 must be between 0 and 9"), cache.beside_prompt(RESERVED + 1):
        pass
    with pytest.raises(ValueError, match="length=8 must be between 9 and 9"):
        cache.truncate(RESERVED - 1)


@torch.inference_mode()
def test_pass_that_fails_leaves_no_text_beside_the_prompt(model: DiffusionModel) -> None:
    cache = filled_cache(model, draw_ids(3, BESIDE))
    with pytest.raises(MemoryError), cache.beside_prompt(BESIDE):
        raise MemoryError
    assert (cache.seen_from, cache.prompt_start, cache.num_prompt) == (RESERVED, RESERVED, PROMPT)
    expected = model.encode(draw_ids(4, NEW), filled_cache(model, draw_ids(3, 0)))
    torch.testing.assert_close(model.encode(draw_ids(4, NEW), cache), expected)


@torch.inference_mode()
def test_store_encodes_only_what_changed(model: DiffusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, prefill = list[int](), model.prefill
    store = PromptStore(model, parallel_tokens=RESERVED)

    def counting(ids_BT: Tensor, cache: PromptCache) -> None:
        counts.append(ids_BT.shape[1])
        prefill(ids_BT, cache)

    monkeypatch.setattr(model, "prefill", counting)

    def encoded(ids: list[int], beside: list[int]) -> Tensor:
        cancel = Cancel(deadline_s=1e9, clock=lambda: 0.0)
        cache = finished(store.encoded("a", ids, cancel, parallel_ids=beside))
        assert cache is not None
        states = model.encode(draw_ids(4, 2), cache)
        cache.truncate(cache.length - 2)
        return states

    encoded([20, 21, 22], [30, 31])
    encoded([20, 21, 22, 23], [30, 31])
    assert (counts, store.num_encoded("a")) == ([2, 3, 1], 1)
    changed = encoded([20, 21, 22, 23], [30, 32, 33])
    assert counts == [2, 3, 1, 3]
    store.clear()
    torch.testing.assert_close(changed, encoded([20, 21, 22, 23], [30, 32, 33]))
    encoded([20, 21], [])
    assert counts == [2, 3, 1, 3, 3, 4]
