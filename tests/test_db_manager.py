"""Stage 6: what the databases promise."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

import demo
from db_manager import DatabaseManager, database_folder, slug
from support.errors import DatabaseError
from support.records import GeneratedCaption, ModelRef, Sample
from support.storage import journal, lock, store
from support.storage.vectors import encode_vector, read_vectors

CLIP = ModelRef("org/clip", "org/clip", "revision-1")
TEXT = ModelRef("org/text", "org/text", "revision-1")


def sample(number: int, captions=("a dog",), role="training") -> Sample:
    return Sample(f"{number:064x}", f"{number}.jpg", None, tuple(captions), number, role, number)


def vector(seed: int, dimension: int = 8) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return values / np.linalg.norm(values)


def opened(folder, **options) -> DatabaseManager:
    return DatabaseManager(folder, "photos", **options)


def fill(db: DatabaseManager, count: int = 4) -> list[int]:
    """`count` gallery images and as many captioned ones."""
    db.sync_gallery([sample(n, (f"caption {n}", "개가 눈 위를 달린다")) for n in range(count)])
    images = db.image_vectors(CLIP, 8, "pil")
    db.add_vectors(images, {sample(n).content_hash: vector(n) for n in range(count)})
    made = {"mode": "hub"}
    return [
        db.add_generated(
            sample(n, role="experiment"),
            GeneratedCaption(f"made {n}", "p", made),
            images,
            vector(n),
        )
        for n in range(count, 2 * count)
    ]


def state(folder) -> tuple[dict, dict]:
    """Everything in the databases, as a fresh reader sees it."""
    db = opened(folder)
    images = db.image_vectors(CLIP, 8, "pil")
    return dict(db.captions), {key: images.matrix[row].tolist() for key, row in images.rows.items()}


def test_what_was_added_is_found_again_before_and_after_compaction(tmp_path):
    db = opened(tmp_path)
    assert fill(db) == [4, 5, 6, 7]
    uncompacted = state(tmp_path)
    db.close()
    assert not db._store.journal.read()[0]
    assert state(tmp_path) == uncompacted
    captions, vectors = uncompacted
    assert captions[sample(2).content_hash]["captions"] == ["caption 2", "개가 눈 위를 달린다"]
    assert captions[sample(5).content_hash]["generated"] == {"caption": "made 5", "mode": "hub"}
    assert vectors[sample(6).content_hash] == vector(6).tolist()


def test_files_are_json_readable_and_diffable(tmp_path):
    with opened(tmp_path) as db:
        fill(db)
    text = (tmp_path / "captions.json").read_text(encoding="utf-8")
    document = json.loads(text)
    fold = document["header"].pop("fold")
    assert document["header"] == {
        "format_version": 1,
        "content": "captions",
        "dataset": "photos",
        "count": 8,
    }
    assert json.loads((tmp_path / "journal.jsonl").read_text())["fold"] == fold
    assert "개가 눈 위를 달린다" in text
    assert len(text.splitlines()) == len(document["records"]) + 5
    vectors = json.loads((tmp_path / slug("org/clip") / "image_embeddings.json").read_text())
    header = ("model", "revision", "dimension", "dtype", "count")
    assert {key: vectors["header"][key] for key in header} == {
        "model": "org/clip",
        "revision": "revision-1",
        "dimension": 8,
        "dtype": "float32",
        "count": 8,
    }
    keys, matrix = read_vectors(tmp_path / slug("org/clip") / "image_embeddings.json")
    assert matrix.shape == (8, 8) and np.array_equal(
        matrix[keys.index(sample(3).content_hash)], vector(3)
    )


def test_captioning_again_replaces_the_caption_and_keeps_the_number(tmp_path):
    with opened(tmp_path) as db:
        numbers = fill(db)
        again = GeneratedCaption("made again", None, {})
        index = db.add_generated(
            sample(5, role="experiment"), again, db.image_vectors(CLIP, 8, "pil"), vector(5)
        )
    assert index == numbers[1]
    captions, _ = state(tmp_path)
    assert captions[sample(5).content_hash]["generated"]["caption"] == "made again"
    assert len(captions) == 8


def test_a_users_copy_of_a_gallery_image_keeps_its_captions_and_name(tmp_path):
    db = opened(tmp_path)
    fill(db)
    own = Sample(sample(1).content_hash, "/home/me/x.jpg", None)
    db.add_generated(
        own, GeneratedCaption("mine", None, {}), db.image_vectors(CLIP, 8, "pil"), vector(1)
    )
    record = db.captions[own.content_hash]
    assert (record["index"], record["image"], record["captions"][0]) == (1, "1.jpg", "caption 1")


def test_sync_adds_new_images_and_changed_captions_only(tmp_path):
    db = opened(tmp_path)
    fill(db)
    before = db._store.journal.size()
    db.sync_gallery([sample(n, (f"caption {n}", "개가 눈 위를 달린다")) for n in range(4)])
    assert db._store.journal.size() == before
    db.sync_gallery([sample(0, ("changed",)), sample(9)])
    assert db.captions[sample(0).content_hash]["captions"] == ["changed"]
    assert db.captions[sample(9).content_hash]["index"] == 8


def test_models_have_their_own_files_and_changing_back_finds_the_old_one(tmp_path):
    other = ModelRef("org/other", "org/other", "r")
    with opened(tmp_path) as db:
        fill(db)
        assert len(db.image_vectors(other, 3, "pil")) == 0
        assert len(db.image_vectors(CLIP, 8, "pil")) == 8
    assert len(state(tmp_path)[1]) == 8


def test_compaction_keeps_the_updates_of_a_model_that_is_not_open(tmp_path):
    db = opened(tmp_path)
    fill(db)
    with opened(tmp_path) as second:  # opens captions only, and compacts at its end
        second.sync_gallery([sample(20)])
    assert len(state(tmp_path)[1]) == 8
    db.refresh()
    assert sample(20).content_hash in db.captions


@pytest.mark.parametrize(
    "bad", [np.full(8, np.nan), np.zeros(8), np.full(8, np.inf), np.ones(8), np.ones(9) / 3]
)
def test_vectors_that_are_no_unit_vectors_are_refused(tmp_path, bad):
    db = opened(tmp_path)
    table = db.image_vectors(CLIP, 8, "pil")
    with pytest.raises(DatabaseError, match="refused"):
        db.add_vectors(table, {"x": bad.astype(np.float32)})
    assert len(db.image_vectors(CLIP, 8, "pil")) == 0 and not db._store.journal.read()[0]


@pytest.mark.parametrize(
    "ref, dimension, backend, field",
    [
        (ModelRef("org/clip", "", "revision-2"), 8, "pil", "revision"),
        (CLIP, 9, "pil", "dimension"),
        (CLIP, 8, "torchvision", "image_processor"),
    ],
)
def test_vectors_of_another_revision_or_size_are_never_mixed_in(
    tmp_path, ref, dimension, backend, field
):
    with opened(tmp_path) as db:
        fill(db)
    with pytest.raises(DatabaseError, match=f"{field}.*--rebuild"):
        opened(tmp_path).image_vectors(ref, dimension, backend)
    rebuilt = opened(tmp_path, rebuild=True)
    assert len(rebuilt.image_vectors(ref, dimension, backend)) == 0
    assert len(rebuilt.captions) == 8


def test_the_recorded_revision_is_known(tmp_path):
    with opened(tmp_path) as db:
        assert db.recorded_revision("image_embeddings.json", CLIP) is None
        fill(db)
        assert db.recorded_revision("image_embeddings.json", CLIP) == "revision-1"
    assert opened(tmp_path, rebuild=True).recorded_revision("image_embeddings.json", CLIP) is None


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a list": lambda data: b"[1, 2]",
    "no records": lambda data: b'{"header": {}}',
    "wrong count": lambda data: data.replace(b'"count": 8', b'"count": 9'),
    "NaN": lambda data: data.replace(b'"count": 8', b'"count": NaN'),
    "UTF-16": lambda data: b"\xff\xfe" + data,
    "wrong content": lambda data: data.replace(b'"content": "', b'"content": "x'),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["captions.json", "org--clip/image_embeddings.json"])
def test_damaged_files_are_named_kept_and_refused_until_rebuild(tmp_path, name, damage):
    with opened(tmp_path) as db:
        fill(db)
    path = tmp_path / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    for _ in range(2):
        with pytest.raises(DatabaseError, match=rf"{path.name} is damaged.*--rebuild"):
            opened(tmp_path).image_vectors(CLIP, 8, "pil")
    assert (path.parent / (path.name + ".corrupt")).read_bytes() == path.read_bytes()
    rebuilt = opened(tmp_path, rebuild=True)
    rebuilt.image_vectors(CLIP, 8, "pil")
    rebuilt.close()
    state(tmp_path)


@pytest.mark.parametrize("cut", ["base64", "length", "unit"])
def test_a_rebuild_keeps_a_copy_of_a_file_with_one_damaged_vector(tmp_path, cut):
    with opened(tmp_path) as db:
        fill(db)
    path = tmp_path / "org--clip" / "image_embeddings.json"
    document = json.loads(path.read_bytes())
    key = next(iter(document["records"]))
    wrong = {"base64": "?", "length": "AAAA", "unit": "A" * 42 + "=="}
    document["records"][key] = wrong[cut]
    content = json.dumps(document)
    path.write_text(content, "utf-8")
    assert len(opened(tmp_path, rebuild=True).image_vectors(CLIP, 8, "pil")) == 0
    assert (path.parent / (path.name + ".corrupt")).read_text("utf-8") == content


def test_rebuild_keeps_the_records_that_can_be_read(tmp_path, caplog):
    with opened(tmp_path) as db:
        fill(db)
    lines = (tmp_path / "captions.json").read_bytes().split(b"\n")
    lines[4] = lines[4][:30]
    (tmp_path / "captions.json").write_bytes(b"\n".join(lines))
    kept = opened(tmp_path, rebuild=True).captions
    assert len(kept) == 7
    assert "7 records kept, 1 could not be read" in caplog.text


def test_a_newer_format_is_refused_and_left_alone(tmp_path):
    with opened(tmp_path) as db:
        fill(db)
    path = tmp_path / "captions.json"
    path.write_bytes(path.read_bytes().replace(b'"format_version": 1', b'"format_version": 2'))
    with pytest.raises(DatabaseError, match="format 2, newer"):
        opened(tmp_path)
    assert not path.with_name("captions.json.corrupt").exists()


def test_half_a_line_at_the_journals_end_is_cut_off(tmp_path):
    db = opened(tmp_path)
    fill(db)
    before = state(tmp_path)
    with db._store.journal.path.open("ab") as file:
        file.write(b'{"crc32":"00000000","updates":{"captions.json":{"x":')
    assert state(tmp_path) == before
    opened(tmp_path).sync_gallery([sample(30)])
    assert sample(30).content_hash in state(tmp_path)[0]


def test_a_damaged_line_within_the_journal_is_an_error_and_rebuild_keeps_the_rest(tmp_path, caplog):
    db = opened(tmp_path)
    fill(db)
    data = db._store.journal.path.read_bytes()
    lines = data.split(b"\n")
    lines[3] = lines[3].replace(b"made 4", b"made X")
    db._store.journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(DatabaseError, match=r"journal\.jsonl is damaged.*checksum"):
        opened(tmp_path)
    kept = opened(tmp_path, rebuild=True)
    assert len(kept.captions) == 7 and "5 updates kept, 1 could not" in caplog.text


def test_an_update_appends_one_line_whatever_the_size(tmp_path):
    db = opened(tmp_path)
    fill(db, 2)
    small = _bytes_of_an_update(db, 100)
    db.sync_gallery([sample(n) for n in range(1000, 3000)])
    db.close()
    assert abs(_bytes_of_an_update(db, 101) - small) < 10


def _bytes_of_an_update(db, number) -> int:
    before = db._store.journal.size()
    made = GeneratedCaption("made", None, {})
    db.add_generated(
        sample(number, role="experiment"), made, db.image_vectors(CLIP, 8, "pil"), vector(number)
    )
    return db._store.journal.size() - before


def test_the_journal_is_compacted_when_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "JOURNAL_BYTES", 2000)
    db = opened(tmp_path)
    fill(db, 10)
    assert db._store.journal.size() < 6000
    assert json.loads((tmp_path / "captions.json").read_text())["header"]["count"] > 5
    assert len(state(tmp_path)[0]) == 20


def _write(folder: str, first: int, count: int) -> None:
    with DatabaseManager(Path(folder), "photos") as db:
        images = db.image_vectors(CLIP, 8, "pil")
        for n in range(first, first + count):
            db.add_generated(
                sample(n, role="experiment"),
                GeneratedCaption(f"made {n}", None, {}),
                images,
                vector(n),
            )


def test_several_writers_at_once_lose_nothing_and_share_no_number(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(tmp_path), 100 * w, 10)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    captions, vectors = state(tmp_path)
    assert [w.exitcode for w in writers] == [0] * 4
    assert sorted(record["index"] for record in captions.values()) == list(range(40))
    assert set(captions) == set(vectors)


def test_who_waits_for_the_lock_is_told_who_holds_it(tmp_path, monkeypatch):
    db, second = opened(tmp_path), opened(tmp_path)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.2)
    with db._store.lock.held():
        start = time.monotonic()
        with pytest.raises(DatabaseError, match=rf"process {os.getpid()} on .* since "):
            second.sync_gallery([sample(1)])
    assert time.monotonic() - start < 5
    second.sync_gallery([sample(1)])


def test_a_failed_write_leaves_the_old_state(tmp_path, monkeypatch):
    db = opened(tmp_path)
    fill(db)
    before = state(tmp_path)

    def full(descriptor, data):
        os.pwrite(descriptor, data[:10], 0)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_write_all", full)
    with pytest.raises(
        DatabaseError, match=r"journal\.jsonl cannot be written: No space.*Free some space"
    ):
        db.sync_gallery([sample(77)])
    monkeypatch.undo()
    assert sample(77).content_hash not in db.captions
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    ["../../etc", "/", "..", ".", "", "a/../b", "con\n", "ü", "x" * 300, "a b", "a--b", "C:\\x"],
)
def test_no_name_leads_out_of_the_folder(name):
    assert (
        "/" not in slug(name)
        and "\\" not in slug(name)
        and slug(name) not in ("", ".", "..")
        and len(slug(name)) < 120
    )


def test_a_dataset_has_its_folder_and_one_apart_for_the_demos_models(settings, tmp_path):
    settings.DB_DIR = str(tmp_path)
    assert database_folder("jxie/flickr8k") == tmp_path / "jxie--flickr8k"
    assert database_folder("/data/my photos").name == "my-photos-035ab4e9"
    suffix = demo.EMBEDDED.database_suffix
    assert database_folder("/data/my photos", suffix).name == "my-photos-035ab4e9-tried-with-demo"
    assert database_folder("demo") == tmp_path / "demo"


def test_names_that_look_alike_get_folders_of_their_own():
    names = ["a/b", "a--b", "a b", "a-b", "/a/b", "/c/b", "A/b"]
    assert len({slug(name) for name in names}) == len(names)
    assert slug("openai/clip-vit-base-patch32") == "openai--clip-vit-base-patch32"


def test_a_vector_is_base64_of_little_endian_float32():
    assert encode_vector(np.array([1.0, -2.0])) == "AACAPwAAAMA="
