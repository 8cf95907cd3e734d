"""Trains a byte-level BPE for code: newlines stand alone, indentation runs are tokens, digits are split.

Turns texts into a `tokenizers.Tokenizer` whose special tokens have fixed ids; knows nothing of models or holes.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from dgemma_engine.errors import TrainingError

PAD, EOS, BOS, UNK, MASK, PREFIX, SUFFIX, FILL, MORE = range(9)
"""Ids of the special tokens; 9 to 15 are reserved."""

SPECIAL_TOKENS = (
    "<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|prefix|>", "<|suffix|>", "<fill>", "<more>",
    *(f"<reserved_{i}>" for i in range(9, 16)),
)  # fmt: skip
"""Their names, by id."""

# In order: a line break; the indentation of a line (one space alone is left to the word after it); tabs; a word with
# the space before it; one digit; punctuation with the space before it; spaces that leave the last to what follows;
# other spaces; the rest. Together they cover every character, so that nothing is lost.
_PIECES = (
    r"\r\n|[\r\n]"
    r"|(?<![^\r\n]) {2,}"
    r"|\t+"
    r"| ?[\p{L}\p{M}_]+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}_]+"
    r"| +(?= [^\s\p{N}])"
    r"| +"
    r"|\s"
)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from texts.

    Args:
        texts: what to learn from; read once.
        vocab_size: tokens in all, the 16 special ones and the 256 bytes included.

    Returns:
        A tokenizer that reads special names in text as text.

    Raises:
        TrainingError: the texts have too few distinct pieces for that many tokens.
    """
    smallest = len(SPECIAL_TOKENS) + 256
    if vocab_size < smallest:
        raise TrainingError(f"{vocab_size=} must be at least {smallest}: special tokens and bytes")
    tokenizer = Tokenizer(BPE(unk_token=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True
    if tokenizer.get_vocab_size() < vocab_size:
        raise TrainingError(
            f"the corpus is too small for a vocabulary of {vocab_size}: it gives {tokenizer.get_vocab_size()} tokens; "
            "add sources with --site or lower --vocab-size"
        )
    return tokenizer
