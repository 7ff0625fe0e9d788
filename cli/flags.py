"""The flags of `python main.py`, and how they become settings. Imports nothing heavy."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import config
from support.settings import NUMBER, SETTINGS, Setting, check_settings


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nAll flags: python {self.prog} --help\n")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The parsed command line.

    Exits with status 0 for --help, and with 2 and a message for what cannot be understood.
    """
    common = _common_flags()
    parser = _caption_parser(common)
    commands = parser.add_subparsers(metavar="COMMAND")
    search, evaluation = _add_search(commands, common), _add_evaluate(commands, common)
    others = _add_housekeeping(commands, common)
    parsers = (parser, search, evaluation, *others)
    # A flag "-0" of its own would make argparse take every negative number for a flag.
    given = sys.argv[1:] if argv is None else argv
    words = ["--null" if word == "-0" else word for word in given]
    _refuse_unknown_flags(parsers, words)
    arguments, left = parser.parse_known_args(words)
    if arguments.command == "export" and arguments.folder is None and len(left) == 1:
        arguments.folder = left.pop()  # argparse takes it beside the form only
    if left:
        hint = '; a text needs quotes: "a red dog"' if arguments.command == "search" else ""
        parser.error(f"unrecognized arguments: {' '.join(left)}{hint}")
    if arguments.command == "caption":
        _check_caption(parser, arguments)
    if hasattr(arguments, "recaption") and not (arguments.all or arguments.image):
        parser.error("--recaption goes with --all or --image")
    if arguments.command == "search":
        _check_search(search, arguments)
    asks = hasattr(arguments, "open") or getattr(arguments, "page", False)
    if asks and not getattr(arguments, "WRITE_PAGES", True):
        parser.error("--no-pages does not go with --open and --page")
    return arguments


def apply(arguments: argparse.Namespace) -> None:
    """Copies the flags into config and checks all settings. Raises SettingError."""
    for setting in SETTINGS:
        if hasattr(arguments, setting.name):
            setattr(config, setting.name, getattr(arguments, setting.name))
    if hasattr(arguments, "quiet"):
        config.SHOW_PROGRESS = False
    check_settings()


# --- The commands ---------------------------------------------------------------------------------
Commands = argparse._SubParsersAction  # what add_subparsers returns has no public name


def _caption_parser(common: Parser) -> Parser:
    """The command without a name: caption one experiment image, all of them, or own images."""
    parser = Parser(
        prog="main.py",
        description="Captions an image with a vision-language model that sees the captions of the "
        "most similar images.",
        epilog='Examples: main.py --index 42 | main.py --image a.jpg DIR | main.py search "a dog"',
        parents=[common],
        allow_abbrev=False,
    )
    add_setting(parser, next(s for s in SETTINGS if s.name == "EXPERIMENT_IMAGE_INDEX"))
    own = "caption your own images: files, or folders of them"
    parser.add_argument("--image", nargs="+", metavar="PATH", help=own)
    everything = "caption every experiment image; resumes a stopped run"
    parser.add_argument("--all", action="store_true", help=everything)
    add_switch(parser, "--recaption", "with --all or --image: caption again")
    parser.set_defaults(command="caption", image=None)
    return parser


def _add_command(
    commands: "Commands[Parser]", common: Parser, name: str, summary: str, description: str
) -> Parser:
    """A parser for `main.py NAME ...`, with the common flags."""
    parser = commands.add_parser(
        name, parents=[common], allow_abbrev=False, help=summary, description=description
    )
    parser.set_defaults(command=name)
    return parser


def _add_search(commands: "Commands[Parser]", common: Parser) -> Parser:
    summary = "find images by a text or by an image"
    description = "Finds images by a text or by an image."
    parser = _add_command(commands, common, "search", summary, description)
    parser.add_argument("query", nargs="?", help="what to look for")
    like = "find images like this one; with a text, like both together"
    parser.add_argument("--image", metavar="PATH", help=like)
    avoid = "not like this; may be given several times"
    parser.add_argument("--without", metavar="TEXT", action="append", default=[], help=avoid)
    way = "compare a text with captions, with the images themselves, or with both"
    parser.add_argument("--by", choices=("caption", "look", "both"), help=way)
    where = "all, gallery, captioned (by this program), or a folder (all)"
    parser.add_argument("--in", dest="within", metavar="WHERE", default="all", help=where)
    least = "leave out images that fit less"
    parser.add_argument("--min-similarity", type=float, metavar="X", help=least)
    parser.add_argument("--page", action="store_true", help="write a page with the images too")
    several = "search for each line of FILE; prints a JSON object for each"
    parser.add_argument("--queries", metavar="FILE", help=several)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object for each image")
    form.add_argument("--paths", action="store_true", help="print paths only")
    null = "or -0: print paths, each ended by a null character, for xargs -0"
    form.add_argument("--null", action="store_true", help=null)
    parser.set_defaults(query=None, image=None)
    return parser


def _add_evaluate(commands: "Commands[Parser]", common: Parser) -> Parser:
    summary = "measure whether retrieval helps"
    description = (
        "Captions the experiment images with retrieval, without, and under baselines, and scores "
        "them."
    )
    parser = _add_command(commands, common, "evaluate", summary, description)
    first = "only the first N experiment images"
    parser.add_argument("--samples", type=int, metavar="N", help=first)
    arms = "none retrieved random wrong nearest consensus"
    parser.add_argument("--arms", nargs="+", metavar="ARM", help=arms)
    values = (
        "caption with each of these values, 0 for TOP_K_SIMILAR being no retrieval; twice: grid"
    )
    parser.add_argument("--sweep", action="append", metavar="SETTING=A,B,…", help=values)
    return parser


