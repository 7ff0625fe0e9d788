"""A command as a process: signals, exit status, errors on stderr."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType

from cli import flags, interrupts
from support.errors import PipelineError
from support.log import log
from support.storage.errors import CHECK_DISK
from support.terminal import guard_terminal


class Terminated(BaseException):
    """SIGTERM, raised where the program stands so that open work is closed on the way out."""


Command = Callable[[argparse.Namespace], int]


def run(
    commands: Mapping[str, Command],
    argv: list[str] | None = None,
    parse: Callable[[list[str] | None], argparse.Namespace] = flags.parse,
) -> int:
    """Runs the command that `argv` names, with its flags; returns the exit status of the process.

    0 done, 1 failed, 2 a wrong flag or setting, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    guard_terminal()
    arguments = parse(argv)
    _set_up_terminal(quiet=hasattr(arguments, "quiet"))
    try:
        flags.apply(arguments)
        return commands[arguments.command](arguments)
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
    if isinstance(error, OSError):
        what = "The output or working folder" if error.filename is None else error.filename
        print(f"{what}: {error.strerror or error}. {CHECK_DISK}.", file=sys.stderr)
        return 1
    print(
        f"Unexpected {type(error).__name__}: {error}\nRun with --debug for the traceback.",
        file=sys.stderr,
    )
    return 1


def _set_up_terminal(quiet: bool) -> None:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    interrupts.hand_over()
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, terminate)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.ERROR if quiet else logging.INFO)
