"""Random commands over damaged files, with odd flags and paths, and what must hold for each.

`cases` draws them, `attack` runs one in this process, in a fork of it or in a new process, and says
which promise its outcome breaks.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from support.settings import SETTINGS
from support.text import printable
from tests import damaged_files
from tests.damaged_files import DATASETS, FLAGS, Damage, Playground
from tests.helpers import ROOT, Finished, run_main

SECONDS = 20.0  # what takes longer hangs: most cases end within one second
MEMORY = 4 * 2**30  # bytes more than this process has
NOBODY = 65534  # the ordinary user who meets permissions where this one is root
COMMANDS = (
    (), ("--index", "1"), ("--all",), ("--all", "--recaption"), ("--image", "{folder}/own"),
    ("--image", "{folder}/own/a.png", "{folder}/photos"), ("search", "a red dog"),
    ("search", "--image", "{folder}/own/a.png"), ("evaluate",), ("evaluate", "--samples", "2"),
    ("evaluate", "--arms", "none", "retrieved"),
)  # fmt: skip
GOOD = {
    "--experiment-samples": ("3", "5"), "--total-samples": ("8", "1000"), "--top-k": ("1", "100"),
    "--captions-per-neighbor": ("1", "2"), "--word-weight": ("0", "0.5", "1"),
    "--max-new-tokens": ("1", "6"), "--num-beams": ("1", "2"), "--temperature": ("0", "0.7"),
    "--seed": ("0", "-5"), "--dtype": ("float32", "bfloat16"), "--device": ("cpu", "auto"),
    "--image-batch-size": ("1", "65536"), "--vlm-batch-size": ("1", "65536"),
    "--text-batch-size": ("1", "65536"), "--query-prompt": ("", "find: "),
    "--db-dir": ("{folder}/new/deep", "{folder}/linked"),
    "--results-dir": ("{folder}/new/deep", "{folder}/linked"),
}  # fmt: skip
NUMBERS = (
    "-1", "0", "1", "2", "1.5", "nan", "inf", "-inf", "1e999", "1e-320", "1e-30", "0.0001", "٣",
    "1_0", "0x10", "9" * 30, "9" * 5000,
)  # fmt: skip
TEXTS = (
    "", " ", "x", "x" * 5000, "개" * 300, "\x1b[31mred", "a\nb", "a\tb", "\x07", "\udcff",
    "\x9b31m", "\u202ered", "-x", "%s", "{0}", "nosuch", "no/such", "a/b/c", "org/" + "x" * 300,
    "$(x)", "*", "🐕", "None",
)  # fmt: skip
# For what is written, so these lead to nothing outside the playground.
FOLDERS = (
    "", " ", "~nosuchuser/x", "/dev/null", "/dev/null/x", "/dev/full", "/proc/x", "{folder}",
    "{folder}/photos", "{folder}/results", "{folder}/clip", "{folder}/photos/p00.png",
    "{folder}/own/a.png/x", "{folder}/fifo", "{folder}/loop", "{folder}/loop/x",
    "{folder}/dangling", "{folder}/dangling/x", "{folder}/\x1b[31mred", "{folder}/a\nb",
    "{folder}/\udcff", "{folder}/ x ", "{folder}/" + "x" * 300, "{folder}/" + "개" * 80,
    "{folder}/" + "x/" * 2500 + "x",
)  # fmt: skip
PATHS = (
    *FOLDERS, "/dev/zero", "/dev/urandom", "/dev/tty", "~", "~nobody", "~nobody/x.png", "photos",
    "own/a.png", "./own", ".", "{folder}/empty", "{folder}/missing", "{folder}/vlm",
    "{folder}/blip", "{folder}/text", "{folder}/own/\x1b[31mred.png", "{folder}/own/a\nb.png",
    "{folder}/own/\udcff.png", "{folder}/\x1b]0;odd\x07", "{folder}/own/notes.txt",
    "{folder}/databases", "{folder}/table.parquet", "{folder}/photos/captions.txt",
    "{folder}/own/" + "n" * 240 + ".png",
)  # fmt: skip


class Case(NamedTuple):
    """A command, flags beside the usual ones, and what is damaged before it runs."""

    command: tuple[str, ...]
    flags: tuple[tuple[str, str | None], ...] = ()
    odd: tuple[str, ...] = ()  # words that the message may name
    damages: tuple[Damage, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Case":
        """The case that `json.dumps` has written."""
        command, flags, odd, damages = json.loads(text)
        pairs = tuple((flag, value) for flag, value in flags)
        return cls(tuple(command), pairs, tuple(odd), tuple(Damage(*d) for d in damages))

    def words(self, folder: Path) -> list[str]:
        """The command line."""
        flags = {**FLAGS, **dict(self.flags)}
        pairs = [flag if value is None else f"{flag}={value}" for flag, value in flags.items()]
        return [word.replace("{folder}", str(folder)) for word in (*self.command, *pairs)]

    def simpler(self) -> Iterator["Case"]:
        """The case without one of its flags or damages."""
        for name in ("flags", "damages"):
            parts = getattr(self, name)
            for number in range(len(parts)):
                yield self._replace(**{name: parts[:number] + parts[number + 1 :]})


# --- Drawing --------------------------------------------------------------------------------------
def cases(targets: Sequence[str], permissions: bool = False) -> st.SearchStrategy[Case]:
    """Cases that damage some of `targets`; with `permissions`, they change those too."""
    # One draw for a case: drawn piece by piece, the first of each list came up far too often.
    return st.randoms(use_true_random=True).map(lambda random: _draw(random, targets, permissions))


def _draw(random: Random, targets: Sequence[str], permissions: bool) -> Case:
    dataset = random.choice(("photos", random.choice(DATASETS)))
    wrong = random.choice(("flags", "files", "files", "both"))
    command, odd = random.choice(COMMANDS), ()
    if wrong != "files" and random.random() < 0.4:
        command, odd = _odd_word(random, command)
    names = flag_names(command) if wrong != "files" else ("--quiet", "--rebuild")
    flags: dict[str, str | None] = {"--dataset": f"{{folder}}/{dataset}"}
    for name in random.sample(names, random.randint(0, 2)):
        flags[name], words = _value(random, name, command)
        odd += words
    if "--dataset" not in odd:  # else the demo's would be drawn
        flags["--mode"] = random.choice(("hub", "auto"))
    areas = _areas(targets, dataset, command)
    count = 0 if wrong == "flags" else random.randint(1, 2)
    damages = [_damage(random, random.choice(areas), permissions) for _ in range(count)]
    return Case(command, tuple(flags.items()), odd, tuple(damages))


def _odd_word(random: Random, command: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A command whose last word is odd, if it can be, and what a message may name."""
    if len(command) < 2 or command[-1].startswith("-"):
        return command, ()
    word = random.choice(random.choice((NUMBERS, TEXTS, PATHS)))
    return (*command[:-1], word), (*command[-2:-1], word)


