"""Files and folders, on this machine or at a URI of Arrow's file systems (s3://, gs://, ...)."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from support.errors import SettingError
from support.paths import absolute_path
from support.sources.files import is_inside
from support.text import without_credentials

# What stands between a user's name and "@", which may hold "/"; a port and a path is none.
PASSWORD = re.compile(r"://[^:@/]+:(?!\d+/)[^@]*@")


def is_uri(place: str) -> bool:
    """Whether a place is a URI, not a path of this machine."""
    return "://" in place


def checked_place(place: str, what: str) -> str:
    """A URI as it is, or an absolute path. Raises SettingError for none, and for a secret in one.

    Places are stored with what is found there.
    """
    if not place:
        raise SettingError(f"{what} is ''; name a folder, a file, or a URI such as s3://bucket/a.")
    if not is_uri(place):
        return absolute_path(place)
    if PASSWORD.search(place):
        raise SettingError(
            f"{what} is {without_credentials(place)} with a password, which would be stored with "
            "each image. Give it as that store's tools take it: for s3://, in the environment "
            "variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return place


def is_below(place: str, folder: str) -> bool:
    """Whether a checked place is in a folder, or that folder."""
    if is_uri(place) != is_uri(folder):
        return False
    if not is_uri(place):
        return is_inside(place, folder)
    return f"{_bare(place)}/".startswith(f"{_bare(folder)}/")


def suffix_of(place: str) -> str:
    """The suffix of a file's name, in lower case."""
    return Path(unquote(_bare(place)) if is_uri(place) else place).suffix.lower()


def file_system(place: str) -> tuple[Any, str]:
    """The Arrow file system of a place, and the path in it."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    return FileSystem.from_uri(place) if is_uri(place) else (LocalFileSystem(), place)


def files_at(uri: str) -> list[str]:
    """The files at a URI and below, as URIs; not what is hidden. Raises SettingError."""
    from pyarrow.fs import FileSelector, FileType

    try:
        system, path = file_system(uri)
        found = [system.get_file_info(path)]
        if found[0].type == FileType.NotFound:
            raise FileNotFoundError("there is no such file or folder")
        if found[0].type == FileType.Directory:
            found = system.get_file_info(FileSelector(path, recursive=True))
    except Exception as error:  # each store raises errors of its own
        shown = without_credentials(uri)
        raise SettingError(f"'{shown}' cannot be read: {error}. Check the address.") from error
    files = (info.path for info in found if info.type == FileType.File)
    names = sorted(file.removeprefix(path).lstrip("/") for file in files)
    return [_joined(uri, name) for name in names if "/." not in f"/{name}"]


def _joined(uri: str, name: str) -> str:
    """The URI of a file below another; `uri` itself where it is that file."""
    query = uri.partition("?")[1:]
    return f"{_bare(uri)}/{quote(name)}{''.join(query)}" if name else uri


def _bare(uri: str) -> str:
    """A URI without its query."""
    return uri.partition("?")[0].rstrip("/")
