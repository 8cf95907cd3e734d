"""Fused operations that run twice on the same inputs, as kernels and as plain PyTorch, and are compared each time.

The kernels' result is used, so that every operation of a pass is compared on inputs of a real pass, and a rounding
error that sends a token to another expert is found where it happens and nowhere after. Shape legend: N rows, K experts
per token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from dgemma_engine.model.ops import FusedOps
from dgemma_kernels.reference import kv_store
from dgemma_kernels.reference.quantization import restore_rows
from dgemma_kernels.reference.routing import sorted_by_expert
from dgemma_kernels.tensors.formats import Rows, Weight
from dgemma_kernels.tensors.kv_store import KVStore
from dgemma_kernels.tensors.routing import Routing
from dgemma_kernels.tensors.vocabulary_distribution import Banned, VocabularyDistribution
from torch import Tensor

# Root mean square of the difference over that of the values. Both sides compute in float32 from equal inputs, so 16-bit
# results differ by roundings at a boundary (2^-9 each at most); 8-bit ones by roundings of 2^-4, in few values.
PLAIN_ERROR, FP8_ERROR = 2.0**-8, 2.0**-6
# Both sides round the probabilities of keys to 16 bits, too.
ATTENTION_ERROR = 2.0**-7
# How much worse than all rows together the worst row may be: one wrong value of 2,816 is beyond it in 16 bits.
WORST_ROW = 4.0
SCORE_ERROR, PROBABILITY_ERROR = 1e-3, 1e-3
# Operations that write into arguments, by the positions of these.
IN_PLACE = {"norm_rotary": (5,), "distribution": (0,)}
NOT_COMPARED = ("require", "pack", "tile_rows", "beside", "renoises_ahead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Both:
    """A weight for either side."""

    plain: Weight
    packed: Any


@dataclass(slots=True, kw_only=True)
class Comparison:
    """The comparison of one operation's calls.

    Attributes:
        calls: compared so far.
        error: largest relative root mean square error of a call.
        worst_row: largest of a row.
        wrong: the first call out of bounds, as a message; empty if there was none.
    """

    calls: int = 0
    error: float = 0.0
    worst_row: float = 0.0
    wrong: str = ""


def checked(ours: FusedOps, twin: FusedOps, found: dict[str, Comparison]) -> FusedOps:
    """Returns operations that compare `ours` with `twin`, adding to `found` by the operations' names."""

    def pair(name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: _both(name, ours, twin, found.setdefault(name, Comparison()), args, kwargs)

    names = [field.name for field in fields(FusedOps) if field.name not in NOT_COMPARED]
    pack = ours.pack
    return replace(
        ours, pack=lambda weight: Both(plain=weight, packed=pack(weight)), **{name: pair(name) for name in names}
    )


def _both(
    name: str, ours: FusedOps, twin: FusedOps, found: Comparison, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    expected_args = [argument.plain if isinstance(argument, Both) else argument for argument in args]
    written = IN_PLACE.get(name, ())
    for position in written:
        expected_args[position] = _copy(args[position])
    if name == "linear":
        expected_args = expected_args[:2]
    expected = getattr(twin, name)(*expected_args, **kwargs)
    packed = [argument.packed if isinstance(argument, Both) else argument for argument in args]
    logits_NV = args[0].clone() if name == "distribution" else None
    got = getattr(ours, name)(*packed, **kwargs)
    found.calls += 1
    try:
        match name:
            case "route":
                _compare_routing(got, expected, args[0], args[1])
            case "distribution":
                assert logits_NV is not None
                _compare_distributions(got, expected, found, logits_NV, *args[1:5])
            case _:
                is_fp8 = any(isinstance(part, Rows) and part.scale is not None for part in _parts((args, got)))
                pairs = list(zip(_tensors(got), _tensors(expected), strict=True))
                for position in written:
                    pairs += zip(_tensors(args[position]), _tensors(expected_args[position]), strict=True)
                for one, other in pairs:
                    plain = ATTENTION_ERROR if name in ("canvas", "causal") else PLAIN_ERROR
                    _compare(one, other, found, FP8_ERROR if is_fp8 else plain)
    except ValueError as error:
        found.wrong = found.wrong or f"call {found.calls}: {error}"
    return got


def _compare(got: Tensor, expected: Tensor, found: Comparison, allowed: float) -> None:
    """Compares floats [.., D], all of them together and row by row."""
    if got.shape != expected.shape:
        raise ValueError(f"{tuple(got.shape)=} must be {tuple(expected.shape)}")
    got, expected = got.float().flatten(0, -2), expected.float().flatten(0, -2)
    if not bool(torch.isfinite(got).all()):
        raise ValueError("a value is not finite")
    squares = (got - expected).square().sum(-1), expected.square().sum(-1)
    error = float((squares[0].sum() / squares[1].sum().clamp(min=1e-20)).sqrt())
    # A row near 0 is held against the average row, not against itself.
    least = squares[1].mean().clamp(min=1e-20) / 16
    row = float((squares[0] / squares[1].clamp(min=least)).sqrt().amax())
    found.error, found.worst_row = max(found.error, error), max(found.worst_row, row)
    if error > allowed or row > WORST_ROW * allowed:
        raise ValueError(f"relative error {error:.2g} (worst row {row:.2g}) must be <= {allowed:.2g} (row x 4)")


def _compare_routing(got: Routing, expected: Routing, x_ND: Tensor, router_ED: Tensor) -> None:
    scores_NE = x_ND.float() @ router_ED.float().T
    chosen = (scores_NE.gather(1, routing.indices_NK.long()) for routing in (got, expected))
    apart = float((next(chosen) - next(chosen)).abs().amax() / scores_NE.abs().amax())
    if apart > SCORE_ERROR:
        raise ValueError(f"experts were chosen whose scores lie {apart:.2g} from those of the best ones")
    same = (got.indices_NK == expected.indices_NK).all(-1)
    weights = float((got.weights_NK - expected.weights_NK)[same].abs().amax())
    if not weights <= SCORE_ERROR:
        raise ValueError(f"routing weights differ by {weights:.2g}")
    again = sorted_by_expert(got.weights_NK, got.indices_NK, len(router_ED), got.tile_rows)
    for name in ("assignment_M", "offset_E1", "tile_expert_T", "tile_start_T"):
        if not torch.equal(getattr(got, name), getattr(again, name)):
            raise ValueError(f"{name} is no sort of the chosen experts")


def _compare_distributions(
    got: VocabularyDistribution,
    expected: VocabularyDistribution,
    found: Comparison,
    logits_NV: Tensor,
    temperature_1: Tensor,
    levels_N: Tensor,
    cap: float,
    banned: Banned | None,
) -> None:
    _compare(got.probs_NV, expected.probs_NV, found, PLAIN_ERROR)
    for name in ("entropy_N", "confidence_N"):
        apart = float((getattr(got, name) - getattr(expected, name)).abs().amax())
        if not apart <= PROBABILITY_ERROR:
            raise ValueError(f"{name} differs by {apart:.2g}")
    capped_NV = cap * torch.tanh(logits_NV.float() / cap)
    if banned is not None:
        bans_NV = banned.sets_RV[banned.set_of_N.long().clamp(min=0)] & (banned.set_of_N >= 0)[:, None]
        capped_NV = capped_NV.masked_fill(bans_NV, -torch.inf)
    best_N = capped_NV.gather(1, got.best_N.long()[:, None])[:, 0]
    if not bool((best_N >= capped_NV.amax(-1) - SCORE_ERROR).all()):
        raise ValueError("a best token is not the likeliest one")
    end_NV = torch.softmax(capped_NV / temperature_1, dim=-1).double().cumsum(-1)
    sampled_N1 = got.sampled_N.long()[:, None]
    after_N = end_NV.gather(1, sampled_N1)[:, 0]
    before_N = torch.where(sampled_N1[:, 0] > 0, end_NV.gather(1, (sampled_N1 - 1).clamp(min=0))[:, 0], 0.0)
    inside_N = (levels_N >= before_N - PROBABILITY_ERROR) & (levels_N <= after_N + PROBABILITY_ERROR)
    if not bool(inside_N.all()):
        raise ValueError("a drawn token does not hold its level")


def _parts(value: Any) -> Iterator[Any]:
    """Yields rows and tensors of a result, outermost first."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, Tensor) or is_dataclass(value):
        yield value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the float tensors of a result or of a written argument."""
    for part in _parts(value):
        if isinstance(part, KVStore):
            yield from kv_store.tensors(part)[:2]
        else:
            yield restore_rows(part) if isinstance(part, Rows) else part


def _copy(written: Any) -> Any:
    if isinstance(written, KVStore):
        k_GSd, v_GSd, first = kv_store.tensors(written)
        return KVStore.of(k_GSd.clone(), v_GSd.clone(), first)
    return written.clone()