def _value(
    random: Random, flag: str, command: tuple[str, ...]
) -> tuple[str | None, tuple[str, ...]]:
    """A value for a flag, and what a message may name if it is odd."""
    if flag in SWITCHES:  # what belongs to another command is odd
        return None, (flag, *command) if flag in ("--all", "--recaption") else ()
    if flag in GOOD and random.random() < 0.5:
        return random.choice(GOOD[flag]), ()
    slow = flag in ("--max-new-tokens", "--num-beams")
    numbers = [number for number in NUMBERS if not slow or len(number) != 1]
    value = random.choice(random.choice((numbers, TEXTS, PATHS)))
    if flag in ("--db-dir", "--results-dir"):
        value = random.choice(FOLDERS)
    return value, (flag, *(setting.name for setting in SETTINGS if setting.flag == flag), value)


SWITCHES: set[str] = set()


@cache
def flag_names(command: tuple[str, ...]) -> tuple[str, ...]:
    """The flags of a command, as its --help shows them, that it does not have yet."""
    name = [word for word in command[:1] if word in ("search", "evaluate")]
    usage = run_main(*name, "--help").stdout.partition("\n\n")[0]
    found = dict(re.findall(r"\[(--[a-z-]+)( [^\]])?", usage))
    SWITCHES.update(flag for flag, value in found.items() if not value)
    return tuple(flag for flag in found if flag not in ("--debug", "--mode", *command))


