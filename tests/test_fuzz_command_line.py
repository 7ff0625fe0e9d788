"""Commands over damaged files, with odd flags: a named error, and nothing that stops the next."""

import json
import os
import shlex
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests import command_fuzz
from tests.command_fuzz import NOBODY, Run, forked, in_own_process, in_process
from tests.damaged_files import Playground
from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@pytest.fixture(scope="module")
def playground():
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Playground(Path(folder))


@pytest.fixture
def user():
    """An ordinary user, whom permissions stop; None: this one is."""
    command_fuzz.open_to_all(Path(os.environ["HF_HOME"]))
    if not all(folder.stat().st_mode & 0o001 for folder in (ROOT, *ROOT.parents)):
        pytest.skip("an ordinary user may not enter the project's folder")
    return NOBODY if os.geteuid() == 0 else None


def attack_with(playground: Playground, examples: int, run: Run, **who) -> None:
    """Runs so many cases, the same at every call."""

    @settings(
        max_examples=examples,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=command_fuzz.cases(playground.targets, permissions=bool(who)))
    def attack(case) -> None:
        again = f"python -m benchmarks.command_line --case {shlex.quote(json.dumps(case))}"
        wrong = command_fuzz.attack(playground, case, run, **who)
        assert wrong is None, f"{wrong}\n{again}"

    attack()


def test_each_command_ends_well_or_with_a_message_that_names_what_is_wrong(playground):
    attack_with(playground, 80, in_process)


def test_so_it_is_for_a_user_who_may_not_read_or_write_everything(playground, user):
    attack_with(playground, 20, partial(forked, user=user), user=user)


@pytest.mark.long
def test_so_it_is_in_processes_of_their_own(playground, user):
    if user is not None and not command_fuzz.can_start(user):
        user = None
    attack_with(playground, 20, partial(in_own_process, user=user), user=user)
