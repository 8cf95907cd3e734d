"""One request in token ids, with the rules of its hole: what every source of candidates works from.

Turns a `Context` into a `Hole`: what the prompt holds, what is clamped, what may end the middle; and the tokens of a
middle into the text that may be shown. Knows no tensors and no model.
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
from dgemma_engine.model.dimensions import ModelDimensions
from dgemma_engine.postprocess.block_end import BlockEnd
from dgemma_engine.postprocess.clean_candidate import clean_candidate
from dgemma_engine.postprocess.shape import ShapedText, shaper, without_covered
from dgemma_engine.protocol.messages import Context, Extent, OnDraft, Snippet
from dgemma_engine.tokenization.healed_start import back_off_token
from dgemma_engine.tokenization.token_healing import Boundary, back_off, trimmed
from dgemma_engine.tokenization.tokenizer import CHARACTERS_PER_TOKEN, Spelling, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Token ids of one request.

    Attributes:
        boundary: where prefix and suffix were cut.
        prompt_ids: what the causal encoder reads.
        parallel_ids: the suffix as it is encoded beside the prompt; empty where the format has none.
        head_ids: suffix tokens clamped after the slot; empty when the rest of the file is blank.
        end_ids: tokens that end a middle; empty for a checkpoint that has none and a file that goes on.
        is_last: whether the rest of the file is blank.
        around_ids: of the text around, what stands after the hole and then what stands before it.
    """

    boundary: Boundary
    prompt_ids: list[int]
    parallel_ids: list[int]
    head_ids: tuple[int, ...]
    end_ids: frozenset[int]
    is_last: bool
    around_ids: list[int]


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


def build_prompt(
    context: Context,
    tokenizer: Tokenizer,
    form: InfillFormat,
    config: ModelDimensions,
    *,
    settled: Callable[[list[int], int], list[int]] | None = None,
) -> Hole:
    """Returns the hole of a request.

    Args:
        context: the request.
        tokenizer: of the checkpoint.
        form: of the prompts and canvases that the checkpoint expects.
        config: of the model.
        settled: returns the suffix to put into the prompt, given the real one and how many leading tokens of it are
            clamped on the canvas; None takes the real one. Not called for a suffix that stands last, whose tokens are
            encoded anew with each key anyway.
    """
    is_last = not context.suffix.strip()
    if form.healing == "none":
        boundary = Boundary(prefix=context.prefix, opening="", closing="", suffix=context.suffix)
    elif form.healing == "token":
        boundary = back_off_token(context.prefix, context.suffix, tokenizer)
    else:
        boundary = back_off(context.prefix, context.suffix)
    if form.fill_token_id is not None or is_last:
        # The middle may end anywhere.
        boundary = replace(boundary, closing="", suffix=boundary.closing + boundary.suffix)
    # In jumps, so that the prompt of the next key begins alike.
    budget = form.prefix_tokens * CHARACTERS_PER_TOKEN
    jump = max(1, budget // 4)
    start = max(0, -(-(len(boundary.prefix) - budget) // jump) * jump)
    prefix_ids = tokenizer.encode(boundary.prefix[start:])
    suffix_budget = max(form.suffix_tokens, form.suffix_head_tokens) * CHARACTERS_PER_TOKEN
    suffix = "" if is_last else boundary.suffix[:suffix_budget]
    suffix_ids = tokenizer.encode(suffix)
    end_ids: set[int] = set() if form.fill_token_id is None else {form.fill_token_id}
    if is_last:
        end_ids.update(config.eos_token_ids)
    # Half the canvas stays free, whatever the format asks for.
    head_ids = tuple(suffix_ids[: min(form.suffix_head_tokens, config.canvas_length // 2)])
    prompt_suffix_ids = suffix_ids[: form.suffix_tokens]
    if settled is not None and form.suffix_tokens and not form.suffix_last:
        prompt_suffix_ids = settled(prompt_suffix_ids, len(head_ids))
    num_parallel = 0 if is_last else form.parallel_suffix_tokens
    name = context.path.rstrip("/").rpartition("/")[2]
    return Hole(
        boundary=boundary,
        prompt_ids=form.prompt_ids(
            prefix_ids=prefix_ids,
            suffix_ids=prompt_suffix_ids,
            snippet_ids=_snippet_ids((*context.snippets, *context.edits), tokenizer, form.snippet_tokens),
            bos_token_id=config.bos_token_id,
            name_ids=tokenizer.encode(f"{name}\n") if form.name_token_id is not None and name else (),
        ),
        parallel_ids=tokenizer.encode(context.suffix[: num_parallel * CHARACTERS_PER_TOKEN])[:num_parallel],
        head_ids=head_ids,
        end_ids=frozenset(end_ids),
        is_last=is_last,
        around_ids=[*suffix_ids, *prefix_ids],
    )


def _snippet_ids(snippets: Sequence[Snippet], tokenizer: Tokenizer, budget: int) -> list[int]:
    """Returns whole snippets under their paths, the most relevant last; those that do not fit are left out."""
    chosen: list[list[int]] = []
    for snippet in reversed(snippets):
        ids = tokenizer.encode(f"# {snippet.path}\n{snippet.text[: budget * CHARACTERS_PER_TOKEN]}\n")
        if len(ids) > budget:
            continue
        budget -= len(ids)
        chosen.append(ids)
    return [token_id for ids in reversed(chosen) for token_id in ids]
