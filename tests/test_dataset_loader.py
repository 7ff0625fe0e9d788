"""Stage 1: every kind of source, the split, and images of every kind."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dataset_loader import DatasetLoader, load_and_split_dataset
from support.errors import ImageError, SettingError
from support.sources.columns import caption_columns
from support.sources.files import find_images
from support.sources.images import decode_image
from support.sources.own import own_sample
from tests.helpers import make_photos, picture


def load(settings, name) -> DatasetLoader:
    settings.DATASET_NAME = str(name)
    return load_and_split_dataset()


def captions_by_file(loader) -> dict:
    samples = [*loader.get_experiment_data(), *loader.get_training_data()]
    return {
        sample.label.replace("\\", "/").rsplit("/", 1)[-1]: sample["captions"] for sample in samples
    }


def test_a_folder_with_captions_txt_gives_every_image_its_own_captions(settings, photos):
    found = captions_by_file(load(settings, photos))
    assert found == {
        f"p{n:02}.png": [f"a red dog number {n}", f"a dog, seen again ({n})"] for n in range(12)
    }


def test_captions_txt_works_without_a_header_with_commas_and_a_byte_order_mark(settings, photos):
    lines = [f"p{n:02}.png,one, two, {n}" for n in range(6)]
    (photos / "captions.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    captions = captions_by_file(load(settings, photos))
    assert captions == {f"p{n:02}.png": [f"one, two, {n}"] * (n < 6) for n in range(12)}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_folder_with_the_metadata_of_the_imagefolder_convention(settings, photos, name):
    (photos / "captions.txt").unlink()
    rows = [
        {"file_name": f"p{n:02}.png", "text": f'a dog "{n}", again', "width": 3} for n in range(12)
    ]
    if name.endswith("csv"):
        quoted = [row["text"].replace('"', '""') for row in rows]
        text = "file_name,text,width\n" + "".join(
            f'p{n:02}.png,"{q}",3\n' for n, q in enumerate(quoted)
        )
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    (photos / name).write_text(text, encoding="utf-8")
    assert captions_by_file(load(settings, photos)) == {
        row["file_name"]: [row["text"]] for row in rows
    }


def table_of(count: int, columns: str):
    from datasets import Dataset, Features, List, Value
    from datasets import Image as ImageFeature

    pictures = [picture(n) for n in range(count)]
    if columns == "caption_0..4":
        captions = {f"caption_{k}": [f"caption {k} of {n}" for n in range(count)] for k in range(5)}
        return Dataset.from_dict(
            {"image": pictures, **captions},
            Features({"image": ImageFeature(), **{k: Value("string") for k in captions}}),
        )
    kind = List(Value("string")) if columns == "captions" else Value("string")
    values = [
        [f"first of {n}", f"second of {n}"] if columns == "captions" else f"text of {n}"
        for n in range(count)
    ]
    return Dataset.from_dict(
        {"img": pictures, columns: values}, Features({"img": ImageFeature(), columns: kind})
    )


@pytest.mark.parametrize(
    "columns, first",
    [("caption_0..4", "caption 0 of"), ("text", "text of"), ("captions", "first of")],
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parquet_and_arrow_in_the_shapes_that_datasets_have(
    settings, tmp_path, columns, first, form
):
    table = table_of(8, columns)
    folder = tmp_path / "table"
    folder.mkdir()
    table.to_parquet(
        folder / "train-00000-of-00001.parquet"
    ) if form == "parquet" else table.save_to_disk(str(folder))
    loader = load(settings, folder)
    assert len(loader.get_experiment_data()) == 3
    assert len(loader.get_training_data()) == 5
    for sample in loader.get_training_data():
        assert sample["caption"].startswith(f"{first} {sample['original_index']}")
        assert np.array_equal(
            np.asarray(sample["image"]), np.asarray(picture(sample["original_index"]))
        )


def test_parquet_that_another_program_wrote_with_plain_bytes(settings, tmp_path):
    import pyarrow
    import pyarrow.parquet

    for n in range(6):
        picture(n).save(tmp_path / f"{n}.png")
    rows = {
        "picture": [(tmp_path / f"{n}.png").read_bytes() for n in range(6)],
        "sentence": [f"s {n}" for n in range(6)],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "data.parquet")
    sample = load(settings, tmp_path / "data.parquet").get_experiment_data()[0]
    assert sample["captions"] == [f"s {sample['original_index']}"]
    assert sample["image"].size == (48, 40)


def test_splits_are_joined_or_one_is_named(settings, tmp_path):
    for split, count in (("train", 5), ("validation", 4), ("test", 3)):
        table_of(12, "text").select(range(12 - count, 12)).to_parquet(tmp_path / f"{split}.parquet")
    settings.DATASET_SPLIT, settings.EXPERIMENT_SAMPLES = "validation", 1
    assert len(load(settings, tmp_path).get_training_data()) == 3
    settings.DATASET_SPLIT = "dev"
    with pytest.raises(SettingError, match="'dev'.*'test', 'train', 'validation'"):
        load(settings, tmp_path)


def test_caption_columns_are_recognised_or_named(settings, caplog):
    assert caption_columns(["image", "caption_0", "caption_1", "text"], "x") == [
        "caption_0",
        "caption_1",
    ]
    assert caption_columns(["image", "id", "sentences"], "x") == ["sentences"]
    settings.CAPTION_COLUMN = "id"
    assert caption_columns(["image", "id", "sentences"], "x") == ["id"]
    settings.CAPTION_COLUMN = "nothing"
    with pytest.raises(SettingError, match="'nothing'.*'id'"):
        caption_columns(["image", "id"], "x")
    settings.CAPTION_COLUMN = None
    assert caption_columns(["image", "id"], "x") == []
    assert "has no captions" in caplog.text.replace("have", "has") and "'id'" in caplog.text
    assert "CAPTION_COLUMN" in caplog.text


# --- The split ----------------------------------------------------------------------------------
def order(loader) -> list[str]:
    return [s.content_hash for s in [*loader.get_experiment_data(), *loader.get_training_data()]]


def test_the_split_depends_on_seed_and_bytes_alone(settings, photos, tmp_path):
    before = order(load(settings, photos))
    shutil.move(photos, tmp_path / "moved")
    for file in (tmp_path / "moved").glob("*.png"):
        file.rename(file.with_name("x" + file.name))
    text = (tmp_path / "moved" / "captions.txt").read_text(encoding="utf-8").splitlines()
    renamed = [f"x{line}" for line in reversed(text[1:])]
    (tmp_path / "moved" / "captions.txt").write_text("\n".join(renamed), encoding="utf-8")
    assert order(load(settings, tmp_path / "moved")) == before
    settings.RANDOM_SEED = 7
    assert order(load(settings, tmp_path / "moved")) != before


def test_a_new_photo_disturbs_the_order_of_no_other(settings, photos):
    before = order(load(settings, photos))
    picture(99).save(photos / "new.png")
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("new.png,something new\n")
    after = order(load(settings, photos))
    assert len(after) == 13
    assert [key for key in after if key in before] == before


def test_total_samples_that_leave_no_gallery_are_named(settings, photos):
    settings.DATASET_NAME, settings.EXPERIMENT_SAMPLES = str(photos), 3
    settings.TOTAL_SAMPLES = 3
    with pytest.raises(SettingError, match=r"^TOTAL_SAMPLES \(--total-samples\) takes 3 images"):
        load_and_split_dataset()


def test_the_index_may_be_of_numpy(settings, photos):
    settings.DATASET_NAME, settings.EXPERIMENT_SAMPLES = str(photos), 3
    loader = load_and_split_dataset()
    assert loader.experiment(np.int64(1)) is loader.experiment(1)
    for index in (True, 1.0, "1", np.int64(3)):
        with pytest.raises(SettingError, match="it must be a whole number from 0 to 2"):
            loader.experiment(index)


def test_total_samples_keeps_the_first_of_the_rank(settings, photos):
    whole = order(load(settings, photos))
    settings.TOTAL_SAMPLES = 7
    assert order(load(settings, photos)) == whole[:7]


def test_byte_identical_copies_stand_on_one_side_with_all_their_captions(settings, photos):
    shutil.copy(photos / "p03.png", photos / "copy.png")
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("copy.png,the same again\n")
    loader = load(settings, photos)
    assert len(order(loader)) == 12 == len(set(order(loader)))
    assert captions_by_file(loader)["p03.png"][-1] == "the same again"


def test_samples_are_mappings_decoded_when_asked_for(settings, photos):
    loader = load(settings, photos)
    sample = loader.get_training_data()[4]
    assert set(sample) == {"image", "caption", "captions", "original_index", "training_index"}
    assert sample["training_index"] == 4
    assert loader.get_experiment_data()[2]["experiment_index"] == 2
    (photos / "p00.png").unlink()
    gone = next(
        s
        for s in [*loader.get_training_data(), *loader.get_experiment_data()]
        if s.original_index == 0
    )
    with pytest.raises(ImageError, match="p00.png"):
        gone["image"]
    assert gone["caption"] == "a red dog number 0"


def test_a_dataset_too_small_proposes_a_fifth(settings, photos):
    settings.EXPERIMENT_SAMPLES = 400
    with pytest.raises(SettingError, match="400.*only 12 images.*1 to 11.*--experiment-samples 2"):
        load(settings, photos)


@pytest.mark.parametrize(
    "name, message",
    [("./nowhere", "no such file"), ("a/b/c", "no such file"), ("~/no-such-x", "no such file")],
)
def test_a_misspelt_local_path_is_an_error(settings, name, message):
    with pytest.raises(SettingError, match=message):
        load(settings, name)


def test_a_folder_without_captions_says_what_it_needs(settings, tmp_path):
    picture(1).save(tmp_path / "a.png")
    with pytest.raises(SettingError, match="--index, --all and evaluate need.*search.*--image"):
        load(settings, tmp_path)


def test_missing_files_are_left_out_and_images_without_captions_counted(settings, photos, caplog):
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("gone.png,a dog that left\nempty.png,   \n")
    picture(50).save(photos / "empty.png")
    loader = load(settings, photos)
    assert len(order(loader)) == 13
    assert "gone.png" in caplog.text
    assert "1 of 13 images have no caption" in caplog.text


# --- Images ----------------------------------------------------------------------------------
def saved(tmp_path, image: Image.Image, name: str, **options) -> Image.Image:
    image.save(tmp_path / name, **options)
    return own_sample(tmp_path / name).image


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    image = saved(tmp_path, Image.fromarray(values), "grey.png")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image)[..., 0].astype(float) - values / 257).max() <= 1


def test_transparency_is_laid_on_white_and_other_modes_become_rgb(tmp_path):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(saved(tmp_path, clear, "clear.png")).min() == 255
    palette = picture(1).quantize(8)
    assert saved(tmp_path, palette, "palette.gif").mode == "RGB"
    assert saved(tmp_path, picture(1).convert("CMYK"), "cmyk.jpg").mode == "RGB"
    assert saved(tmp_path, picture(1).convert("1"), "bits.png").mode == "RGB"
    moving = tmp_path / "moving.gif"
    picture(1).save(moving, save_all=True, append_images=[picture(2)])
    assert own_sample(moving).image.size == (48, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = picture(3)
    # what the camera stored
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if turned is None else upright.transpose(Image.Transpose(turned))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(
        np.asarray(saved(tmp_path, stored, "r.png", exif=exif)), np.asarray(upright)
    )


@pytest.mark.parametrize(
    "data, message",
    [(b"", "empty"), (b"<svg></svg>", "no known image format"), (b"\xff\xd8\xff\xe0 x", "")],
)
def test_what_is_no_image_is_named(data, message):
    with pytest.raises(ImageError, match="photo.jpg.*" + message):
        decode_image(data, "photo.jpg")


def test_a_truncated_jpeg_is_an_error_not_half_a_picture(tmp_path):
    picture(1, (400, 300)).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data[: len(data) // 2], "a.jpg")


def test_a_pil_image_is_known_by_its_pixels_and_not_changed():
    image = picture(1, (3000, 10))
    first, second = own_sample(image), own_sample(image.copy())
    assert first.content_hash == second.content_hash != own_sample(picture(2)).content_hash
    assert image.size == (3000, 10)
    assert max(first.image.size) <= 2048


def test_find_images_looks_into_folders(tmp_path):
    folder = make_photos(tmp_path / "x" / "y", 3)
    assert [p.name for p in find_images(tmp_path)] == ["p00.png", "p01.png", "p02.png"]
    assert find_images(folder / "p01.png") == [folder / "p01.png"]
    with pytest.raises(SettingError, match="no file or folder"):
        find_images(tmp_path / "z")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match="no images"):
        find_images(tmp_path / "empty")
