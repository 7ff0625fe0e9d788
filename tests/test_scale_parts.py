"""The parts of `python -m scale` that need no server: rows, ranking, flags, what is wrong."""

import io
import json
import math
import socket
import tarfile
import threading
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.dataset import dataset as pa_dataset

from scale.captions import Output, caption_schema
from scale.cluster import TRIES, Attempts
from scale.entries import Entry, cut, number_of, ranked, ranked_by_caption
from scale.gallery import _connect
from scale.identity import Address
from scale.moving import is_databases
from scale.parts import find_parts
from scale.places import is_below, suffix_of
from scale.rows import Row, _reader, as_rows, read_images
from scale.workers import each_if_not_all, merged
from similarity_search import Pool
from support.candidates import Candidate
from support.errors import PipelineError, SettingError
from support.records import ModelRef
from tests.helpers import make_photos, picture, run_here, run_python
from tests.scale_servers import free_port


def png(seed: int) -> bytes:
    data = io.BytesIO()
    picture(seed).save(data, "PNG")
    return data.getvalue()


def rows_of(source, size: int = 5) -> list[Row]:
    """All rows of a source, with their images."""
    tables = [table for part in find_parts(str(source), size) for table in _reader(part)()]
    return [row for table in tables for row in as_rows(read_images(table))]


def scale_main(*arguments: str):
    from scale.__main__ import main

    return run_here(lambda: main([*arguments, "--mode", "demo"]))


# --- Sources --------------------------------------------------------------------------------------
def test_a_folder_gives_its_images_with_captions(tmp_path, settings):
    photos = make_photos(tmp_path / "photos", 12)
    (photos / "p03.png").unlink()
    (photos / "p04.png").unlink()
    (photos / "p04.png").symlink_to("/etc/hostname")
    assert [len(part) for part in find_parts(str(photos), 5)] == [5, 5, 1]
    rows = {row.id.rpartition("/")[2]: row for row in rows_of(photos)}
    assert len(rows) == 11 and "p04.png" not in rows  # a link that leads out
    assert rows["p02.png"].image == (photos / "p02.png").read_bytes()
    assert rows["p02.png"].captions == ["a red dog number 2", "a dog, seen again (2)"]
    assert rows["p03.png"].image is None and "No such file" in rows["p03.png"].error


