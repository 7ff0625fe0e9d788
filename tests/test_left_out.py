"""What a folder or list holds and the program does not use: counted and named, or refused."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dataset_loader import load_and_split_dataset
from support.errors import ImageError, SettingError
from support.sources import lists
from support.sources.files import find_images
from support.sources.source import open_source
from tests.helpers import ROOT, make_photos, picture

posix = pytest.mark.skipif(os.name != "posix", reason="symbolic links, permissions")


def load(settings, folder) -> list:
    settings.DATASET_NAME = str(folder)
    loader = load_and_split_dataset()
    return [*loader.get_experiment_data(), *loader.get_training_data()]


def add_lines(folder: Path, *lines: str) -> None:
    with (folder / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


# --- Counted and named ----------------------------------------------------------------------------
def test_files_that_are_no_images_are_counted_by_kind_once(tmp_path, caplog):
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    for number in range(3):
        (tmp_path / "sub" / f"{number}.MOV").touch()
    for name in ("a.xmp", "b.xmp", "README", "._a.png", ".DS_Store"):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{tmp_path}: left out 7 of 8 files, no images by their names: 3 .mov; "
        "2 .xmp; 1 ._* (metadata of macOS); 1 without a suffix"
    )


def test_a_folder_of_images_alone_and_a_file_say_nothing(tmp_path, caplog):
    picture(1).save(tmp_path / "a.png")
    find_images(tmp_path)
    find_images(tmp_path / "a.png")
    assert caplog.text == ""


def test_images_that_the_list_does_not_name_have_no_caption(settings, photos, caplog):
    (photos / "deep").mkdir()
    for name in ("new.png", "deep/other.png", "._p01.png"):
        picture(77).save(photos / name)
    add_lines(photos, "./deep/../p03.png,the same file by another name")
    samples = load(settings, photos)
    names = {Path(sample.label).name for sample in samples if not sample.captions}
    assert len(samples) == 13 and names == {"other.png"}  # new.png is a copy
    assert "1 of 13 images have no caption" in caplog.text and "1 ._*" in caplog.text


# --- Outside the folder ---------------------------------------------------------------------------
@posix
def test_a_list_cannot_name_files_outside_its_folder(settings, photos, caplog):
    outside = photos.parent / "secret.png"
    picture(60).save(outside)
    sibling = shutil.copytree(photos, photos.parent / f"{photos.name}-2")
    (photos / "link.png").symlink_to(outside)
    (photos / "up").symlink_to(photos.parent)
    rows = [
        "../secret.png",
        str(outside),
        "link.png",
        "up/secret.png",
        f"../{sibling.name}/p00.png",
    ]
    add_lines(photos, *(f"{row},a secret" for row in rows))
    samples = load(settings, photos)
    assert len(samples) == 12 and all("a secret" not in sample.captions for sample in samples)
    assert caplog.text.count("5 files lie outside the dataset's folder, and are left out: ") == 1
    assert str(photos / "../secret.png") in caplog.text and f"{photos}/link.png" in caplog.text


@posix
def test_a_folder_that_is_a_link_and_links_inside_it_are_used(settings, photos):
    (photos / "p00.png").rename(photos / "hidden.png")
    (photos / "p00.png").symlink_to("hidden.png")
    (photos.parent / "by_link").symlink_to(photos)
    assert len(load(settings, photos.parent / "by_link")) == 12


@posix
def test_labels_do_not_depend_on_how_the_folder_is_written(settings, photos, monkeypatch):
    expected = {str(photos / f"p{n:02}.png") for n in range(12)}
    monkeypatch.chdir(photos.parent)
    (photos.parent / "by_link").symlink_to(photos)
    for name in (photos, f"./{photos.name}", f"./x/../{photos.name}/", "./by_link"):
        Path("x").mkdir(exist_ok=True)
        assert {sample.label for sample in load(settings, name)} == expected


# --- Too large, too long, gone --------------------------------------------------------------------
@pytest.mark.parametrize("name", ["captions.txt", "metadata.csv", "metadata.jsonl"])
def test_a_list_larger_than_the_memory_is_refused(settings, photos, name):
    (photos / "captions.txt").unlink()
    with (photos / name).open("wb") as file:
        file.truncate(40 * 2**30)
    with pytest.raises(SettingError, match=rf"{name} has 42,949,672,960 bytes.*{2**28:,}"):
        load(settings, photos)
    assert lists.MAX_LIST_BYTES == 2**28


@pytest.mark.parametrize("name", ["x" * 5000, "./" + "y" * 5000, "a\0b", "./a\0b"])
def test_names_that_no_file_can_have_are_as_good_as_missing(name):
    with pytest.raises(SettingError, match="no file or folder"):
        find_images(name)
    if name.startswith("."):
        with pytest.raises(SettingError, match="no such file or folder"):
            open_source(name)


def test_long_names_in_a_list_are_left_out(settings, photos, caplog):
    add_lines(photos, "z" * 5000 + ".png,long", f"{'d/' * 2000}.png,deep", "null\0.png,null")
    assert len(load(settings, photos)) == 12
    assert "3 of 15 images cannot be read" in caplog.text and "File name too long" in caplog.text


def test_a_file_that_is_no_table_is_no_dataset(photos):
    with pytest.raises(SettingError, match="a file that is no table"):
        open_source(str(photos / "p01.png"))


def test_files_that_vanish_after_they_were_listed_are_image_errors(settings, photos):
    source = open_source(str(photos))
    (photos / "p00.png").unlink()
    with pytest.raises(ImageError, match=r"p00\.png: No such file"):
        source.content_hash(0)
    expected = hashlib.sha256((photos / "p01.png").read_bytes()).hexdigest()
    assert source.content_hash(1) == expected


# --- Not to be read -------------------------------------------------------------------------------
AS_NOBODY = """
import os, sys
import config
from dataset_loader import load_and_split_dataset
from support.errors import PipelineError
from support.records import ResolvedNames
from support.sources.files import find_images
from support.sources.own import own_sample

