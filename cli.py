"""The command line: flags, what each setting allows, and how flags become settings. Imports nothing heavy."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import config
from records import SettingError


@dataclass(frozen=True)
class Setting:
    """A setting of config.py: its flag, type and what it allows."""

    name: str
    flag: str | None
    kind: type | tuple[type, ...]
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is allowed
    empty: bool = False  # "" is allowed

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, None when it is allowed."""
        if value is None and self.optional:
            return None
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds) or value != value:
            return f"it must be {self.allowed()}"
        if isinstance(value, str) and ("\0" in value or not (value.strip() or self.empty)):
            return f"it must be {self.allowed()}"
        if self.choices and value not in self.choices:
            return f"it must be {self.allowed()}"
        low, high = self.low is not None and value < self.low, self.high is not None and value > self.high
        return f"it must be {self.allowed()}" if low or high else None

    def allowed(self) -> str:
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        names = {int: "a whole number", str: "text", bool: "True or False", (int, float): "a number"}
        limits = "" if self.low is None else f" from {self.low}" + ("" if self.high is None else f" to {self.high}")
        return names[self.kind] + limits + (", or None" if self.optional else "")


NUMBER = (int, float)
SETTINGS = (
    Setting("DATASET_NAME", "--dataset", str, "Hub dataset, or a folder of images with captions.txt"),
    Setting("DATASET_REVISION", None, str, "", optional=True),
    Setting("DATASET_SPLIT", "--split", str, "one split; default: all", optional=True),
    Setting("IMAGE_COLUMN", "--image-column", str, "default: recognised", optional=True),
    Setting("CAPTION_COLUMN", "--caption-column", str, "default: recognised", optional=True),
    Setting("EXPERIMENT_SAMPLES", "--experiment-samples", int, "images set aside as queries", 1),
    Setting("EXPERIMENT_IMAGE_INDEX", "--index", int, "which experiment image to caption", 0),
    Setting("RANDOM_SEED", "--seed", int, "decides which images are set aside", -(2**63), 2**63 - 1),
    Setting("TOTAL_SAMPLES", "--total-samples", int, "use only so many images", 2, optional=True),
    Setting("CLIP_MODEL_NAME", "--clip-model", str, "CLIP or SigLIP: Hub name or folder"),
    Setting("VLM_MODEL_NAME", "--vlm-model", str, "vision-language model: Hub name or folder"),
    Setting("CAPTION_EMBEDDING_MODEL", "--text-model", str, "sentence-transformers model: Hub name or folder"),
    Setting("CLIP_REVISION", None, str, "", optional=True),
    Setting("VLM_REVISION", None, str, "", optional=True),
    Setting("CAPTION_EMBEDDING_REVISION", None, str, "", optional=True),
    Setting("CAPTION_QUERY_PROMPT", "--query-prompt", str, "text put before a text query", optional=True, empty=True),
    Setting("TOP_K_SIMILAR", "--top-k", int, "how many similar images", 1),
    Setting("CAPTIONS_PER_NEIGHBOR", "--captions-per-neighbor", int, "captions of each similar image in the prompt", 1),
    Setting("USE_GENERATED_AS_CONTEXT", None, bool, ""),
    Setting("SEARCH_WORD_WEIGHT", "--word-weight", NUMBER, "in a search by text, of words in common; 0 = none", 0, 1),
    Setting("MAX_CONTEXT_CAPTION_CHARS", None, int, "", 1),
    Setting("PROMPT_TEMPLATE", None, str, ""),
    Setting("PROMPT_WITHOUT_CONTEXT", None, str, ""),
    Setting("MAX_NEW_TOKENS", "--max-new-tokens", int, "longest caption, in tokens", 1, 4096),
    Setting("NUM_BEAMS", "--num-beams", int, "beams of the search for a caption; 1 = greedy", 1, 64),
    Setting("TEMPERATURE", "--temperature", NUMBER, "0 = greedy, above 0 samples", 0, 10),
    Setting("VLM_IMAGE_SPLITTING", None, bool, ""),
    Setting("DEVICE", "--device", str, "auto, cpu, cuda, cuda:1, mps"),
    Setting("DTYPE", "--dtype", str, "of the models", choices=("auto", "float32", "bfloat16", "float16")),
    Setting("IMAGE_BATCH_SIZE", "--image-batch-size", int, "images a CLIP step", 1, 65536),
    Setting("VLM_BATCH_SIZE", "--vlm-batch-size", int, "images a captioning step", 1, 65536),
    Setting("TEXT_BATCH_SIZE", "--text-batch-size", int, "captions an embedding step", 1, 65536),
    Setting("DB_DIR", "--db-dir", str, "folder of the databases"),
    Setting("IMAGE_EMBEDDING_DB", None, str, ""),
    Setting("CAPTION_DB", None, str, ""),
    Setting("CAPTION_EMBEDDING_DB", None, str, ""),
    Setting("RESULTS_DIR", "--results-dir", str, "folder of the results"),
    Setting(
        "MODE", "--mode", str, "demo when the Hub is out of reach, never, or always", choices=("auto", "hub", "demo")
    ),
    Setting("SHOW_PROGRESS", None, bool, ""),
)
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{,90}\.json"
FILE_NAMES = ("IMAGE_EMBEDDING_DB", "CAPTION_DB", "CAPTION_EMBEDDING_DB")