def test_parquet_files_and_archives_give_the_same(tmp_path, settings):
    images = [{"bytes": png(n), "path": f"{n}.png"} for n in range(70)]
    texts = [[f"a dog {n}", " ", "again"] for n in range(70)]
    images[3], (tmp_path / "tables").mkdir()
    images[3] = {"bytes": None, "path": "gone.png"}
    table = pa.table({"image": images, "captions": texts, "vector": [[0.5, 0.5]] * 70})
    pq.write_table(table, tmp_path / "tables" / "a.parquet", row_group_size=20)
    rows = rows_of(tmp_path / "tables")
    assert [row.id for row in rows] == [f"{tmp_path}/tables/a.parquet[{n}]" for n in range(70)]
    assert [row.image for row in rows] == [image["bytes"] for image in images]
    assert rows[69].captions == ["a dog 69", "again"] and "holds no bytes" in rows[3].error

    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for number in range(3):
            text = json.dumps({"caption": f"a dog {number}", "width": 3}).encode()
            for name, data in ((f"x/{number}.json", text), (f"x/{number}.png", png(number))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    rows = rows_of(tmp_path / "shards")
    assert [(row.id, row.captions) for row in rows] == [
        (f"{tmp_path}/shards/0.tar/x/{n}", [f"a dog {n}"]) for n in range(3)
    ]
    assert [row.image for row in rows] == [png(n) for n in range(3)]

    data = (tmp_path / "shards" / "0.tar").read_bytes()
    (tmp_path / "shards" / "0.tar").write_bytes(data[: len(data) // 2 - 100])
    rows = rows_of(tmp_path / "shards")
    assert "damaged or cannot be read" in rows[-1].error and rows[0].image == png(0)


def test_a_uri_is_read_as_a_path_is(tmp_path, settings):
    photos = make_photos(tmp_path / "photos", 3)
    rows = rows_of(f"file://{photos}")
    assert {row.image for row in rows} == {path.read_bytes() for path in photos.glob("*.png")}


@pytest.mark.parametrize(
    ("source", "said"),
    [("nowhere", "no file or folder"), ("file:///nowhere", "no such file"), ("s4://x", "address")],
)
def test_a_source_that_is_none_is_named(source, said, settings):
    with pytest.raises(SettingError, match=said) as error:
        find_parts(source, 5)
    assert source in str(error.value)


def test_a_table_without_an_image_column_is_refused(tmp_path, settings):
    pq.write_table(pa.table({"caption": ["a dog"]}), tmp_path / "a.parquet")
    with pytest.raises(SettingError, match="0 image columns"):
        find_parts(str(tmp_path), 5)


def test_a_later_table_without_an_image_column_is_an_error_of_its_own(tmp_path, settings):
    pq.write_table(pa.table({"image": [png(1)], "caption": ["a dog"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"caption": ["a cat"]}), tmp_path / "b.parquet")
    first, second = rows_of(tmp_path)
    assert first.image == png(1) and second.image is None
    assert second.id == f"{tmp_path}/b.parquet" and "has 0 image columns" in second.error


def _tar(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_odd_samples_cost_no_others(tmp_path, settings):
    deep = b'{"a":' * 100_000
    files = {"a.json": b'[[1, "x"]]', "a.png": png(0), "b.json": deep, "b.png": png(1)}
    files |= {"c.json": b'{"caption": "\\ud800 dog", "text": "no"}', "c.png": png(2)}
    files |= {"._d.png": b"macOS", "d.png": png(3), "d.txt": b"a cat", "d.json": b'{"text": 1}'}
    files |= {"photo.2024.05.PNG": png(4), "e.v1.png": png(5), "e.v2.png": png(6)}
    _tar(tmp_path / "odd.tar", files)
    rows = {row.id.rpartition("/")[2]: row for row in rows_of(tmp_path / "odd.tar")}
    assert [rows[name].image for name in "abcd"] == [png(n) for n in range(4)]
    texts = [rows[name].captions for name in "abcd"]
    assert texts == [[], [], ["\ufffd dog"], ["a cat"]]
    assert rows["photo"].image == png(4)
    assert "2 images differ in what follows the first dot" in rows["e"].error and len(rows) == 6


def test_samples_of_one_name_are_told_apart(tmp_path, settings):
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for name, seed in (("a.png", 1), ("b.png", 2), ("a.png", 3)):
            info = tarfile.TarInfo(name)
            info.size = len(png(seed))
            tar.addfile(info, io.BytesIO(png(seed)))
    rows = rows_of(tmp_path / "twice.tar")
    assert [row.id.rpartition("/")[2] for row in rows] == ["a", "b", "a[2]"]
    assert [row.image for row in rows] == [png(1), png(2), png(3)]


def test_uris_are_quoted_and_keep_their_query(tmp_path, settings):
    folder = tmp_path / "a b" / "c #1"
    folder.mkdir(parents=True)
    (folder / "x ?%41.png").write_bytes(png(1))
    (folder / "._x.png").write_bytes(b"macOS")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "y.png").write_bytes(png(2))
    (row,) = rows_of(f"file://{tmp_path}/a%20b")
    assert row.image == png(1) and row.error is None
    assert row.id == f"file://{tmp_path}/a%20b/c%20%231/x%20%3F%2541.png"
    assert suffix_of("s3://b/a.JPG?region=x.y") == ".jpg"
    assert is_below("s3://b/photos/out", "s3://b/photos/?region=x")
    assert not is_below("s3://b/photos-out", "s3://b/photos")


@pytest.mark.parametrize("place", ["s3://KEY:HUSH/HUSH@bucket/a", "s3://KEY:HUSH@bucket/a"])
def test_secrets_in_uris_are_neither_taken_nor_shown(place, settings):
    for refused in (lambda: find_parts(place, 5), lambda: Output(place, "photos")):
        with pytest.raises(SettingError) as error:
            refused()
        assert "HUSH" not in str(error.value) and "@" not in str(error.value)


def test_what_is_not_read_beside_tables_is_named(tmp_path, settings, caplog):
    photos = make_photos(tmp_path / "photos", 2)
    (photos / "captions.txt").unlink()
    pq.write_table(pa.table({"image": [png(1)], "caption": ["a dog"]}), photos / "a.parquet")
    assert find_parts(str(photos), 5) == [str(photos / "a.parquet")]
    assert "left out: 2 .png" in caplog.text
    (single,) = find_parts(str(photos / "p00.png"), 5)
    assert single == [Row(str(photos / "p00.png"))]


def test_a_column_that_is_not_there_is_named(tmp_path, settings):
    pq.write_table(pa.table({"image": [png(1)]}), tmp_path / "a.parquet")
    settings.IMAGE_COLUMN = "photo"
    with pytest.raises(SettingError, match=r"--image-column\) is 'photo', but .* has: \['image'\]"):
        find_parts(str(tmp_path), 5)


# --- The folder of results ------------------------------------------------------------------------
def claimed(out, source) -> Output:
    address = Address("http://m:1", "g", ModelRef("clip", "", "1"), ModelRef("text", "", "1"))
    output = Output(str(out), str(source))
    output.claim(address, ModelRef("vlm", "", "1"))
    return output


def test_results_are_kept_apart_from_their_source_and_from_others(tmp_path, settings):
    for out in (tmp_path / "photos" / "out", tmp_path / "photos"):
        with pytest.raises(SettingError, match="lies in SOURCE"):
            claimed(out, tmp_path / "photos")
    output = claimed(tmp_path / "out", tmp_path / "photos")
    assert output.summary() == (0, [])  # a source without images
    with pytest.raises(PipelineError, match="Another program writes captions to"):
        claimed(tmp_path / "out", tmp_path / "photos")
    output._held.release()
    claimed(tmp_path / "out", tmp_path / "photos")._held.release()
    settings.TOP_K_SIMILAR = 3
    with pytest.raises(SettingError, match="never mixed"):
        claimed(tmp_path / "out", tmp_path / "photos")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    with pytest.raises(SettingError, match="Parquet files of something else: mine"):
        claimed(tmp_path, "/elsewhere")


def test_images_with_an_error_are_tried_again(tmp_path, settings):
    output = claimed(tmp_path / "out", tmp_path / "photos")
    output.forget_errors()  # of nothing
    (tmp_path / "out" / ".finished").mkdir()
    for name, errors in (("a", [None, "broken", None]), ("b", ["broken"]), ("c", [None])):
        rows = [{"id": f"{name}{n}", "error": error} for n, error in enumerate(errors)]
        table = pa.Table.from_pylist(rows, caption_schema())
        pq.write_table(table, tmp_path / "out" / f"{name}.parquet")
        pq.write_table(table.select(["id"]), tmp_path / "out" / ".finished" / f"{name}.parquet")
    assert output.summary() == (5, ["broken", "broken"])
    before = (tmp_path / "out" / "c.parquet").stat()
    for _ in range(2):
        output.forget_errors()
        assert output.summary() == (3, [])
        finished = pa_dataset(str(tmp_path / "out" / ".finished"), format="parquet").to_table()
        assert sorted(finished["id"].to_pylist()) == ["a0", "a2", "c0"]
    assert (tmp_path / "out" / "c.parquet").stat() == before
    assert not (tmp_path / "out" / "b.parquet").exists()
    output._held.release()


def test_a_folder_with_a_file_called_as_a_database_is_none(tmp_path):
    (tmp_path / "captions.json").write_text("{}")
    assert not is_databases(str(tmp_path))


# --- Ranking --------------------------------------------------------------------------------------
def test_candidates_are_ranked_as_a_pool_ranks_them(settings):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8)).astype(np.float32)
    vectors[20:40] = vectors[:20]  # equal similarities
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = random.permutation(60).tolist()
    entries = [
        Entry(f"{n:064}", vector, f"/{n}.jpg", number, [f"dog {n}"])
        for n, (vector, number) in enumerate(zip(vectors, numbers, strict=True))
    ]
    images = [
        Candidate(one.key, one.number, tuple(one.captions), "original", None, one.path)
        for one in entries
    ]
    pool = Pool.of(images, {one.key: row for row, one in enumerate(entries)}, vectors)
    for query in vectors[:10]:
        shuffled = [entries[n] for n in random.permutation(60)]
        expected = pool.neighbors(query, k=7)
        assert [found.neighbor for found in ranked(query, shuffled, 7)] == expected
    assert ranked(vectors[0], [], 5) == []


def test_a_caption_that_its_image_has_no_longer_finds_nothing(settings):
    vectors = np.eye(3, dtype=np.float32)
    images = {
        "a": Entry("a", vectors[0], "/a", 2, ["dog", "cat"]),
        "b": Entry("b", vectors[0], "/b", 1),
    }
    rows = [
        {"key": "a:0", "vector": vectors[0], "image": "a", "caption": "an older dog"},
        {"key": "a:1", "vector": vectors[1], "image": "a", "caption": "cat"},
        {"key": "b:g", "vector": vectors[0], "image": "b", "caption": "forgotten"},
        {"key": "c:0", "vector": vectors[0], "image": "c", "caption": "gone"},
    ]
    (found,) = ranked_by_caption(vectors[0], rows, images, 5)
    assert (found.key, found.neighbor.caption, found.neighbor.similarity) == ("a", "cat", 0.0)


def test_entries_survive_the_way_to_milvus_and_back():
    captions = ["한국어 “caption”", "", "x" * 70_000]
    entry = Entry("k" * 64, np.ones(4, np.float32) / 2, "/p.jpg", 7, captions, "made")
    back = Entry.of(entry.row())
    assert back.captions == captions[:2] and back.given == tuple(captions[:2])
    assert (back.path, back.number, back.generated) == ("/p.jpg", 7, "made")
    assert list(entry.texts()) == [f"{'k' * 64}:0", f"{'k' * 64}:2", f"{'k' * 64}:g"]
    assert len(cut("한" * 30_000).encode()) <= 65_535 and cut("한" * 30_000).strip("한") == ""
    assert 0 <= number_of("f" * 64) < 2**53


def test_a_copy_adds_captions_and_the_same_file_replaces_them():
    entry = Entry("k", np.ones(1, np.float32), "/a.jpg", 7, ["one"], "made")
    assert merged(entry, Row("/a.jpg", b"", ["one"])) is entry
    assert merged(entry, Row("/a.jpg", b"", ["two"])).captions == ("two",)
    assert merged(entry, Row("/b.jpg", b"", ["two"])).captions == ("one", "two")
    assert merged(entry, Row("/b.jpg", b"", ["two"])).generated == "made"


# --- What fails -----------------------------------------------------------------------------------
def test_one_bad_item_fails_alone_and_many_end_the_run():
    def run(items):
        if any(item < 0 for item in items):
            raise PipelineError(f"bad {items}")
        return [2 * item for item in items]

    results = each_if_not_all(run, [1, -1, 3])
    assert (results[0], str(results[1]), results[2]) == (2, "bad [-1]", 6)
    assert each_if_not_all(run, []) == []
    with pytest.raises(PipelineError, match=r"bad \[-4\]"):
        each_if_not_all(run, [1, -1, 3, -2, -3, -4, 5])
    results = each_if_not_all(run, [1, -1, 3, -2, -3, -4, 5], math.inf)
    assert (results[6], str(results[5])) == (10, "bad [-4]")


def test_attempts_that_did_not_end_are_counted():
    attempts = Attempts()
    for _ in range(TRIES):
        attempts.begin(["a", "b"])
    attempts.end(["a"])
    assert attempts.counts(["a", "b", "c"]) == {"b": TRIES}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "http://x"], "give a text or --image"),
        (["search", "http://x", "dog", "--name", "a-b"], "--name is 'a-b'"),
        (["index", "photos"], "required: MILVUS"),
        (["index", "photos", "http://x", "--workers", "0"], "from 1 to less than 1,000,000"),
        (["index", "photos", "http://x", "--batch", "0.5"], "'0.5'; it must be a whole number"),
        (["index", "", "http://x"], "SOURCE is ''"),
        (["caption", "photos", "", "--gallery", "http://x"], "OUT is ''"),
        (["search", "http://x:1", " "], "is empty"),
        (["caption", "photos", "out"], "--gallery"),
        (["search", "localhost:19530", "dog"], "no address of a Milvus server"),
        (["search", "http://user:secret@x:1", "dog"], "no address of a Milvus server"),
        (["search", "http://x:1?token=secret", "dog"], "no address of a Milvus server"),
    ],
)
def test_wrong_commands_have_status_2(arguments, said, settings):
    done = scale_main(*arguments)
    assert done.returncode == 2 and said in done.stderr and "secret" not in done.stderr


