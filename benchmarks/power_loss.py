"""The power fails after every disk operation: python -m benchmarks.power_loss [WORKLOAD ...]"""

import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.power_loss import missing_strace
from tests.power_loss_workloads import WORKLOADS, lose_power


def main(names: list[str]) -> None:
    if reason := missing_strace():
        sys.exit(f"{reason}; it records what a program does to the disk.")
    logging.getLogger("captioning").setLevel(logging.CRITICAL)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    for name in names or WORKLOADS:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            outcome = lose_power(name, Path(folder), every_note="after kill" not in name)
        print(f"{name}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
