"""SIGKILL: saved work is there, nothing is half there, and a second run reaches the same state."""

import json
import os

import pytest

from tests.attacks import WRITES
from tests.helpers import run_python

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="forks and kills processes"),
]


def attacked(scenario: str, folder, *arguments: object) -> dict:
    """What an attack of tests/attacks.py found, run in a process without torch."""
    done = run_python(
        "-m", "tests.attacks", scenario, str(folder / "attack"), *map(str, arguments), timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("action, kinds", [("before", WRITES), ("half", ("write",))])
def test_killed_at_every_step_to_the_disk(fast_folder, action, kinds):
    found = attacked("sweep", fast_folder, action, ",".join(kinds))
    assert found["problems"] == []
    assert found["statuses"] == {"-9": found["steps"]} and found["steps"] > 20


def test_killed_at_random_moments(tmp_path):
    found = attacked("random", tmp_path, 30)
    assert found["problems"] == [] and found["updates"] > 30


def test_killed_at_every_step_of_a_rebuild_never_mixes_two_revisions(fast_folder):
    found = attacked("rebuild", fast_folder)
    assert found["problems"] == [] and found["steps"] > 20
