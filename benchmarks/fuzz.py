"""Open, update and rebuild damaged databases: python -m benchmarks.fuzz [EXAMPLES=10000]"""

import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests import fuzz


def main(examples: int) -> None:
    logging.getLogger("captioning").setLevel(logging.CRITICAL)
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        target = fuzz.Target(Path(folder))

        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(damage=fuzz.damages())
        def attack(damage: tuple) -> None:
            outcomes[target.attack(*damage)] += 1

        attack()
    seconds = time.monotonic() - start
    print(f"{sum(outcomes.values())} damaged databases: {dict(outcomes)}, {seconds:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
