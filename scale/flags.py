"""The flags of `python -m scale`. Imports nothing heavy."""

import argparse
import re
from collections.abc import Callable
from contextlib import suppress

from cli.flags import Parser, add_setting, add_switch
from support.settings import SETTINGS

# Settings of main.py's datasets, databases and pages, which mean nothing here.
NOT_HERE = {
    "DATASET_NAME", "DATASET_SPLIT", "EXPERIMENT_SAMPLES", "EXPERIMENT_SPLIT", "GALLERY_SPLIT",
    "EXPERIMENT_IMAGE_INDEX", "TOTAL_SAMPLES", "SEARCH_WORD_WEIGHT", "RANDOM_SEED", "DB_DIR",
    "RESULTS_DIR", "WRITE_PAGES",
}  # fmt: skip
MOST = 1_000_000  # of each number
SOURCE = "folder, Parquet files or webdataset, local or a URI (s3://...)"
MILVUS = "address of a Milvus server: http://host:19530"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The parsed command line; exits with status 2 and a message for what cannot be understood."""
    parser = Parser(prog="-m scale", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = _common_flags()

    def command(name: str, text: str) -> Parser:
        return commands.add_parser(name, parents=[common], allow_abbrev=False, help=text)

    index = command("index", "embed images and captions, and put them into Milvus")
    index.add_argument("source", metavar="SOURCE", help=SOURCE + ", or a folder of databases")
    index.add_argument("milvus", metavar="MILVUS", help=MILVUS)
    ann = "an approximate index (HNSW), for a million images and more"
    index.add_argument("--ann", action="store_true", help=ann)
    caption = command("caption", "caption images with those in Milvus as context")
    caption.add_argument("source", metavar="SOURCE", help=SOURCE)
    caption.add_argument("out", metavar="OUT", help="folder of Parquet files, local or a URI")
    caption.add_argument("--gallery", dest="milvus", metavar="MILVUS", required=True, help=MILVUS)
    caption.add_argument("--add", action="store_true", help="put the captions into Milvus too")
    for one in (index, caption):
        _add_workers(one)
    _add_search(command("search", "find images by a text or by an image"))
    arguments = parser.parse_args(argv)
    if arguments.command == "search" and (arguments.query is None) == (arguments.image is None):
        parser.error('give a text or --image: python -m scale search MILVUS "a dog runs"')
    if not re.fullmatch(r"[A-Za-z_]\w{,99}", arguments.name, re.ASCII):
        parser.error(f"--name is '{arguments.name}'; it must be letters, digits and _")
    return arguments


def _common_flags() -> Parser:
    common = Parser(add_help=False, allow_abbrev=False)
    named = "the dataset's name in Milvus (gallery)"
    common.add_argument("--name", default="gallery", metavar="NAME", help=named)
    add_switch(common, "--quiet", "results only: no notices, no progress bars")
    add_switch(common, "--debug", "show the traceback of an error")
    settings = common.add_argument_group("settings, for this run only; the others are in config.py")
    for setting in SETTINGS:
        if setting.flag and setting.name not in NOT_HERE:
            add_setting(settings, setting)
    return common


def _add_workers(parser: Parser) -> None:
    many = "processes with the models; default: as many as there is room for"
    parser.add_argument("--workers", type=_number(int, 1), metavar="N", help=many)
    gpus = "GPUs for each of them (0); 0.5: two share one"
    parser.add_argument("--gpus", type=_number(float, 0), default=0, metavar="N", help=gpus)
    batch = "images that a worker takes at once, and that a file of OUT has at least (64)"
    parser.add_argument("--batch", type=_number(int, 1), default=64, metavar="N", help=batch)


def _number(kind: type, least: int) -> Callable[[str], float]:
    def number(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(text)) < MOST:
                return value
        whole = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(
            f"{text!r}; it must be a {whole} from {least} to less than {MOST:,}"
        )

    return number


def _add_search(parser: Parser) -> None:
    parser.add_argument("milvus", metavar="MILVUS", help=MILVUS)
    parser.add_argument("query", nargs="?", help="what to look for, compared with captions")
    parser.add_argument("--image", metavar="PATH", help="find images like this one")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object for each image")
    form.add_argument("--paths", action="store_true", help="print paths only")
    null = "print paths, each ended by a null character, for xargs -0"
    form.add_argument("--null", action="store_true", help=null)
    parser.set_defaults(queries=None)
