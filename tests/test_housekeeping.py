"""export, status, forget and adopt: what they write, what they take out, what they leave."""

import csv
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

import config
from db_manager import DatabaseManager
from main import caption_image, initialize_system, run_all_experiments, run_experiment
from support.storage.vectors import read_vectors
from tests.helpers import picture


@pytest.fixture
def own(tmp_path):
    """Three photos of one's own, one in a subfolder."""
    folder = tmp_path / "own"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        picture(80 + number).save(folder / name)
    return folder


@pytest.fixture
def captioned(command, own):
    """`command`, after the photos in `own` were captioned."""
    assert command("--image", str(own)).returncode == 0
    return command


def captions_of(folder: Path) -> dict[str, str]:
    """File name -> what was generated, of all databases in a folder."""
    found = {}
    for path in folder.glob("*/captions.json"):
        for record in json.loads(path.read_text("utf-8"))["records"].values():
            if record["generated"]:
                found[Path(record["image"]).name] = record["generated"]["caption"]
    return found


# --- export ---------------------------------------------------------------------------------------
def test_texts_beside_each_photo(captioned, own, tmp_path):
    made = captions_of(tmp_path / "databases")
    done = captioned("export", "txt")
    assert done.returncode == 0 and "Written: 3 files." in done.stdout
    for name in ("a", "b", "deep/c"):
        expected = " ".join(made[Path(name).name + ".png"].split()) + "\n"
        assert (own / f"{name}.txt").read_text("utf-8") == expected
    (own / "a.txt").write_text("mine\n")
    done = captioned("export", "txt")
    assert "Written: 0 files." in done.stdout and str(own / "a.txt") in done.stdout
    assert "--overwrite" in done.stdout and (own / "a.txt").read_text() == "mine\n"
    assert captioned("export", "txt", "--overwrite").returncode == 0
    assert (own / "a.txt").read_text() != "mine\n"


def test_texts_in_a_folder_keep_to_their_photos(captioned, own, tmp_path):
    picture(90).save(own / "a.jpg")  # a.txt would be that of a.png too
    picture(91).save(own / "captions.png")  # captions.txt would be the folder's list
    assert captioned("--image", str(own)).returncode == 0
    out = tmp_path / "out" / "texts"
    assert captioned("export", "txt", str(out)).returncode == 0
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == {"a.png.txt", "a.jpg.txt", "captions.png.txt", "b.txt", "deep/c.txt"}
    assert not list(own.rglob("*.txt"))


@pytest.mark.parametrize("form", ["jsonl", "captions"])
def test_lists_are_read_again_as_a_dataset(captioned, own, form, tmp_path):
    from support.sources.source import open_source

    made = captions_of(tmp_path / "databases")
    done = captioned("export", form)
    assert done.returncode == 0 and "with file names as seen from" in done.stdout
    assert "people's captions" in done.stdout
    source = open_source(str(own))
    read = {Path(source.label(row)).name: source.captions(row) for row in range(len(source))}
    assert read == {name: [" ".join(text.split())] for name, text in made.items()}
    assert captioned("export", form).returncode == 0  # it says the same
    (path,) = own.glob("*.txt" if form == "captions" else "*.jsonl")
    path.write_text("image,caption\na.png,mine\n")
    done = captioned("export", form)
    assert done.returncode == 2 and "--overwrite" in done.stderr and "mine" in path.read_text()
    assert captioned("export", form, "--overwrite").returncode == 0
    assert "mine" not in path.read_text()


def test_metadata_jsonl_is_what_datasets_reads(captioned, own, tmp_path):
    from datasets import load_dataset

    assert captioned("export", "jsonl").returncode == 0
    loaded = load_dataset("imagefolder", data_dir=str(own), split="train")
    read = {Path(row["image"].filename).name: row["text"] for row in loaded}
    made = captions_of(tmp_path / "databases")
    assert read == {name: " ".join(text.split()) for name, text in made.items()}