config.EXPERIMENT_SAMPLES, config.SHOW_PROGRESS = 3, False

def load(path):
    loader = load_and_split_dataset(ResolvedNames("hub", path, None, path, own_dataset=True))
    return len(loader.get_experiment_data()) + len(loader.get_training_data())

def images(path):
    return [path.name for path in find_images(path)]

def own(path):
    return own_sample(path).image.size

function, path, readable = sys.argv[1:]
# Loads all modules: an ordinary user may not be allowed to read the packages.
load(readable), own(readable + "/p00.png")
if os.geteuid() == 0:  # for whom permissions mean nothing
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    print(globals()[function](path))
except PipelineError as error:
    print(error.exit_status, type(error).__name__, error)
"""


@pytest.fixture
def open_folder():
    """A folder that every user may enter, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def as_nobody(tmp_path):
    """as_nobody(function, path) is what a function of AS_NOBODY says about a path."""
    readable = make_photos(tmp_path / "readable", 6)

    def run(function: str, path: Path) -> str:
        command = [sys.executable, "-c", AS_NOBODY, function, str(path), str(readable)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@posix
def test_folders_and_files_without_permission_are_named_errors(open_folder, as_nobody):
    folder = make_photos(open_folder / "photos", 6)
    assert as_nobody("load", folder) == "6\n"
    for mode in (0o000, 0o600, 0o300):
        folder.chmod(mode)
        for function in ("load", "images"):
            said = as_nobody(function, folder)
            assert said.startswith("2 SettingError ") and "Permission denied" in said, said
    folder.chmod(0o755)
    open_folder.chmod(0o600)
    said = as_nobody("load", folder)
    assert said.startswith("2 SettingError ") and "Permission denied" in said, said
    open_folder.chmod(0o755)
    (folder / "captions.txt").chmod(0)
    said = as_nobody("load", folder)
    assert said.startswith("1 PipelineError ") and "captions.txt cannot be read" in said, said


@posix
def test_single_images_and_subfolders_without_permission_are_named(open_folder, as_nobody):
    folder = make_photos(open_folder / "photos", 6)
    (folder / "p00.png").chmod(0)
    (folder / "shut").mkdir(mode=0)
    said = as_nobody("load", folder)
    assert said.startswith("5\n") and "p00.png: Permission denied" in said
    assert f"The folder {folder / 'shut'} cannot be read: Permission denied" in said
    assert as_nobody("images", folder).startswith("['p00.png', ")
    said = as_nobody("own", folder / "p00.png")
    assert said == f"1 ImageError {folder / 'p00.png'}: Permission denied\n"


def test_links_to_folders_and_other_kinds_beside_a_list_are_counted(tmp_path, caplog):
    folder = make_photos(tmp_path / "photos", 3)
    (tmp_path / "album").mkdir()
    (folder / "album").symlink_to(tmp_path / "album")
    (folder / "x.mov").write_bytes(b"x")
    (folder / "metadata.csv").write_text("file_name,text\n")
    open_source(str(folder))
    assert "1 links to folders are not followed" in caplog.text
    assert "1 .mov" in caplog.text and "1 .csv" in caplog.text and "1 .txt" not in caplog.text


def test_rows_without_a_file_name_are_counted(tmp_path, caplog):
    folder = make_photos(tmp_path / "photos", 3)
    (folder / "captions.txt").unlink()
    (folder / "metadata.csv").write_text("file_name,text\np00.png,a dog\n,lost\n")
    source = open_source(str(folder))
    assert [bool(source.captions(row)) for row in range(len(source))] == [True, False, False]
    assert "1 rows name no image file and are left out" in caplog.text
