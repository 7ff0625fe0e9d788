"""A command as a process: signals, exit status, errors on stderr."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from cli import flags
from support.errors import PipelineError

log = logging.getLogger("captioning")


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that open work is closed on the way out."""


def run(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Runs `command` with the flags applied; returns the exit status of the process.

    0 done, 1 failed, 2 a wrong flag or setting, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    _set_up_terminal(quiet=hasattr(arguments, "quiet"))
    try:
        flags.apply(arguments)
        return command(arguments)
    except (KeyboardInterrupt, Terminated) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process: nothing is lost
        print("Stopped. What was done is saved.", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:  # the reader of our output has gone, as in `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if hasattr(arguments, "debug"):
            raise
        return _report(error)


def _report(error: Exception) -> int:
    """Prints an error on stderr; returns the exit status it stands for."""
    if isinstance(error, PipelineError):
        print(error, file=sys.stderr)
        return error.exit_status
    print(
        f"Unexpected {type(error).__name__}: {error}\nRun with --debug for the traceback.",
        file=sys.stderr,
    )
    return 1


def _set_up_terminal(quiet: bool) -> None:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a test's or notebook's stream
            # A terminal that cannot show a character still shows the rest.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.ERROR if quiet else logging.INFO)
