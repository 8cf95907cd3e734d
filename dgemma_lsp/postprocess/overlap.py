"""How much of the text right of the cursor a completion says again, so that `foo(|)` never becomes `foo(a))`.

Pure. Works on one line, counting brackets and quotes; knows no language.
"""

from __future__ import annotations

from dgemma_engine.postprocess.strings import STRINGS_OVER_LINES, without_strings

_CLOSER_OF = {"(": ")", "[": "]", "{": "}"}
_PUNCTUATION = frozenset("{)]}>\"'`:;, \t")
_CHARS_EACH_SIDE = 1_000
# Counting brackets costs as much as the line is long; more candidates than these are of a line of one piece.
_MOST_SHORT, _MOST_LONG = 16, 48


def num_covered(*, before: str, middle: str, rest: str) -> int:
    """Returns how many characters of `rest` the completion covers: they are replaced, because `middle` says them.

    An answer of several lines covers only what closes brackets and strings. Of the candidates that `middle` really
    says, the one that leaves fewest brackets and quotes open wins, the longest among equals.

    Args:
        before: the line left of the cursor.
        middle: what is to be inserted at the cursor.
        rest: the line right of the cursor.
    """
    if not rest.strip() or ("\n" in middle and not _PUNCTUATION.issuperset(rest)):
        return 0
    # A minified file is one line: what stands far away must not cost time at every key.
    before, rest = before[-_CHARS_EACH_SIDE:], rest[:_CHARS_EACH_SIDE]
    covered, fewest = 0, num_unbalanced(before + middle + rest)
    candidates: list[tuple[int, bool]] = []
    for count in range(1, min(len(rest), len(middle)) + 1):
        said = rest[:count]
        repeated = middle.endswith(said) and not _splits_word(before + middle, rest, count)
        if repeated or _contains_in_order(middle, said):
            candidates.append((count, repeated))
    for count, repeated in candidates[:_MOST_SHORT] + candidates[_MOST_SHORT:][-_MOST_LONG:]:
        unbalanced = num_unbalanced(before + middle + rest[count:])
        # Of `);` the semicolon, too, which pairs with nothing.
        goes_on = covered > 0 and middle.endswith(rest[count - 1])
        if unbalanced < fewest or (unbalanced == fewest and (repeated or goes_on)):
            covered, fewest = count, unbalanced
    return covered


def num_unbalanced(line: str) -> int:
    """Returns how many brackets of `line` lack their partner, plus quotes that close no string."""
    bare = without_strings(line, STRINGS_OVER_LINES)
    unbalanced = sum(bare.count(quote) for quote in "\"'`")
    stack: list[str] = []
    for character in bare:
        if character in _CLOSER_OF:
            stack.append(_CLOSER_OF[character])
        elif character in ")]}":
            if stack and stack[-1] == character:
                stack.pop()
            else:
                unbalanced += 1
    return unbalanced + len(stack)


def _splits_word(said: str, rest: str, count: int) -> bool:
    """Whether `rest[:count]` ends inside a word, or is but the last letter of the word that `said` ends with."""
    if count < len(rest) and _is_word(rest[count - 1]) and _is_word(rest[count]):
        return True
    return count == 1 and _is_word(rest[0]) and _is_word(said[-2:-1])


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def _contains_in_order(middle: str, said: str) -> bool:
    """Whether `said` is punctuation only and its characters stand in `middle` in the same order."""
    if not _PUNCTUATION.issuperset(said):
        return False
    characters = iter(middle)
    return all(character in characters for character in said)
