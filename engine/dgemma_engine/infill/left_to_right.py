"""Candidates from left to right: what the causal mode writes, and where it might as well have gone.

Wires `autoregressive.write` to a request: how a middle begins and ends, its draft, how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dgemma_engine.infill.autoregressive import Forks, Written, write
from dgemma_engine.infill.candidate import Proposal, Proposals
from dgemma_engine.infill.task import InfillTask
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.postprocess.block_end import whole_part
from dgemma_engine.postprocess.clean_candidate import cut_to_line
from dgemma_engine.prompt_lookup.draft import PromptLookup
from dgemma_engine.protocol.messages import CandidateSource, Extent, Finish
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.healed_start import HealedStart
from dgemma_engine.tokenization.token_healing import openings

# Forward passes where other candidates were found.
_SPECULATIVE_PASSES = 2
# Most tokens: where the user waits for them (each costs a pass), where this is the only source, and otherwise.
_MOST_TOKENS_ON_DEMAND, _MOST_ALONE, _MOST_OF_SEVERAL = 128, 32, 24
# Least probability of another beginning that is worth writing on from: on demand, and while the user types, where 0.05
# would take more than twice the passes for four right answers more of 400.
_LEAST_ON_DEMAND, _LEAST_TYPING = 0.05, 0.15


def propose(
    model: DiffusionModel, task: InfillTask, cache: PromptCache, cancel: Cancel, *, draft: str
) -> Pieces[Proposals]:
    """Writes candidates with the causal mode: one that checks a draft in a few passes, or gives up; without one, two.

    The first is greedy. The second begins like it, leaves it where that is likeliest, and is greedy from there. While
    the user types it is written if there is as much time as the first one took; on demand always, but of a block only
    if nothing is left of the first.

    Args:
        model: its causal mode is called once a pass; each pass is a step.
        task: the request.
        cache: the prompt; afterwards as before.
        cancel: asked before every pass.
        draft: the best candidate so far; empty if there is none.
    """
    writer = _Writer(model, task, cache, cancel, draft=draft)
    proposals, started_s = Proposals(), cancel.clock()
    forks = Forks() if task.options.forks and not draft else None
    written = yield from writer.write(proposals, writer.given_ids, writer.draft_ids(draft), forks=forks)
    first_s = cancel.clock() - started_s
    if forks is None:
        return proposals
    # Who asks for a line waits for the better of two, but not for two blocks.
    on_demand = task.context.on_demand
    is_in_time = cancel.finish is None and (on_demand or cancel.left_s >= first_s)
    if not is_in_time or (on_demand and task.context.extent is not Extent.LINE and task.shaped(proposals.found)):
        return proposals
    text = writer.inserted(written.ids)
    fork = forks.best(lambda ids: writer.leads_away(ids, text))
    if fork is not None and fork.logprob >= math.log(_LEAST_ON_DEMAND if on_demand else _LEAST_TYPING):
        # What followed in the first one often follows here as well.
        yield from writer.write(proposals, fork.ids, written.ids[len(fork.ids) :])
    return proposals


class _Writer:
    """Writes candidates of one request.

    Args:
        model: see `propose`, likewise the others.
        task: likewise.
        cache: likewise.
        cancel: likewise.
        draft: likewise.

    Attributes:
        given_ids: tokens that every middle begins with.
    """

    def __init__(
        self, model: DiffusionModel, task: InfillTask, cache: PromptCache, cancel: Cancel, *, draft: str
    ) -> None:
        self._model, self._task, self._cache, self._cancel = model, task, cache, cancel
        self._opening, self._ends = task.hole.boundary.opening, task.ends()
        self._has_draft, on_demand = bool(draft), task.context.on_demand
        self.given_ids: tuple[int, ...] = ()
        self._allowed: Callable[[Sequence[int]], Sequence[int] | None]
        if task.form.healing == "token":
            # A request on a blank line wants a line: an end at once would give none.
            barred_ids = self._ends.behind if task.is_blank_line else frozenset[int]()
            self._allowed = HealedStart(self._opening, task.spelling, barred_ids).allowed
        else:
            opening = openings(self._opening, task.spelling)[0]
            self.given_ids, self._allowed = opening.given_ids, opening.allowed
        most = _MOST_TOKENS_ON_DEMAND if on_demand else _MOST_OF_SEVERAL if draft else _MOST_ALONE
        self._max_tokens = task.options.slot_tokens or min(task.context.max_middle_tokens, most)
        self._max_passes = 1_000 if not draft or on_demand else _SPECULATIVE_PASSES

    def draft_ids(self, draft: str) -> list[int]:
        """Returns the tokens of a draft after the given ones; none where it does not begin with them."""
        if not draft:
            return []
        ids, num_given = self._task.tokenizer.encode(self._opening + draft), len(self.given_ids)
        # Tokens that straddle the opening are no continuation of it.
        return ids[num_given:] if tuple(ids[:num_given]) == self.given_ids else []

    def write(
        self,
        proposals: Proposals,
        begun_ids: Sequence[int],
        draft_ids: Sequence[int],
        *,
        forks: Forks | None = None,
    ) -> Pieces[Written]:
        """Writes one middle and adds it to the proposals, if it is one.

        Args:
            proposals: receives it, and the passes.
            begun_ids: its first tokens.
            draft_ids: a guess at those after them.
            forks: see the function `write`.
        """
        task, model, observer = self._task, self._model, self._task.observer
        writing = observer.writing(begun_ids, draft_ids) if observer is not None else None
        leaves, behind, num_guessed = task.block_end(), self._ends.behind, model.checked_at_once - 1
        if leaves is not None:
            for token_id in begun_ids[len(self.given_ids) :]:
                leaves(token_id)
        written = yield from write(
            model,
            self._cache,
            task.hole.prompt_ids[-1],
            forced_ids=begun_ids,
            allowed=self._allowed,
            draft_ids=draft_ids,
            banned_ids=task.banned_ids(),
            ends=behind.__contains__ if leaves is None else lambda one: one in behind or leaves(one),
            closes=self._closes,
            max_tokens=self._max_tokens,
            max_passes=self._max_passes,
            cancel=self._cancel,
            guess=None if num_guessed == 0 else PromptLookup(task.hole.around_ids, most=num_guessed).after,
            recorder=writing,
            forks=forks,
        )
        is_first = not proposals.passes
        proposals.passes += written.passes
        if is_first:
            proposals.finish = Finish.STABLE if written.ended else Finish.STEP_LIMIT
        # A second text that time ran out for says less than the first; a draft that was not confirmed says nothing.
        is_broken_off = self._has_draft and not task.context.on_demand if is_first else self._cancel.finish is not None
        if written.ended or not is_broken_off:
            text = self._text(written, is_block=leaves is not None)
            if text:
                found = Proposal(text=text, source=CandidateSource.LEFT_TO_RIGHT, is_cut=not written.ended)
                proposals.found.append(found)
            if writing is not None:
                writing.offered(text)
        return written

    def inserted(self, ids: Sequence[int]) -> str:
        """Returns what tokens of a middle insert at the cursor, as they are."""
        return self._task.tokenizer.decode([*ids])[len(self._opening) :]

    def leads_away(self, ids: Sequence[int], text: str) -> bool:
        """Whether a middle that begins with these tokens, and goes on, can only be another text than `text`."""
        if ids[-1] in self._ends.behind or self._closes(ids):
            return False
        begun, other = self.inserted(ids).strip(), text.strip()
        return bool(begun) and not other.startswith(begun) and not (other and begun.startswith(other))

    def _text(self, written: Written, *, is_block: bool) -> str:
        task = self._task
        text = task.text(written.ids)
        if is_block and not written.ended:
            whole = whole_part(text, task.context.prefix)
            text = whole if whole or task.context.on_demand else cut_to_line(text)
        return text

    def _closes(self, ids: Sequence[int]) -> bool:
        if ids[-1] not in self._ends.last:
            return False
        # Such a token may spell what was typed of the line and end it, or spell a line break of the prefix.
        inserted = self.inserted(ids)
        return cut_to_line(inserted) != inserted
