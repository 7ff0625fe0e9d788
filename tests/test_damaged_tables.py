"""Damaged parquet and arrow files: one error that names the file, or the row left out."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from dataset_loader import load_and_split_dataset
from support.errors import ImageError, PipelineError
from support.sources.known import KnownHashes
from support.sources.source import open_source
from support.sources.table_files import load_hub_dataset
from support.sources.tables import TableSource
from tests.helpers import picture


def content(source, row: int) -> bytes:
    with source.open(row) as file:
        return file.read()


def table(count: int = 8):
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    rows = {
        "image": [picture(n) for n in range(count)],
        "text": [f"text of {n}" for n in range(count)],
    }
    return Dataset.from_dict(rows, Features({"image": ImageFeature(), "text": Value("string")}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """Whole files by their suffix."""
    folder = tmp_path_factory.mktemp("tables")
    table().to_parquet(folder / "a.parquet")
    table().save_to_disk(folder / "saved")
    (arrow,) = (folder / "saved").glob("*.arrow")
    return {"parquet": (folder / "a.parquet").read_bytes(), "arrow": arrow.read_bytes()}


def damaged(data: bytes, how: str) -> bytes:
    if how == "empty":
        return b""
    if how == "cut off":
        return data[: len(data) * 2 // 3]
    return b"x" * len(data)


def one_line(error: PipelineError) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("how", ["empty", "cut off", "noise"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_damaged_file_is_named_with_the_remedy(settings, tmp_path, whole, form, how):
    (tmp_path / f"good.{form}").write_bytes(whole[form])
    (tmp_path / f"train.{form}").write_bytes(damaged(whole[form], how))
    settings.DATASET_NAME = str(tmp_path)
    with pytest.raises(PipelineError) as error:
        load_and_split_dataset()
    said = one_line(error.value)
    assert said.startswith(f"{tmp_path}/train.{form} is damaged or cannot be read: ")
    assert said.endswith("Put a whole copy there.")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_damage_anywhere_is_an_error_or_costs_single_rows(settings, tmp_path, whole, form):
    """Offsets of an arrow file that lead out of it would end the process."""
    settings.EXPERIMENT_SAMPLES = 1
    for seed in range(25):
        dice, data = random.Random(seed), bytearray(whole[form])
        for _ in range(dice.choice([1, 3, 30])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        (tmp_path / f"train.{form}").write_bytes(data)
        settings.DATASET_NAME = str(tmp_path / f"train.{form}")
        try:
            samples = load_and_split_dataset().get_training_data()
        except PipelineError as error:
            one_line(error)
            continue
        for sample in samples:
            try:
                assert sample.image.size == (48, 40)
            except ImageError as error:
                assert f"train[{sample.original_index}]" in str(error)


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_folder_of_save_to_disk_names_the_file(tmp_path, file):
    folder = tmp_path / "saved"
    table().save_to_disk(folder)
    (folder / file).write_bytes(b"{")
    with pytest.raises(PipelineError, match=rf"saved/{file} is damaged .*Put a whole copy there\."):
        open_source(str(folder))
    (folder / file).unlink()
    if file != "state.json":  # by which such a folder is known
        with pytest.raises(PipelineError, match=f"{folder}.* cannot be (loaded|read)"):
            open_source(str(folder))


# --- Datasets of the Hub, as they lie in its cache ------------------------------------------------
@pytest.fixture
def cached(tmp_path) -> Path:
    """The folder of a revision in a cache: its files are links to blobs."""
    folder = tmp_path / "datasets--a--b" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    (tmp_path / "datasets--a--b" / "blobs").mkdir()
    return folder


def add_to_cache(folder: Path, name: str, data: bytes) -> Path:
    """The blob of a new file."""
    blob = folder.parent.parent / "blobs" / f"{len(data)}-{name.replace('/', '-')}"
    blob.write_bytes(data)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    return blob


def test_a_damaged_file_of_a_hub_dataset_is_to_be_deleted(settings, cached, whole):
    add_to_cache(cached, "data/train-00000-of-00002.parquet", whole["parquet"])
    bad = add_to_cache(cached, "data/train-00001-of-00002.parquet", whole["parquet"][:-900])
    with pytest.raises(PipelineError) as error:
        load_hub_dataset("a/b", cached)
    said = one_line(error.value)
    assert said.startswith(f"{bad} is damaged or cannot be read: ")
    assert said.endswith("Delete it and run again: it is downloaded anew.")


def test_images_of_a_hub_dataset_may_be_links_inside_its_cache_only(settings, cached, tmp_path):
    for number in range(3):
        picture(number).save(tmp_path / "x.png")
        add_to_cache(cached, f"train/{number}.png", (tmp_path / "x.png").read_bytes())
    picture(9).save(tmp_path / "secret.png")
    (cached / "train" / "3.png").symlink_to(tmp_path / "secret.png")
    rows = [json.dumps({"file_name": f"{n}.png", "text": f"t {n}"}) for n in range(4)]
    add_to_cache(cached, "train/metadata.jsonl", "\n".join(rows).encode())
    source = TableSource(load_hub_dataset("a/b", cached), KnownHashes())
    assert [source.captions(row) for row in range(4)] == [[f"t {n}"] for n in range(4)]
    assert all(content(source, row).startswith(b"\x89PNG") for row in range(3))
    with pytest.raises(ImageError, match=r"3\.png"):
        content(source, 3)


# --- Rows that name files -------------------------------------------------------------------------
def test_rows_may_name_files_in_the_folder_of_the_table_only(settings, tmp_path, caplog):
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path / "dataset"
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        picture(number).save(folder / "images" / f"{number}.png")
    shutil.copy(folder / "images" / "0.png", tmp_path / "secret.png")
    names = [f"images/{n}.png" for n in range(3)] + [str(folder / "images" / "3.png")]
    names += ["../secret.png", str(tmp_path / "secret.png"), "/dev/zero"]
    rows = {"picture": names, "text": [f"t {n}" for n in range(len(names))]}
    pyarrow.parquet.write_table(pyarrow.table(rows), folder / "data.parquet")
    settings.DATASET_NAME, settings.IMAGE_COLUMN = str(folder), "picture"
    settings.EXPERIMENT_SAMPLES = 1
    loader = load_and_split_dataset()
    samples = [*loader.get_experiment_data(), *loader.get_training_data()]
    assert sorted(sample.caption for sample in samples) == ["t 0", "t 1", "t 2", "t 3"]
    assert "3 files lie outside the dataset's folder, and are left out: " in caplog.text


def test_embedded_bytes_are_used_whatever_path_stands_beside_them(settings, tmp_path):
    from datasets import Dataset

    rows = []
    for number in range(5):
        picture(number).save(tmp_path / "x.png")
        rows.append({"bytes": (tmp_path / "x.png").read_bytes(), "path": f"/home/her/{number}.png"})
    table = Dataset.from_dict({"image": rows, "text": [f"t {n}" for n in range(5)]})
    table.to_parquet(tmp_path / "a.parquet")
    settings.DATASET_NAME = str(tmp_path / "a.parquet")
    assert load_and_split_dataset().get_training_data()[0].image.size == (48, 40)


def test_tables_of_one_name_in_several_folders_are_all_read(settings, tmp_path, whole):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.parquet").write_bytes(whole["parquet"])
    (tmp_path / "._train.parquet").write_bytes(b"macOS")
    source = open_source(str(tmp_path))
    assert len(source) == 16
    assert {source.label(0), source.label(8)} == {"x/train[0]", "y/train[0]"}


# --- Progress bars --------------------------------------------------------------------------------
@pytest.mark.parametrize("shown", [True, False])
def test_bars_follow_the_setting_and_the_users_own_state_stays(
    settings, tmp_path, whole, capfd, shown
):
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    settings.SHOW_PROGRESS = shown
    for number, disabled in enumerate((False, True)):
        (disable_progress_bars if disabled else enable_progress_bars)()
        try:
            (tmp_path / f"{number}.parquet").write_bytes(whole["parquet"])  # not unpacked before
            open_source(str(tmp_path / f"{number}.parquet"))
            assert are_progress_bars_disabled() == disabled
        finally:
            enable_progress_bars()
        assert ("examples/s" in capfd.readouterr().err) == (shown and not disabled)


def test_an_empty_table_is_named_as_empty(tmp_path):
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("image", pyarrow.binary()), ("text", pyarrow.string())])
    pyarrow.parquet.write_table(schema.empty_table(), tmp_path / "a.PARQUET")
    with pytest.raises(PipelineError, match=r"a\.PARQUET.* it has no rows or no columns"):
        open_source(str(tmp_path))


def test_a_pipe_among_saved_files_is_named_and_not_waited_for(tmp_path):
    table().save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.unlink()
    os.mkfifo(arrow)
    with pytest.raises(PipelineError, match=rf"saved/{arrow.name} is damaged .*: not a file"):
        open_source(str(tmp_path / "saved"))