def test_names_with_commas_quotes_and_spaces_survive_a_list(command, tmp_path):
    from support.sources.source import open_source

    folder = tmp_path / "odd"
    folder.mkdir()
    for number, name in enumerate(('a, "b".png', " 개.png", "c'd.png")):
        picture(60 + number).save(folder / name)
    assert command("--image", str(folder)).returncode == 0
    out = tmp_path / "out"
    done = command("export", "captions", str(out))
    assert done.returncode == 0 and "only jsonl can hold:  개.png" in done.stdout
    with (out / "captions.txt").open(encoding="utf-8", newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())[1:]
    shutil.copy(out / "captions.txt", folder)
    source = open_source(str(folder))
    with_captions = [row for row in range(len(source)) if source.captions(row)]
    assert len(with_captions) == 2  # names that begin with a space are not for captions.txt


def test_photos_of_the_dataset_and_others_are_not_mixed_in_one_list(captioned, photos, own):
    assert captioned("--image", str(photos)).returncode == 0
    (photos / "captions.txt").unlink()
    done = captioned("export", "captions", experiment_samples="1")
    assert done.returncode == 0 and f"3 images outside {photos}" in done.stdout
    assert (photos / "captions.txt").exists() and not (own / "captions.txt").exists()


def test_export_stays_in_its_folder_and_beside_its_photos(command, tmp_path, monkeypatch):
    for folder, name, seed in (("x", "b.png", 101), ("y", "a.png", 102), ("y", "scan.txt", 103)):
        (tmp_path / folder).mkdir(exist_ok=True)
        picture(seed).save(tmp_path / folder / name, "PNG")
    (tmp_path / "y" / "captions.txt").write_text("scan.txt,a scan\na.png,one\n")
    monkeypatch.chdir(tmp_path / "x")
    photos = ["b.png", "../y/a.png", str(tmp_path / "y" / "scan.txt")]
    assert command("--image", *photos).returncode == 0
    before = (tmp_path / "y" / "scan.txt").read_bytes()
    assert command("export", "txt", str(tmp_path / "outer" / "out")).returncode == 0
    written = {path.name for path in (tmp_path / "outer" / "out").rglob("*.txt")}
    assert written == {"b.txt", "a.txt", "scan.txt.txt"}
    assert not list((tmp_path / "outer").glob("*.txt")) + list((tmp_path / "outer" / "y").glob("*"))
    assert command("export", "txt", "--overwrite").returncode == 0
    assert (tmp_path / "y" / "scan.txt").read_bytes() == before
    assert command("--image", *photos).returncode == 0
    found = command("search", "x", "--in", str(tmp_path / "y"), "--by", "caption", "--paths")
    assert {Path(line).name for line in found.stdout.splitlines()} == {"a.png", "scan.txt"}


def test_export_goes_by_content(captioned, own, tmp_path):
    made = captions_of(tmp_path / "databases")
    (own / "a.png").rename(own / "x"), (own / "b.png").rename(own / "a.png")
    (own / "x").rename(own / "b.png")
    picture(99).save(own / "deep" / "c.png")
    done = captioned("export", "txt")
    assert (
        done.returncode == 2 and "3 captions of files that have gone or were changed" in done.stderr
    )
    assert captioned("--image", str(own)).returncode == 0  # it sees where they lie now
    assert captioned("export", "txt").returncode == 0
    assert (own / "a.txt").read_text().strip() == " ".join(made["b.png"].split())
    assert (own / "b.txt").read_text().strip() == " ".join(made["a.png"].split())


def test_export_follows_no_link_and_waits_for_no_pipe(captioned, own, tmp_path):
    (own / "a.txt").symlink_to(tmp_path / "elsewhere" / "x.txt")
    (tmp_path / "notes.md").write_text("mine")
    (own / "b.txt").symlink_to(tmp_path / "notes.md")
    os.mkfifo(own / "deep" / "c.txt")
    done = captioned("export", "txt")
    assert "Written: 0 files" in done.stdout and "3 files that say something else" in done.stdout
    assert captioned("export", "txt", "--overwrite").returncode == 0
    assert (tmp_path / "notes.md").read_text() == "mine" and not (tmp_path / "elsewhere").exists()


