"""What a checkpoint of masked diffusion says of itself, checked: its kind, dimensions, mask and window.

Where attention sees everything, every pass carries the whole window (prompt, canvas and suffix), since no state of a
prompt stays the same once the canvas changes; so the window is what a pass costs, and its parts share the model's
positions. Where attention goes block by block the window is a prompt that is encoded once, and a canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from dgemma_engine.checkpoint.fim_format import FILE_NAME, InfillFormat
from dgemma_engine.config_values import whole_number
from dgemma_engine.diffusion.resizing import Resizing
from dgemma_engine.errors import CheckpointError, FormatError
from dgemma_engine.families.checkpoint_facts import SIDECAR, CheckpointFacts
from dgemma_engine.families.llama.config import LlamaConfig, require_value
from dgemma_engine.families.masked.kinds import KINDS, Kind, expand_id_of
from dgemma_engine.model.config import LayerKind
from dgemma_engine.tokenization.added_tokens import added_tokens, mask_token

# Of a window: each of its tokens is computed anew for each row at each step.
_WINDOW_TOKENS = 1_024
# Of a window whose prompt is cached; the canvas holds no suffix.
_BLOCK_WINDOW_TOKENS, _BLOCK_CANVAS_SHARE, _MOST_BLOCK_CANVAS = 4_096, 1 / 8, 256
_BLOCK_PREFIX_SHARE, _BLOCK_SUFFIX_SHARE, _BLOCK_SNIPPET_SHARE = 1 / 2, 1 / 8, 3 / 16
_MOST_BLOCK_TOKENS = 1_024
# Free positions of rows; a slot ends with a token of its own.
_SLOT_SIZES = (16, 32, 64, 128)
# DreamOn was trained to grow to this many.
_MOST_EXPANDED = 64
# Shares of the window: half the canvas is the suffix, which no prompt holds.
_CANVAS_SHARE, _PREFIX_SHARE, _SNIPPET_SHARE = 3 / 8, 1 / 2, 3 / 32
_LEAST_WINDOW = 32
# Names of masks in published tokenizers that do not say which token is the mask.
_MASK_NAMES = ("<|mask|>", "<|mdm_mask|>", "<M>", "<|MASK|>", "<[MASK_TOKEN]>")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedConfig(LlamaConfig):
    """Dimensions of the model; layers keep keys and values of a prompt where attention goes block by block only.

    Attributes:
        is_shifted: whether a state scores the NEXT position.
        block_tokens: of a block of the text; 0 where attention sees everything.
    """

    is_shifted: bool
    block_tokens: int = 0

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
        dimensions, block_tokens = cls.dimensions(hf), block_tokens_of(facts)
        window = min(_window(block_tokens), dimensions["max_position_embeddings"])
        if window < _LEAST_WINDOW:
            raise CheckpointError(f"config.json: {window} positions are too few to fill a hole; choose another model")
        canvas_length = int(window * _CANVAS_SHARE)
        if block_tokens:
            canvas_length = min(_MOST_BLOCK_CANVAS, int(window * _BLOCK_CANVAS_SHARE))
        return cls(
            **dimensions,
            canvas_length=canvas_length,
            has_qkv_bias=kind.has_qkv_bias,
            has_qk_norm=kind.has_qk_norm,
            is_shifted=kind.is_shifted,
            block_tokens=block_tokens,
        )

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """See `ModelDimensions.layer_kinds`: none where attention sees everything."""
        return (LayerKind.FULL,) * self.num_layers if self.block_tokens else ()

    @property
    def window_tokens(self) -> int:
        """Most tokens of a pass over one row, unless the checkpoint's `infill.json` says otherwise."""
        return min(_window(self.block_tokens), self.max_position_embeddings)


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