def test_a_server_that_is_not_there_is_named(settings):
    url = f"http://127.0.0.1:{free_port()}"
    done = scale_main("search", url, "dog")
    assert done.returncode == 1 and f"No Milvus server answers at {url}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_connection_that_was_closed_as_idle_is_made_again(monkeypatch):
    from pymilvus.exceptions import MilvusException

    tried = []

    def connect(*_, **__):
        tried.append(1)
        if len(tried) == 1:
            try:
                raise OSError("UNAVAILABLE: Too many pings")
            except OSError as error:
                raise MilvusException(2, "server unavailable") from error
        return "client"

    monkeypatch.setattr("pymilvus.MilvusClient", connect)
    assert _connect("http://127.0.0.1:1") == "client" and len(tried) == 2


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 429 Too Many\r\n\r\n", b"\x00garbage\r\n"])
def test_a_server_of_another_kind_is_named_soon(answer, settings, monkeypatch):
    monkeypatch.setattr("scale.gallery.SECONDS_TO_CONNECT", 1.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        done = scale_main("search", url, "dog")
    assert done.returncode == 1 and f"No Milvus server answers at {url}" in done.stderr


def _answer(server: socket.socket, answer: bytes | None) -> None:
    open_connections = []
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        open_connections.append(connection)
        if answer is not None:
            connection.sendall(answer)
            connection.close()


def test_a_ray_cluster_that_is_not_there_is_named(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    done = scale_main("index", str(make_photos(tmp_path / "photos", 2)), "http://127.0.0.1:1")
    assert done.returncode == 1 and "Ray at RAY_ADDRESS, '127.0.0.1" in done.stderr


def test_without_its_packages_it_says_what_to_install():
    code = "import sys; sys.modules['pymilvus'] = None; from scale.__main__ import main; "
    done = run_python("-c", code + "sys.exit(main(['search', 'http://x:1', 'dog']))")
    assert (done.returncode, done.stdout) == (1, "")
    line = "scale needs pymilvus. Run: python -m pip install -r requirements-scale.txt\n"
    assert done.stderr == line


def test_help_imports_no_engine():
    code = "import sys; from scale import __main__; print({'ray', 'pymilvus'} & set(sys.modules))"
    assert run_python("-c", code).stdout == "set()\n"
