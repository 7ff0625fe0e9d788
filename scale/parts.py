"""What there is to read in a source: Parquet files, tar archives, or image files."""

from collections import Counter
from collections.abc import Sequence

from scale.places import checked_place, files_at, is_uri, suffix_of
from scale.rows import Part, Row, check_columns
from support.errors import SettingError
from support.log import log
from support.paths import absolute_path, expand_home
from support.sources.files import IMAGE_SUFFIXES, files_below, is_inside, refuse_unreadable
from support.sources.lists import LIST_NAMES, find_lists
from support.sources.source import open_source

TABLES, ARCHIVES = ".parquet", ".tar"


def find_parts(source: str, size: int) -> list[Part]:
    """What tasks of Ray read of a source: Parquet files, or tar archives, or `size` images each.

    `source` is a local path or a URI of Arrow's file systems (s3://, gs://, hdfs://, ...). Raises
    SettingError where there is nothing to read.
    """
    place = checked_place(source, "SOURCE")
    files = files_at(place) if is_uri(place) else _local_files(source)
    for suffix in (TABLES, ARCHIVES):
        if found := [file for file in files if suffix_of(file) == suffix]:
            _warn_of_others(source, suffix, files)
            if suffix == TABLES:
                check_columns(found[0])
            return list(found)
    if is_uri(place):
        _warn_of_lists(source, files)
    if is_uri(place) or expand_home(source).is_file():
        rows = [Row(file) for file in files if suffix_of(file) in IMAGE_SUFFIXES]
    else:
        rows = _listed(source)
    if not rows:
        raise SettingError(f"'{source}' holds no Parquet files, tar archives or images.")
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _local_files(source: str) -> list[str]:
    """The files of a local source; none where a list of captions says which are its images."""
    path = expand_home(source)
    refuse_unreadable(path, f"There is no file or folder '{source}'. Check the spelling.")
    files = files_below(path) if path.is_dir() else [path]
    has_list = any(file.parent == path for file in find_lists(files))
    return [] if has_list else [absolute_path(file) for file in files]


def _listed(source: str) -> list[Row]:
    """The images of a local folder with their captions; not where a link leads out of it."""
    folder, root = open_source(source), absolute_path(source)
    rows = [Row(folder.label(n), None, folder.captions(n)) for n in range(len(folder))]
    inside = [row for row in rows if is_inside(absolute_path(row.id), root)]
    if len(inside) < len(rows):
        log.warning("%d files lie outside %s, and are left out.", len(rows) - len(inside), root)
    return inside


def _warn_of_others(source: str, suffix: str, files: Sequence[str]) -> None:
    """Warns of what could be read too, and is not."""
    others = {TABLES, ARCHIVES, *IMAGE_SUFFIXES} - {suffix}
    left = Counter(found for found in map(suffix_of, files) if found in others)
    if left:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(left.items()))
        log.warning(
            "Of '%s' only the %s files are read; left out: %s. Name their folder to read those.",
            source,
            suffix,
            counts,
        )


def _warn_of_lists(source: str, files: Sequence[str]) -> None:
    lists = [file for file in files if file.partition("?")[0].endswith(LIST_NAMES)]
    if lists:
        log.warning(
            "The images of '%s' are read without captions: lists such as %s count in local folders "
            "only. Parquet files and webdatasets bring their captions along.",
            source,
            lists[0],
        )
