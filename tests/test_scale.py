"""`python -m scale` against real engines: Milvus servers, and Ray, on loopback."""

import io
import json
import os
import shutil
import signal
import tarfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import config
from tests.scale_servers import LiteServer, MilvusServer, run_scale, scale
from tests.vlm_server import MODEL, Reply, VlmServer, colour_of

pytestmark = pytest.mark.long
pytest.importorskip("ray")
pytest.importorskip("pymilvus")
SCENES = 1200


@pytest.fixture(scope="module")
def demo_system(tmp_path_factory):
    """The demo with all vectors, its experiments in a folder, and what one machine makes of it."""
    import demo
    from caption_embedder import embed_captions
    from main import embed_images, initialize_system

    folder = tmp_path_factory.mktemp("demo")
    before = {name: value for name, value in vars(config).items() if name.isupper()}
    config.MODE, config.DB_DIR, config.SHOW_PROGRESS = "demo", str(folder / "databases"), False
    system = initialize_system()
    records = system.db_manager.captions.values()
    texts = [text for record in records for text in record["captions"]]
    embed_captions(texts, system.model("text"), system.db_manager)
    experiments = system.dataset_loader.get_experiment_data()
    (folder / "experiments").mkdir()
    for number, sample in enumerate(experiments):
        shutil.copy(sample.label, folder / "experiments" / f"{number:03}.jpg")
    images = embed_images(system)
    vectors = images.embed(experiments)
    found = system.pool(images.vectors).neighbors_of(experiments, vectors)
    system.db_manager.close()
    yield SimpleNamespace(
        **{"system": system, "experiments": experiments, "vectors": vectors, "found": found},
        databases=system.db_manager.folder,
        photos=folder / "experiments",
        scenes=demo.prepare_scenes(),
    )
    vars(config).update(before)


