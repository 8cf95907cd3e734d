"""Which tokens may stand at the edges of a middle, for the embedded tokenizer and for one laid out as Gemma's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.tokenization.token_healing import Closing, Opening, back_off, closings, openings, trimmed
from dgemma_engine.tokenization.tokenizer import Spelling, Tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

NAMES = ("embedded", "gemma")
PIECES = (
    "▁config", "▁return", "▁path", "▁!=", "▁=", "config", "length", "max", "self", "fig", "._", '("', "()", "▁▁▁▁",
    "\t\t",
)  # fmt: skip


def gemma() -> Backend:
    """A small BPE in the layout of Gemma's: spaces as `▁`, no dummy space, bytes for unknown characters."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<table>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "\n", "\t", *map(chr, range(33, 127)), "é"]
    merges: list[tuple[str, str]] = []
    for piece in PIECES:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in tokens:
                merges.append((piece[: end - 1], piece[end - 1]))
                tokens.append(piece[:end])
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    backend = Backend(BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens[:4]])
    backend.add_tokens([AddedToken("<table>", normalized=False)])
    return backend


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {"embedded": Tokenizer.load(model_folder("tiny")), "gemma": Tokenizer(gemma())}


@pytest.fixture(scope="module")
def spellings(tokenizers: dict[str, Tokenizer]) -> dict[str, Spelling]:
    return {name: Spelling(tokenizer) for name, tokenizer in tokenizers.items()}


@pytest.fixture(params=NAMES)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers[request.param]


@pytest.fixture
def spelling(tokenizer: Tokenizer) -> Spelling:
    return Spelling(tokenizer)


def texts(spelling: Spelling, ids: tuple[int, ...] | list[int]) -> list[str | None]:
    return [spelling.text_of(token_id) for token_id in ids]


@pytest.mark.parametrize(
    "text", ["    return x", "x = self.config\n", "\t\tif a != b:\n", "print('a')", "  # why", "<table>"]
)
def test_texts_of_tokens_make_up_the_text(tokenizer: Tokenizer, spelling: Spelling, text: str) -> None:
    assert "".join(str(spelling.text_of(token_id)) for token_id in tokenizer.encode(text)) == text


def test_text_of_is_none_for_special_tokens_and_parts_of_characters(tokenizer: Tokenizer, spelling: Spelling) -> None:
    assert texts(spelling, tokenizer.special_ids) == [None] * len(tokenizer.special_ids)
    parts = tokenizer.encode("\U0001d4b3")
    assert len(parts) > 1
    assert None in texts(spelling, parts)


def test_text_of_is_none_for_bytes_of_a_sentencepiece(tokenizers: dict[str, Tokenizer]) -> None:
    spelling = Spelling(tokenizers["gemma"])
    byte_ids = range(5, 5 + 256)
    assert texts(spelling, list(byte_ids)) == [None] * 256


