"""The question that every dialect makes of a body, and its answer: plain values, independent of any dialect.

`Question` -> the engine's `Context`; the engine's `Infill` -> `Answer`, whose texts can be inserted at the cursor as
they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from dgemma_engine.http_api.completions.language_ids import language_of
from dgemma_engine.http_api.completions.line_ends import is_windows, windows_text
from dgemma_engine.postprocess.cursor_context import SHAPING_CHARS, extent_of, normalize_newlines
from dgemma_engine.protocol.messages import (
    Candidate,
    CandidateSource,
    Context,
    DocumentEdges,
    Extent,
    Finish,
    Infill,
    Snippet,
)

_PREFIX_CHARS, _SUFFIX_CHARS = 16_000, 8_000
# Approximate size of the prompt: the characters above, and snippets.
CONTEXT_TOKENS = 8_192
_MOST_SEED = 2**63
# Bytes of source code per token, on average.
_BYTES_PER_TOKEN = 4


class StopKind(StrEnum):
    """Why a text ends where it does."""

    END = "end"
    WORD = "word"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request for the text at a cursor.

    Attributes:
        prefix: text before the cursor.
        suffix: text after it.
        path: of the document; may be empty, and may be a whole path.
        language: LSP language id; empty is taken from the path.
        snippets: text of other files, most relevant last.
        edits: see `Context.edits`.
        max_tokens: most tokens; None is the server's limit, 0 only encodes the prompt.
        num_candidates: most texts in the answer.
        stop: the text ends before the first of these.
        seed: any number.
        deadline_ms: milliseconds for the answer; None is the server's.
    """

    prefix: str
    suffix: str = ""
    path: str = ""
    language: str = ""
    snippets: tuple[Snippet, ...] = ()
    edits: tuple[Snippet, ...] = ()
    max_tokens: int | None = None
    num_candidates: int = 1
    stop: tuple[str, ...] = ()
    seed: int = 0
    deadline_ms: float | None = None

    @property
    def is_warm_up(self) -> bool:
        """Whether nothing but the encoding of the prompt is asked for."""
        return self.max_tokens == 0

    def to_context(
        self,
        *,
        document: str,
        prefix: str,
        deadline_ms: float,
        max_middle_tokens: int,
        speculative: bool,
        insistent: bool,
    ) -> Context:
        """Returns the engine's request.

        Args:
            document: key of the document.
            prefix: end of `self.prefix` that the model reads.
            deadline_ms: milliseconds for the answer, where the question names none.
            max_middle_tokens: most tokens, whatever the question asks for.
            speculative: whether the answer is prepared ahead.
            insistent: whether the best text is wanted however unlikely it is.
        """
        above = normalize_newlines(self.prefix.removesuffix(prefix))
        prefix, suffix = normalize_newlines(prefix), normalize_newlines(self.suffix)
        before, rest = prefix.rpartition("\n")[2], suffix.partition("\n")[0]
        language = self.language or language_of(self.path)
        is_line = "\n" in self.stop
        most = max_middle_tokens if self.max_tokens is None else min(self.max_tokens, max_middle_tokens)
        return Context(
            document=document,
            prefix=prefix,
            suffix=suffix[:_SUFFIX_CHARS],
            path=self.path,
            language=language,
            snippets=tuple(Snippet(path=one.path, text=normalize_newlines(one.text)) for one in self.snippets),
            edits=self.edits,
            extent=Extent.LINE if is_line else extent_of(before, rest, language),
            max_middle_tokens=max(1, most),
            deadline_ms=min(deadline_ms if self.deadline_ms is None else self.deadline_ms, 600_000.0),
            seed=self.seed % _MOST_SEED,
            speculative=speculative,
            insistent=insistent,
            edges=DocumentEdges(
                above=above[-SHAPING_CHARS:],
                below=suffix[_SUFFIX_CHARS:SHAPING_CHARS],
                is_cut=len(above) > SHAPING_CHARS,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerText:
    """One text to insert at the cursor.

    Attributes:
        text: as it is inserted.
        score: see `Candidate.score`; 0 for an empty text.
        stop: why it ends there.
        stop_word: the entry of `Question.stop` that ended it; else empty.
        num_tokens: how many tokens it has; at most that many where a stop word ended it.
    """

    text: str
    score: float
    stop: StopKind
    stop_word: str = ""
    num_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a question.

    Attributes:
        model: name of the model, never a path.
        texts: best first, at least one; an empty text is "nothing to say".
        num_prompt_tokens: tokens of the prompt; where no model was asked, about as many as the texts have.
        num_cached_tokens: those of them that an earlier request had encoded.
        infill: the engine's own answer.
    """

    model: str
    texts: tuple[AnswerText, ...]
    num_prompt_tokens: int
    infill: Infill
    num_cached_tokens: int = 0

    @property
    def best(self) -> AnswerText:
        """The text to show."""
        return self.texts[0]

    @property
    def num_tokens(self) -> int:
        """How many tokens all texts have."""
        return sum(one.num_tokens for one in self.texts)

    @property
    def prompt_ms(self) -> float:
        """Milliseconds for reading the prompt."""
        return sum(self.infill.timings_ms.get(name, 0.0) for name in ("tokenize", "encode"))

    @property
    def middle_ms(self) -> float:
        """Milliseconds for everything else that the engine did for this request."""
        timings = self.infill.timings_ms
        waited_ms = sum(timings.get(name, 0.0) for name in ("queue", "others"))
        return max(0.0, timings.get("total", 0.0) - waited_ms - self.prompt_ms)


def sent_prefix(question: Question, start: int) -> str:
    """Returns the end of the prefix that the model reads, at most 16,000 characters, cut where a line starts.

    The place of the cut moves by a quarter of that only, so that prompts go on beginning alike while a user types.

    Args:
        question: whose prefix.
        start: characters to leave out at its beginning in any case.
    """
    over = len(question.prefix) - start - _PREFIX_CHARS
    if over <= 0:
        return question.prefix[start:]
    jump = _PREFIX_CHARS // 4
    cut = start + -(-over // jump) * jump
    line_start = question.prefix.find("\n", max(cut - 1, 0), cut + jump) + 1
    return question.prefix[line_start or cut :]


def to_answer(question: Question, infill: Infill, *, model: str, first: int = 0) -> Answer:
    """Returns the texts of an engine's answer that can be inserted as they are, cut at the stop words.

    Args:
        question: the question.
        infill: the engine's answer to it.
        model: name of the model.
        first: index of the candidate to begin with, where several clients share the work.
    """
    offered = infill.candidates or (_candidate(infill),)
    texts: dict[str, AnswerText] = {}
    # Work for another client may have been shared, and the engine has no limit of 0 tokens.
    for one in offered if infill.text and not question.is_warm_up else ():
        cut = _before_stop(one, _insertable(one, normalize_newlines(question.suffix)), question.stop)
        if cut.text:
            texts.setdefault(cut.text, cut)
    found = list(texts.values())
    first = first % len(found) if found else 0
    found = (found[first:] + found[:first])[: question.num_candidates]
    if is_windows(question.prefix, question.suffix):
        found = [replace(one, text=windows_text(one.text)) for one in found]
    return Answer(
        model=model,
        texts=tuple(found) or (AnswerText(text="", score=0.0, stop=StopKind.END),),
        num_prompt_tokens=infill.prompt_tokens or _approximate_prompt(question),
        infill=infill,
        num_cached_tokens=infill.prompt_tokens - infill.encoded_tokens,
    )


def _approximate_prompt(question: Question) -> int:
    texts = (question.prefix, question.suffix, *(one.text for one in question.snippets))
    return sum(map(approximate_tokens, texts))


def stop_words(stop: str | list[str] | None) -> tuple[str, ...]:
    """Returns the words that end a text; empty ones, which would end every text, are left out."""
    words = [stop] if isinstance(stop, str) else stop or []
    return tuple(word for word in words if word)


def approximate_tokens(text: str) -> int:
    """Returns about how many tokens a text has: its bytes over four, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def _insertable(candidate: Candidate, suffix: str) -> str:
    """Returns a candidate without the text after the cursor that it repeats; empty where it cannot be inserted."""
    if not candidate.covered:
        return candidate.text
    covered = suffix[: candidate.covered]
    return candidate.text.removesuffix(covered) if candidate.text.endswith(covered) else ""


def _before_stop(candidate: Candidate, text: str, stop: Sequence[str]) -> AnswerText:
    """Returns a candidate's text up to the first of the stop words."""
    num_tokens = candidate.num_tokens or approximate_tokens(text)
    places = [(place, word) for word in stop if word and (place := text.find(word)) >= 0]
    if places:
        place, word = min(places)
        text = text[:place]
        num_tokens = min(num_tokens, approximate_tokens(text))
        return AnswerText(text=text, score=candidate.score, stop=StopKind.WORD, stop_word=word, num_tokens=num_tokens)
    ends = StopKind.LIMIT if candidate.is_cut else StopKind.END
    return AnswerText(text=text, score=candidate.score, stop=ends, num_tokens=num_tokens)


def _candidate(infill: Infill) -> Candidate:
    """Returns an answer's text as a candidate, for an engine that lists none."""
    return Candidate(
        text=infill.text,
        score=infill.score,
        source=CandidateSource.DIFFUSION,
        covered=infill.covered,
        is_cut=infill.finish in (Finish.STEP_LIMIT, Finish.DEADLINE),
    )
