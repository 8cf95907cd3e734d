"""Text to token ids and back, from a checkpoint's `tokenizer.json`.

Text is always text: a special token's name inside a user's file is spelled out, never turned into the special token.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Self

from tokenizers import Tokenizer as _Tokenizer

from dgemma_engine.errors import CheckpointError

# Tokens decoded at once when all are: bounds the memory of a vocabulary of 262,144.
_CHUNK_TOKENS = 16_384
# Texts whose tokens are kept: what stands after the cursor, and snippets, are the same for many keys.
_KNOWN_TEXTS = 16


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