def test_text_of_keeps_a_token_that_only_looks_like_a_byte() -> None:
    backend = Backend(BPE(vocab={"a": 0, "A": 1, "<0x41>": 2}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    assert texts(Spelling(Tokenizer(backend)), [0, 1, 2]) == ["a", "A", "<0x41>"]


def test_text_of_keeps_the_space_that_a_decoder_drops_at_the_beginning() -> None:
    backend = gemma()
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    (token_id,) = Tokenizer(backend).encode(" config")
    assert Tokenizer(backend).decode([token_id]) == "config"
    assert Spelling(Tokenizer(backend)).text_of(token_id) == " config"


@pytest.mark.parametrize("text", ["conf", " ", "    ", "(", "e", "é", "no such token", "\t"])
def test_lookups_find_what_a_search_finds(tokenizer: Tokenizer, spelling: Spelling, text: str) -> None:
    every = [(token_id, spelling.text_of(token_id)) for token_id in range(tokenizer.vocab_size)]
    starting = spelling.starting_with(text)
    assert sorted(starting) == [token_id for token_id, own in every if own is not None and own.startswith(text)]
    assert sorted(spelling.ending_with(text)) == [
        token_id for token_id, own in every if own is not None and own.endswith(text)
    ]
    if text in [own for _, own in every]:
        assert spelling.text_of(starting[0]) == text
    beginnings = {own for _, own in every if own and text.startswith(own)}
    assert [spelling.text_of(token_id) for token_id in spelling.beginning(text)] == sorted(beginnings, key=len)


def spelled(spelling: Spelling, ways: list[Opening]) -> Iterator[tuple[str, set[str]]]:
    """Yields the clamped text and the choice of each opening."""
    for way in ways:
        assert way.first_ids is not None
        yield "".join(map(str, texts(spelling, way.given_ids))), set(map(str, texts(spelling, way.first_ids)))


def test_openings_leave_the_beginning_of_a_token_open(tokenizers: dict[str, Tokenizer]) -> None:
    spelling = Spelling(tokenizers["gemma"])

    def check(begun: str, *expected: tuple[str, set[str]]) -> None:
        assert list(spelled(spelling, openings(begun, spelling))) == list(expected)

    check(" conf", ("", {" conf", " confi", " config"}))
    check("len", ("", {"len", "leng", "lengt", "length"}))
    check("max_len", ("max_", {"len", "leng", "lengt", "length"}))
    check("._", ("", {"._"}))
    check("(", ("", {"(", "()", '("'}))
    check(" !", ("", {" !", " !="}))
    check("  ", ("", {"  ", "   ", "    "}))
    check("      ", ("  ", {"    "}), ("    ", {"  ", "   ", "    "}))
    check("\t", ("", {"\t", "\t\t"}))
    # `onf` is split into characters, and `self` begins no longer token.
    check("onf", ("on", {"f", "fi", "fig"}))
    check("xself", ("x", {"self"}))


def test_openings_offer_a_long_rest_before_the_last_token() -> None:
    vocab = {token: token_id for token_id, token in enumerate(["a", "b", "c", "d", "bcx", "cx", "bd"])}
    backend = Backend(BPE(vocab=vocab, merges=[]))
    backend.decoder = decoders.Fuse()
    tokenizer = Tokenizer(backend)
    spelling = Spelling(tokenizer)
    found = list(spelled(spelling, openings("abc", spelling)))
    assert found == [("a", {"bcx"}), ("ab", {"c", "cx"})]


def test_openings_constrain_nothing_without_begun_text(spelling: Spelling) -> None:
    assert openings("", spelling) == [Opening(given_ids=(), first_ids=None)]
    assert closings("", spelling) == [Closing(last_ids=None, given_ids=())]


def test_openings_clamp_all_of_a_text_that_ends_in_parts_of_a_character(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer, spelling = tokenizers["gemma"], Spelling(tokenizers["gemma"])
    ids = tuple(tokenizer.encode("x\u540d"))
    assert len(ids) == 4
    assert openings("x\u540d", spelling) == [Opening(given_ids=ids, first_ids=None)]
    assert closings("\u540d", spelling) == [Closing(last_ids=None, given_ids=ids[1:])]


def test_openings_constrain_nothing_for_text_without_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer, spelling = tokenizers["gemma"], Spelling(tokenizers["gemma"])
    assert tokenizer.decode(tokenizer.encode("a▁")) == "a "
    assert openings("a▁", spelling) == [Opening(given_ids=(), first_ids=None)]
    assert closings("a▁", spelling) == [Closing(last_ids=None, given_ids=())]


def test_closings_leave_the_end_of_a_token_open(tokenizers: dict[str, Tokenizer]) -> None:
    spelling = Spelling(tokenizers["gemma"])

    def check(left: str, *expected: tuple[set[str], str]) -> None:
        found = closings(left, spelling)
        read = [
            (set(map(str, texts(spelling, way.last_ids or ()))), "".join(map(str, texts(spelling, way.given_ids))))
            for way in found
        ]
        assert read == list(expected)

    check("f", ({"f", "self", "conf", " conf"}, ""))
    check("fig", ({"fig", "config", " config"}, ""))
    check("fig_len", ({"fig", "config", " config"}, "_len"))


LINE_ENDS = ["\n", "\r\n", "  \n", "):", "):\n", "):\r\n", "):\n\n", ")", ")\n", ") \n", "a\rb", " x\n", "\n    x", "x"]


@pytest.fixture
def line_ends() -> Spelling:
    backend = Backend(BPE(vocab={token: token_id for token_id, token in enumerate(["<s>", *LINE_ENDS])}, merges=[]))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(["<s>"])
    return Spelling(Tokenizer(backend))


def test_tokens_that_close_a_line_have_text_and_a_break_after_it(line_ends: Spelling) -> None:
    assert [str(line_ends.text_of(token_id)) for token_id in sorted(line_ends.closing_line)] == [
        "):\n", "):\r\n", "):\n\n", ")\n", ") \n", "a\rb", " x\n",
    ]  # fmt: skip
    assert texts(line_ends, sorted(line_ends.with_line_break - line_ends.closing_line)) == [
        "\n", "\r\n", "  \n", "\n    x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("):", ["):\n", "):\r\n", "):\n\n"]),
        (")", [")\n"]),
        ("x", []),
        ("\n", []),
        ("):\n", []),
        ("", []),
    ],
)
def test_tokens_with_a_break_after_a_token(line_ends: Spelling, text: str, expected: list[str]) -> None:
    assert texts(line_ends, list(line_ends.with_break_behind(text))) == expected


