"""The gate between the program's output and a terminal: no text can steer it."""

import os
import re
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

# Control characters but tab and line feed, and those that reorder text.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CURSOR_UP = "\x1b[A"
MOVES = re.compile(f"(?:\n|{re.escape(CURSOR_UP)})+")  # what tqdm writes between two bars


class SafeStream:
    """A text stream that writes a space for each character that could steer a terminal.

    With `bars`, progress bars may return to the start of their line, and move between lines.
    """

    def __init__(self, stream: TextIO, bars: bool):
        self._stream = stream
        self._bars = bars

    def write(self, text: str) -> int:
        self._stream.write(self._safe(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def _safe(self, text: str) -> str:
        if self._bars and MOVES.fullmatch(text):
            return text
        returned = "\r" if self._bars and text.startswith("\r") else ""
        return returned + UNSAFE.sub(" ", text.removeprefix(returned))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def guard_terminal() -> None:
    """Puts the gate before stdout and stderr, for print, the log and progress bars alike.

    A terminal that cannot show a character still shows the rest.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, SafeStream):
            continue
        if stream is None:  # closed, or without a terminal at all
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        with suppress(AttributeError):  # a test's or notebook's stream
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast(TextIO, SafeStream(stream, bars=name == "stderr")))
