"""Messages about the definitions of names in a text: a request to the engine's parser, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.codec import Message

DEFINITIONS = "engine/definitions"


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionsQuery(Message):
    """A request to the engine's parser: how names are defined in a text.

    Attributes:
        text: a whole file.
        names: whose definitions are wanted.
        path: of the file; its suffix tells the language where `language` is empty.
        language: LSP language id; may be empty.
    """

    text: str
    names: tuple[str, ...]
    path: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions(Message):
    """What the parser found.

    Attributes:
        texts: definition by name, bodies left out, in the order of the file; names that are not defined are missing.
    """

    texts: dict[str, str]
