"""SIGKILL and disk errors at every step and at random moments: python -m benchmarks.kill"""

import errno
import json
import logging
import tempfile
import time
from pathlib import Path

from tests import attacks


def main() -> None:
    logging.getLogger("captioning").setLevel(logging.ERROR)
    runs = {
        "SIGKILL before every step": lambda folder: attacks.sweep(folder, "before"),
        "SIGKILL after every step": lambda folder: attacks.sweep(folder, "after"),
        "SIGKILL half-way through every write": lambda folder: attacks.sweep(
            folder, "half", ("write",)
        ),
        "SIGKILL at every step of --rebuild": attacks.rebuild_kills,
        "SIGKILL at 200 random moments": lambda folder: attacks.random_kills(folder, 200),
        "EIO at every step": lambda folder: attacks.sweep(folder, errno.EIO),
        "ENOSPC at every step": lambda folder: attacks.sweep(folder, errno.ENOSPC),
        "20 processes, 50 updates each": lambda folder: attacks.crowd(folder, 20, 50),
    }
    for name, run in runs.items():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = run(Path(folder))
        counts = {
            key: found[key] for key in ("steps", "kills", "updates", "entries") if key in found
        }
        problems = found["problems"] or "none"
        seconds = time.monotonic() - start
        print(f"{name}: {json.dumps(counts)}, problems: {problems} ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
