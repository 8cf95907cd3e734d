"""A document with a hole and a candidate text -> how many syntax errors the text adds to the document.

Keeps the last trees of documents, so that a keystroke or a candidate costs an incremental parse. Works on text and
grammars only. Odd text, a language without a grammar and a parse that takes too long are no faults: then the result is
unknown and every candidate passes.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgemma_engine.bounded_store import MOST_DOCUMENTS, BoundedStore
from dgemma_engine.protocol.messages import Context
from dgemma_engine.syntax.parsers import Grammar, Grammars, Parsed

if TYPE_CHECKING:
    from tree_sitter import Node, Tree

_CHARS_EACH_SIDE = 64 * 1024
_JUMP = _CHARS_EACH_SIDE // 4
_CHARS_KEPT = 4_000
_MOST_NODES = 20_000
# Broken text can take minutes (256 KiB of `a:` as CSS: 110 s); 256 KiB of good Python take 70 ms, an edit of it 6 ms.
_DOCUMENT_BUDGET_S = 0.25
_CANDIDATE_BUDGET_S = 0.05

# A line that does not begin inside a block, a bracket or a string that was opened above it.
_OUTERMOST_LINE = re.compile(r"^[^\s)\]}\"'`*]", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntaxCheck:
    """How candidates change the syntax errors of one document with a hole; made by `SyntaxStore.check`.

    Attributes:
        grammar: of the document; None for none.
        before: text before the hole, UTF-8.
        after: text after the hole, UTF-8.
        document: the tree with nothing in the hole; None where it could not be parsed.
        num_errors: errors of that; 0 where nothing is known.
    """

    grammar: Grammar | None
    before: bytes
    after: bytes
    document: Parsed | None
    num_errors: int

    @property
    def known(self) -> bool:
        """Whether the document could be parsed; if not, no candidate adds errors."""
        return self.document is not None

    def added_errors(self, text: str, covered: int = 0) -> int:
        """Returns the document's errors with `text` in the hole minus its errors with nothing there.

        Args:
            text: a candidate.
            covered: characters after the hole that the candidate replaces.

        Returns:
            At most 0 for a text that breaks nothing. 0 too where nothing is known, or if the parse takes too long.
        """
        if self.grammar is None or self.document is None or not text:
            return 0
        after = self.after.decode()[covered:].encode() if covered else self.after
        source = self.before + text.encode("utf-8", "replace") + after
        parsed = self.grammar.parse(source, self.document, budget_s=_CANDIDATE_BUDGET_S)
        return 0 if parsed is None else _num_errors(parsed.tree) - self.num_errors


class SyntaxStore:
    """The last tree of each document, least recently used out.

    Args:
        num_documents: most trees kept; 0 keeps none, and every check parses the document anew.
        max_bytes: of source whose trees are kept; the newest is kept whatever its size.
        clock: seconds that never go backwards; bounds a parse.
    """

    def __init__(
        self,
        *,
        num_documents: int = MOST_DOCUMENTS,
        max_bytes: int = 500_000,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._grammars = Grammars(clock=clock)
        self._documents: BoundedStore[tuple[str, str], Parsed] = BoundedStore(num_documents, max_weight=max_bytes)

    def check(self, context: Context) -> SyntaxCheck:
        """Parses the document with nothing in the hole: the whole blocks before and after it that are near enough.

        Args:
            context: document, text around the hole, language id and path. A non-empty language id decides; the
                path's suffix is used without one. Of a text of more than 64 Ki characters on one side of the hole only
                the whole lines near the hole are parsed.
        """
        grammar = self._grammars.get(context.language, context.path)
        name = "" if grammar is None else grammar.name
        text, rest = context.prefix, context.suffix[:_CHARS_EACH_SIDE]
        # In jumps: most keystrokes leave the cut alone.
        far = max(0, len(text) - _CHARS_EACH_SIDE) // _JUMP * _JUMP
        # Whoever sent the text may have cut it too: a file does not begin inside a block, and where it ends is not
        # known. Begun inside a docstring, all code is string and all strings are code; so it is cut at outermost lines.
        if far or (len(text) > _CHARS_KEPT and text[:1].isspace()):
            outermost = _OUTERMOST_LINE.search(text, far)
            text = text[outermost.start() if outermost else far :]
        if ends := deque(_OUTERMOST_LINE.finditer(rest, max(_CHARS_KEPT, len(rest) - _JUMP)), maxlen=1):
            rest = rest[: ends[0].start()]
        # A lone surrogate becomes a question mark.
        before, after = text.encode("utf-8", "replace"), rest.encode("utf-8", "replace")
        last = self._documents.pop((context.document, name))
        document = None if grammar is None else grammar.parse(before + after, last, budget_s=_DOCUMENT_BUDGET_S)
        if document is not None:
            self._documents.put((context.document, name), document, weight=len(document.source))
        num_errors = 0 if document is None else _num_errors(document.tree)
        return SyntaxCheck(grammar=grammar, before=before, after=after, document=document, num_errors=num_errors)


def _num_errors(tree: Tree) -> int:
    """Counts tokens that the parser skipped or inserted, in a bounded number of nodes from the tree's start."""
    num_errors = 0
    nodes: list[Node] = [tree.root_node]
    visited = 0
    while nodes and visited < _MOST_NODES:
        visited += 1
        node = nodes.pop()
        num_errors += node.is_error or node.is_missing
        if node.has_error:
            nodes.extend(reversed(node.children))
    return num_errors
