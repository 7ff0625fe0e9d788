"""Ctrl-C and SIGTERM while a command is being imported: no traceback, and nothing is lost.

Imported before all others by the modules that are commands; `process.run` takes over from it. It
does nothing where another program, such as a notebook, imports them.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

PROJECT = Path(__file__).resolve().parent.parent
COMMANDS = PROJECT / "main.py", PROJECT / "scale" / "__main__.py"


def stop(number: int, _frame: FrameType | None) -> None:
    """Ends the process at once, with the status that `process.run` would give."""
    os.write(2, b"Stopped. What was done is saved.\n")
    os._exit(128 + number)


def hand_over() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if Path(getattr(sys.modules["__main__"], "__file__", None) or "").resolve() in COMMANDS:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
