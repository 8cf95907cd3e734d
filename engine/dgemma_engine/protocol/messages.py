"""Messages of the socket: plain values, standard library only.

Every message is a frozen dataclass; see `codec` for `to_wire` and `from_wire`. Knows no tensors, tokens or transport.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from dgemma_engine.protocol.codec import Message

INFILL = "engine/infill"
DRAFT = "engine/draft"


class Finish(StrEnum):
    """Why an infill ended."""

    STABLE = "stable"
    STEP_LIMIT = "step_limit"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    EMPTY = "empty"


class Extent(StrEnum):
    """How far a middle may reach: to the end of the cursor's line, or over several lines."""

    LINE = "line"
    BLOCK = "block"


class CandidateSource(StrEnum):
    """What proposed a candidate."""

    DIFFUSION = "diffusion"
    LEFT_TO_RIGHT = "left_to_right"
    SEED = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A piece of text from elsewhere in the project.

    Attributes:
        path: where it stands, for the model to see; may be relative.
        text: its text.
    """

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEdges(Message):
    """How `Context.prefix` and `Context.suffix` lie in their document; the shape of an answer depends on the document.

    Attributes:
        above: text of the document right before the prefix, which the model does not see.
        below: text of the document right after the suffix, likewise.
        num_before: characters at the prefix's start that are not of the document: other cells of a notebook.
        num_after: likewise at the suffix's end.
        is_cut: whether the document has text before `above`.
    """

    above: str = ""
    below: str = ""
    num_before: int = 0
    num_after: int = 0
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Message):
    """One request to the engine: strings and numbers only.

    Attributes:
        document: key under which the newest request wins; any string that is stable for an open document.
        prefix: text before the cursor.
        suffix: text after the cursor.
        path: file path for the model to see; may be empty.
        language: LSP language id, e.g. `python`; may be empty.
        snippets: text from elsewhere, most relevant last.
        edits: recent edits of the user, each as lines that begin with `-` or `+`, newest last.
        extent: how far the middle may reach.
        max_middle_tokens: most tokens in the middle (1 to 4,096).
        deadline_ms: milliseconds from arrival at the engine until an answer is due; 0 means none is waited for.
        seed: seed of the random draws, 0 to 2**63 - 1; the same seed gives the same text.
        drafts: id that the drafts of this request are sent under; empty asks for none.
        speculative: whether the answer is prepared ahead: the request runs only while there is no other request of any
            client, and ends with `CANCELLED` as soon as one comes.
        on_demand: whether the user waits for a fill: the best candidates that break no syntax are answered however
            unlikely they are, and requests for ghost text are served first.
        insistent: whether the best candidate is wanted however unlikely it is: the user asked by hand.
        least_column: least indentation of the lines of a middle on demand, the first excepted, tabs to multiples of
            eight; lines further out are cut. -1 is the indentation of the block that the hole is in.
        edges: the parts of the document outside of `prefix` and `suffix`.
        folder: absolute path, on the engine's machine, of the folder that the document is in: an adapter of the nearest
            repository at or above it takes part. Empty asks the model as it is, as every request over HTTP does.
    """

    document: str
    prefix: str
    suffix: str
    path: str = ""
    language: str = ""
    snippets: tuple[Snippet, ...] = ()
    edits: tuple[Snippet, ...] = ()
    extent: Extent = Extent.LINE
    max_middle_tokens: int = 64
    deadline_ms: float = 1_000.0
    seed: int = 0
    drafts: str = ""
    speculative: bool = False
    on_demand: bool = False
    insistent: bool = False
    least_column: int = -1
    edges: DocumentEdges = field(default_factory=DocumentEdges)
    folder: str = ""

    def __post_init__(self) -> None:
        if self.folder and (not self.folder.startswith("/") or "\0" in self.folder):
            raise ValueError(f"{self.folder=} must be an absolute path")
        if self.speculative and self.on_demand:
            raise ValueError(f"{self.speculative=} and {self.on_demand=} exclude each other")
        if not 1 <= self.max_middle_tokens <= 4_096:
            raise ValueError(f"{self.max_middle_tokens=} must be between 1 and 4096")
        if not 0 <= self.deadline_ms <= 600_000:
            raise ValueError(f"{self.deadline_ms=} must be between 0 and 600000 (ten minutes)")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"{self.seed=} must be between 0 and 2**63 - 1")
        if self.least_column < -1:
            raise ValueError(f"{self.least_column=} must be a column, or -1 for that of the block")
        if not 0 <= self.edges.num_before <= len(self.prefix):
            raise ValueError(f"{self.edges.num_before=} must be between 0 and the prefix's length, {len(self.prefix)}")
        if not 0 <= self.edges.num_after <= len(self.suffix):
            raise ValueError(f"{self.edges.num_after=} must be between 0 and the suffix's length, {len(self.suffix)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSpan(Message):
    """A part of a draft, of one confidence.

    Attributes:
        text: the part.
        confidence: probability of its token, 0 to 1.
        settled: whether it is likely to stay as it is.
    """

    text: str
    confidence: float
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(Message):
    """The text of a request between denoising steps; sent to the client that asked for drafts, before the answer.

    Attributes:
        request: `Context.drafts` of the request.
        step: denoising steps made; a slow reader does not get every one.
        steps_limit: most steps as far as is known; grows with each further canvas, 0 if unknown.
        text: the best text so far, as it would be inserted.
        spans: `text` in parts.
    """

    request: str
    step: int
    text: str
    spans: tuple[DraftSpan, ...]
    steps_limit: int = 0

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"{self.step=} must not be negative")
        if self.steps_limit < 0:
            raise ValueError(f"{self.steps_limit=} must not be negative")
        for span in self.spans:
            if not 0.0 <= span.confidence <= 1.0:
                raise ValueError(f"{span.confidence=} must be between 0 and 1")
        if self.text != "".join(span.text for span in self.spans):
            # Without the texts: they are the user's, and this message may be logged.
            raise ValueError("Draft.text must be the texts of Draft.spans joined")


OnDraft = Callable[[Draft], None]
"""Receives the drafts of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Message):
    """A candidate for a hole.

    Attributes:
        text: text to insert at the cursor.
        score: its score in the ranking, 0 to 1.
        source: what proposed it.
        covered: characters after the cursor, on its line, that the text replaces.
        num_tokens: tokens that the text adds to the document, of the model's own; at most `Context.max_middle_tokens`.
        is_cut: whether the middle goes on after the text: a limit ended it.
    """

    text: str
    score: float
    source: CandidateSource
    covered: int = 0
    num_tokens: int = 0
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterUse(Message):
    """Whether an adapter of the user's repository took part in an answer.

    Attributes:
        root: the repository that has an adapter; empty where there is none.
        fault: why the model answered without it, and what to do; empty where it took part.
    """

    root: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Infill(Message):
    """The engine's answer.

    Attributes:
        text: text to insert at the cursor, as it is shown; empty when there is nothing to show.
        covered: characters after the cursor, on its line, that the text replaces.
        finish: why the engine stopped.
        score: probability that the text is what would have been typed, 0 to 1, as far as the model is calibrated; that
            of its tokens where there is no calibration or time ran out; 0 for an empty text.
        steps: denoising steps spent on this request.
        timings_ms: milliseconds per stage: `queue`, `tokenize`, `encode`, `propose`, `denoise`, `rank`, `total`; and
            `others`: time spent on requests of other connections in between.
        forwards: model passes over canvases and candidates spent on this request; encoding of the prompt not counted.
        candidates: what was considered, best first; where `text` is not empty and there are any, it is the first.
        unlikely: whether `text` stays below the model's threshold and is answered only because the request was
            `insistent` or `on_demand`.
        prompt_tokens: tokens that the model reads before it writes; 0 where no model was asked.
        encoded_tokens: those of them that were not known from an earlier request of the document.
        adapter: whether an adapter took part; without meaning for a request that was not begun.
    """

    text: str
    finish: Finish
    score: float = 0.0
    steps: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict[str, float])
    forwards: int = 0
    candidates: tuple[Candidate, ...] = ()
    unlikely: bool = False
    covered: int = 0
    prompt_tokens: int = 0
    encoded_tokens: int = 0
    adapter: AdapterUse = field(default_factory=AdapterUse)

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"{self.score=} must be between 0 and 1")
        if self.steps < 0:
            raise ValueError(f"{self.steps=} must not be negative")
        if self.forwards < 0:
            raise ValueError(f"{self.forwards=} must not be negative")
        if not 0 <= self.encoded_tokens <= self.prompt_tokens:
            raise ValueError(f"{self.encoded_tokens=} must be between 0 and {self.prompt_tokens=}")
        for candidate in self.candidates:
            if not 0.0 <= candidate.score <= 1.0:
                raise ValueError(f"{candidate.score=} must be between 0 and 1")
            if candidate.num_tokens < 0:
                raise ValueError(f"{candidate.num_tokens=} must not be negative")
        best = self.candidates[0] if self.text and self.candidates else self
        if (best.text, best.covered) != (self.text, self.covered):
            raise ValueError("Infill.text and Infill.covered must be those of the first of Infill.candidates")
        if self.unlikely and not self.text:
            raise ValueError(f"{self.unlikely=} needs a text")
        if self.adapter.fault and not self.adapter.root:
            raise ValueError(f"{self.adapter.fault=} needs a root")
