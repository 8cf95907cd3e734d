"""What a checkpoint of masked diffusion says of itself, checked: its kind, dimensions, mask and window.

Every pass carries the whole window (prompt, canvas and suffix), since no state of a prompt stays the same once the
canvas changes; so the window is what a pass costs, and its parts share the model's positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from dgemma_engine.checkpoint.fim_format import FILE_NAME, InfillFormat
from dgemma_engine.config_values import whole_number
from dgemma_engine.errors import CheckpointError, FormatError
from dgemma_engine.families.checkpoint_facts import SIDECAR, CheckpointFacts
from dgemma_engine.families.llama.config import LlamaConfig, require_value
from dgemma_engine.families.masked.kinds import KINDS, Kind
from dgemma_engine.model.config import LayerKind
from dgemma_engine.tokenization.added_tokens import added_tokens, mask_token

# Of a window: each of its tokens is computed anew for each row at each step.
_WINDOW_TOKENS = 1_024
# Shares of the window: half the canvas is the suffix, which no prompt holds.
_CANVAS_SHARE, _PREFIX_SHARE, _SNIPPET_SHARE = 3 / 8, 1 / 2, 3 / 32
_LEAST_WINDOW = 32
# Names that masks have in published tokenizers without saying which token it is.
_MASK_NAMES = ("<|mask|>", "<|mdm_mask|>", "<M>", "<|MASK|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedConfig(LlamaConfig):
    """Dimensions of the model; no layer keeps keys and values of a prompt.

    Attributes:
        is_shifted: whether a state scores the NEXT position.
    """

    is_shifted: bool

    @classmethod
    def of_facts(cls, facts: CheckpointFacts) -> Self:
        """Reads the configuration of a checkpoint.

        Raises:
            CheckpointError: names the field that is missing or not supported.
        """
        kind = kind_of(facts)
        for key, value in kind.required.items():
            require_value(facts.config, key, value)
        hf = dict(facts.config) | {
            name: facts.config[own] for name, own in kind.config_keys.items() if own in facts.config
        }
        # Rows that no token has make products of round sizes.
        hf["vocab_size"] = facts.config.get("embedding_size") or facts.config.get("vocab_size")
        if hf.get("bos_token_id") is None:
            hf["bos_token_id"] = _first(hf.get("eos_token_id"))
        if (layer_types := hf.get("layer_types")) and set(layer_types) != {LayerKind.FULL.value}:
            raise CheckpointError(
                f"config.json: layer_types={layer_types!r} is not supported; all must be full_attention"
            )
        dimensions = cls.dimensions(hf)
        window = min(_WINDOW_TOKENS, dimensions["max_position_embeddings"])
        if window < _LEAST_WINDOW:
            raise CheckpointError(f"config.json: {window} positions are too few to fill a hole; choose another model")
        return cls(
            **dimensions,
            canvas_length=int(window * _CANVAS_SHARE),
            has_qkv_bias=kind.has_qkv_bias,
            has_qk_norm=kind.has_qk_norm,
            is_shifted=kind.is_shifted,
        )

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """None: see `ModelDimensions.layer_kinds`."""
        return ()

    @property
    def window_tokens(self) -> int:
        """Most tokens of a pass over one row, unless the checkpoint's `infill.json` says otherwise."""
        return min(_WINDOW_TOKENS, self.max_position_embeddings)


def kind_of(facts: CheckpointFacts) -> Kind:
    """Returns the kind of a checkpoint: what its sidecar names, else what it says of itself.

    Raises:
        CheckpointError: it is of none.
    """
    if facts.gguf is not None:
        raise CheckpointError(f"{facts.path}: GGUF files of masked diffusion cannot be read; choose the model's folder")
    named, names = facts.sidecar.get("kind"), ", ".join(kind.name for kind in KINDS)
    if named is not None:
        for kind in KINDS:
            if kind.name == named:
                return kind
        raise CheckpointError(f"{facts.path}: {SIDECAR} names the kind {named!r}; it must be one of {names}")
    for kind in KINDS:
        if kind.fits(facts):
            return kind
    raise CheckpointError(
        f"{facts.path}: is a {facts.model_type!r} model, whose kind of masked diffusion is not known; add a `kind` to "
        f"{SIDECAR}, one of {names}"
    )


def mask_id_of(facts: CheckpointFacts, vocab_size: int) -> int:
    """Returns the id of the mask: from the sidecar, `config.json`, or what the tokenizer calls its mask.

    Raises:
        CheckpointError: there is none, or it is a token of text; the message says what to do.
    """
    kind, named = kind_of(facts), added_tokens(facts.path)
    for place, values in ((SIDECAR, facts.sidecar), ("config.json", facts.config)):
        if values.get("mask_token_id") is not None:
            value = values["mask_token_id"]
            found = whole_number(facts.path / place, "mask_token_id", value, least=0, most=vocab_size - 1)
            if named and found not in named.values() and found <= max(named.values()):
                raise CheckpointError(
                    f"{facts.path / place}: mask_token_id={found} is a token of ordinary text; name the mask's own id"
                )
            return found
    for name in (kind.mask_token, mask_token(facts.path), *_MASK_NAMES):
        if name and name in named:
            return whole_number(facts.path, f"the token {name}", named[name], least=0, most=vocab_size - 1)
    raise CheckpointError(
        f"{facts.path}: names no mask token, neither in config.json nor in its tokenizer; write its id to {SIDECAR}: "
        '{"family": "masked_diffusion", "kind": "' + kind.name + '", "mask_token_id": ID}'
    )


def format_of(facts: CheckpointFacts, config: MaskedConfig) -> InfillFormat:
    """Returns how holes are put: `infill.json` where there is one, else prefix, masks and suffix.

    Raises:
        FormatError: the file asks for what this family has not, or for more than the model's positions.
    """
    window = config.window_tokens
    if not (facts.path / FILE_NAME).exists():
        return InfillFormat(
            fill_token_id=None,
            more_token_id=None,
            prefix_token_id=None,
            suffix_token_id=None,
            slot_sizes=(8, 16, 32, 64, 128),
            prefix_tokens=int(window * _PREFIX_SHARE),
            suffix_tokens=0,
            suffix_head_tokens=config.canvas_length // 2,
            snippet_tokens=int(window * _SNIPPET_SHARE),
            healing="token",
            begins_with_bos=kind_of(facts).begins_with_bos,
        )
    form, most = InfillFormat.load(facts.path), config.max_position_embeddings
    form.require_vocabulary(config.vocab_size)
    path = facts.path / FILE_NAME
    for name in ("parallel_suffix_tokens", "suffix_tokens"):
        if getattr(form, name):
            raise FormatError(f"{path}: {name} must be 0: this family reads the suffix after the canvas")
    if (asked := form.longest_prompt + config.canvas_length) > most:
        raise FormatError(
            f"{path}: prompt and canvas take up to {asked} tokens, the model has {most} positions; lower prefix_tokens "
            "or snippet_tokens"
        )
    return form


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
