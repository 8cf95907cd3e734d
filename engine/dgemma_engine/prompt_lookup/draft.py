"""A guess at the next tokens: what followed the last ones where they stood in the prompt before.

Prompt lookup decoding, as `transformers` has it (`prompt_lookup_num_tokens`): a guess costs nothing, and a pass that
checks several tokens takes hardly longer than one that reads a single one, whose time goes to reading weights.
"""

from __future__ import annotations

from collections.abc import Sequence

# Tokens that must be alike, the most first; one alone is a guess too, since a wrong one costs so little.
_LONGEST, _SHORTEST = 3, 1


class PromptLookup:
    """Guesses from one text.

    Args:
        text_ids: tokens of the text, which ends where the writing begins.
        most: tokens of a guess.
    """

    def __init__(self, text_ids: Sequence[int], *, most: int) -> None:
        self._text_ids = list(text_ids)
        self._most = most

    def after(self, decided: Sequence[int]) -> list[int]:
        """Returns what followed the end of the text and `decided` the last time it stood there; empty for nothing.

        Args:
            decided: tokens written so far.
        """
        text = [*self._text_ids, *decided]
        for size in range(min(_LONGEST, len(text) - 1), _SHORTEST - 1, -1):
            end = text[-size:]
            for start in range(len(text) - size - 1, -1, -1):
                if text[start] == end[0] and text[start : start + size] == end:
                    return text[start + size : start + size + self._most]
        return []
