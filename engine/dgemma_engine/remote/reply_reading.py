"""A reply -> the JSON object of an engine, or the fault that it stands for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from dgemma_engine.errors import EngineFault, NotNow, OutOfReach
from dgemma_engine.protocol.codec import Message
from dgemma_engine.protocol.handshake import PROTOCOL
from dgemma_engine.remote import fault_sentences
from dgemma_engine.remote.back_off import BackOff
from dgemma_engine.remote.http_channel import Broken, Reply

# A day: no engine takes longer.
_MOST_MS = 86_400_000.0

_Answer = TypeVar("_Answer", bound=Message)


class Loading(NotNow):
    """The engine is there and has no model yet."""


def read_object(reply: Reply, place: str, back_off: BackOff) -> Mapping[str, Any]:
    """Returns the object of a reply that answers.

    Args:
        reply: the whole reply.
        place: host and port, for the user.
        back_off: receives the pause of a busy machine.

    Raises:
        OutOfReach: something else answers, or an engine that cannot be asked.
        Loading: the engine has no model yet.
        NotNow: the engine is busy, or the question too long for it.
        EngineFault: the engine failed on this question.
        Broken: one of several engines is lost.
    """
    body = cast("Mapping[str, Any]", reply.body) if isinstance(reply.body, dict) else None
    if body is not None and (other := body.get("protocol", PROTOCOL)) != PROTOCOL:
        if isinstance(other, bool) or not isinstance(other, int):
            raise OutOfReach(fault_sentences.of_foreign_answer(reply.status, place))
        raise OutOfReach(fault_sentences.of_version(other, PROTOCOL, place))
    if reply.status == 429 or (reply.status == 503 and reply.retry_after_s and "protocol" not in (body or {})):
        # 503 of an engine that loads has the protocol; without, there are too many connections.
        back_off.busy(reply.retry_after_s)
        raise NotNow(_busy(place, back_off))
    if body is None and reply.status in (500, 503):
        # Ray's own reply for a replica that ended, or is not there yet: the next one answers.
        raise Broken("a lost replica")
    if body is None or (reply.status != 200 and not isinstance(body.get("error"), dict)):
        raise OutOfReach(fault_sentences.of_foreign_answer(reply.status, place))
    if reply.status == 200:
        return body
    if reply.status in (401, 403):
        raise OutOfReach(fault_sentences.of_refusal(reply.status, place))
    if "protocol" not in body:
        # An engine from before these paths, or a server of another program.
        raise OutOfReach(fault_sentences.of_foreign_answer(reply.status, place))
    if reply.status == 503:
        raise Loading(f"{place}: the engine loads its model, or has failed to; its status says more")
    if reply.status == 413:
        raise NotNow(f"{place}: the document is too long for this engine")
    if reply.status in (400, 415, 422, 431):
        raise OutOfReach(fault_sentences.of_refusal(reply.status, place))
    raise EngineFault(f"{place}: the engine failed on this question (HTTP status {reply.status}); its log says more")


def read_elapsed_ms(body: Mapping[str, Any]) -> float:
    """Returns the milliseconds that the engine took for an answer; 0 where it names none that can be."""
    elapsed_ms = body.get("elapsed_ms")
    if isinstance(elapsed_ms, bool) or not isinstance(elapsed_ms, int | float):
        return 0.0
    # NaN is in no range.
    return float(elapsed_ms) if 0 <= elapsed_ms <= _MOST_MS else 0.0


def leave_alone(place: str, back_off: BackOff) -> None:
    """Checks that no pause runs that a busy machine has asked for.

    Raises:
        NotNow: one runs.
    """
    if back_off.left_s:
        raise NotNow(_busy(place, back_off))


def _busy(place: str, back_off: BackOff) -> str:
    return f"{place} has too much to do; it can be asked again in {back_off.left_s:.0f} s"


def read_message(wire: object, read: Callable[[Mapping[str, Any]], _Answer]) -> _Answer:
    """Returns a message that an engine has sent.

    Args:
        wire: decoded JSON.
        read: `from_wire` of the message.

    Raises:
        Broken: it is no such message.
    """
    if not isinstance(wire, dict):
        raise Broken("no message")
    try:
        return read(cast("Mapping[str, Any]", wire))
    except ValueError:
        raise Broken("another message") from None
