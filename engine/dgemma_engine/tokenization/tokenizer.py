"""Text to token ids and back, from a checkpoint's `tokenizer.json`, and its vocabulary, looked up by text.

Text is always text: a special token's name inside a user's file is spelled out, never turned into the special token.
"""

from __future__ import annotations

import itertools
import sys
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer as _Tokenizer

from dgemma_engine.errors import CheckpointError

# Tokens decoded at once when all are: bounds the memory of a vocabulary of 262,144.
_CHUNK_TOKENS = 16_384
# Texts whose tokens are kept: what stands after the cursor, and snippets, are the same for many keys.
_KNOWN_TEXTS = 16
# Text handed to a tokenizer per token of budget. Generous: the embedded model's corpus has 3.4 bytes a token.
CHARACTERS_PER_TOKEN = 8
# No character, so that no text of a token holds it.
_LAST = chr(sys.maxunicode)


class Tokenizer:
    """A byte-level tokenizer whose `decode` inverts `encode`.

    Args:
        backend: a loaded `tokenizers.Tokenizer`; changed in place to read special names as text.
        vocab_size: rows of the model, the last of which may have no token; 0 is as many as there are tokens.

    Attributes:
        special_ids: tokens that stand for no text, ascending: special ones, Gemma's `<unused0>` to the last, which
            no text was ever made of, and rows of the model that no token has.
    """

    def __init__(self, backend: _Tokenizer, *, vocab_size: int = 0) -> None:
        backend.encode_special_tokens = True
        self._backend = backend
        self._known_ids = lru_cache(_KNOWN_TEXTS)(self._ids)
        added = backend.get_added_tokens_decoder()
        special = {token_id for token_id, token in added.items() if token.special}
        special |= set(range(vocab_size)).difference(backend.get_vocab().values()) if vocab_size else set()
        names = map("<unused{}>".format, itertools.count())
        unused = itertools.takewhile(lambda token_id: token_id is not None, map(backend.token_to_id, names))
        self.special_ids = tuple(sorted(special.union(token_id for token_id in unused if token_id is not None)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `folder/tokenizer.json`.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            raise CheckpointError(f"{path}: missing; download the whole model folder again")
        try:
            return cls(_Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path}: damaged ({error}); download it again") from error

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        return self._backend.get_vocab_size()

    def require_vocab(self, vocab_size: int) -> None:
        """Checks that the model has an embedding for every token.

        Raises:
            CheckpointError: the tokenizer belongs to another model.
        """
        if self.vocab_size > vocab_size:
            raise CheckpointError(
                f"tokenizer.json has {self.vocab_size} tokens, config.json a vocab_size of {vocab_size}; "
                "the two do not belong together"
            )

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without any added token; lone surrogates are read as U+FFFD."""
        return list(self._known_ids(text))

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Returns the ids of `text` and where each token stands in it: first character, and one past the last.

        Tokens that are parts of one character all stand where it does.

        Args:
            text: without lone surrogates.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def _ids(self, text: str) -> tuple[int, ...]:
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def count(self, text: str) -> int:
        """Returns how many tokens a text has; unlike `encode` it keeps nothing of the text."""
        return len(self._ids(text))

    def head(self, text: str, most: int) -> str:
        """Returns the longest beginning of `text` that ends where a token of it ends and has at most `most` tokens."""
        # One character for each lone surrogate, so that the places are those of `text`.
        readable = text.encode("utf-8", "replace").decode()
        ends = [end for _, end in self._backend.encode(readable, add_special_tokens=False).offsets]
        for end in reversed(ends[:most]):
            # A beginning may be split otherwise than the whole text, and a token may end within a character.
            if self.count(text[:end]) <= most:
                return text[:end]
        return ""

    def decode(self, ids: list[int]) -> str:
        """Returns the text of `ids`; special tokens are left out, a broken UTF-8 sequence gives U+FFFD."""
        return self._backend.decode(ids, skip_special_tokens=True)

    def name_of(self, token_id: int) -> str:
        """Returns what the vocabulary calls a token, for one that has no text: `<eos>`, a part of a character."""
        return self._backend.id_to_token(token_id) or f"#{token_id}"

    def token_texts(self) -> list[str | None]:
        """Returns the text of every token inside a text, by id.

        None stands for what has no text of its own: `special_ids`, parts of a character, and SentencePiece's bytes
        (`<0x41>`), which are text or U+FFFD according to their neighbours.
        """
        # Some decoders drop the space that a text begins with, so each token is read after another.
        anchor_ids = self.encode("a")[-1:]
        anchor = self.decode(anchor_ids)
        texts, special = list[str | None](), frozenset(self.special_ids)
        for start in range(0, self.vocab_size, _CHUNK_TOKENS):
            token_ids = range(start, min(start + _CHUNK_TOKENS, self.vocab_size))
            decoded = self._backend.decode_batch([[*anchor_ids, token_id] for token_id in token_ids])
            for token_id, text in zip(token_ids, decoded, strict=True):
                own = text.removeprefix(anchor)
                # Only the bytes of ASCII characters decode to text on their own.
                is_byte = len(own) == 1 and self._backend.id_to_token(token_id) == f"<0x{ord(own):02X}>"
                is_text = own and "\ufffd" not in own and not is_byte and token_id not in special
                texts.append(own if is_text else None)
        return texts


class Spelling:
    """The vocabulary of one tokenizer, looked up by the beginning and by the end of a token's text.

    Built on first use, which takes about 1 s for 262,144 tokens; `ending_with` builds an order of its own.

    Args:
        tokenizer: whose tokens; must not change.

    Attributes:
        tokenizer: see above.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def text_of(self, token_id: int) -> str | None:
        """Returns a token's text, or None where it has none of its own: special tokens, parts of a character, and rows
        of the model that no token has.
        """
        return self._texts[token_id] or None if token_id < len(self._texts) else None

    def starting_with(self, text: str) -> list[int]:
        """Returns the tokens whose text starts with `text`, in order of their text: one equal to `text` comes first."""
        texts = self._ascending_texts
        return self._ascending[bisect_left(texts, text) : bisect_left(texts, text + _LAST)]

    def beginning(self, text: str) -> list[int]:
        """Returns the tokens that `text` begins with, one of each length, the shortest first."""
        found = (self.starting_with(text[:size])[:1] for size in range(1, len(text) + 1))
        return list(dict.fromkeys(ids[0] for ids in found if ids and text.startswith(self._texts[ids[0]])))

    def ending_with(self, text: str) -> list[int]:
        """Returns the tokens whose text ends with `text`, in order of their text read backwards."""
        ids, backwards = self._ascending_backwards, text[::-1]
        first = bisect_left(ids, backwards, key=lambda token_id: self._texts[token_id][::-1])
        return ids[first : bisect_left(ids, backwards + _LAST, key=lambda token_id: self._texts[token_id][::-1])]

    @property
    def with_text(self) -> Sequence[int]:
        """Tokens that have a text of their own."""
        return self._ascending

    @cached_property
    def with_line_break(self) -> frozenset[int]:
        """Tokens whose text holds the end of a line."""
        return frozenset(token_id for token_id, text in enumerate(self._texts) if "\n" in text or "\r" in text)

    @cached_property
    def closing_line(self) -> frozenset[int]:
        """Tokens whose text holds the last characters of a line and its end: `):` and a line break."""
        return frozenset(
            token_id for token_id in self.with_line_break if (self.text_of(token_id) or "").splitlines()[0].strip()
        )

    def with_break_behind(self, text: str) -> Sequence[int]:
        """Returns the tokens that hold a text and the end of a line after it; none for a text without any."""
        return self._closing_by_text.get(text, ())

    @cached_property
    def _closing_by_text(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for token_id in sorted(self.closing_line):
            found.setdefault((self.text_of(token_id) or "").splitlines()[0], []).append(token_id)
        return found

    @cached_property
    def _texts(self) -> list[str]:
        return [text or "" for text in self.tokenizer.token_texts()]

    @cached_property
    def _ascending(self) -> list[int]:
        spelled = [token_id for token_id, text in enumerate(self._texts) if text]
        return sorted(spelled, key=self._texts.__getitem__)

    @cached_property
    def _ascending_texts(self) -> list[str]:
        return [self._texts[token_id] for token_id in self._ascending]

    @cached_property
    def _ascending_backwards(self) -> list[int]:
        return sorted(self._ascending, key=lambda token_id: self._texts[token_id][::-1])
