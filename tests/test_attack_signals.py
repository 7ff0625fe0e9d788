"""Ctrl-C and SIGTERM in each stage: status 130 or 143, work saved, no traceback or process left."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")

STAGES = {  # what runs when the signal comes
    "data preparation": ("dataset_loader", "_merge_copies"),
    "opening the databases": ("support.storage.snapshot:Snapshot", "refresh"),
    "first update": ("support.storage.journal:Journal", "append"),
    "image embedding": ("image_embedder:ImageEmbedder", "embed_pixels"),
    "similarity search": ("similarity_search:Pool", "neighbors_of"),
    "prompt": ("prompt_generator", "build_prompt"),
    "captioning": ("vlm_captioner:Captioner", "_caption_batch"),
    "database update": ("db_manager:DatabaseManager", "add_generated"),
    "caption embedding": ("caption_embedder:CaptionEmbedder", "embed_captions"),
    "saving the result": ("experiments.results", "publish_file"),
    "compacting": ("support.storage.store:Store", "_compact"),
}
IN_SHORT = "captioning"  # the other stages are tried in the long set
LATER_STAGES = [pytest.param(name, marks=pytest.mark.long) for name in STAGES if name != IN_SHORT]
RUN = """
import functools, importlib, os, sys
owner, name, number = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
module, _, kind = owner.partition(":")
owner = importlib.import_module(module)
owner = getattr(owner, kind) if kind else owner
call = getattr(owner, name)
sent = []

@functools.wraps(call)
def stopped(*arguments, **options):
    sent or (sent.append(1), os.kill(os.getpid(), number))
    return call(*arguments, **options)

setattr(owner, name, stopped)
import main
sys.exit(main.main())
"""


def flags(tiny, photos, tmp_path) -> list[str]:
    chosen = {
        "--mode": "hub", "--dataset": photos, "--experiment-samples": 3,
        "--clip-model": tiny("clip"), "--vlm-model": tiny("idefics3"),
        "--text-model": tiny("bert"), "--max-new-tokens": 8,
        "--db-dir": tmp_path / "databases", "--results-dir": tmp_path / "results",
    }  # fmt: skip
    return [str(word) for pair in chosen.items() for word in pair]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("stage", [IN_SHORT, *LATER_STAGES])
def test_stopped_in_each_stage(tiny, photos, tmp_path, stage, number, status):
    command = [sys.executable, "-c", RUN, *STAGES[stage], str(int(number))]
    arguments = [*command, *flags(tiny, photos, tmp_path)]
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "Stopped. What was done is saved." in errors and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):  # its session is empty
        os.killpg(process.pid, 0)
    check_state(tmp_path, stage)


def check_state(folder, stage: str) -> None:
    """No half file; and what came before the stage is there."""
    from db_manager import DatabaseManager

    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("*.corrupt*"))
    results = [
        json.loads(path.read_text(encoding="utf-8")) for path in (folder / "results").glob("*.json")
    ]
    opened = [DatabaseManager(path, "photos") for path in (folder / "databases").glob("*")]
    done = list(STAGES).index(stage)
    captions = [record for db in opened for record in db.captions.values()]
    if done > 2:
        assert len(captions) >= 9
    if done > 7:
        assert sum(record["generated"] is not None for record in captions) == 1
    assert len(results) == (stage == "compacting")
