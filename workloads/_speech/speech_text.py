"""Text of utterances as token ids, and how many of them are wrong.

A character is its own id: capitals, digits and the signs of printable ASCII up to ']'. As
Whisper's, the id that ends a text also fills what is left of it.
"""

from collections.abc import Sequence

END, START = 0, 1
FIRST_CHARACTER, NUM_CHARACTERS = 32, 62
KNOWN = "capitals, digits and signs of ASCII up to ']'"
NOT_PREDICTED = -100
"""Target of a token that the loss leaves out: what follows the end."""


def ids_of(text: str) -> list[int]:
    """Return ids of the characters, capitals for small letters, '?' for what has no id."""
    places = [ord(letter) - FIRST_CHARACTER for letter in text.upper()]
    unknown = ord("?") - FIRST_CHARACTER
    return [2 + (one if 0 <= one < NUM_CHARACTERS else unknown) for one in places]


def has_signs(text: str) -> bool:
    """Return whether any letter, digit or sign of the text has an id of its own."""
    return any(0 < ord(letter) - FIRST_CHARACTER < NUM_CHARACTERS for letter in text.upper())


def inputs_and_targets(text: str, *, tokens: int) -> tuple[list[int], list[int]]:
    """Return what the decoder reads and what it has to predict, each of so many tokens."""
    ids = ids_of(text)
    assert len(ids) < tokens, "a text has room for its end"
    rest = tokens - len(ids) - 1
    return [START, *ids, *[END] * rest], [*ids, END, *[NOT_PREDICTED] * rest]


def cut(ids: Sequence[int]) -> list[int]:
    """Return the ids before the end."""
    return list(ids[: ids.index(END)] if END in ids else ids)


def token_error_rate(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> float:
    """Fewest tokens put in, left out or replaced, over the tokens that are wanted (Levenshtein)."""
    errors = sum(_distance(cut(one), cut(other)) for one, other in zip(found, wanted, strict=True))
    return errors / sum(len(cut(one)) for one in wanted)


def _distance(first: list[int], second: list[int]) -> int:
    row = list(range(len(second) + 1))
    for number, mine in enumerate(first, start=1):
        before, row[0] = row[0], number
        for place, other in enumerate(second, start=1):
            replaced = before + (mine != other)
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, replaced)
    return row[-1]
