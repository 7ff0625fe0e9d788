"""Errors meant for users: each message says what is wrong, which value, and how to fix it."""

from collections.abc import Iterator

from support.text import printable


class PipelineError(Exception):
    """An error the user can fix. Ends a command with status 1."""

    exit_status = 1

    def __str__(self) -> str:
        """The message on one line, whatever names it quotes."""
        return printable(super().__str__())


class SettingError(PipelineError):
    """A setting, flag or argument that cannot be used. Ends a command with status 2."""

    exit_status = 2


class ImageError(PipelineError):
    """An image that cannot be read."""


class MemoryShortage(PipelineError):
    """A model that does not fit the memory, not even with one image."""


class HubError(PipelineError):
    """A model or dataset that could not be fetched from the Hugging Face Hub."""


class ServerError(PipelineError):
    """A VLM server that cannot be used: no other image would fare better."""


class DatabaseError(PipelineError):
    """A database file that cannot be used or written."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from or among, outermost first."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
