"""Random commands over damaged files: python -m benchmarks.command_line --cases 2000

Prints each distinct failure once, as small as it gets, with the words that repeat it. Where this is
root, an ordinary user runs the commands, so that permissions count.
"""

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", help="one case, as a failure shows it")
    parser.add_argument("--findings", type=Path, help="a file for the failures, as they come")
    arguments = parser.parse_args()
    with _folder() as folder:
        target = Target(folder, arguments.findings)
        start = time.monotonic()
        if arguments.case:
            target.attack(target.fuzz.Case.parse(arguments.case))
        else:
            target.attack_all(arguments.cases, arguments.seed)
        print(f"{target.total} cases, {len(target.failures)} distinct failures", end=", ")
        print(f"{time.monotonic() - start:.0f} s")
    sys.exit(bool(target.failures))


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder, in memory if possible, and settings that no library has read before.

    No case meets the real Hub or the user's cache.
    """
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as name:
        home = Path(name, "home")
        home.mkdir()
        home.chmod(0o777)
        os.environ |= {"HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
        os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        yield Path(name)


class Target:
    """The program under attack, and its distinct failures."""

    def __init__(self, folder: Path, findings: Path | None):
        from tests import command_fuzz
        from tests.damaged_files import Playground

        self.fuzz: Any = command_fuzz
        self.user = command_fuzz.NOBODY if os.geteuid() == 0 else None
        self.run = partial(command_fuzz.forked, user=self.user)
        self.playground = Playground(folder)
        self.findings = findings
        self.total = 0
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, str] = {}

    def attack_all(self, cases: int, number: int) -> None:
        """Attacks with so many cases, the same for the same number."""
        chosen = settings(
            max_examples=cases,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        drawn = self.fuzz.cases(self.playground.targets, permissions=True)
        seed(number)(chosen(given(case=drawn)(self.attack)))()

    def attack(self, case: Any) -> None:
        """Attacks with a case; a failure that is new is made small and shown."""
        wrong = self.outcome(case)
        self.total += 1
        if wrong is None:
            return
        kind = self.kind(case, wrong)
        self.counts[kind] += 1
        if kind not in self.failures:
            self.failures[kind] = self.shown(self.smallest(case, kind))
            print(f"{len(self.failures)}. {self.failures[kind]}", flush=True)
        if self.findings:
            self.findings.write_text(self.report(), encoding="utf-8")

    def outcome(self, case: Any) -> str | None:
        return self.fuzz.attack(self.playground, case, self.run, self.user)

    def smallest(self, case: Any, kind: str) -> Any:
        """`case` without what can be left out."""
        for simpler in case.simpler():
            wrong = self.outcome(simpler)
            if wrong and self.kind(simpler, wrong) == kind:
                return self.smallest(simpler, kind)
        return case

    def kind(self, case: Any, wrong: str) -> str:
        """What tells failures apart: the exception and where it comes from, else the message."""
        raised = re.match(r"(?:Unexpected )?([\w.]+)(?:$|:)", wrong)
        places = self.places(case) if raised else []
        if raised and places:
            return f"{raised[1]} {places[-1]}"
        return re.sub(r"(\\x1b)?[/'][^\s'\"]*|\d+", "*", wrong)[:60]

    def places(self, case: Any) -> list[str]:
        """The innermost lines of the project on the way to an exception."""
        self.playground.arrange(case.damages, self.user)
        words = [*case.words(self.playground.folder), "--debug"]
        text = self.run(words, self.playground.folder).stderr
        found = re.findall(rf'File "{self.fuzz.ROOT}/(.*)", line (\d+), in (\w+)', text)
        lines = [f"{path}:{line} {name}" for path, line, name in found]
        return [line for line in lines if not line.startswith(("tests/", "benchmarks/"))][-3:]

    def shown(self, case: Any) -> str:
        wrong = self.outcome(case)
        command = shlex.join(["main.py", *case.command, *self.changed(case)])
        damages = [f"   {target}: {kind} at {part}\n" for target, kind, part in case.damages]
        again = f"   --case {shlex.quote(json.dumps(case))}\n"
        places = f"   {' <- '.join(reversed(self.places(case)))}\n"
        shown = f"{wrong}\n   {command}\n" + "".join(damages) + places
        shown = re.sub(
            r"(.{1,3})\1{40,}", r"\1…\1", shown.replace(str(self.playground.folder), "FOLDER")
        )
        return (shown + again).encode("utf-8", "backslashreplace").decode()

    def changed(self, case: Any) -> list[str]:
        return [flag if value is None else f"{flag}={value}" for flag, value in case.flags]

    def report(self) -> str:
        """All failures, with how often each was met."""
        parts = [f"{self.total} cases\n"]
        for number, (kind, text) in enumerate(self.failures.items(), 1):
            parts.append(f"## {number}. {kind} ({self.counts[kind]} times)\n{text}")
        return "\n".join(parts)


if __name__ == "__main__":
    main()
