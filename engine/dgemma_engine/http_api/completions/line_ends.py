"""Line ends of a document: the engine reads and writes `\\n`; a text for a document with `\\r\\n` gets those. Pure."""

from __future__ import annotations

from dataclasses import replace

from dgemma_engine.postprocess.cursor_context import normalize_newlines
from dgemma_engine.protocol.messages import Context, Draft, Infill


def is_windows(prefix: str, suffix: str) -> bool:
    """Returns whether a document has `\\r\\n`, before or after the cursor."""
    return "\r\n" in prefix + suffix


def windows_text(text: str) -> str:
    """Returns a text with `\\r\\n` for every line end."""
    return normalize_newlines(text).replace("\n", "\r\n")


def unix_context(context: Context) -> Context:
    """Returns a request with `\\n` for every line end; counts of characters are of the texts as they are then."""
    edges, num_after = context.edges, context.edges.num_after
    after = context.suffix[len(context.suffix) - num_after :]
    return replace(
        context,
        prefix=normalize_newlines(context.prefix),
        suffix=normalize_newlines(context.suffix),
        snippets=tuple(replace(one, text=normalize_newlines(one.text)) for one in context.snippets),
        edges=replace(
            edges,
            above=normalize_newlines(edges.above),
            below=normalize_newlines(edges.below),
            num_before=len(normalize_newlines(context.prefix[: edges.num_before])),
            num_after=len(normalize_newlines(after)),
        ),
    )


def windows_infill(infill: Infill) -> Infill:
    """Returns an answer with `\\r\\n` for every line end."""
    candidates = tuple(replace(one, text=windows_text(one.text)) for one in infill.candidates)
    return replace(infill, text=windows_text(infill.text), candidates=candidates)


def windows_draft(draft: Draft) -> Draft:
    """Returns a draft with `\\r\\n` for every line end."""
    spans = tuple(replace(one, text=windows_text(one.text)) for one in draft.spans)
    return replace(draft, text="".join(one.text for one in spans), spans=spans)
