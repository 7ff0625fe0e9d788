"""Text from outside, made safe to store and to print."""

import re
from collections.abc import Sequence


def clean_text(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 file can hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def printable(text: str) -> str:
    """`text` on one line, control characters replaced by spaces: it must not steer the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def first_few(lines: Sequence[str], limit: int = 5) -> str:
    """The first `limit` of `lines` joined into one text, and how many more there are."""
    shown = "; ".join(lines[:limit])
    return shown if len(lines) <= limit else f"{shown}; and {len(lines) - limit} more"


def without_credentials(url: str) -> str:
    """`url` without user, password and query, any of which may be a secret."""
    # Up to the last "@": a password may hold any of the other signs.
    return re.split(r"[?#]", re.sub(r"//.*@", "//", url))[0]
