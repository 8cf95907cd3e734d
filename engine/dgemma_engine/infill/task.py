"""One request in token ids, with the rules of its hole: what every source of candidates works from.

Turns the tokens of a middle into the text that may be shown. Knows no tensors and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.candidate import Proposal
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.postprocess.block_end import BlockEnd
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.postprocess.shape import shaper
from dgemma_engine.prompting.builder import Hole
from dgemma_engine.protocol.messages import Context, Extent, OnDraft
from dgemma_engine.tokenization.token_healing import trimmed
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tokenization.vocabulary_index import Spelling


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillTask:
    """One request.

    Attributes:
        context: the request as it came.
        hole: the same in token ids.
        form: how the checkpoint wants holes.
        options: parts to leave out.
        tokenizer: of the checkpoint.
        spelling: of its tokens.
        on_draft: receives the text of the canvas after each denoising step, if the request asks for drafts.
        observer: receives what every step did; None costs nothing.
    """

    context: Context
    hole: Hole
    form: InfillFormat
    options: InfillOptions
    tokenizer: Tokenizer
    spelling: Spelling
    on_draft: OnDraft | None = None
    observer: Observer | None = None

    @property
    def is_blank_line(self) -> bool:
        """Whether one line is asked for, and nothing stands in it."""
        before, after = self.context.prefix.rpartition("\n")[2], self.context.suffix.partition("\n")[0]
        return self.context.extent is Extent.LINE and not (before.strip() or after.strip())

    def end_ids(self) -> frozenset[int]:
        """Returns the tokens that end the middle: of a line also those with a line break."""
        is_line = self.context.extent is Extent.LINE
        return self.hole.end_ids | self.spelling.with_line_break if is_line else self.hole.end_ids

    def banned_ids(self) -> list[int]:
        """Returns the special tokens that may not stand in the middle: all but those that end it."""
        allowed = self.hole.end_ids | {self.form.more_token_id}
        return [token_id for token_id in self.tokenizer.special_ids if token_id not in allowed]

    def text(self, ids: Sequence[int], *, before: Sequence[int] = ()) -> str:
        """Returns what may be shown of a middle; empty for nothing.

        Args:
            ids: its tokens.
            before: its tokens from earlier canvases.
        """
        ids = [*before, *ids]
        if leaves := self.block_end():
            ids = list(takewhile(lambda token_id: not leaves(token_id), ids))
        inserted = trimmed(self.tokenizer.decode(ids), self.hole.boundary)
        return clean_candidate(inserted, self.context) if inserted is not None else ""

    def shaped(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Returns the proposals with the texts that the user sees; those of which nothing is left are dropped."""
        shape = shaper(self.context)
        shapes = {text: shape(text) for text in {proposal.text for proposal in proposals}}
        return [
            replace(proposal, text=shaped.text, covered=shaped.covered)
            for proposal in proposals
            if (shaped := shapes[proposal.text]).text
        ]

    def block_end(self) -> Callable[[int], bool] | None:
        """Returns what tells, token by token, where the middle leaves its block; None where it may go on.

        Only of a block asked for on demand, for which the user waits, and for checkpoints that cannot end a middle.
        """
        context = self.context
        if context.extent is Extent.LINE or not (context.on_demand or self.form.fill_token_id is None):
            return None
        return BlockEnd(context.prefix, self.spelling.text_of, least_column=context.least_column)