def _areas(targets: Sequence[str], dataset: str, command: Sequence[str]) -> list[list[str]]:
    """What a command reads and writes, from the databases to the models."""
    resumed = "partial" if "evaluate" in command else "frozen_pools/|results/experiment_"
    areas = {
        "databases": r"databases/.*/.*\.|databases/.*/lock",
        "resumed": resumed if {"evaluate", "--all"} & set(command) else "-",
        "folders": r"(databases(/.*-\*|.*pools)?|results)$",
        "dataset": re.escape(dataset) + "(/|$)",
        "own": "own(/|$)" if "--image" in command else "-",
        "models": "(clip|vlm|text)(/|$)",
    }
    if dataset != "photos":  # of which nothing is in the databases yet
        del areas["databases"], areas["resumed"]
    found = [[t for t in targets if re.match(pattern, t)] for pattern in areas.values()]
    return [area for area in found if area]


def _damage(random: Random, targets: Sequence[str], permissions: bool) -> Damage:
    target = random.choice(targets)
    kinds = [damaged_files.PLACES, *[damaged_files.PERMISSIONS] * permissions]
    if "." in target or target.endswith("lock"):  # no folder
        kinds += [damaged_files.BYTES, damaged_files.VALUES, damaged_files.BECOMES]
    return Damage(target, random.choice(random.choice(kinds)), round(random.random(), 3))


# --- Running --------------------------------------------------------------------------------------
class Hang(BaseException):
    """A command that does not end."""


Run = Callable[[list[str], Path], Finished]


def in_process(words: list[str], folder: Path) -> Finished:
    """Runs `main.py words` here, in `folder`. What it raises is found on its stderr."""
    try:
        with chdir(folder), _limits():
            return run_main(*words)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - some libraries' errors are no Exceptions
        return Finished(1, "", traceback.format_exc())


@contextmanager
def _limits() -> Iterator[None]:
    """Raises Hang after SECONDS, and MemoryError where MEMORY does not suffice."""

    def stop(*_: object) -> None:
        raise Hang(f"no end after {SECONDS:g} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # again, where it is caught
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def forked(words: list[str], folder: Path, user: int | None = None) -> Finished:
    """The same in a fork of this process, as `user`: libraries and models are there already."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            try:
                _become(user)
                answer.write(json.dumps(in_process(words, folder)).encode())
                answer.flush()
            finally:
                os._exit(0)
        status = _wait(child)
        answer.seek(0)
        data = answer.read()
    return Finished(*json.loads(data)) if data else Finished(-status or -1, "", "no answer")


def _become(user: int | None) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def _wait(child: int) -> int:
    """The status of a process at its end; it is killed if that does not come."""
    end = time.monotonic() + 2 * SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def in_own_process(words: list[str], folder: Path, user: int | None = None) -> Finished:
    """`python main.py words` in `folder`, as `user`."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    open_to_all(home)
    environment = {**os.environ, "HOME": str(home), "HF_HOME": str(home)}
    command = [sys.executable, str(ROOT / "main.py"), *words]
    try:
        done = _start(command, user, cwd=folder, env=environment, timeout=3 * SECONDS)
    except subprocess.TimeoutExpired:
        return Finished(-signal.SIGKILL, "", "no answer")
    outputs = [output.decode(errors="replace") for output in (done.stdout, done.stderr)]
    return Finished(done.returncode, *outputs)


def can_start(user: int) -> bool:
    """Whether `user` may read Python, its packages and the program."""
    words = [sys.executable, "-c", "import numpy, main"]
    try:
        return _start(words, user, cwd=ROOT).returncode == 0
    except PermissionError:  # Python itself lies where the user may not look
        return False


def _start(command: list[str], user: int | None, **options: Any) -> subprocess.CompletedProcess:
    who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, **options, **who)


