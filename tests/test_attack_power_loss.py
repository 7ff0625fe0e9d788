"""Power loss: what was reported as done is there, nothing is there in part, and it can go on."""

import logging
from pathlib import Path

import pytest

from tests.power_loss import missing_strace
from tests.power_loss_disk import MODELS, PAGE, Call, Disk
from tests.power_loss_workloads import lose_power

JOURNALLED, MINIMAL = MODELS
LONG = (
    "more updates",
    "new folders",
    "updates of many images",
    "updates after half a line",
    "rebuild",
    "new model version",
    "evaluation",
    *(f"new folders after kill {n}" for n in (2, 9, 20, 25)),
    "results after kill 0",
    "evaluation after kill 2",
)


@pytest.mark.parametrize(
    "workload", ["updates", "results", *(pytest.param(n, marks=pytest.mark.long) for n in LONG)]
)
def test_nothing_is_lost_when_the_power_fails(workload, fast_folder, settings, caplog):
    if reason := missing_strace():
        pytest.skip(reason)
    caplog.set_level(logging.CRITICAL, logger="captioning")  # every other state has a warning
    outcome = lose_power(workload, fast_folder)
    assert not outcome.problems, str(outcome)
    assert outcome.operations >= 8 and outcome.states > outcome.operations // 2


# --- The disk that the attack replays on ----------------------------------------------------------
A, B = b"/disk/a", b"/disk/b"
LETTERS = b"x" * PAGE, b"y" * PAGE, b"z"


def called(name: str, *texts: bytes, result: int = 0, file: int | None = None) -> Call:
    return Call("1", name, [] if file is None else [(file, "")], [*texts], [], "O_CREAT", result)


CREATED = called("open", A, result=3)
WRITTEN = called("write", b"".join(LETTERS), file=3, result=2 * PAGE + 1)
SYNCED = called("fsync", file=3)
RENAMED = called("rename", A, B)
FOLDER = called("open", b"/disk", result=4)
FOLDER_SYNCED = called("fsync", file=4)


def left_by(model, *calls: Call) -> list[dict[str, bytes]]:
    """What a disk may hold when the power fails after these calls."""
    disk = Disk(Path("/disk"), model)
    for call in calls:
        disk.run(call)
    return [dict(tree) for tree, _ in disk.states()]


@pytest.mark.parametrize("model", MODELS)
def test_a_rename_does_not_wait_for_the_content(model):
    found = left_by(model, CREATED, WRITTEN, RENAMED, FOLDER, FOLDER_SYNCED)
    assert all(set(state) == {"b"} for state in found)
    x, y, z = LETTERS
    zeros = bytes(PAGE)
    expected = {b"", x, x + y, x + y + z, zeros + y, x + zeros + z, bytes(2 * PAGE + 1)}
    assert expected <= {state["b"] for state in found}


@pytest.mark.parametrize("model", MODELS)
def test_what_was_synced_stays(model):
    found = left_by(model, CREATED, WRITTEN, SYNCED, RENAMED, FOLDER, FOLDER_SYNCED)
    assert found == [{"b": b"".join(LETTERS)}]


def test_the_models_differ_in_what_happens_to_names():
    steps = CREATED, WRITTEN, SYNCED, RENAMED
    names = [{tuple(state) for state in left_by(model, *steps)} for model in MODELS]
    assert names == [{("a",), ("b",)}, {("a",), ("b",), ()}]
    unlinked = [called("open", B, result=5), called("unlink", B), called("unlink", A)]
    orders = [left_by(model, CREATED, SYNCED, *unlinked) for model in MODELS]
    assert {"a": b"", "b": b""} in orders[0] and {"a": b"", "b": b""} in orders[1]
    assert {"b": b""} not in orders[0] and {"b": b""} in orders[1]
