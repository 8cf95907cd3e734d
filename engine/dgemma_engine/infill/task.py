"""One request in token ids, with the rules of its hole: what every source of candidates works from.

Turns the tokens of a middle into the text that may be shown. Knows no tensors and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.candidate import MiddleEnds, Proposal
from dgemma_engine.infill.observer import Observer
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.postprocess.block_end import BlockEnd
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.postprocess.shape import ShapedText, shaper, without_covered
from dgemma_engine.prompting.builder import Hole
from dgemma_engine.protocol.messages import Context, Extent, OnDraft
from dgemma_engine.tokenization.token_healing import trimmed
from dgemma_engine.tokenization.tokenizer import Spelling, Tokenizer


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
        calibration: of the model with the adapter that takes part.
        on_draft: receives the text of the canvas after each denoising step, if the request asks for drafts.
        observer: receives what every step did; None costs nothing.
    """

    context: Context
    hole: Hole
    form: InfillFormat
    options: InfillOptions
    tokenizer: Tokenizer
    spelling: Spelling
    calibration: Calibration
    on_draft: OnDraft | None = None
    observer: Observer | None = None

    @property
    def is_blank_line(self) -> bool:
        """Whether one line is asked for, and nothing stands in it."""
        before, after = self.context.prefix.rpartition("\n")[2], self.context.suffix.partition("\n")[0]
        return self.context.extent is Extent.LINE and not (before.strip() or after.strip())

    def ends(self) -> MiddleEnds:
        """Returns the tokens that end the middle: of a line also a line break, with the line's last text or without."""
        if self.context.extent is not Extent.LINE:
            return MiddleEnds(behind=self.hole.end_ids)
        last = self.spelling.closing_line
        return MiddleEnds(behind=self.hole.end_ids | (self.spelling.with_line_break - last), last=last)

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
        """Returns the proposals with the texts that the user sees, each within the request's limit of tokens.

        Those of which nothing is left are dropped. Of a text that does not fit, the longest beginning that is found to
        fit is taken: it ends where a token ends, and of several lines where one of them ends. It is cut before it is
        shaped, so that what it opens is closed.
        """
        shape, most = shaper(self.context), self.context.max_middle_tokens
        shapes: dict[str, tuple[ShapedText, int, bool]] = {}
        for text in {proposal.text for proposal in proposals}:
            shaped, is_cut, num_kept = shape(text), False, most
            while True:
                # What the shape repeats of the line's rest is in the document already.
                added = without_covered(shaped.text, shaped.covered, self.context.suffix)
                num_tokens = self.tokenizer.count(shaped.text if added is None else added)
                if num_tokens <= most:
                    break
                if is_cut:
                    # Half of what is over: a bracket less needs none that closes it.
                    num_kept -= (num_tokens - most + 1) // 2
                shaped, is_cut = shape(self._head(text, num_kept)), True
            shapes[text] = shaped, num_tokens, is_cut
        return [
            replace(
                proposal,
                text=shaped.text,
                covered=shaped.covered,
                num_tokens=num_tokens,
                is_cut=proposal.is_cut or is_cut,
            )
            for proposal in proposals
            for shaped, num_tokens, is_cut in (shapes[proposal.text],)
            if shaped.text
        ]

    def _head(self, text: str, num_tokens: int) -> str:
        """Returns the beginning of a text with at most so many tokens: without the line that it ends within, if any."""
        head = self.tokenizer.head(text, num_tokens)
        lines = head.rpartition("\n")[0]
        return lines if lines.strip() and not text[len(head) :].startswith("\n") else head

    def block_end(self) -> Callable[[int], bool] | None:
        """Returns what tells, token by token, where the middle leaves its block; None where it may go on.

        Only of a block asked for on demand, for which the user waits, and for checkpoints that cannot end a middle.
        """
        context = self.context
        if context.extent is Extent.LINE or not (context.on_demand or self.form.fill_token_id is None):
            return None
        return BlockEnd(context.prefix, self.spelling.text_of, least_column=context.least_column)
