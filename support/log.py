"""The program's log: notices and warnings on one line each, whatever names they quote."""

import logging

from support.text import printable

log = logging.getLogger("captioning")


def _on_one_line(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), None
    return True


log.addFilter(_on_one_line)


def silence(library: str) -> None:
    """Keeps off the terminal what a library logs that raises its errors too."""
    for handler in logging.getLogger(library).handlers:
        handler.setLevel(logging.CRITICAL + 1)