def check_settings() -> None:
    """Raises SettingError, naming setting, value and what is allowed, for the first setting that cannot be used."""
    flags = {setting.name: setting.flag for setting in SETTINGS}
    for setting in SETTINGS:
        if not hasattr(config, setting.name):
            raise SettingError(f"config.py has no {setting.name} any more. It must be {setting.allowed()}.")
        problem = setting.problem(value := getattr(config, setting.name))
        if problem:
            flag = f" ({setting.flag})" if setting.flag else ""
            raise SettingError(
                f"{setting.name}{flag} is {value!r}; {problem}. Mend it in "
                f"config.py{' or with the flag' if flag else ''}."
            )
    names = [getattr(config, name) for name in FILE_NAMES]
    if not all(re.fullmatch(FILE_NAME, name) for name in names) or len(set(names)) < len(names):
        raise SettingError(
            f"{', '.join(FILE_NAMES)} are {names}; they must be three different file names without folders, of "
            "letters, digits, '-', '_' and '.', that end in .json."
        )
    if "{captions}" not in config.PROMPT_TEMPLATE:
        raise SettingError("PROMPT_TEMPLATE must contain {captions}, where the captions of similar images go.")
    limit = config.EXPERIMENT_SAMPLES
    if limit <= config.EXPERIMENT_IMAGE_INDEX:
        raise SettingError(
            f"EXPERIMENT_IMAGE_INDEX ({flags['EXPERIMENT_IMAGE_INDEX']}) is {config.EXPERIMENT_IMAGE_INDEX}; it "
            f"must be 0 to {limit - 1} (EXPERIMENT_SAMPLES is {limit})."
        )


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nAll flags: python {self.prog} --help\n")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line. Exits with 0 for --help, and with 2 and a message for what cannot be understood."""
    common = _common_flags()
    parser = Parser(
        prog="main.py",
        description="Captions an image with a vision-language model that sees the captions of the most similar images.",
        epilog='Examples: main.py --index 42 | main.py --image a.jpg DIR | main.py search "a dog runs"',
        parents=[common],
        allow_abbrev=False,
    )
    index = next(setting for setting in SETTINGS if setting.name == "EXPERIMENT_IMAGE_INDEX")
    _add_setting(parser, index)
    parser.add_argument("--image", nargs="+", metavar="PATH", help="caption your own images: files, or folders of them")
    parser.add_argument(
        "--all", action="store_true", help="caption every experiment image; goes on where it was stopped"
    )
    parser.add_argument(
        "--recaption", action="store_true", default=argparse.SUPPRESS, help="with --all: from the start"
    )
    parser.set_defaults(command="caption", image=None)
    commands = parser.add_subparsers(metavar="COMMAND")
    search = commands.add_parser(
        "search",
        parents=[common],
        allow_abbrev=False,
        help="find images by a text or by an image",
        description="Finds images by a text or by an image.",
    )
    search.add_argument("query", nargs="?", help="what to look for")
    search.add_argument("--image", metavar="PATH", help="find images like this one")
    search.set_defaults(command="search", query=None, image=None)
    evaluation = commands.add_parser(
        "evaluate", parents=[common], allow_abbrev=False, help="measure whether retrieval helps",
        description="Captions the experiment images with retrieval, without, and under baselines, and scores them.",
    )  # fmt: skip
    evaluation.add_argument("--samples", type=int, metavar="N", help="only the first N experiment images")
    evaluation.add_argument("--arms", nargs="+", metavar="ARM", help="none retrieved random wrong nearest consensus")
    evaluation.set_defaults(command="evaluate")
    _refuse_unknown_flags((parser, search, evaluation), sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(argv)
    if (
        arguments.command == "caption"
        and arguments.all + (arguments.image is not None) + hasattr(arguments, "EXPERIMENT_IMAGE_INDEX") > 1
    ):
        parser.error("give one of --index, --all and --image")
    if hasattr(arguments, "recaption") and not arguments.all:
        parser.error("--recaption goes with --all")
    if arguments.command == "search" and (arguments.query is None) == (arguments.image is None):
        search.error('give either a text or --image: main.py search "a dog runs", or main.py search --image photo.jpg')
    return arguments


def _refuse_unknown_flags(parsers: Sequence[Parser], argv: list[str]) -> None:
    """Names a misspelt flag; argparse would take its value for a command and complain of that."""
    known = set(re.findall(r"--[a-z][a-z-]*", "".join(parser.format_help() for parser in parsers)))
    for word in argv:
        flag = word.split("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]*", flag) and flag not in known:
            near = difflib.get_close_matches(flag, known, 1)
            parsers[0].error(f"there is no flag {flag}" + (f"; did you mean {near[0]}?" if near else ""))


def _common_flags() -> argparse.ArgumentParser:
    # SUPPRESS: a flag that is not given leaves no trace, so that config.py's value stands.
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument(
        "--rebuild", action="store_true", help="make vectors anew that do not fit or are damaged; captions stay"
    )
    common.add_argument(
        "--no-generated-context", action="store_true", help="do not show captions written earlier as context"
    )
    common.add_argument("--quiet", action="store_true", help="results only: no notices, no progress bars")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    settings = common.add_argument_group("settings, for this run only; the others are in config.py")
    for setting in SETTINGS:
        if setting.flag and setting.name != "EXPERIMENT_IMAGE_INDEX":  # which says nothing to a search
            _add_setting(settings, setting)
    return common


def _add_setting(group: argparse._ActionsContainer, setting: Setting) -> None:
    """A flag for a setting; without the flag config.py's value stands."""
    default = getattr(config, setting.name, None)
    shown = "" if default is None else f" ({default})"
    group.add_argument(
        setting.flag,
        dest=setting.name,
        type=float if setting.kind == NUMBER else setting.kind,
        metavar=None if setting.choices else {int: "N", NUMBER: "X"}.get(setting.kind, "NAME"),
        choices=setting.choices or None,
        default=argparse.SUPPRESS,
        help=(setting.help + shown).replace("%", "%%"),
    )


def apply(arguments: argparse.Namespace) -> None:
    """Puts the flags into config and checks all settings. Raises SettingError."""
    for setting in SETTINGS:
        if hasattr(arguments, setting.name):
            setattr(config, setting.name, getattr(arguments, setting.name))
    if hasattr(arguments, "no_generated_context"):
        config.USE_GENERATED_AS_CONTEXT = False
    if hasattr(arguments, "quiet"):
        config.SHOW_PROGRESS = False
    check_settings()