def test_export_hides_no_captions_by_people(captioned, photos, own, tmp_path):
    (photos / "captions.txt").rename(tmp_path / "kept.txt")
    (photos / "metadata.csv").write_text("file_name,text\np00.png,by a person\n")
    assert captioned("--image", str(photos)).returncode == 0
    done = captioned("export", "captions")
    assert done.returncode == 2 and "metadata.csv would no longer be read" in done.stderr
    done = captioned("export", "jsonl")
    assert done.returncode == 0 and "metadata.csv comes first" in done.stdout


def test_export_asks_where_photos_of_several_folders_go(command, tmp_path):
    for number, folder in enumerate(("one", "two")):
        (tmp_path / "apart" / folder).mkdir(parents=True)
        picture(number + 30).save(tmp_path / "apart" / folder / "a.png")
    assert command("--image", str(tmp_path / "apart")).returncode == 0
    done = command("export", "jsonl")
    assert done.returncode == 2 and "several folders" in done.stderr
    assert command("export", "jsonl", "").returncode == 2
    assert command("export", "jsonl", "--quiet", str(tmp_path / "out")).returncode == 0
    rows = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(row)["file_name"] for row in rows] == ["one/a.png", "two/a.png"]


def test_three_photos_that_would_share_a_text(command, tmp_path):
    folder = tmp_path / "same"
    folder.mkdir()
    for seed, name in enumerate(("a.jpg", "a.png", "a.jpg.png", "n" * 251 + ".png")):
        picture(seed + 20).save(folder / name)
    assert command("--image", str(folder)).returncode == 0
    done = command("export", "txt")
    assert "Written: 3 files." in done.stdout and "Cannot be written, by their names" in done.stdout
    texts = {path.name for path in folder.glob("*.txt")}
    assert texts == {"a.jpg.txt.txt", "a.png.txt", "a.jpg.txt"} and len(texts) == 3


def test_nothing_to_export_and_no_databases(command, tmp_path):
    done = command("export", "txt")
    assert done.returncode == 2 and "no databases" in done.stderr
    assert not (tmp_path / "databases").exists()
    assert command("search", "a dog").returncode == 0
    done = command("export", "txt")
    assert done.returncode == 2 and "nothing to export" in done.stderr


# --- status ---------------------------------------------------------------------------------------
def test_status_counts_what_there_is(captioned, tmp_path):
    said = captioned("status").stdout
    assert "Images: 15, 3 of them from outside the dataset" in said
    assert "12 images have some by people, 3 one by this program, 0 none" in said
    assert "Vectors of images by" in said and ": 15, " in said
    assert "Vectors of captions by" in said and "24 not embedded yet" in said
    assert captioned("search", "a dog").returncode == 0
    said = captioned("status").stdout
    assert "not embedded yet" not in said and said.count("all embedded") == 2
    assert "Journal: 0 updates" in said
    done = captioned("status", dataset=str(tmp_path / "own"))
    assert done.returncode == 2 and "no databases" in done.stderr
    (database,) = (tmp_path / "databases").glob("*/*/image_embeddings.json")
    database.write_text("{")
    done = captioned("status")
    assert done.returncode == 0 and "damaged" in done.stdout


