"""Runs over many images: what makes two the same, own photos, files that were damaged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import main
from experiments import identity
from experiments.runs import _in_order
from experiments.system import System
from main import caption_image, initialize_system, run_all_experiments
from support.errors import DatabaseError, MemoryShortage
from support.settings import FIRST_DEFAULTS, caption_settings, changed_settings
from support.storage.lock import runner_number
from tests.helpers import ROOT, make_photos, picture, run_python, words_of
from vlm_captioner import Captioner


@pytest.fixture
def written(monkeypatch) -> list[int]:
    """How many images each call of the VLM captions."""
    counts, write = [], Captioner.write_captions

    def counted(self, images, prompts):
        counts.append(len(images))
        return write(self, images, prompts)

    monkeypatch.setattr(Captioner, "write_captions", counted)
    return counts


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder of five photos without captions, one of them three times."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(5):
        picture(100 + number).save(folder / f"o{number}.png")
    for copy in ("copy.png", "z.png"):
        shutil.copy(folder / "o1.png", folder / copy)
    return folder


def results_in(settings) -> list[dict]:
    folder = Path(settings.RESULTS_DIR)
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("image_*.json"))]


# --- What makes two runs the same -----------------------------------------------------------------
def test_another_spelling_of_the_dataset_is_the_same_run(
    tiny_settings, written, tmp_path, monkeypatch
):
    first = run_all_experiments(*initialize_system())
    monkeypatch.chdir(tmp_path)
    for spelling in ("photos", "./photos/", "../" + tmp_path.name + "/photos"):
        tiny_settings.DATASET_NAME = spelling
        assert run_all_experiments(*initialize_system()) == first
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    tiny_settings.DATASET_NAME = str(tmp_path / "link")
    assert run_all_experiments(*initialize_system()) == first
    assert written == [3]


def test_a_new_setting_with_its_first_default_is_the_same_run(tiny_settings, written, monkeypatch):
    first = run_all_experiments(*initialize_system())
    settings = caption_settings()
    monkeypatch.setattr("support.settings.caption_settings", lambda: {"a_new_one": 7, **settings})
    monkeypatch.setitem(FIRST_DEFAULTS, "a_new_one", 7)
    assert run_all_experiments(*initialize_system()) == first
    assert written == [3]
    monkeypatch.setitem(FIRST_DEFAULTS, "a_new_one", 6)
    run_all_experiments(*initialize_system())
    assert written == [3, 3]


def test_another_spelling_of_a_number_is_the_same_run(tiny_settings):
    tiny_settings.TEMPERATURE = 1
    whole = changed_settings()
    tiny_settings.TEMPERATURE = 1.0
    assert json.dumps(whole) == json.dumps(changed_settings())


def test_a_photo_that_gave_context_and_was_moved_is_named_where_it_lies(
    command, own, tmp_path, settings
):
    solo = tmp_path / "solo"
    solo.mkdir()
    picture(300).save(solo / "s.png")
    assert command("--image", str(solo / "s.png"), top_k="13").returncode == 0
    assert command("--image", str(own), top_k="13").returncode == 0
    moved = solo.rename(tmp_path / "solo2")
    assert command("--image", str(moved / "s.png"), top_k="13").returncode == 0
    picture(301).save(own / "late.png")
    assert command("--image", str(own), top_k="13").returncode == 0
    (late,) = (tmp_path / "results").glob("image_late_*.json")
    images = {n["metadata"]["image"] for n in json.loads(late.read_bytes())["similar_images"]}
    assert str(moved / "s.png") in images and str(solo / "s.png") not in images


def test_each_setting_that_decides_a_caption_has_a_first_default():
    assert set(FIRST_DEFAULTS) == set(caption_settings())
    assert set(identity.SETTINGS_OF_FORMER_NAMES) <= set(FIRST_DEFAULTS)


def test_a_run_of_version_0_1_on_a_folder_goes_on_when_the_folder_is_named_as_then(
    tiny_settings, written, tmp_path, monkeypatch
):
    """Its name held the path as it was typed, which the databases no longer hold."""
    monkeypatch.chdir(tmp_path)
    tiny_settings.DATASET_NAME = "./photos"
    dataset_loader, db_manager = initialize_system()
    system = System(dataset_loader, db_manager)
    models = system.models()
    fields = [
        {**vars(candidate), "image": str(Path("photos") / Path(candidate.image).name)}
        for candidate in system.candidates()
    ]
    described = {
        kind: {"name": ref.name, "revision": ref.revision} for kind, ref in vars(models).items()
    }
    name = identity.short_hash([described, identity.settings_of_former_names(), fields])
    pool = db_manager.folder / "frozen_pools" / f"{name}.json"
    pool.parent.mkdir()
    pool.write_text('{"started": "2026-01-01T00:00:00", "captioned": []}\n', "utf-8")
    results = run_all_experiments(dataset_loader, db_manager)
    assert {result["experiment_info"]["run"][:12] for result in results} == {name}
    assert list(pool.parent.glob("*.json")) == [pool]


# --- Own photos -----------------------------------------------------------------------------------
def test_a_folder_of_photos_goes_on_and_counts_copies_once(
    command, own, written, settings, tmp_path
):
    first = command("--image", str(own), vlm_batch_size="2")
    assert first.returncode == 0 and "5 of 5 images captioned" in first.stdout
    assert "2 byte-identical copies are left out" in first.stderr
    assert written == [2, 2, 1]
    picture(200).save(own / "new.png")
    second = command("--image", str(own), vlm_batch_size="2")
    assert "6 of 6 images captioned in" in second.stdout and "(5 of them earlier)" in second.stdout
    assert written == [2, 2, 1, 1] and second.stdout.count("Caption:") == 1
    again = command("--image", str(own), "--recaption")
    assert again.returncode == 0 and sum(written[4:]) == 6
    summaries = sorted((tmp_path / "results").glob("images_summary_*.json"))
    summary = json.loads(summaries[1].read_text("utf-8"))
    assert summary["captioned"] == 6 and summary["run"] and summary["failures"] == {}
    for row in summary["images"]:
        result = json.loads((tmp_path / "results" / row["result_file"]).read_text("utf-8"))
        assert result["generated_caption"] == row["generated_caption"]


def test_a_stop_changes_no_caption_of_own_photos(command, own, settings, tmp_path, monkeypatch):
    """Captions written meanwhile, and those of the photos themselves, give no context."""
    whole = command(
        "--image", str(own), db_dir=str(tmp_path / "d"), results_dir=str(tmp_path / "r")
    )
    assert whole.returncode == 0
    write = Captioner.write_captions

    def stopped(self, images, prompts):
        monkeypatch.setattr(Captioner, "write_captions", interrupted)
        return write(self, images, prompts)

    def interrupted(self, images, prompts):
        raise KeyboardInterrupt

    monkeypatch.setattr(Captioner, "write_captions", stopped)
    assert command("--image", str(own), vlm_batch_size="2").returncode == 130
    monkeypatch.setattr(Captioner, "write_captions", write)
    assert command("--index", "0").returncode == 0
    assert command("--image", str(own), vlm_batch_size="2").returncode == 0
    assert captions_in(tmp_path / "results") == captions_in(tmp_path / "r")


def captions_in(folder: Path) -> dict[str, tuple]:
    found = {}
    for path in folder.glob("image_*.json"):
        result = json.loads(path.read_text("utf-8"))
        neighbors = [n["metadata"]["image"] for n in result["similar_images"]]
        assert result["metadata"]["image"] not in found, "captioned twice"
        found[result["metadata"]["image"]] = (
            result["generated_caption"],
            result["prompt"],
            neighbors,
        )
    return found


def test_photos_see_all_of_a_folder_and_experiments_its_gallery_only(command, own, tmp_path):
    everything = {"top_k": "12"}
    assert command("--all", **everything).returncode == 0
    assert command("--image", str(own), **everything).returncode == 0
    shown: dict[str, set[int]] = {"experiment": set(), "image": set()}
    for path in (tmp_path / "results").glob("*.json"):
        content = json.loads(path.read_text("utf-8"))
        kind = path.name.split("_")[0]
        for neighbor in content.get("similar_images", []):
            shown[kind].add(neighbor["metadata"]["original_index"])
    assert shown["image"] == set(range(12)) and len(shown["experiment"]) == 9
    assert len(list((tmp_path / "databases").glob("*/frozen_pools/*.json"))) == 2


def test_a_photo_that_was_moved_is_known_at_its_new_place(command, own, tmp_path):
    assert command("--image", str(own)).returncode == 0
    own.rename(tmp_path / "moved")
    assert command("--image", str(tmp_path / "moved")).returncode == 0
    (database,) = (tmp_path / "databases").glob("*/captions.json")
    images = {record["image"] for record in json.loads(database.read_bytes())["records"].values()}
    summary = max((tmp_path / "results").glob("images_summary_*.json"), key=os.path.getmtime)
    assert str(own) not in summary.read_text("utf-8")
    assert str(tmp_path / "moved" / "o0.png") in images
    assert str(own / "o0.png") not in images


def test_a_photo_captioned_at_its_new_place_is_known_there(tiny_settings, own):
    system = initialize_system()
    number = caption_image(own / "o0.png", *system)["experiment_info"]["new_db_index"]
    moved = (own / "o0.png").rename(own / "elsewhere.png")
    again = caption_image(moved, *system)
    assert again["experiment_info"]["new_db_index"] == number
    key = again["metadata"]["content_hash"]
    assert system[1].captions[key]["image"] == str(moved)


def test_a_run_keeps_little_of_each_result_in_memory(tiny_settings, own):
    outcome = main._run_over(sorted(own.iterdir()), initialize_system(), False)
    assert len(outcome.rows) == 5
    assert max(len(json.dumps(row)) for row in outcome.rows.values()) < 1000


# --- Two programs at one run ----------------------------------------------------------------------
@pytest.mark.long
def test_two_programs_at_the_same_run_share_the_work(tiny_flags, tmp_path):
    make_photos(tmp_path / "many", 36)
    changed = {
        "dataset": str(tmp_path / "many"), "experiment_samples": "24", "vlm_batch_size": "2",
    }  # fmt: skip
    flags = words_of(tiny_flags, changed)
    # Embedded first, so that both begin to caption at the same time.
    run_python("main.py", "--index", "0", *flags)
    command = [sys.executable, "main.py", "--all", *flags]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) for _ in range(2)]
    for process in both:
        assert b"24 of 24" in process.communicate(timeout=300)[0]
    results = [json.loads(p.read_bytes()) for p in (tmp_path / "results").glob("experiment_*.json")]
    runs = [result["experiment_info"]["run"] for result in results]
    assert 24 <= sum(run is not None for run in runs) <= 26


def test_the_second_program_begins_at_the_end(tmp_path):
    with runner_number(tmp_path) as first, runner_number(tmp_path) as second:
        assert (first, second) == (0, 1)
        assert list(_in_order("abcdef", first)) == list("abcdef")
        assert list(_in_order("abcdef", second)) == list("fedcba")
        with runner_number(tmp_path) as third:
            assert sorted(_in_order("abcdef", third)) == list("abcdef")
            assert _in_order("abcdef", third)[0] not in "af"
    with runner_number(tmp_path) as again:
        assert again == 0


def test_what_another_program_has_finished_meanwhile_is_not_captioned(tiny_settings, written):
    tiny_settings.VLM_BATCH_SIZE = 1
    mine, other = initialize_system(), initialize_system()
    write = Captioner.write_captions

    def then_the_other_works(self, images, prompts):
        Captioner.write_captions = write
        run_all_experiments(*other, indices=[1, 2])
        return write(self, images, prompts)

    Captioner.write_captions = then_the_other_works
    try:
        results = run_all_experiments(*mine)
    finally:
        Captioner.write_captions = write
    assert len(results) == 3 and written == [1, 1, 1]


# --- Failures -------------------------------------------------------------------------------------
def test_a_model_too_large_for_the_memory_stops_the_run_at_once(tiny_settings, monkeypatch):
    calls = []

    def hungry(self, pairs):
        calls.append(len(pairs))
        raise MemoryError

    monkeypatch.setattr(Captioner, "_caption_batch", hungry)
    with pytest.raises(MemoryShortage, match="smaller model"):
        run_all_experiments(*initialize_system())
    assert calls == [3, 1]


POOLS = {
    "empty": b"",
    "cut": b'{"started": "2026',
    "a list": b"[]",
    "no captioned": b'{"started": "x"}',
    "captioned is text": b'{"captioned": "all"}',
    "a candidate without fields": b'{"captioned": [{}]}',
    "a candidate of wrong types": b'{"captioned": [{"key": 1, "index": 0, "captions": [], '
    b'"source": "generated", "original_index": null, "image": "x"}]}',
    "an index out of range": b'{"captioned": [{"key": "k", "index": %d, "captions": [], '
    b'"source": "generated", "original_index": null, "image": "x"}]}' % 10**30,
    "not UTF-8": b'{"captioned": "\xff"}',
}


@pytest.mark.parametrize("name", POOLS)
def test_a_damaged_pool_is_named_kept_and_begun_anew_on_rebuild(tiny_settings, name, caplog):
    system = initialize_system()
    run_all_experiments(*system)
    (path,) = (system[1].folder / "frozen_pools").glob("*.json")
    path.write_bytes(POOLS[name])
    with pytest.raises(DatabaseError, match=rf"{path.name} is damaged: .*\.corrupt.*--rebuild"):
        run_all_experiments(*initialize_system())
    assert (path.parent / f"{path.name}.corrupt").read_bytes() == POOLS[name]
    assert len(run_all_experiments(*initialize_system(rebuild=True))) == 3
    assert "a new run begins" in caplog.text
    assert len(run_all_experiments(*initialize_system())) == 3


def test_a_pool_of_a_newer_format_is_refused_even_on_rebuild(tiny_settings):
    run_all_experiments(*initialize_system())
    (path,) = Path(tiny_settings.DB_DIR).glob("*/frozen_pools/*.json")
    content = json.dumps({**json.loads(path.read_bytes()), "format_version": 2})
    path.write_text(content, "utf-8")
    for rebuild in (False, True):
        with pytest.raises(DatabaseError, match=r"has format 2, newer .* newer version"):
            run_all_experiments(*initialize_system(rebuild=rebuild))
    assert path.read_text("utf-8") == content


@pytest.mark.parametrize("damage", ["cut", "list", "loop", "dangling", "folder", "gone", "fifo"])
def test_a_result_file_that_cannot_be_read_is_written_again(tiny_settings, written, damage, caplog):
    first = run_all_experiments(*initialize_system())
    path = Path(first[1]["result_file"])
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-40])
    elif damage == "list":
        path.write_bytes(b"[" + content + b"]")
    elif damage == "folder":
        path.mkdir()
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage in ("loop", "dangling"):
        path.symlink_to(path.name if damage == "loop" else "nowhere.json")
    again = run_all_experiments(*initialize_system())
    assert written == [3, 1]
    assert [r["generated_caption"] for r in again] == [r["generated_caption"] for r in first]
    if damage in ("cut", "list"):
        assert f"{path} cannot be read and counts as not there" in caplog.text