def open_to_all(folder: Path) -> None:
    """Lets every user read and write what is in `folder`, such as a cache."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o777)


# --- What must hold -------------------------------------------------------------------------------
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
CURSOR_UP = "\x1b[A"  # from tqdm, after a bar within another
WAY_OUT = re.compile(
    r"rebuild|restore|newer|permission|delete|remove|set |check|recaption|move |choose", re.I
)


def attack(playground: Playground, case: Case, run: Run, user: int | None = None) -> str | None:
    """Runs a case, twice where it ends well: what it leaves must do for the next command.

    Returns which promise is broken, if one is.
    """
    damaged = playground.arrange(case.damages, user)
    words = case.words(playground.folder)
    done = run(words, playground.folder)
    wrong = problem(case, done, damaged)
    if done.returncode == 0 and wrong is None and (damaged or case.odd):
        done = run(words, playground.folder)
        wrong = problem(case, done, damaged)
        if wrong is None and done.returncode:
            wrong = f"the same command fails the second time: {done.stderr}"
    litter = [path.name for path in ROOT.glob("~*")]
    return wrong or (f"wrote {litter} beside the program" if litter else None)


def problem(case: Case, done: Finished, damaged: Sequence[str]) -> str | None:
    """Which promise a finished command breaks; `damaged` are paths that a message may name."""
    if raised := re.findall(r"^Unexpected .*", done.stderr, re.M):
        return raised[-1]
    if "Traceback (most recent" in done.stderr:
        return re.findall(r"^[\w.]+(?::.*|$)", done.stderr, re.M)[-1]
    if done.returncode not in (0, 1, 2):
        return f"exit status {done.returncode}: {done.stderr}"
    for output in (done.stdout, done.stderr.replace(CURSOR_UP, "")):
        if found := CONTROL.search(output):
            around = output[max(0, found.start() - 60) :][:160]
            return f"control character {found[0]!r} in {around!r}"
    return _bad_message(case, done.stderr.strip(), damaged) if done.returncode else None


def _bad_message(case: Case, text: str, damaged: Sequence[str]) -> str | None:
    """What is wrong with the message of a refusal."""
    if not text:
        return "refused without a message"
    if not case.odd and not damaged:
        return f"refused, with nothing wrong: {text}"
    lines = text.split("\n")
    if not all(map(str.strip, lines)) or ("--quiet" in dict(case.flags) and len(lines) > 2):
        return f"not one paragraph: {text}"
    if not any(name in text for name in _names(case.odd, damaged)):
        return f"names nothing that is at fault: {text}"
    in_databases = len(damaged) == 1 and damaged[0].startswith("databases/") and not case.odd
    if in_databases and not (Path(damaged[0]).name in text and WAY_OUT.search(text)):
        return f"does not name {damaged[0]} and a way out: {text}"
    return None


SETTING_OF_FOLDER = {
    "clip": "CLIP_MODEL_NAME",
    "vlm": "VLM_MODEL_NAME",
    "text": "CAPTION_EMBEDDING_MODEL",
}


def _names(odd: Sequence[str], damaged: Sequence[str]) -> set[str]:
    """What a message may name: parts of paths and words that a terminal can show."""
    names = {part for path in damaged for part in Path(path).parts}
    names |= {SETTING_OF_FOLDER[name] for name in names & set(SETTING_OF_FOLDER)}
    for word in odd:
        plain = re.findall(r"[\w.-]+", word.replace("{folder}", ""))
        shown = (word, printable(word), repr(word)[1:-1], *(plain or ["case/"]))
        names |= {name[:20] for name in shown}
    return {name or "''" for name in names}