# --- forget ---------------------------------------------------------------------------------------
def everything_below(folder: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("by", ["path", "number", "path of a file that has gone"])
def test_an_own_photo_is_forgotten_whole(captioned, own, tmp_path, by):
    database = tmp_path / "databases"
    captions = next(database.glob("*/captions.json"))
    records = json.loads(captions.read_text("utf-8"))["records"]
    key, record = next((k, r) for k, r in records.items() if r["image"].endswith("b.png"))
    others = [r["generated"]["caption"] for k, r in records.items() if r["generated"] and k != key]
    name = f"#{record['index']}" if by == "number" else record["image"]
    if by.endswith("gone"):
        (own / "b.png").unlink()
    done = captioned("forget", name)
    assert done.returncode == 0, done.stderr
    assert f"all of #{record['index']}" in done.stdout
    left = everything_below(database)
    assert key not in left and "b.png" not in left
    caption = record["generated"]["caption"]
    assert caption in others or json.dumps(caption) not in left
    keys, matrix = read_vectors(next(database.glob("*/*/image_embeddings.json")))
    assert len(keys) == len(matrix) == 14 and key not in keys
    done = captioned("forget", name)
    assert done.returncode == 2 and "not in the databases" in done.stderr


def test_the_number_of_a_forgotten_photo_is_never_given_again(captioned, own, tmp_path):
    database = next((tmp_path / "databases").glob("*/captions.json"))
    numbers = {r["index"] for r in json.loads(database.read_bytes())["records"].values()}
    assert captioned("forget", f"{max(numbers)}").returncode == 0
    picture(99).save(own / "new.png")
    assert captioned("--image", str(own / "new.png")).returncode == 0
    now = {r["index"] for r in json.loads(database.read_bytes())["records"].values()}
    assert max(now) == max(numbers) + 1


def test_a_bad_caption_leaves_an_image_of_the_dataset(tiny_settings):
    system = initialize_system()
    result = run_experiment(*system, 0)
    number = result["experiment_info"]["new_db_index"]
    key = result["metadata"]["content_hash"]
    other = initialize_system()[1]  # as another program that has the databases open
    from experiments.forget import forget

    said, _ = forget(system.db_manager, [str(number)])
    assert "the caption of" in said
    assert system.db_manager.captions[key]["generated"] is None
    assert system.db_manager.captions[key]["index"] == number
    other.refresh()
    assert other.captions[key]["generated"] is None
    shown = run_experiment(*system, 1)["similar_images"]
    assert number not in {neighbor["index"] for neighbor in shown}


def test_what_is_forgotten_leaves_the_context_of_runs(tiny_settings, own):
    from experiments.forget import forget

    system = initialize_system()
    caption_image(own / "a.png", *system)
    first = run_all_experiments(*system)
    assert "and 1 runs" not in str(forget(system.db_manager, [str(own / "b.png")] * 0))
    said = forget(system.db_manager, [str(own / "a.png")])
    assert "1 runs over many images" in said[-1]
    again = run_all_experiments(*initialize_system())
    runs = {result["experiment_info"]["run"] for result in (*first, *again)}
    assert len(runs) == 2
    for result in again:
        assert "a.png" not in json.dumps(result["similar_images"])


def test_what_cannot_be_forgotten_changes_nothing(captioned, photos, own, tmp_path):
    before = everything_below(tmp_path / "databases")
    for name, said in (
        (str(photos / "p01.png"), "no caption by this program"),
        ("9" * 5000, "not in the databases"),
        ("~a\0b", "not in the databases"),
        ("999", "not in the databases"),
        (str(own / "none.png"), "not in the databases"),
        ("", "not in the databases"),
        ("²", "not in the databases"),
    ):
        done = captioned("forget", str(own / "a.png"), name)
        assert done.returncode == 2 and said in done.stderr
    assert everything_below(tmp_path / "databases") == before


@pytest.mark.parametrize("file", ["frozen_pools/*.json", "*/image_embeddings.json"])
def test_forget_is_refused_as_a_whole_where_a_file_cannot_be_read(captioned, own, tmp_path, file):
    database = tmp_path / "databases"
    (path,) = database.glob(f"*/{file}")
    content = path.read_text()
    path.write_text("{")
    done = captioned("forget", str(own / "a.png"))
    assert done.returncode == 1 and str(path) in done.stderr
    path.write_text(content)
    assert captioned("forget", str(own / "a.png")).returncode == 0


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_kill_while_forgetting_leaves_databases_that_open(tiny_settings, own, calls, monkeypatch):
    """A rename may be the last thing a program does: all before it is on the disk."""
    import os

    system = initialize_system()
    for name in ("a.png", "b.png"):
        caption_image(own / name, *system)
    run_all_experiments(*system)
    key = next(k for k, r in system[1].captions.items() if r["image"].endswith("a.png"))
    done, usual = [], os.replace

    class Killed(BaseException):
        pass

    def replace(*arguments):
        if len(done) == calls:
            raise Killed
        done.append(arguments)
        usual(*arguments)

    monkeypatch.setattr(os, "replace", replace)
    with suppress(Killed):
        system.db_manager.forget([key])
    monkeypatch.setattr(os, "replace", usual)
    folder, label = system.db_manager.folder, system.dataset_loader.name
    manager = DatabaseManager(folder, label)
    assert {r["image"] for r in manager.captions.values()} >= {str(own / "b.png")}
    manager.forget([key])
    assert key not in DatabaseManager(folder, label).captions
    caption_image(own / "a.png", *initialize_system())


# --- adopt ----------------------------------------------------------------------------------------
@pytest.fixture
def moved(command, photos, own, tmp_path):
    """The folder of the dataset at its new place, with databases under the old one."""
    assert command("--image", str(own)).returncode == 0
    assert command("search", "a dog").returncode == 0
    place = tmp_path / "elsewhere" / "pictures"
    place.parent.mkdir()
    photos.rename(place)
    return place


def test_a_folder_that_was_moved_goes_on(command, photos, moved, tmp_path):
    done = command("search", "a dog", dataset=str(moved))
    remedy = f"python main.py adopt {photos} --dataset {moved} --mode hub --db-dir "
    assert f"12 of these photos are in the databases of {photos}" in done.stderr
    assert remedy in done.stderr
    before = {path.name for path in (tmp_path / "databases").iterdir()}
    assert len(before) == 2
    assert f"{photos}, which is not there any more" in command("status", dataset=str(moved)).stdout
    done = command("adopt", str(photos), dataset=str(moved))
    assert done.returncode == 0 and "15 images" in done.stdout
    assert len(list((tmp_path / "databases").iterdir())) == 1
    done = command("search", "a dog", "--in", "captioned", dataset=str(moved))
    assert len(done.stdout.splitlines()) == 3 and "Embedding" not in done.stderr
    done = command("search", "a dog", "--in", str(moved), dataset=str(moved), top_k="99")
    assert len(done.stdout.splitlines()) == 12
    assert "adopt" not in done.stderr


def test_a_moved_folder_whose_databases_are_a_journal_alone(command, photos, moved, tmp_path):
    old = database_folder_of(command, photos)
    (old / "captions.json").unlink()
    done = command("adopt", str(photos), dataset=str(moved))
    assert "Unexpected" not in done.stderr and "no databases of" not in done.stderr


def database_folder_of(command, dataset: Path) -> Path:
    from db_manager import slug

    return Path(command.__closure__[0].cell_contents["--db-dir"]) / slug(str(dataset))


def test_a_first_start_that_was_stopped_is_no_obstacle(command, photos, moved, tmp_path):
    new = database_folder_of(command, moved)
    new.mkdir()
    (new / "known_hashes.json").write_text("{}")
    done = command("adopt", str(photos), dataset=str(moved))
    assert done.returncode == 0, done.stderr
    header = json.loads((new / "captions.json").read_bytes())["header"]
    assert header["dataset"] == str(moved)
    assert "not there" not in command("status", dataset=str(moved)).stdout


def test_databases_with_captions_of_their_own_are_not_replaced(command, photos, moved, own):
    assert command("--image", str(own), dataset=str(moved)).returncode == 0
    done = command("adopt", str(photos), dataset=str(moved))
    assert done.returncode == 2 and "3 captions" in done.stderr
    assert command("status", dataset=str(moved)).returncode == 0


def test_what_cannot_be_adopted(command, photos, own, tmp_path):
    assert command("search", "a dog").returncode == 0
    for old, dataset, said in (
        (photos, photos, "the dataset itself"),
        (photos, own, "still there"),
        (tmp_path / "never", photos, "no databases of"),
    ):
        done = command("adopt", str(old), dataset=str(dataset))
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert config.DB_DIR
