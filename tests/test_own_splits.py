"""The dataset's own splits: named in every way, with images in two of them."""

import csv
import json
from pathlib import Path

import pytest

from dataset_loader import load_and_split_dataset
from support.errors import SettingError
from tests.helpers import picture

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
CAPTIONS = [f"a dog {number}" for number in range(len(SPLITS))]


def save_pictures(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"p{number:02}.png" for number in range(len(SPLITS))]
    for number, name in enumerate(names):
        picture(number).save(folder / name)
    return names


def by_column(folder: Path, kind: str) -> None:
    rows = [
        {"file_name": name, "text": text, "split": split}
        for name, text, split in zip(save_pictures(folder), CAPTIONS, SPLITS, strict=True)
    ]
    if kind == "csv":
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")


def by_folders(folder: Path) -> None:
    for number, split in enumerate(SPLITS):
        place = folder / split / "dogs"
        place.mkdir(parents=True, exist_ok=True)
        picture(number).save(place / f"p{number:02}.png")
        with (place / "captions.txt").open("a") as file:
            file.write(f"p{number:02}.png,{CAPTIONS[number]}\n")


def by_karpathy(folder: Path, captions: bool) -> None:
    names = save_pictures(folder)
    images = [
        {"filename": name, "split": split, "sentences": [{"raw": text}, {"raw": "again"}]}
        for name, text, split in zip(names, CAPTIONS, SPLITS, strict=True)
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    if captions:
        lines = [f"{name},{text}" for name, text in zip(names, CAPTIONS, strict=True)]
        (folder / "captions.txt").write_text("\n".join(lines))


def by_tables(folder: Path, column: bool) -> None:
    import pyarrow
    import pyarrow.parquet

    save_pictures(folder.parent / "pixels")
    rows: dict[str, list] = {}
    for number, split in enumerate(SPLITS):
        data = (folder.parent / "pixels" / f"p{number:02}.png").read_bytes()
        row = {"image": {"bytes": data, "path": None}, "caption": CAPTIONS[number]}
        rows.setdefault("all" if column else split, []).append(
            {**row, "split": split} if column else row
        )
    folder.mkdir()
    for name, some in rows.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), folder / f"{name}.parquet")


WAYS = {
    "metadata.csv": lambda folder: by_column(folder, "csv"),
    "metadata.jsonl": lambda folder: by_column(folder, "jsonl"),
    "metadata.parquet": lambda folder: by_column(folder, "parquet"),
    "folders": by_folders,
    "Karpathy alone": lambda folder: by_karpathy(folder, captions=False),
    "Karpathy beside captions.txt": lambda folder: by_karpathy(folder, captions=True),
    "tables": lambda folder: by_tables(folder, column=False),
    "a column of a table": lambda folder: by_tables(folder, column=True),
}


def numbers(samples) -> set[int]:
    return {int(sample.captions[0].split()[-1]) for sample in samples}


@pytest.mark.parametrize("way", WAYS)
def test_experiments_of_the_test_split(settings, tmp_path, way):
    WAYS[way](tmp_path / "data")
    settings.DATASET_NAME = str(tmp_path / "data")
    settings.EXPERIMENT_SPLIT, settings.EXPERIMENT_SAMPLES = "test", None
    loader = load_and_split_dataset()
    assert numbers(loader.get_experiment_data()) == set(range(8, 12))
    assert numbers(loader.get_training_data()) == set(range(6))
    settings.EXPERIMENT_SAMPLES, settings.GALLERY_SPLIT = 3, "train, val"
    fewer = load_and_split_dataset()
    assert numbers(fewer.get_training_data()) == set(range(8))
    ranked = [sample.content_hash for sample in loader.get_experiment_data()]
    assert [sample.content_hash for sample in fewer.get_experiment_data()] == ranked[:3]
    settings.EXPERIMENT_SPLIT = "validation"  # "val" is another name of it
    settings.GALLERY_SPLIT, settings.EXPERIMENT_SAMPLES = "train", 2
    assert numbers(load_and_split_dataset().get_experiment_data()) == {6, 7}


@pytest.mark.parametrize("way", [way for way in WAYS if "table" not in way])
def test_one_split_of_a_folder_is_used_alone(settings, tmp_path, way):
    WAYS[way](tmp_path / "data")
    settings.DATASET_NAME, settings.EXPERIMENT_SAMPLES = str(tmp_path / "data"), 2
    settings.DATASET_SPLIT = "test"
    loader = load_and_split_dataset()
    both = [*loader.get_experiment_data(), *loader.get_training_data()]
    assert numbers(both) == set(range(8, 12))
    settings.DATASET_SPLIT = "nonsense"
    with pytest.raises(SettingError, match=r"DATASET_SPLIT.*'test', 'train', 'validation'"):
        load_and_split_dataset()


def test_an_image_in_two_splits_stays_with_the_experiments(settings, tmp_path, caplog):
    by_folders(tmp_path / "data")
    copy = tmp_path / "data" / "train" / "dogs" / "copy.png"
    copy.write_bytes((tmp_path / "data" / "test" / "dogs" / "p09.png").read_bytes())
    settings.DATASET_NAME = str(tmp_path / "data")
    settings.EXPERIMENT_SPLIT, settings.EXPERIMENT_SAMPLES = "test", None
    loader = load_and_split_dataset()
    assert numbers(loader.get_experiment_data()) == set(range(8, 12))
    assert len(loader.get_training_data()) == 6
    assert "1 images are in two splits" in caplog.text and "p09.png" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"EXPERIMENT_SPLIT": "nonsense"}, r"'nonsense'.*train \(6 images\).*test \(4 images\)"),
        ({"GALLERY_SPLIT": "test"}, "different splits"),
        ({"GALLERY_SPLIT": "train,"}, "different splits"),
        ({"EXPERIMENT_SAMPLES": 5}, "only 4 images.*--experiment-samples all"),
    ],
)
def test_splits_that_cannot_be_used(settings, tmp_path, changed, said):
    by_folders(tmp_path / "data")
    settings.DATASET_NAME = str(tmp_path / "data")
    settings.EXPERIMENT_SPLIT, settings.EXPERIMENT_SAMPLES = "test", None
    for name, value in changed.items():
        setattr(settings, name, value)
    with pytest.raises(SettingError, match=said):
        load_and_split_dataset()


def test_a_damaged_karpathy_file_is_left_out(settings, tmp_path, caplog):
    by_karpathy(tmp_path / "data", captions=True)
    (tmp_path / "data" / "dataset_flickr8k.json").write_text('{"images": [1]}')
    settings.DATASET_NAME = str(tmp_path / "data")
    assert len(load_and_split_dataset().get_training_data()) == 9
    assert "holds no splits as Karpathy's do" in caplog.text


def test_the_flags(command, tmp_path):
    by_folders(tmp_path / "data")
    flags = {"dataset": str(tmp_path / "data"), "experiment_samples": "all"}
    done = command("--all", "--experiment-split", "test", **flags)
    assert done.returncode == 0 and "4 of 4 experiment images" in done.stdout
    done = command("--all", **flags)
    assert done.returncode == 2 and "EXPERIMENT_SPLIT" in done.stderr
    # A search of one's own folder sets nothing aside.
    done = command("search", "a dog", "--experiment-split", "test", **flags, top_k="99")
    assert len(done.stdout.splitlines()) == 12
