"""A folder of photos that nobody captioned: found by look, by words, by image; what has gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import image_embedder
from main import caption_image, initialize_system, run_experiment, search_images
from support import models
from support.errors import SettingError
from tests.helpers import ROOT, make_photos, picture, words_of


@pytest.fixture
def bare(tmp_path):
    """A folder with 12 photos, some in subfolders, and no captions."""
    folder = tmp_path / "bare"
    for number in range(12):
        place = folder / ("a/deep", "b", ".")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        picture(number).save(place / f"p{number:02}.png")
    return folder


@pytest.fixture
def bare_settings(tiny_settings, bare):
    tiny_settings.DATASET_NAME = str(bare)
    return tiny_settings


def names(found) -> list[str]:
    return [Path(image["metadata"]["image"]).name for image in found]


def system_for_search():
    return initialize_system(for_search=True)


# --- Without captions -----------------------------------------------------------------------------
def test_a_bare_folder_is_found_by_text_and_image_with_the_image_model_alone(
    bare_settings, bare, monkeypatch
):
    monkeypatch.setattr(models, "_loaded", {})
    bare_settings.VLM_MODEL_NAME = bare_settings.CAPTION_EMBEDDING_MODEL = "./not-there"
    system = system_for_search()
    assert len(system.dataset_loader.get_training_data()) == 12
    assert system.dataset_loader.get_experiment_data() == []
    by_image = search_images(bare / "b" / "p01.png", *system, top_k=20)
    assert len(by_image) == 11 and "p01.png" not in names(by_image)
    by_text = search_images("a red dog", *system, top_k=20)
    assert len(by_text) == 12
    assert {image["metadata"]["caption"] for image in by_text} == {None}
    assert {image["metadata"]["source"] for image in by_text} == {None}
    assert set(models._loaded) == {"clip"}


def test_a_search_by_look_ranks_by_the_text_side_of_the_image_model(bare_settings, bare):
    from image_embedder import load_image_embedder

    system = system_for_search()
    found = search_images("a red dog", *system, top_k=12, by="look")
    embedder = load_image_embedder(system.model("clip"))
    samples = system.dataset_loader.get_training_data()
    vectors = embedder.embed([sample.image for sample in samples])
    cosines = dict(
        zip(
            [sample.label for sample in samples],
            vectors @ embedder.embed_texts(["a red dog"])[0],
            strict=True,
        )
    )
    expected = sorted(cosines, key=lambda label: -cosines[label])
    assert [image["metadata"]["image"] for image in found] == expected
    for image in found:
        assert image["similarity"] == pytest.approx(cosines[image["metadata"]["image"]], abs=1e-5)


def test_siglip_searches_by_look_with_its_own_padding(bare_settings, tiny):
    bare_settings.CLIP_MODEL_NAME = str(tiny("siglip"))
    system = system_for_search()
    short, long = (search_images(text, *system, top_k=12) for text in ("a dog", "a dog " * 200))
    assert len(short) == len(long) == 12
    assert [image["index"] for image in short] == [
        image["index"] for image in search_images("a dog", *system, top_k=12)
    ]


@pytest.mark.parametrize("words", [[], ["--index", "1"], ["--all"], ["evaluate"]])
def test_commands_that_need_captions_say_so(command, bare, words):
    done = command(*words, dataset=str(bare))
    assert done.returncode == 2
    for said in ("--index, --all and evaluate", "0 among 12", "search", f"--image '{bare}'"):
        assert said in done.stderr


def test_a_search_by_captions_says_that_there_are_none(command, bare):
    done = command("search", "a dog", "--by", "caption", dataset=str(bare))
    assert done.returncode == 2 and "--by look" in done.stderr


def test_a_folder_of_bare_photos_gives_no_context_until_they_are_captioned(bare_settings, bare):
    system = initialize_system(own_images=True)
    first = caption_image(bare / "p02.png", *system)
    assert first["similar_images"] == []
    second = caption_image(bare / "p05.png", *system)
    (neighbor,) = second["similar_images"]
    assert neighbor["metadata"]["source"] == "generated"
    assert neighbor["metadata"]["image"] == str(bare / "p02.png")
    assert len(system.db_manager.captions) == 12  # a photo of the folder is not recorded twice


def test_captions_for_some_make_experiments_of_those_only(tiny_settings, bare):
    lines = [f"b/p{number:02}.png,a dog {number}" for number in (1, 4, 7, 10)]
    (bare / "captions.txt").write_text("\n".join(lines))
    tiny_settings.DATASET_NAME = str(bare)
    system = initialize_system()
    dataset_loader = system.dataset_loader
    assert len(dataset_loader.get_experiment_data()) == 3
    assert all(sample.captions for sample in dataset_loader.get_experiment_data())
    assert len(dataset_loader.get_training_data()) == 9
    result = run_experiment(*system, 0)
    (neighbor,) = result["similar_images"]  # the one captioned photo that is left gives context
    assert neighbor["metadata"]["source"] == "original"
    found = search_images(bare / "b" / "p01.png", *system, top_k=20)
    assert len(found) == 11


def test_a_dataset_on_this_disk_sets_nothing_aside_for_a_search(command, photos, tmp_path):
    few = make_photos(tmp_path / "few", 2)
    done = command("search", "a dog", dataset=str(few), experiment_samples="400")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    done = command("--image", str(photos / "p03.png"), dataset=str(few), experiment_samples="400")
    assert done.returncode == 0 and done.stdout.count("[original;") == 2


# --- imagefolder ----------------------------------------------------------------------------------
def test_nested_lists_name_files_from_their_own_folder(settings, bare, caplog):
    import pyarrow
    import pyarrow.parquet

    from support.sources.source import open_source

    (bare / "captions.txt").write_text("p02.png,at the top\nb/p01.png,from above\n")
    (bare / "b" / "metadata.csv").write_text("file_name,text\np01.png,from beside\np04.png,four\n")
    table = pyarrow.table({"file_name": ["deep/p00.png"], "caption": ["nought"]})
    pyarrow.parquet.write_table(table, bare / "a" / "metadata.parquet")
    (bare / "a" / "deep" / "metadata.jsonl").write_text('{"rows": 3}\n')  # of another program
    source = open_source(str(bare))
    captions = {Path(source.label(row)).name: source.captions(row) for row in range(len(source))}
    assert len(source) == len(captions) == 12
    assert {name: texts for name, texts in captions.items() if texts} == {
        "p02.png": ["at the top"],
        "p01.png": ["from above", "from beside"],
        "p04.png": ["four"],
        "p00.png": ["nought"],
    }
    assert "metadata.jsonl has no column of image files" in caplog.text
    assert "Left out." in caplog.text


def test_imagefolder_captions_are_those_that_datasets_reads(settings, bare):
    """The layout of the imagefolder convention, read by the library that defines it."""
    from datasets import load_dataset

    from support.sources.source import open_source

    for folder in ("a/deep", "b", "."):
        files = sorted(path.name for path in (bare / folder).glob("*.png"))
        rows = [json.dumps({"file_name": name, "text": f"about {name}"}) for name in files]
        (bare / folder / "metadata.jsonl").write_text("\n".join(rows))
    loaded = load_dataset("imagefolder", data_dir=str(bare), split="train")
    theirs = {Path(row["image"].filename).name: row["text"] for row in loaded}
    source = open_source(str(bare))
    ours = {Path(source.label(row)).name: source.captions(row) for row in range(len(source))}
    assert ours == {name: [text] for name, text in theirs.items()} and len(ours) == 12


def test_tables_in_a_folder_are_read_and_its_photos_named(settings, tmp_path, caplog):
    import pyarrow
    import pyarrow.parquet

    from support.sources.source import open_source

    picture(1).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    table = pyarrow.table({"image": [{"bytes": data, "path": "x.png"}], "caption": ["a dog"]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    assert len(open_source(str(tmp_path))) == 1
    assert "its 1 images are not" in caplog.text


# --- What has gone --------------------------------------------------------------------------------
def test_a_thousand_photos_of_which_some_are_deleted_added_and_renamed(
    bare_settings, tmp_path, monkeypatch
):
    folder = tmp_path / "thousand"
    folder.mkdir()
    for number in range(1000):
        picture(number, (12, 10)).save(folder / f"{number:04}.png")
    bare_settings.DATASET_NAME = str(folder)
    bare_settings.VLM_MODEL_NAME = bare_settings.CAPTION_EMBEDDING_MODEL = "./not-there"
    monkeypatch.setattr(models, "_loaded", {})
    embedded: list[str] = []
    usual = image_embedder.EmbeddedImages.read

    def read(images, sample):
        embedded.append(Path(sample.label).name)
        return usual(images, sample)

    monkeypatch.setattr(image_embedder.EmbeddedImages, "read", read)
    system = system_for_search()
    assert sorted(embedded) == sorted(path.name for path in folder.iterdir())
    assert len(search_images("a red dog", *system, top_k=2000)) == 1000
    assert len(search_images(folder / "0007.png", *system, top_k=2000)) == 999
    assert set(models._loaded) == {"clip"}
    system.db_manager.close()

    deleted = {f"{number:04}.png" for number in range(0, 1000, 50)}
    for name in deleted:
        (folder / name).unlink()
    for number in range(20):
        picture(5000 + number, (12, 10)).save(folder / f"new{number}.png")
    (folder / "0001.png").rename(folder / "renamed.png")
    embedded.clear()
    system = system_for_search()
    assert sorted(embedded) == sorted(f"new{number}.png" for number in range(20))
    now = {path.name for path in folder.iterdir()}
    for query in ("a red dog", picture(9000)):
        found = names(search_images(query, *system, top_k=2000))
        assert len(found) == 1000 and set(found) == now and not deleted & set(found)
    system.db_manager.close()

    picture(50, (12, 10)).save(folder / "0050.png")  # put back: nothing is embedded again
    embedded.clear()
    assert "0050.png" in names(search_images("a dog", *system_for_search(), top_k=2000))
    assert embedded == []


def test_a_photo_that_has_gone_from_the_folder_gives_no_context(tiny_settings, photos, tmp_path):
    system = initialize_system()
    gone = system.dataset_loader.get_experiment_data()[1]
    written = run_experiment(*system, 1)
    system.db_manager.close()
    kept = tmp_path / "kept.png"
    Path(gone.label).rename(kept)
    lines = (photos / "captions.txt").read_text().splitlines()
    name = Path(gone.label).name
    (photos / "captions.txt").write_text(
        "\n".join(line for line in lines if not line.startswith(name))
    )
    system = initialize_system()
    number = written["experiment_info"]["new_db_index"]
    shown = run_experiment(*system, 0)["similar_images"]
    found = search_images("a red dog", *system, top_k=99, by="both")
    assert number not in {image["index"] for image in (*shown, *found)}
    assert system.db_manager.captions[gone.content_hash]["generated"]  # its caption stays
    caption_image(kept, *system)  # taken up again as an own image, where it is now
    found = {image["index"]: image for image in search_images("a red dog", *system, top_k=99)}
    assert found[number]["metadata"]["image"] == str(kept)


def test_an_own_photo_that_has_gone_is_neither_found_nor_context(tiny_settings, tmp_path):
    system = initialize_system()
    paths = [tmp_path / f"own{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        picture(50 + number).save(path)
        caption_image(path, *system)
    caption_image(picture(60), *system)  # in memory: it has no file to go
    paths[1].unlink()
    for found in (
        search_images("dog", *system, top_k=99, within="captioned", by="caption"),
        search_images("dog", *system, top_k=99, within="captioned", by="look"),
    ):
        assert set(names(found)) == {"own0.png", "own2.png", "image"}
    tiny_settings.TOP_K_SIMILAR = 99
    shown = names(run_experiment(*system, 0)["similar_images"])
    assert "own1.png" not in shown and {"own0.png", "own2.png", "image"} <= set(shown)
    tiny_settings.TOP_K_SIMILAR = 2
    assert len(search_images("dog", *system, within="captioned", by="look")) == 2
    picture(51).save(paths[1])
    found = search_images("dog", *system, top_k=99, within="captioned", by="caption")
    assert "own1.png" in names(found)


# --- How and where --------------------------------------------------------------------------------
def test_experiments_are_found_by_look_and_by_what_was_written_never_by_references(
    tiny_settings, photos
):
    from experiments.query import query_of
    from experiments.search import search
    from main import embed_images

    system = initialize_system()
    references = {
        text for sample in system.dataset_loader.get_experiment_data() for text in sample.captions
    }
    experiments = system.dataset_loader.hashes.experiments
    by_look = search_images("a red dog", *system, top_k=99, by="look")
    assert len(by_look) == 12
    run_experiment(*system, 0)
    for by in ("look", "caption", "both"):
        found = search(query_of("a red dog", by=by, top_k=99), system, embed_images)
        for neighbor in found:
            assert not references & set(neighbor.captions)
            assert neighbor.caption not in references
        numbers = {neighbor.index for neighbor in found}
        written = {key: system.db_manager.captions[key]["index"] in numbers for key in experiments}
        assert sum(written.values()) == (1 if by == "caption" else 3)


def test_both_rankings_are_fused_by_reciprocal_rank():
    from experiments.search import fused
    from support.records import Neighbor

    def image(number: int, similarity: float, caption: str | None) -> Neighbor:
        return Neighbor(number, similarity, (), caption, None, None, f"{number}.jpg")

    captions = [image(7, 0.9, "seven"), image(3, 0.8, "three"), image(5, 0.7, "five")]
    looks = [image(3, 0.3, None), image(9, 0.2, None), image(7, 0.1, None)]
    scores = {3: 1 / 62 + 1 / 61, 7: 1 / 61 + 1 / 63, 9: 1 / 62, 5: 1 / 63}
    found = fused([captions, looks], [1, 1])
    assert [one.index for one in found] == sorted(scores, key=lambda n: -scores[n])
    for one in found:
        assert one.similarity == pytest.approx(scores[one.index] * 61 / 2, abs=1e-6)
    assert [one.caption for one in found] == ["three", "seven", None, "five"]
    tied = fused([[image(8, 0.9, None)], [image(2, 0.9, None)]], [1, 1])
    assert [one.index for one in tied] == [8, 2]  # the earlier list first
    assert fused([[image(4, 0.1, None)], [image(4, 0.5, None)]], [0.2, 1])[0].similarity == 1
    deep = [image(number, 0.5, None) for number in range(20, 40)]
    short, long = fused([captions, deep[:5]], [1, 1]), fused([captions, deep], [1, 1])
    assert long[: len(short)] == short  # more results do not change the first ones
    # Where few have captions, the one that has is not first whatever is searched for.
    found = fused([[image(7, 0.9, "seven")], looks[:2]], [0.01, 1])
    assert [one.index for one in found] == [3, 9, 7]


def test_a_text_and_an_image_and_texts_to_avoid_are_summed(bare_settings, bare):
    from experiments.search import TEXT_WEIGHT, WITHOUT_WEIGHT
    from image_embedder import load_image_embedder

    system = system_for_search()
    embedder = load_image_embedder(system.model("clip"))
    samples = system.dataset_loader.get_training_data()
    vectors = embedder.embed([sample.image for sample in samples])
    red, snow, cold = embedder.embed_texts(["red", "snow", "cold"])
    asked = embedder.embed([picture(4)])[0]
    total = asked + TEXT_WEIGHT * red - WITHOUT_WEIGHT * (snow + cold)
    cosines = vectors @ (total / np.linalg.norm(total))
    expected = [samples[row].label for row in np.argsort(-cosines)]
    found = search_images("red", *system, image=picture(4), without=["snow", "cold"], top_k=12)
    assert [image["metadata"]["image"] for image in found] == expected
    assert found[0]["similarity"] == pytest.approx(float(cosines.max()), abs=1e-5)


def test_words_to_avoid_lower_the_images_whose_captions_have_them(tiny_settings, photos):
    system = initialize_system()
    plain = search_images("a red dog", *system, top_k=99, by="caption")
    avoided = search_images("a red dog", *system, top_k=99, by="caption", without="number 7")
    place = next(n for n, image in enumerate(plain) if "7" in image["metadata"]["caption"])
    after = next(n for n, image in enumerate(avoided) if "7" in image["metadata"]["caption"])
    assert after >= place and len(plain) == len(avoided)


def test_where_to_search(tiny_settings, photos, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    picture(70).save(own / "mine.png")
    system = initialize_system()
    caption_image(own / "mine.png", *system)
    run_experiment(*system, 0)
    for by in ("caption", "look", "both"):
        found = {
            within: search_images("a dog", *system, top_k=99, by=by, within=within)
            for within in ("all", "gallery", "captioned", str(own), photos)
        }
        captioned = names(found["captioned"])
        assert len(found["gallery"]) == 9 and "mine.png" not in names(found["gallery"])
        assert len(captioned) == 2 and "mine.png" in captioned
        assert names(found[str(own)]) == ["mine.png"]
        assert len(found[photos]) == (10 if by == "caption" else 12)
        assert len(found["all"]) == len(found[photos]) + 1
    with pytest.raises(SettingError, match="--in is .*gallery"):
        search_images("a dog", *system, within=tmp_path / "nowhere")


def test_a_least_similarity(tiny_settings):
    system = initialize_system()
    found = search_images("a red dog", *system, top_k=99, by="look")
    least = found[3]["similarity"]
    some = search_images("a red dog", *system, top_k=99, by="look", min_similarity=least)
    assert some == [image for image in found if image["similarity"] >= least]
    assert 4 <= len(some) < len(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "smell"}, "caption, look, both"),
        ({"image": "b.jpg", "by": "both"}, "--by both"),
        ({"without": ""}, "empty"),
        ({"within": "\0"}, "--in"),
        ({"min_similarity": "high"}, "--min-similarity"),
        ({"min_similarity": float("nan")}, "--min-similarity"),
        ({"top_k": 0}, "--top-k"),
        ({"image": 5}, "5 is no image"),
        ({"without": 5}, "--without"),
        ({"without": [5]}, "--without"),
        ({"within": None}, "--in"),
        ({"within": "~a\0b"}, "--in"),
    ],
)
def test_options_that_cannot_be_used(options, said):
    with pytest.raises(SettingError, match=said):
        search_images("a dog", None, None, **options)


def test_a_query_of_two_images_or_of_nothing():
    with pytest.raises(SettingError, match="Two images"):
        search_images("a.jpg", None, None, image="b.jpg")
    with pytest.raises(SettingError, match="Give a text or an image"):
        search_images(None, None, None)
    for query in (5, ["a dog"], b"a dog"):
        with pytest.raises(SettingError, match="cannot be searched for"):
            search_images(query, None, None)


def test_what_is_searched_for_and_avoided_at_once(bare_settings):
    from experiments import search

    with pytest.raises(SettingError, match="are the same"):
        search._sum([np.array([0.5, 0])], [np.array([1.0, 0])])


# --- What is printed ------------------------------------------------------------------------------
def test_json_lines_hold_what_a_notebook_gets(command, tiny_settings):
    done = command("search", "a red dog", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines == search_images("a red dog", *system_for_search()) and len(lines) == 5


def test_paths_are_whole_for_xargs(bare, tiny_flags, tmp_path):
    odd = bare / "a new\nline\x1b[2J 'quoted'.png"
    picture(40).save(odd)
    words = words_of(tiny_flags, {"dataset": str(bare), "top_k": "99"})
    run = [sys.executable, "main.py", "search", "a dog", "-0", *words]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, timeout=300, check=True)
    paths = done.stdout.split(b"\0")
    assert paths.pop() == b"" and len(paths) == 13
    assert all(Path(os.fsdecode(path)).exists() for path in paths) and os.fsencode(odd) in paths
    assert b"\x1b" not in done.stdout.replace(os.fsencode(odd), b"")


def test_paths_one_a_line(command, bare):
    done = command("search", "a dog", "--paths", dataset=str(bare), top_k="3")
    assert len(done.stdout.splitlines()) == 3
    assert all(Path(line).is_file() for line in done.stdout.splitlines())


def test_nothing_colours_or_steers_what_is_printed(command, bare):
    picture(41).save(bare / "\x1b[31mred\u202e.png")
    for form in ([], ["--json"], ["--paths"]):
        done = command("search", "a dog", *form, dataset=str(bare), top_k="99")
        assert done.returncode == 0 and "\x1b" not in done.stdout and "\u202e" not in done.stdout


def test_queries_of_a_file(command, tmp_path, monkeypatch):
    file = tmp_path / "queries.txt"
    file.write_text("\ufeffa red dog\n\n  a dog, seen again  \n눈 위의 개\n", encoding="utf-8")
    done = command("search", "--queries", str(file), top_k="2")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["query"] for row in rows] == ["a red dog", "a dog, seen again", "눈 위의 개"]
    alone = command("search", "a red dog", "--json", top_k="2").stdout.splitlines()
    assert rows[0]["similar_images"] == [json.loads(line) for line in alone]
    for content, said in ((b"\xff\xfe", "cannot be read"), (b"\n \n", "no text")):
        file.write_bytes(content)
        done = command("search", "--queries", str(file))
        assert done.returncode == 2 and said in done.stderr and str(file) in done.stderr
    done = command("search", "--queries", str(tmp_path / "none.txt"))
    assert done.returncode == 2 and "cannot be read" in done.stderr


# --- Only what is needed --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "kind"),
    [(["a dog", "--by", "look"], "clip"), (["--image", "PHOTO"], "clip"),
     (["a dog", "--by", "caption"], "text")],
)  # fmt: skip
def test_a_search_needs_its_own_model_only(command, photos, words, kind):
    flags = {"clip": "clip_model", "vlm": "vlm_model", "text": "text_model"}
    missing = {flag: "./not-there" for name, flag in flags.items() if name != kind}
    words = [str(photos / "p01.png") if word == "PHOTO" else word for word in words]
    done = command("search", *words, **missing)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 5


def test_half_the_photos_replaced_are_searched_by_what_is_there(bare_settings, bare):
    bare_settings.TOP_K_SIMILAR = 99
    system = initialize_system(own_images=True)
    for path in sorted(bare.rglob("*.png"))[:6]:
        caption_image(path, *system)
        path.unlink()
    system.db_manager.close()
    found = search_images("a dog", *system_for_search())
    assert len(found) == 6 and {image["metadata"]["caption"] for image in found} == {None}


def test_an_own_photo_that_was_replaced_is_not_found_by_what_it_showed(tiny_settings, tmp_path):
    system = initialize_system()
    path = tmp_path / "own.png"
    picture(50).save(path)
    before = caption_image(path, *system)["experiment_info"]["new_db_index"]
    picture(51).save(path)
    for by in ("look", "caption"):
        found = search_images("dog", *system, top_k=99, within="captioned", by=by)
        assert before not in {image["index"] for image in found}
    after = caption_image(path, *system)["experiment_info"]["new_db_index"]
    found = search_images("dog", *system, top_k=99, within="captioned")
    assert [image["index"] for image in found] == [after] != [before]


def test_thousands_of_own_photos_that_have_gone(tiny_settings):
    from support.records import GeneratedCaption, Sample

    system = initialize_system()
    vectors = system.db_manager.image_vectors(system.model("clip"), 16, "pil")
    records, new = {}, {}
    for number in range(6000):
        key = f"{number:064x}"
        generated = {"caption": f"gone {number}", "run": None}
        records[key] = {
            "index": 100 + number, "image": f"/gone/{number}.png", "original_index": None,
            "captions": [], "generated": generated,
        }  # fmt: skip
        vector = np.random.default_rng(number).standard_normal(16).astype(np.float32)
        new[key] = vector / np.linalg.norm(vector)
    system.db_manager.caption_table.update(records)
    for key, vector in new.items():
        vectors._put(key, vector)
    assert GeneratedCaption and Sample
    assert len(run_experiment(*system, 0)["similar_images"]) == 5
    assert len(search_images("a dog", *system, by="look")) == 5


def test_a_file_that_changes_while_a_run_embeds_keeps_to_its_own_vector(
    bare_settings, bare, caplog
):
    from main import embed_images, open_system

    system = open_system(needed=("clip",), split=False)
    one, other = bare / "p02.png", bare / "p05.png"
    one.rename(bare / "x"), other.rename(one), (bare / "x").rename(other)
    images = embed_images(system)
    assert len(images.vectors) == 10 and caplog.text.count("has changed since it was listed") == 2


def test_hidden_files_and_folders_are_left_out(settings, tmp_path):
    from support.sources.source import open_source

    for name in (".hidden/a.png", "@eaDir/b.png", "__MACOSX/c.png", ".d.png", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(1).save(tmp_path / name)
    source = open_source(str(tmp_path))
    assert [Path(source.label(row)).name for row in range(len(source))] == ["e.png"]


def test_the_text_side_loads_its_tokenizer_once(bare_settings, monkeypatch):
    from transformers import AutoTokenizer

    loads, usual = [], AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        AutoTokenizer, "from_pretrained", lambda *a, **k: loads.append(a) or usual(*a, **k)
    )
    monkeypatch.setattr(models, "_loaded", {})
    system = system_for_search()
    for text in ("a dog", "a cat", "a red dog"):
        search_images(text, *system, by="look")
    assert len(loads) == 1


def test_a_folder_that_is_not_known_is_named(command, tmp_path):
    done = command("search", "a dog", "--in", str(tmp_path / "photos"))
    assert done.returncode == 0
    (tmp_path / "other").mkdir()
    done = command("search", "a dog", "--in", str(tmp_path / "other"))
    assert done.returncode == 2 and "--dataset instead of --in" in done.stderr


def test_negative_numbers_and_words_that_are_paths(command, photos):
    done = command("search", "a dog", "--min-similarity", "-0.5", "--by", "look")
    assert done.returncode == 0 and done.stdout
    like = command("search", str(photos / "p03.png"))
    assert like.stdout == command("search", "--image", str(photos / "p03.png")).stdout


def test_an_empty_folder_among_many_is_named_and_the_others_are_done(command, bare, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = command("--image", str(empty), str(bare / "p02.png"))
    assert done.returncode == 1
    assert f"The folder '{empty}' holds no images" in done.stderr
    assert "1 of 1 images captioned" in done.stdout
    assert command("--image", str(empty)).returncode == 2
    assert command("--image", str(empty), str(empty)).returncode == 2
