"""Samples in token ids: a document that is encoded once, and for each of its holes a block of tokens that reads it.

The left edge is healed: a middle begins with the whole token that its first character belongs to, as the engine asks
for it (`tokenization.healed_start`). A block begins up to 8 tokens before that, so that prefix tokens are trained with
the suffix too.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from random import Random

from dgemma_engine.errors import TrainingError
from dgemma_engine.families.llama.adapter import AdapterTokens
from dgemma_engine.tokenization.tokenizer import CHARACTERS_PER_TOKEN, Tokenizer
from dgemma_engine.tools.adaptation.config import SampleConfig
from dgemma_engine.tools.adaptation.holes import HoleKind, TextHole, choose_holes
from dgemma_engine.tools.adaptation.sources import DrawFile

# Files shorter than this, and documents of fewer tokens, have no context worth reading.
_LEAST_CHARACTERS, _LEAST_TOKENS = 300, 64
# Tokens before the first hole: one less is no prompt.
_LEAST_PREFIX = 4
_NAMED_SHARE, _SUFFIX_SHARE, _WHOLE_FILE_SHARE = 0.8, 0.93, 0.25
# Prefix tokens at a block's beginning, drawn evenly, and their weight: the base predicts them well without the suffix.
_BACK, _BACK_WEIGHT = (0, 0, 1, 2, 4, 8), 0.3
# Characters of a middle for each token that a block holds.
_MOST_CHARACTERS_A_TOKEN = 6
_ATTEMPTS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One hole.

    Attributes:
        kind: of the hole.
        start: place of the first input in the document; the block sees the document's tokens before it.
        input_ids: tokens from there to the middle's last.
        target_ids: the token after each of them; the last is the end mark.
        weights: of each target in the loss.
        num_back: targets that belong to the prefix.
        suffix_ids: what stands after the hole; empty where the file ends, or the sample has none.
    """

    kind: HoleKind
    start: int
    input_ids: list[int]
    target_ids: list[int]
    weights: list[float]
    num_back: int
    suffix_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A document and its holes.

    Attributes:
        lang: its language.
        package: that it came with.
        ids: tokens of the document: name or end mark, then a window of the file.
        blocks: the holes.
    """

    lang: str
    package: str
    ids: list[int]
    blocks: list[Block]

    def without_suffix(self) -> Sample:
        """Returns the same holes, to be filled from the left side alone."""
        return replace(self, blocks=[replace(block, suffix_ids=[]) for block in self.blocks])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    text: str
    after: str


class SampleDrawer:
    """Draws samples.

    Args:
        draw_file: draws the file that a sample is cut from.
        tokenizer: of the base.
        tokens: the adapter's marks.
        config: shape of a sample.
    """

    def __init__(self, draw_file: DrawFile, tokenizer: Tokenizer, tokens: AdapterTokens, config: SampleConfig) -> None:
        self._draw_file, self._tokenizer, self._tokens, self._config = draw_file, tokenizer, tokens, config

    def draw(self, random: Random, *, num_holes: int) -> Sample:
        """Returns a sample with at least half of `num_holes` holes.

        Args:
            random: every draw comes from it.
            num_holes: most holes.

        Raises:
            TrainingError: the files are too short to give any.
        """
        for _ in range(_ATTEMPTS):
            source = self._draw_file(random)
            window = self._window(source.text, random)
            if window is None:
                continue
            ids, spans = self._tokenizer.spans(window.text)
            head_ids = [self._tokens.end]
            if random.random() < _NAMED_SHARE:
                head_ids = [self._tokens.name, *self._tokenizer.encode(f"{source.name}\n")]
            max_characters = _MOST_CHARACTERS_A_TOKEN * self._config.block_tokens
            holes = choose_holes(
                window.text,
                random,
                count=num_holes,
                max_characters=max_characters,
                most_at_end=self._config.holes_at_end,
            )
            ends = [end for _, end in spans]
            found = [self._block(hole, window, ids, ends, len(head_ids), random) for hole in holes]
            blocks = [block for block in found if block is not None]
            if len(ids) >= _LEAST_TOKENS and len(blocks) >= max(1, num_holes // 2):
                return Sample(lang=source.lang, package=source.package, ids=head_ids + ids, blocks=blocks)
        raise TrainingError("the corpus holds too few files that are long enough for a hole; build a larger one")

    def _window(self, text: str, random: Random) -> _Window | None:
        """Returns a part of a file that begins with a line; None of one that is too short."""
        size = self._config.window_characters
        if len(text) < _LEAST_CHARACTERS:
            return None
        start = 0
        if len(text) > size and random.random() >= _WHOLE_FILE_SHARE:
            start = text.find("\n", random.randrange(len(text) - size)) + 1
        end = start + size
        return _Window(text=text[start:end], after=text[end : end + self._suffix_characters])

    def _block(
        self, hole: TextHole, window: _Window, ids: list[int], ends: list[int], num_head: int, random: Random
    ) -> Block | None:
        first, last = bisect_right(ends, hole.start), bisect_right(ends, hole.end)
        if first < _LEAST_PREFIX:
            return None
        cut = ends[last - 1]
        middle_ids = ids[first:last] + (self._tokenizer.encode(window.text[cut : hole.end]) if cut < hole.end else [])
        # One input is the prompt's last token, and one target the end mark.
        room = self._config.block_tokens - 1 - len(middle_ids)
        if not middle_ids or room < 0:
            return None
        num_back = min(random.choice(_BACK), first - 1, room)
        start = first - 1 - num_back
        block_ids = [*ids[start:first], *middle_ids, self._tokens.end]
        suffix = (window.text[hole.end :] + window.after)[: self._suffix_characters]
        has_suffix = random.random() < _SUFFIX_SHARE and bool(suffix.strip())
        return Block(
            kind=hole.kind,
            start=num_head + start,
            input_ids=block_ids[:-1],
            target_ids=block_ids[1:],
            weights=[_BACK_WEIGHT] * num_back + [1.0] * (len(middle_ids) + 1),
            num_back=num_back,
            suffix_ids=self._tokenizer.encode(suffix)[: self._config.suffix_tokens] if has_suffix else [],
        )

    @property
    def _suffix_characters(self) -> int:
        return self._config.suffix_tokens * CHARACTERS_PER_TOKEN