def block_tokens_of(facts: CheckpointFacts) -> int:
    """Returns the tokens of a block, from the sidecar or the kind; 0 where attention sees everything.

    Raises:
        CheckpointError: the number in the sidecar is out of range.
    """
    kind = kind_of(facts)
    if not kind.block_tokens:
        return 0
    named = facts.sidecar.get("block_tokens", kind.block_tokens)
    return whole_number(facts.path / SIDECAR, "block_tokens", named, least=1, most=_MOST_BLOCK_TOKENS)


def resizing_of(facts: CheckpointFacts, config: MaskedConfig) -> Resizing | None:
    """Returns how rows of a checkpoint change their length; None where they keep it.

    Raises:
        CheckpointError: no file names the token that becomes two masks, or it is the mask or the end.
    """
    kind = kind_of(facts)
    if not kind.expand_token:
        return None
    named, delete_id = expand_id_of(facts, kind), config.eos_token_ids[0]
    if named is None:
        raise CheckpointError(
            f"{facts.path}: no file names the token {kind.expand_token}; write its id to {SIDECAR} as expand_token_id"
        )
    expand_id = whole_number(facts.path, "expand_token_id", named, least=0, most=config.vocab_size - 1)
    if expand_id in (delete_id, mask_id_of(facts, config.vocab_size)):
        raise CheckpointError(
            f"{facts.path}: expand_token_id={expand_id} is the mask or the token that ends a text; get the model again"
        )
    most = min(_MOST_EXPANDED, config.canvas_length // 2)
    return Resizing(expand_id=expand_id, delete_id=delete_id, most_free=most)


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
    """Returns the prompt format: `infill.json` where there is one, else prefix, masks and suffix.

    Raises:
        CheckpointError: the tokenizer lacks the tokens of a prompt with its suffix first.
        FormatError: the file needs what this family lacks, or more positions than the model has.
    """
    window = config.window_tokens
    if not (facts.path / FILE_NAME).exists():
        if config.block_tokens:
            return _suffix_first(facts, config)
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
    barred = ("suffix_head_tokens",) if config.block_tokens else ("suffix_tokens",)
    where = "in the prompt" if config.block_tokens else "after the canvas"
    for name in ("parallel_suffix_tokens", *barred):
        if getattr(form, name):
            raise FormatError(f"{path}: {name} must be 0: this model reads the suffix {where}")
    if (asked := form.longest_prompt + config.canvas_length) > most:
        raise FormatError(
            f"{path}: prompt and canvas take up to {asked} tokens, the model has {most} positions; lower prefix_tokens "
            "or snippet_tokens"
        )
    return form


def _suffix_first(facts: CheckpointFacts, config: MaskedConfig) -> InfillFormat:
    """Returns the format of a model whose blocks see what stands before them only: suffix, prefix, middle."""
    names, named, window = kind_of(facts).hole_tokens, added_tokens(facts.path), config.window_tokens
    if names is None or any(name not in named for name in names):
        raise CheckpointError(
            f"{facts.path}: its tokenizer lacks {', '.join(names or ())}, which mark a hole; get its tokenizer "
            f"again, or write {FILE_NAME}"
        )
    suffix_id, prefix_id, middle_id = (
        whole_number(facts.path, f"the token {name}", named[name], least=0, most=config.vocab_size - 1)
        for name in names
    )
    return InfillFormat(
        fill_token_id=config.eos_token_ids[0],
        more_token_id=None,
        prefix_token_id=prefix_id,
        suffix_token_id=suffix_id,
        middle_token_id=middle_id,
        slot_sizes=tuple(size for size in _SLOT_SIZES if size <= config.canvas_length) or (config.canvas_length,),
        prefix_tokens=int(window * _BLOCK_PREFIX_SHARE),
        suffix_tokens=int(window * _BLOCK_SUFFIX_SHARE),
        suffix_head_tokens=0,
        snippet_tokens=int(window * _BLOCK_SNIPPET_SHARE),
        healing="token",
        begins_with_bos=kind_of(facts).begins_with_bos,
    )


def _window(block_tokens: int) -> int:
    return _BLOCK_WINDOW_TOKENS if block_tokens else _WINDOW_TOKENS


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
