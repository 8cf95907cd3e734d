"""The prompt and the canvas in which one checkpoint expects a hole, read from `infill.json` beside its weights.

Turns token ids of prefix and suffix into prompt ids and a canvas layout; knows no tensors and no text. A checkpoint
without the file (the released 26B one) was not trained to fill: it gets `InfillFormat.untrained()`.

Layout:  prompt = <bos> [snippets] [<suffix> suffix head] [<prefix>] prefix tail [<middle>]
                  or, where the suffix stands last, [<prefix>] prefix tail <suffix> suffix head <middle> at its end
         canvas = slot | clean suffix head
         slot   = middle <fill> <fill> ...   (or middle <more> when it did not fit)
When the rest of the file is blank there is no suffix head on the canvas and the middle ends with <eos>.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from dgemma_engine.config_values import MOST_TOKENS
from dgemma_engine.durable_files import write_whole
from dgemma_engine.errors import FormatError

FILE_NAME = "infill.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillFormat:
    """Token ids and budgets of one checkpoint's infilling format.

    Attributes:
        fill_token_id: ends the middle; None for a checkpoint not trained to fill.
        more_token_id: last token of a slot the middle did not fit into; None if the checkpoint has none.
        prefix_token_id: stands before the prefix in the prompt; None if the checkpoint has none.
        suffix_token_id: stands before the suffix in the prompt; None leaves the suffix out of the prompt.
        middle_token_id: stands after the prefix, as the prompt's last token; None if the checkpoint has none.
        name_token_id: stands before the file's name, with which the prompt then begins in place of <bos>; None if the
            checkpoint reads no names. A prompt without a name then begins with the fill token, if there is one: it
            stands between files too.
        slot_sizes: free canvas positions the checkpoint was trained with, ascending.
        prefix_tokens: most prefix tokens in the prompt.
        suffix_tokens: most suffix tokens in the prompt.
        suffix_head_tokens: most clamped suffix tokens on the canvas.
        parallel_suffix_tokens: most suffix tokens that are encoded by themselves, beside the prompt, and read by the
            middle alone; 0 for none.
        snippet_tokens: most tokens of text from elsewhere in the prompt; 0 for a checkpoint that never saw any.
        healing: what the middle takes over from the prefix: the `word` at the cursor, where a tokenizer cuts at words;
            the last `token` where line breaks and indentation are tokens together; `none` where the checkpoint was
            trained on texts that were cut anywhere.
        suffix_last: whether the suffix stands between prefix and middle in the prompt, and not before the prefix.
        judges_text: whether a candidate's probability is that of its text: what is healed is given, and the end of
            its line ends it, in whatever tokens. Otherwise it is that of its tokens. A score is fitted for one or the
            other.
        begins_with_bos: whether a prompt without a name begins with the model's first token; otherwise that token
            stands in an empty prompt only, since a canvas needs a token before it.
    """

    fill_token_id: int | None
    more_token_id: int | None
    prefix_token_id: int | None
    suffix_token_id: int | None
    slot_sizes: tuple[int, ...]
    prefix_tokens: int
    suffix_tokens: int
    suffix_head_tokens: int
    snippet_tokens: int = 0
    parallel_suffix_tokens: int = 0
    healing: Literal["word", "token", "none"] = "word"
    name_token_id: int | None = None
    middle_token_id: int | None = None
    suffix_last: bool = False
    judges_text: bool = False
    begins_with_bos: bool = True

    def __post_init__(self) -> None:
        sizes = self.slot_sizes
        if not sizes or not all(type(size) is int for size in sizes) or list(sizes) != sorted(set(sizes)):
            raise FormatError(f"slot_sizes={sizes} must be ascending whole numbers")
        for size in sizes:
            _require_whole("slot_sizes", size, least=1)
        if self.healing not in ("word", "token", "none"):
            raise FormatError(f"healing={self.healing!r} must be 'word', 'token' or 'none'")
        for name in ("begins_with_bos", "suffix_last", "judges_text"):
            if type(value := getattr(self, name)) is not bool:
                raise FormatError(f"{name}={value!r} must be true or false")
        if self.suffix_last and (self.suffix_token_id is None or self.middle_token_id is None):
            raise FormatError("suffix_last=True needs suffix_token_id and middle_token_id")
        for name in (
            "prefix_tokens",
            "suffix_tokens",
            "suffix_head_tokens",
            "snippet_tokens",
            "parallel_suffix_tokens",
        ):
            _require_whole(name, getattr(self, name), least=1 if name == "prefix_tokens" else 0)
        for name, token_id in self._token_ids():
            _require_whole(name, token_id, least=0)

    def _token_ids(self) -> list[tuple[str, int]]:
        """Returns the ids that there are, with the names of their fields."""
        names = (
            "fill_token_id",
            "more_token_id",
            "prefix_token_id",
            "suffix_token_id",
            "name_token_id",
            "middle_token_id",
        )
        return [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]

    def require_vocabulary(self, vocab_size: int) -> None:
        """Makes sure that the model has a token for every id.

        Raises:
            FormatError: it has not.
        """
        for name, token_id in self._token_ids():
            if token_id >= vocab_size:
                raise FormatError(f"{name}={token_id} must be less than the model's vocabulary of {vocab_size} tokens")

    @classmethod
    def untrained(cls) -> Self:
        """A checkpoint that was never trained to fill: prefix in the prompt, suffix only on the canvas."""
        return cls(
            fill_token_id=None,
            more_token_id=None,
            prefix_token_id=None,
            suffix_token_id=None,
            slot_sizes=(8, 16, 32, 64, 128),
            prefix_tokens=6_144,
            suffix_tokens=0,
            suffix_head_tokens=48,
            snippet_tokens=2_048,
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `folder/infill.json`, or returns `untrained()` where there is none.

        Raises:
            FormatError: the file is not JSON, or a field is missing, unknown or out of range.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return cls.untrained()
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
            return cls(**(values | {"slot_sizes": tuple(values["slot_sizes"])}))
        except FormatError as error:
            raise FormatError(f"{path}: {error}; restore it from the checkpoint's source") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"{path}: cannot be read ({error}); restore it from the checkpoint's source") from error

    def save(self, folder: Path) -> None:
        """Writes `folder/infill.json` atomically."""
        write_whole(folder / FILE_NAME, (json.dumps(asdict(self), indent=2) + "\n").encode())

    def prompt_ids(
        self,
        *,
        prefix_ids: list[int],
        suffix_ids: list[int],
        bos_token_id: int,
        snippet_ids: Sequence[int] = (),
        name_ids: Sequence[int] = (),
    ) -> list[int]:
        """Returns the prompt: what the causal encoder reads before the canvas.

        Args:
            prefix_ids: tokens before the hole; a tail of between five sixths and all of the budget is kept.
            suffix_ids: tokens after the hole; the head that fits is kept.
            bos_token_id: first token of a prompt, see `begins_with_bos`.
            snippet_ids: text from elsewhere, within the budget.
            name_ids: the file's name and a line break, for a checkpoint that reads names; empty if it has none.
        """
        prompt = [bos_token_id] if self.begins_with_bos or not (prefix_ids or snippet_ids) else []
        if self.name_token_id is not None and name_ids:
            prompt = [self.name_token_id, *name_ids]
        elif self.name_token_id is not None and self.fill_token_id is not None:
            prompt = [self.fill_token_id]
        prompt += snippet_ids
        suffix = [] if self.suffix_token_id is None else [self.suffix_token_id, *suffix_ids[: self.suffix_tokens]]
        if not self.suffix_last:
            prompt += suffix
        if self.prefix_token_id is not None:
            prompt.append(self.prefix_token_id)
        # The tail begins at a multiple of a sixth of the budget: it would otherwise slide with every token typed, and
        # no prompt would begin like the last one.
        jump = max(1, self.prefix_tokens // 6)
        start = max(0, -(-(len(prefix_ids) - self.prefix_tokens) // jump) * jump)
        prompt += prefix_ids[start:]
        if self.suffix_last:
            prompt += suffix
        return prompt if self.middle_token_id is None else [*prompt, self.middle_token_id]

    @property
    def longest_prompt(self) -> int:
        """Most tokens of a prompt, special tokens not counted."""
        return self.prefix_tokens + self.suffix_tokens + self.snippet_tokens + self.parallel_suffix_tokens

    def slot_size(self, num_tokens: int) -> int:
        """Returns the smallest trained slot that holds `num_tokens`, or the largest there is."""
        return next((size for size in self.slot_sizes if size >= num_tokens), self.slot_sizes[-1])

    def without_fill(self) -> Self:
        """Returns the same format without the fill token, to measure what the token contributes."""
        return replace(self, fill_token_id=None, more_token_id=None)


def _require_whole(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or not least <= value <= MOST_TOKENS:
        raise FormatError(f"{name}={value!r} must be a whole number from {least} to {MOST_TOKENS:,}")