def _add_housekeeping(commands: "Commands[Parser]", common: Parser) -> list[Parser]:
    """The commands that read or mend the databases."""
    summary = "write what was generated for other programs"
    export = _add_command(commands, common, "export", summary, summary.capitalize() + ".")
    form = "photo.txt beside each photo, metadata.jsonl, or captions.txt"
    export.add_argument("form", choices=("txt", "jsonl", "captions"), help=form)
    where = "where to write (the folder of the photos)"
    export.add_argument("folder", nargs="?", metavar="FOLDER", help=where)
    replace = "replace files that say something else"
    export.add_argument("--overwrite", action="store_true", help=replace)

    summary = "say what the databases hold, and what is not embedded yet"
    status = _add_command(commands, common, "status", summary, summary.capitalize() + ".")

    summary = "take bad captions, or own photos, out of the databases for good"
    forget = _add_command(commands, common, "forget", summary, summary.capitalize() + ".")
    images = "path of an image, or its number as a search prints it"
    forget.add_argument("images", nargs="+", metavar="PATH|INDEX", help=images)

    summary = "go on with the databases of a folder of photos that was moved"
    adopt = _add_command(commands, common, "adopt", summary, summary.capitalize() + ".")
    old = "where the folder was; --dataset says where it is"
    adopt.add_argument("old_folder", metavar="OLD_FOLDER", help=old)
    return [export, status, forget, adopt]


def _check_caption(parser: Parser, arguments: argparse.Namespace) -> None:
    by_index = hasattr(arguments, "EXPERIMENT_IMAGE_INDEX")
    if arguments.all + (arguments.image is not None) + by_index > 1:
        parser.error("give one of --index, --all and --image")


def _check_search(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.queries is None and arguments.query is None and arguments.image is None:
        parser.error(
            'give a text, --image or both: main.py search "a dog runs", '
            "or main.py search --image photo.jpg"
        )
    if arguments.queries is not None:
        if arguments.query is not None or arguments.image is not None:
            parser.error("give either --queries or a text and an image")
        if arguments.page or hasattr(arguments, "open"):
            parser.error("--queries writes no pages; leave out --page and --open")
        if arguments.paths or arguments.null:
            parser.error("--queries prints JSON; --paths and -0 (--null) do not go with it")


def _refuse_unknown_flags(parsers: Sequence[Parser], argv: list[str]) -> None:
    """Names a misspelt flag; argparse would take its value for a command and complain of that."""
    known = set(re.findall(r"--[a-z][a-z-]*", "".join(parser.format_help() for parser in parsers)))
    for word in argv:
        flag = word.split("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", flag) and flag not in known:
            near = difflib.get_close_matches(flag, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            parsers[0].error(f"there is no flag {flag}{hint}")


def repairs(arguments: argparse.Namespace) -> dict[str, bool]:
    """What is to be made anew or looked at again: "rebuild" and "verify"."""
    return {name: hasattr(arguments, name) for name in ("rebuild", "verify")}


# --- Flags of all commands ------------------------------------------------------------------------
def _common_flags() -> Parser:
    common = Parser(add_help=False, allow_abbrev=False)
    add_switch(
        common, "--rebuild", "recompute vectors that do not fit or are damaged; captions stay"
    )
    add_switch(common, "--verify", "hash every image of the dataset, also where nothing changed")
    add_switch(common, "--quiet", "results only: no notices, no progress bars")
    add_switch(common, "--open", "open the page that is written in the browser")
    add_switch(common, "--debug", "show the traceback of an error")
    settings = common.add_argument_group("settings, for this run only; the others are in config.py")
    for setting in SETTINGS:
        if setting.flag and setting.name != "EXPERIMENT_IMAGE_INDEX":  # means nothing to a search
            add_setting(settings, setting)
    return common


def add_switch(group: argparse._ActionsContainer, flag: str, text: str) -> None:
    """A flag without a value. One that is not given leaves no attribute."""
    group.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)


def _converter(setting: Setting) -> Callable[[str], Any]:
    """What makes a value of a word; for numbers that have it, "all" is None."""
    kind: Any = float if isinstance(setting.kind, tuple) else setting.kind

    def convert(text: str) -> Any:
        if text == "all" and kind is int and setting.optional:
            return None
        try:
            return kind(text)
        except ValueError as error:
            allowed = setting.allowed().replace("None", "all")
            raise argparse.ArgumentTypeError(f"{text!r}; it must be {allowed}") from error

    return convert


def add_setting(group: argparse._ActionsContainer, setting: Setting) -> None:
    """A flag for a setting; where it is not given, config.py's value stands."""
    assert setting.flag is not None
    if setting.kind is bool:
        group.add_argument(
            setting.flag,
            dest=setting.name,
            action="store_const",
            const=not setting.flag.startswith("--no-"),
            default=argparse.SUPPRESS,
            help=setting.help,
        )
        return
    default = getattr(config, setting.name, None)
    shown = "" if default is None else f" ({default})"
    metavars: dict[Any, str] = {int: "N", NUMBER: "X"}
    group.add_argument(
        setting.flag,
        dest=setting.name,
        type=_converter(setting),
        metavar=None if setting.choices else metavars.get(setting.kind, "NAME"),
        choices=setting.choices or None,
        default=argparse.SUPPRESS,
        help=(setting.help + shown).replace("%", "%%"),
    )