# Lone surrogates have no tokens, and Gemma's tokenizer reads `▁` as a space.
CODE = st.text(
    st.sampled_from("abcdefgilnrst_ ().'\"=!\té") | st.characters(exclude_characters="▁", exclude_categories=["Cs"]),
    max_size=12,
)


@pytest.mark.parametrize("name", NAMES)
@given(prefix=CODE, text=CODE, data=st.data())
def test_openings_begin_every_middle_with_the_begun_text(
    name: str,
    tokenizers: dict[str, Tokenizer],
    spellings: dict[str, Spelling],
    prefix: str,
    text: str,
    data: st.DataObject,
) -> None:
    tokenizer, spelling = tokenizers[name], spellings[name]
    boundary = back_off(prefix, "")
    ways = openings(boundary.opening, spelling)
    assert 1 <= len(ways) <= 2
    assert ways[-1].given_ids[: len(ways[0].given_ids)] == ways[0].given_ids
    way = data.draw(st.sampled_from(ways))
    first = [] if way.first_ids is None else [data.draw(st.sampled_from(way.first_ids))]
    middle = tokenizer.decode([*way.given_ids, *first, *tokenizer.encode(text)])
    assert middle.startswith(boundary.opening)
    assert trimmed(middle, boundary) is not None


@pytest.mark.parametrize("name", NAMES)
@given(prefix=CODE, text=CODE)
def test_openings_permit_every_continuation(
    name: str, tokenizers: dict[str, Tokenizer], spellings: dict[str, Spelling], prefix: str, text: str
) -> None:
    tokenizer, spelling = tokenizers[name], spellings[name]
    boundary = back_off(prefix, "")
    way = openings(boundary.opening, spelling)[-1]
    ids = tokenizer.encode(boundary.opening) + tokenizer.encode(text)
    size = len(way.given_ids)
    assert tuple(ids[:size]) == way.given_ids
    assert way.first_ids is None or ids[size] in way.first_ids
    assert trimmed(tokenizer.decode(ids), boundary) == text


@pytest.mark.parametrize("name", NAMES)
@given(left=st.text(st.sampled_from("abcdefgilnrst_é") | st.characters(categories=["L", "M"]), max_size=12), text=CODE)
def test_closings_end_every_middle_with_the_remaining_text(
    name: str, tokenizers: dict[str, Tokenizer], spellings: dict[str, Spelling], left: str, text: str
) -> None:
    tokenizer, spelling = tokenizers[name], spellings[name]
    plain = tokenizer.encode(left)
    ways = closings(left, spelling)
    assert 1 <= len(ways) <= 2
    for way in ways:
        given = list(way.given_ids)
        assert plain[len(plain) - len(given) :] == given
        for last_id in (way.last_ids or ())[:3]:
            assert tokenizer.decode([*tokenizer.encode(text), last_id, *given]).endswith(left)
    plainest = ways[-1]
    assert plainest.last_ids is None or plain[-1 - len(plainest.given_ids)] in plainest.last_ids
