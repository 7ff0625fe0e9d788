"""Two ways to do the same, in turns in one process, so that a busy machine slows both."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

ROUNDS = 5


class Line(NamedTuple):
    """A line of the table: what was measured beside what, and what was to be reached."""

    work: str
    peer: str
    ours: float  # median, in `unit`
    theirs: float | None
    unit: str
    ratio: float | None  # median of the rounds' ratios
    spread: tuple[float, float] | None  # lowest and highest of them
    reach: str  # "<= 1.2" of the ratio, "<= 10 ms" of ours; several joined by commas

    def markdown(self) -> str:
        """The line as Markdown, with whether it reaches what it should."""
        spread = "" if self.spread is None else f"{self.spread[0]:.2f} to {self.spread[1]:.2f}"
        theirs = "" if self.theirs is None else f"{self.theirs:,.1f}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        cells = (self.work, self.peer, f"{self.ours:,.1f} {self.unit}", theirs, ratio, spread)
        return f"| {' | '.join((*cells, self.reach, self.verdict()))} |"

    def verdict(self) -> str:
        """ "yes" where all of `reach` holds."""
        return "yes" if all(map(self._holds, self.reach.split(", "))) else "no"

    def _holds(self, wanted: str) -> bool:
        sign, number, *unit = wanted.split()
        value = self.ours if unit else self.ratio
        assert value is not None
        limit = float(number) + (float(unit[-1]) if unit[:1] == ["+"] else 0.0)
        return value <= limit if sign == "<=" else value >= limit


HEADER = (
    "| work | beside | ours | theirs | ratio | lowest to highest | to reach | reached |\n"
    "| --- | --- | ---: | ---: | ---: | --- | --- | --- |"
)


def beside(
    work: str,
    peer: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    reach: str,
    *,
    items: int = 0,
    rounds: int = ROUNDS,
    pause: float = 0.0,
) -> Line:
    """Both in turn, `rounds` times after one that does not count: milliseconds and their ratio.

    With `items`, that many a second, so that a higher ratio is better. Before each is a `pause`, in
    seconds: the threads of numpy's BLAS library go on spinning for a while after a product.
    """
    times = [(seconds(ours, pause), seconds(theirs, pause)) for _ in range(rounds + 1)][1:]
    values = [tuple(items / t if items else 1000 * t for t in pair) for pair in times]
    ratios = [mine / other for mine, other in values]
    mine, other = (statistics.median(column) for column in zip(*values, strict=True))
    spread = min(ratios), max(ratios)
    unit = "a second" if items else "ms"
    return Line(work, peer, mine, other, unit, statistics.median(ratios), spread, reach)


def alone(work: str, ours: Callable[[], object], reach: str, rounds: int = ROUNDS) -> Line:
    """The median of `rounds` in milliseconds, after one that does not count."""
    times = [1000 * seconds(ours) for _ in range(rounds + 1)][1:]
    return Line(work, "", statistics.median(times), None, "ms", None, None, reach)


def seconds(run: Callable[[], object], pause: float = 0.0) -> float:
    """How long a call takes, after a pause."""
    time.sleep(pause)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def run_program(words: Sequence[str], **changed: str) -> str:
    """What a Python program prints."""
    environment = {**os.environ, **changed}
    done = subprocess.run(
        [sys.executable, *words], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def memory(name: str) -> int:
    """Bytes of this process's memory: "VmRSS" now, "VmHWM" at its peak. Linux only."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        found = [line.split()[1] for line in file if line.startswith(name)]
    return 1024 * int(found[0])