@pytest.fixture(scope="module")
def milvus(tmp_path_factory):
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    server = LiteServer(tmp_path_factory.mktemp("lite"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def gallery_url(milvus, demo_system):
    """The Milvus server with the demo's gallery, moved up from its databases."""
    status, stdout, stderr = run_scale("index", demo_system.databases, milvus.url, "--name", "demo")
    assert (status, stdout) == (0, "Moved: 800 images; 0 have no vector yet\n"), stderr
    return milvus.url


def open_gallery(url: str, name: str):
    import demo
    from scale.gallery import Gallery
    from scale.identity import Address
    from support.hub.revisions import locate

    refs = [locate(demo.model(kind)) for kind in ("clip", "text")]
    gallery = Gallery(Address(url, name, *refs))
    gallery.open()
    return gallery


def written(folder: Path) -> list[dict]:
    """The rows of the Parquet files in a folder."""
    from pyarrow.dataset import dataset

    return dataset(str(folder), format="parquet").to_table().to_pylist()


def finished(folder: Path) -> set[str]:
    """The rows that a run has finished: a file being written, or half of one, counts for none."""
    import pyarrow.parquet as pq

    files = (folder / ".finished").glob("*.parquet")
    tables = [pq.read_table(file) for file in files if ".pending." not in file.name]
    return {name for table in tables for name in table["id"].to_pylist()}


def wait_for(happened, process, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.2)


# --- The same as on one machine -------------------------------------------------------------------
@pytest.mark.parametrize("engine", ["milvus", "lite"])
def test_neighbors_are_those_of_the_pool(demo_system, engine, request):
    if engine == "milvus":
        url = request.getfixturevalue("gallery_url")
    else:
        url = request.getfixturevalue("lite").url
        status, _, stderr = run_scale("index", demo_system.databases, url, "--name", "demo")
        assert status == 0, stderr
    gallery = open_gallery(url, "demo")
    keys = [sample.content_hash for sample in demo_system.experiments]
    sources = ["original", "generated"]
    same = 0
    for start in range(0, len(keys), 50):
        part = slice(start, start + 50)
        found = gallery.neighbors(demo_system.vectors[part], keys[part], sources)
        for hits, expected in zip(found, demo_system.found[part], strict=True):
            assert [_comparable(hit.neighbor) for hit in hits] == list(map(_comparable, expected))
            same += 1
    assert same == 400


def _comparable(neighbor) -> tuple:
    """All but the dataset's row, which galleries do not hold."""
    return neighbor.index, neighbor.similarity, neighbor.captions, neighbor.image, neighbor.source


def test_captions_are_those_of_one_machine(demo_system, gallery_url, tmp_path, settings):
    from experiments.query import Query
    from experiments.search import search
    from main import embed_images
    from prompt_generator import build_prompts
    from vlm_captioner import load_captioner

    out = tmp_path / "out"
    command = ("caption", demo_system.photos, out, "--gallery", gallery_url, "--name", "demo")
    status, stdout, stderr = run_scale(*command)
    assert (status, stdout) == (0, f"Captioned: 400 images of 400 in {out}\n"), stderr
    prompts = build_prompts(demo_system.found)
    images = [sample.image for sample in demo_system.experiments]
    settings.MODE, settings.DB_DIR = "demo", str(demo_system.databases.parent)
    settings.MAX_NEW_TOKENS = 60
    expected = load_captioner(demo_system.system.model("vlm")).write_captions(images, prompts)
    rows = {row["key"]: row for row in written(out)}
    assert len(rows) == 400
    for sample, vector, prompt, caption in zip(
        demo_system.experiments, demo_system.vectors, prompts, expected, strict=True
    ):
        row = rows[sample.content_hash]
        assert (row["caption"], row["prompt"], row["error"]) == (caption, prompt, None)
        assert np.array_equal(np.array(row["vector"], np.float32), vector)

    # Again: nothing is left to do. With --add, the captions are found, and nothing else changes.
    files = sorted(out.glob("*.parquet"))
    status, stdout, stderr = run_scale(*command, "--add")
    assert (status, sorted(out.glob("*.parquet"))) == (0, files), stderr
    gallery = open_gallery(gallery_url, "demo")
    one = demo_system.experiments[7]
    assert gallery.known([one.content_hash])[one.content_hash].generated == expected[7]
    own = gallery.neighbors(demo_system.vectors[7:8], [None])[0][0]
    assert (own.key, own.neighbor.source) == (one.content_hash, "generated")

    # The folder is a dataset.
    settings.DATASET_NAME, settings.EXPERIMENT_SAMPLES = str(out), 40
    from main import open_system

    system = open_system(split=False)
    gallery_images = system.dataset_loader.get_training_data()
    assert {sample.content_hash: sample.caption for sample in gallery_images} == {
        key: row["caption"] for key, row in rows.items()
    }
    system.db_manager.close()
    found = search(Query(expected[7], by="caption"), system, embed_images)
    assert expected[7] in found[0].captions


def test_captions_come_from_a_server_and_the_run_goes_on_when_it_is_back(
    demo_system, lite, tmp_path
):
    status, _, stderr = run_scale("index", demo_system.databases, lite.url, "--name", "served")
    assert status == 0, stderr
    (tmp_path / "photos").mkdir()
    for path in sorted(demo_system.photos.iterdir())[:24]:
        shutil.copy(path, tmp_path / "photos")
    out = tmp_path / "out"
    with VlmServer() as server:
        command = ("caption", tmp_path / "photos", out, "--gallery", lite.url, "--name", "served")
        command += ("--batch", "8", "--workers", "1", "--vlm-server", server.url)

        def locked_after_eight(request):
            return colour_of(request) if len(server.completions()) <= 8 else Reply(401, {})

        server.answer = locked_after_eight
        status, _, stderr = run_scale(*command)
        assert status == 1 and "variable VLM_SERVER_KEY" in stderr, stderr
        assert stderr.count("refuses access") == 1 and "Traceback" not in stderr
        server.answer = colour_of
        status, stdout, stderr = run_scale(*command)
        assert (status, stdout) == (0, f"Captioned: 24 images of 24 in {out}\n"), stderr
        keys = {request.headers["authorization"] for request in server.requests}
        assert keys == {"Bearer no-key"}
        answered = Counter(request.prompt for request in server.completions())
    rows = written(out)
    assert len({row["key"] for row in rows}) == len(rows) == 24
    named = {json.loads(row["models"])["vlm"]["name"] for row in rows}
    assert named == {f"{MODEL} @ {server.url}"}
    for row in rows:
        pixel = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB").getpixel((0, 0))
        assert row["caption"] == "colour {} {} {}".format(*pixel)
        assert answered[row["prompt"]] >= 1


def test_what_a_server_refuses_costs_no_others_and_captions_stay(demo_system, lite, tmp_path):
    index = ("index", demo_system.databases, lite.url, "--name", "refused")
    status, _, stderr = run_scale(*index)
    assert status == 0, stderr
    of_gallery = demo_system.system.dataset_loader.get_training_data()[0]
    samples = [*demo_system.experiments[:7], of_gallery]
    photos = [Path(sample.label).read_bytes() for sample in samples]
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name, data in zip("abacdefg", photos, strict=True):  # two of one name
            info = tarfile.TarInfo(f"{name}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pixels = [Image.open(io.BytesIO(data)).convert("RGB").tobytes() for data in photos]

    def answer(request):
        refuses = request.image.tobytes() in pixels[3:6]
        return Reply(400, {"error": "content filter"}) if refuses else colour_of(request)

    out = tmp_path / "out"
    command = ("caption", tmp_path / "photos.tar", out, "--gallery", lite.url, "--name", "refused")
    with VlmServer(answer) as server:
        port = server.url.rpartition(":")[2].partition("/")[0]
        status, stdout, stderr = run_scale(*command, "--add", "--vlm-server", server.url)
    assert (status, stdout) == (1, f"Captioned: 5 images of 8 in {out}\n")
    assert "3 images failed: " in stderr and "content filter" in stderr
    rows = {row["key"]: row for row in written(out)}
    keys = [sample.content_hash for sample in samples]
    assert [rows[key]["image"]["bytes"] for key in keys] == photos
    assert [bool(rows[key]["error"]) for key in keys] == [False] * 3 + [True] * 3 + [False] * 2
    names = [rows[key]["id"].rpartition("/")[2] for key in keys]
    assert names == ["a", "b", "a[2]", "c", "d", "e", "f", "g"]

    def texts():
        known = open_gallery(lite.url, "refused").known(keys)
        return {key: known[key].generated for key in keys if key in known}

    captions = {key: row["caption"] for key, row in rows.items() if row["caption"]}
    assert texts() == captions and len(captions) == 5
    with VlmServer() as server:  # of another address, so another run
        status, stdout, stderr = run_scale(*command, "--vlm-server", server.url)
        assert status == 2 and "never mixed" in stderr
    with VlmServer(port=int(port)) as server:  # it takes all images now
        status, stdout, stderr = run_scale(*command, "--add", "--vlm-server", server.url)
        assert len(server.completions()) == 3
    assert (status, stdout) == (0, f"Captioned: 8 images of 8 in {out}\n"), stderr
    rows = {row["key"]: row for row in written(out)}
    captions = {key: row["caption"] for key, row in rows.items()}
    assert len(written(out)) == 8 and texts() == captions and None not in captions.values()
    status, _, stderr = run_scale(*index)  # of databases that know nothing of these captions
    assert (status, texts()) == (0, captions), stderr


def test_search_prints_as_main_does(demo_system, gallery_url):
    wanted = ("--name", "demo", "--top-k", "3")
    status, stdout, _ = run_scale("search", gallery_url, "a small dog late at night", *wanted)
    assert status == 0 and len(stdout.splitlines()) == 3 and "dog" in stdout.splitlines()[0]
    photo = demo_system.photos / "003.jpg"
    status, stdout, _ = run_scale("search", gallery_url, "--image", photo, *wanted, "--paths")
    paths = [neighbor.image for neighbor in demo_system.found[3][:3]]
    assert status == 0 and set(stdout.splitlines()) >= set(paths[:1])


def test_vectors_are_those_of_one_process(demo_system, milvus, tmp_path):
    from image_embedder import load_image_embedder
    from support.sources.own import own_sample

    photos = shutil.copytree(
        demo_system.scenes, tmp_path / "photos", ignore=shutil.ignore_patterns("captions.txt")
    )
    command = ("index", photos, milvus.url, "--name", "scenes")
    status, stdout, stderr = run_scale(*command)
    assert (status, stdout) == (0, f"Indexed: {SCENES} images; 0 were known\n"), stderr
    samples = [own_sample(path) for path in sorted(photos.glob("*.jpg"))]
    embedder = load_image_embedder(demo_system.system.model("clip"))
    vectors = embedder.embed([sample.image_for(embedder.seen_side) for sample in samples])
    known = open_gallery(milvus.url, "scenes").known([sample.content_hash for sample in samples])
    assert len(known) == SCENES
    for sample, vector in zip(samples, vectors, strict=True):
        assert np.array_equal(known[sample.content_hash].vector, vector)
    status, stdout, _ = run_scale(*command)
    assert (status, stdout) == (0, f"Indexed: 0 images; {SCENES} were known\n")


# --- What is killed -------------------------------------------------------------------------------
def test_killed_drivers_and_workers_lose_and_repeat_nothing(demo_system, gallery_url, tmp_path):
    out = tmp_path / "out"
    command = ("caption", demo_system.scenes, out, "--gallery", gallery_url, "--name", "demo")
    first = scale(*command)
    wait_for(lambda: len(finished(out)) > 250, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = finished(out)
    assert 250 < len(before) < SCENES
    second = scale(*command)
    wait_for(lambda: len(finished(out)) > len(before) + 100, second)
    (worker,) = _workers_of(second.pid)
    os.kill(worker, signal.SIGKILL)
    stdout, stderr = second.communicate(timeout=240)
    assert (second.returncode, stdout) == (0, f"Captioned: {SCENES} images of {SCENES} in {out}\n")
    ids = Counter(row["id"] for row in written(out))
    assert len(ids) == SCENES and set(ids.values()) == {1}, stderr


def _workers_of(driver: int) -> list[int]:
    """The processes of Ray below a driver that hold a Captioner."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, pid = (process / "cmdline").read_bytes(), int(process.name)
            if b"Captioner" in name and _is_below(pid, driver):
                found.append(pid)
        except OSError:
            continue
    return found


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        stat = (Path("/proc") / str(pid) / "stat").read_text()
        pid = int(stat.rpartition(")")[2].split()[1])
        if pid == ancestor:
            return True
    return False


def test_a_run_outlives_milvus_killed_twice(demo_system, milvus):
    process = scale("index", demo_system.scenes, milvus.url, "--name", "killed")
    for least in (1, 300):
        wait_for(lambda least=least: _count(milvus.url, "killed") > least, process, 240)
        milvus.kill()
        time.sleep(2)
        milvus.start()
    _, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    assert _count(milvus.url, "killed") == SCENES + 1  # and the description
    keys = [sample.content_hash for sample in demo_system.experiments]
    known = open_gallery(milvus.url, "killed").known(keys)
    assert [len(known[key].captions) for key in keys] == [5] * 400


def _count(url: str, name: str) -> int:
    """The rows of a gallery's images; 0 where there is none yet."""
    from scale.gallery import GalleryError

    try:
        gallery = open_gallery(url, name)
    except GalleryError:
        return 0
    return gallery._ask("query", gallery._images, output_fields=["count(*)"])[0]["count(*)"]


def test_a_gallery_of_lite_outlives_its_server(lite, monkeypatch):
    from scale.entries import Entry
    from scale.gallery import Gallery, GalleryError
    from scale.identity import Address, Sizes
    from support.records import ModelRef

    vectors = np.eye(8, dtype=np.float32)
    refs = ModelRef("org/clip", "", "1"), ModelRef("org/text", "", "1")
    gallery = Gallery(Address(lite.url, "restarted", *refs))
    assert gallery.create(Sizes(8, 8, None)) == (8, 8, None)
    entries = [Entry(f"{n:064}", vectors[n], f"/{n}", n, [f"dog {n}"]) for n in range(8)]
    gallery.put(entries, {f"dog {n}": vectors[n] for n in range(8)})
    before = gallery.neighbors(vectors, [entry.key for entry in entries])
    lite.kill()
    lite.start()
    assert gallery.neighbors(vectors, [entry.key for entry in entries]) == before
    assert gallery.captioned(vectors[3])[0].neighbor.caption == "dog 3"
    lite.kill()
    monkeypatch.setattr("scale.gallery.PATIENCE", 3.0)
    with pytest.raises(GalleryError, match=r"Is it running\? What was done is saved: run the same"):
        gallery.neighbors(vectors, [None] * 8)
    lite.start()


def test_an_image_that_kills_its_process_is_given_up(demo_system, milvus, tmp_path, settings):
    from scale import cluster
    from scale.parts import find_parts
    from scale.rows import open_rows, read_images
    from scale.workers import Job
    from tests.scale_poison import Poisoned

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(8):
        shutil.copy(demo_system.photos / f"{number:03}.jpg", photos / f"{number}.jpg")
    (photos / "4.jpg").write_bytes(b"kills")
    (photos / "6.jpg").write_bytes(b"is no image")
    gallery = open_gallery(milvus.url, "demo")
    settings.MODE = "demo"
    cluster.start()
    job = Job(gallery.address, None, cluster.new_attempts())
    rows = open_rows(find_parts(str(photos), 8)).map_batches(read_images, batch_format="pyarrow")
    options = {**cluster.worker_options(1, 0), "batch_format": "pyarrow", "batch_size": 8}
    done = rows.map_batches(Poisoned, fn_constructor_args=[job], **options).take_all()
    errors = {Path(row["id"]).name: row["error"] for row in done if row["error"]}
    assert len(done) == 8 and set(errors) == {"4.jpg", "6.jpg"}
    assert "killed 3 times" in errors["4.jpg"] and "no known image format" in errors["6.jpg"]


# --- What is wrong --------------------------------------------------------------------------------
def test_a_dropped_gallery_and_another_models(demo_system, milvus, gallery_url, tmp_path):
    other = shutil.copytree(demo_system.system.model("clip").path, tmp_path / "other")
    (other / "note.txt").write_text("another revision")
    status, _, stderr = run_scale("search", gallery_url, "dog", "--name", "nowhere")
    assert status == 1 and "There is no gallery 'nowhere'" in stderr
    from scale.gallery import Gallery, GalleryError
    from scale.identity import Address
    from support.hub.revisions import locate
    from support.records import ModelRef

    here = open_gallery(gallery_url, "demo").address
    another = locate(ModelRef(str(other), str(other), local=True))
    with pytest.raises(GalleryError, match=r"there is one of demo/clip .* never mixed") as error:
        Gallery(Address(gallery_url, "demo", another, here.text)).open()
    assert "Index it first: python -m scale index" in str(error.value)
    run_scale("index", demo_system.databases, gallery_url, "--name", "dropped")
    gallery = open_gallery(gallery_url, "dropped")
    gallery._client.drop_collection(gallery._images)
    with pytest.raises(GalleryError, match="is gone .* it was dropped"):
        gallery.neighbors(demo_system.vectors[:1], [None])


def test_workers_for_which_there_is_no_room_are_refused(demo_system, lite):
    command = ("index", demo_system.photos, lite.url, "--gpus", "1")
    status, stdout, stderr = run_scale(*command)
    assert (status, stdout) == (2, "") and "0 GPUs: room for 0 workers" in stderr


def test_flags_reach_all_processes_and_what_stops_one_is_told(demo_system, lite, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    photos = [(demo_system.photos / f"{n:03}.jpg").read_bytes() for n in range(3)]
    columns = {"photo": photos, "mask": [b""] * 3, "said": ["a dog", "a cat", "a bird"]}
    pq.write_table(pa.table(columns), tmp_path / "photos.parquet")
    named = ("--name", "tables", "--image-column", "photo", "--caption-column", "said")
    command = ("index", tmp_path / "photos.parquet", lite.url, *named)
    status, stdout, stderr = run_scale(*command)
    assert (status, stdout) == (0, "Indexed: 3 images; 0 were known\n"), stderr
    keys = [sample.content_hash for sample in demo_system.experiments[:3]]
    known = open_gallery(lite.url, "tables").known(keys)
    assert [known[key].captions for key in keys] == [["a dog"], ["a cat"], ["a bird"]]
    status, stdout, stderr = run_scale(*command, "--ann")
    assert (status, stdout) == (1, "") and len(stderr.splitlines()) == 1
    assert "'tables' at http://127.0.0.1" in stderr and "has an exact index" in stderr
