"""The language server's questions over HTTP: paths, and a question as changes of an earlier one that was kept.

A question is the JSON of a message, such as `Context.to_wire`. It travels as pieces of an earlier question (`base`)
with a sum of its own, so that both sides hold the same text or detect that they do not. Knows no transport.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dgemma_engine.protocol.codec import Message
from dgemma_engine.protocol.text_delta import Piece, delta

SESSION_HEADER = "X-Session-Id"
"""Header by which a cluster routes a window to the engine with its documents; does not identify the user."""
ABOUT_PATH = "/v1/engine"
INFILL_PATH = "/v1/engine/infill"
TRACE_PATH = "/v1/engine/trace"
DEFINITIONS_PATH = "/v1/engine/definitions"
CANCEL_PATH = "/v1/engine/cancel"

BASE_UNKNOWN = 409
"""HTTP status where the earlier question is not kept any more: the whole question is to be sent."""

MAX_PIECES = 128
"""Most pieces of a question; one of more travels whole."""


@dataclass(frozen=True, slots=True)
class QuestionText:
    """One question as text.

    Attributes:
        text: JSON of a message, without unpaired surrogates, which UTF-8 cannot express.
        sum: SHA-256 of the text in UTF-8, in hexadecimal digits.
    """

    text: str
    sum: str

    @classmethod
    def of(cls, message: Message) -> QuestionText:
        """Returns a message as a question."""
        text = json.dumps(message.to_wire(), ensure_ascii=False, separators=(",", ":"))
        return cls.read(text.encode("utf-8", "replace").decode("utf-8"))

    @classmethod
    def read(cls, text: str) -> QuestionText:
        """Returns a text with its sum.

        Raises:
            UnicodeEncodeError: it has an unpaired surrogate.
        """
        return cls(text, hashlib.sha256(text.encode("utf-8")).hexdigest())


def envelope(
    question: QuestionText,
    base: QuestionText | None,
    *,
    protocol: int,
    session: str,
    request: str,
    number: int,
    drafts: bool,
) -> bytes:
    """Returns the body that asks a question.

    Args:
        question: what to ask.
        base: an earlier question that the other side is likely to have; None sends the whole.
        protocol: version of the messages.
        session: of the language server that asks: documents of two sessions are two, whatever they are called.
        request: names the request, to cancel it; no other request of the session has it.
        number: counts the questions of the session up; connections may overtake each other.
        drafts: whether drafts are wanted on the way.
    """
    pieces: Sequence[Piece] = [question.text]
    if base is not None and len(changes := delta(base.text, question.text)) <= MAX_PIECES:
        pieces = changes
    is_changed = any(not isinstance(piece, str) for piece in pieces)
    body: dict[str, Any] = {
        "protocol": protocol,
        "session": session,
        "request": request,
        "number": number,
        "base": base.sum if base is not None and is_changed else "",
        "pieces": pieces,
        "sum": question.sum,
        "drafts": drafts,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
