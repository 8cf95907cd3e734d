from __future__ import annotations

from dataclasses import replace

import pytest
from dgemma_engine.postprocess.cursor_context import SHAPING_CHARS
from dgemma_engine.protocol.messages import Context, DocumentEdges, Extent, Snippet

from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Channel, Request, Trigger
from tests.lsp.cursor import request_at


def built(marked: str, **limits: int) -> Context:
    return build_context(request_at(marked), ContextLimits(**limits))


@pytest.mark.parametrize(
    ("marked", "extent"),
    [
        ("|", Extent.BLOCK),
        ("def f():\n    |\n", Extent.BLOCK),
        ("def f():\n    |   \n", Extent.BLOCK),
        ("def f():|\n", Extent.BLOCK),
        ("foo(|", Extent.BLOCK),
        ("foo(|)", Extent.LINE),
        ("x = |\n", Extent.LINE),
        ("    |return x\n", Extent.LINE),
        ("a\r\n  |\r\nb", Extent.BLOCK),
        ("a\r\nx|\r\nb", Extent.LINE),
    ],
)
def test_extent(marked: str, extent: Extent):
    assert built(marked).extent is extent


def test_build_splits_at_the_cursor():
    context = built("ab|cd")
    assert (context.prefix, context.suffix) == ("ab", "cd")
    assert (context.path, context.language) == ("a.py", "python")


def test_build_sends_newlines_for_crlf_and_lone_cr():
    context = built("a\r\nb\rc|\r\nd")
    assert (context.prefix, context.suffix) == ("a\nb\nc", "\nd")


def test_build_cuts_prefix_and_suffix_at_line_starts():
    context = built("111\n222\n33|44\n555\n666\n", prefix_chars=7, suffix_chars=8)
    assert (context.prefix, context.suffix) == ("222\n33", "44\n555\n")


def test_build_keeps_a_line_that_starts_just_at_the_cut():
    assert built("111\n222\n33|", prefix_chars=6).prefix == "222\n33"


def test_cut_stays_where_it_is_while_lines_are_typed():
    text = "".join(f"line {n:02}\n" for n in range(40))
    prefixes = [built(text + "x\n" * count + "|", prefix_chars=200).prefix for count in range(60)]
    assert all(len(prefix) <= 200 for prefix in prefixes)
    assert len({prefix[:20] for prefix in prefixes}) <= 4
    assert min(map(len, prefixes)) >= 200 - 50 - len("line 00\n")


def test_build_carries_snippets_and_edits_that_can_be_sent():
    snippets, edits = (Snippet(path="b.py", text="x\r\n\ud83d"),), (Snippet(path="c.py", text="+y"),)
    context = build_context(request_at("|"), ContextLimits(), snippets=snippets, edits=edits)
    assert context.snippets == (Snippet(path="b.py", text="x\n\ufffd"),)
    assert context.edits == edits


def test_build_cuts_inside_a_line_longer_than_the_limit():
    context = built("a" * 50 + "|" + "b" * 50, prefix_chars=5, suffix_chars=6)
    assert (context.prefix, context.suffix) == ("aaaaa", "bbbbbb")


def test_build_replaces_lone_surrogates():
    context = built("a\ud83d|b\udc4d")
    assert (context.prefix, context.suffix) == ("a\ufffd", "b\ufffd")


def test_build_keeps_astral_characters():
    assert built("a😋|").prefix == "a😋"


def test_fill_and_preview_of_a_document_do_not_compete_with_ghost_text_and_menu():
    requests = {channel: Request(uri="u", version=1, text="", offset=0, channel=channel) for channel in Channel}
    contexts = {channel: build_context(request, ContextLimits()) for channel, request in requests.items()}
    assert contexts[Channel.GHOST_TEXT].document == contexts[Channel.MENU].document == "u"
    assert len({context.document for context in contexts.values()}) == 3
    assert len({request.key for request in requests.values()}) == 4
    assert [channel for channel, context in contexts.items() if context.on_demand] == [Channel.FILL]


def test_limits_refuse_negative_numbers():
    with pytest.raises(ValueError, match=r"self\.prefix_chars=-1"):
        ContextLimits(prefix_chars=-1)


def test_request_refuses_an_offset_outside_its_text():
    with pytest.raises(ValueError, match=r"self\.offset=3"):
        Request(uri="u", version=1, text="ab", offset=3)


def test_explicit_request_is_insistent():
    for trigger, insistent in ((Trigger.INVOKED, True), (Trigger.AUTOMATIC, False)):
        request = Request(uri="u", version=1, text="", offset=0, trigger=trigger)
        assert build_context(request, ContextLimits()).insistent is insistent


def test_build_keeps_the_document_outside_the_limits_as_edges() -> None:
    assert built("a\nb|c\nd").edges == DocumentEdges()
    context = built("1\r\n222\n33|44\n555\r\n6", prefix_chars=7, suffix_chars=8)
    assert (context.prefix, context.suffix) == ("222\n33", "44\n555\n")
    assert context.edges == DocumentEdges(above="1\n", below="6")
    far = "a\n" * SHAPING_CHARS
    edges = built(f"{far}|{far}", prefix_chars=0, suffix_chars=0).edges
    assert (len(edges.above), len(edges.below), edges.is_cut) == (SHAPING_CHARS, SHAPING_CHARS, True)


def test_build_counts_the_characters_of_other_cells() -> None:
    request = replace(request_at("b|c"), above="1\r\n", below="\r\n2")
    context = build_context(request, ContextLimits())
    assert (context.prefix, context.suffix) == ("1\nb", "c\n2")
    assert context.edges == DocumentEdges(num_before=2, num_after=2)
    empty = build_context(replace(request_at("|"), above="1\n", below="\n2"), ContextLimits())
    assert (empty.prefix, empty.suffix) == ("1\n", "\n2")
    assert empty.edges == DocumentEdges(num_before=2, num_after=2)
    cut = build_context(request, ContextLimits(prefix_chars=1, suffix_chars=1))
    assert (cut.prefix, cut.suffix, cut.edges) == ("b", "c", DocumentEdges())
