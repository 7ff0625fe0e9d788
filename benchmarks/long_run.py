"""Memory, file handles and time of many updates: python -m benchmarks.long_run [UPDATES=5000]"""

import sys
import tempfile
from pathlib import Path

from tests import attacks


def main(updates: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome = attacks.long_run(Path(folder), updates)
    print("updates  resident MiB  file handles  ms per update")
    for mark in outcome["marks"]:
        each = 1000 * mark["s"] / (updates / len(outcome["marks"]))
        print(
            f"{mark['updates']:7}  {mark['kib'] / 1024:12.1f}  {mark['handles']:12}  {each:12.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
