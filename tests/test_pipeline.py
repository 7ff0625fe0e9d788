"""The seven stages together, through the notebook interface, on tiny models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import demo
from main import (
    caption_image,
    initialize_system,
    run_all_experiments,
    run_experiment,
    search_images,
)
from support.errors import DatabaseError, HubError, ImageError, SettingError
from support.hub import names as hub
from support.hub.names import configured_model, resolve_names
from support.hub.revisions import locate
from tests.helpers import picture


def test_one_experiment_goes_through_all_stages(tiny_settings):
    dataset_loader, db_manager = initialize_system()
    result = run_experiment(dataset_loader, db_manager, experiment_index=2)
    sample = dataset_loader.get_experiment_data()[2]
    info = result["experiment_info"]
    assert (info["experiment_index"], info["new_db_index"], info["mode"]) == (2, 9, "hub")
    assert set(info["models"]) == {"clip", "vlm", "text"} and info["models"]["clip"][
        "revision"
    ].startswith("files-")
    assert set(info["seconds"]) == {
        "image_embedding", "similarity_search", "prompt", "captioning", "database_update",
        "caption_embedding",
    }  # fmt: skip
    assert result["original_caption"] == sample["caption"] == result["query_info"]["caption"]
    neighbors = result["similar_images"]
    similarities = [neighbor["similarity"] for neighbor in neighbors]
    assert len(neighbors) == 5 and similarities == sorted(similarities, reverse=True)
    for neighbor in neighbors:
        assert f"- {neighbor['metadata']['caption']}" in result["prompt"]
        assert neighbor["metadata"]["source"] == "original"
    assert not any(caption in result["prompt"] for caption in sample["captions"])
    assert result["generated_caption"]


def test_similarities_are_cosines_of_the_models_own_vectors(tiny_settings):
    from image_embedder import load_image_embedder

    dataset_loader, db_manager = initialize_system()
    result = run_experiment(dataset_loader, db_manager, 0)
    embedder = load_image_embedder(locate(configured_model("clip")))
    query = embedder.embed([dataset_loader.get_experiment_data()[0].image])[0]
    gallery = embedder.embed([sample.image for sample in dataset_loader.get_training_data()])
    best = np.sort(gallery @ query)[::-1][:5]
    assert [n["similarity"] for n in result["similar_images"]] == pytest.approx(
        best.tolist(), abs=1e-5
    )


def test_what_was_returned_is_on_disk_at_once(tiny_settings, tmp_path):
    dataset_loader, db_manager = initialize_system()
    result = run_experiment(dataset_loader, db_manager, 0)
    assert json.loads(Path(result["result_file"]).read_text(encoding="utf-8")) == {
        key: value for key, value in result.items() if key != "result_file"
    }
    again = initialize_system()[1]  # as another process would read it
    key = dataset_loader.get_experiment_data()[0].content_hash
    assert again.captions[key]["generated"]["caption"] == result["generated_caption"]
    assert again.captions[key]["captions"] == []


def test_a_second_run_in_the_same_second_overwrites_nothing(tiny_settings):
    system = initialize_system()
    files = {run_experiment(*system, 0)["result_file"] for _ in range(3)}
    assert len(files) == 3 and all(Path(file).exists() for file in files)


def test_captions_written_earlier_become_context_unless_switched_off(tiny_settings):
    tiny_settings.TOP_K_SIMILAR = 20
    system = initialize_system()
    first = run_experiment(*system, 0)
    with_it = run_experiment(*system, 1)
    generated = [n for n in with_it["similar_images"] if n["metadata"]["source"] == "generated"]
    assert [n["index"] for n in generated] == [first["experiment_info"]["new_db_index"]]
    assert generated[0]["metadata"]["caption"] == first["generated_caption"]
    tiny_settings.USE_GENERATED_AS_CONTEXT = False
    assert len(run_experiment(*system, 1)["similar_images"]) == 9


def test_the_query_never_finds_itself_when_captioned_again(tiny_settings):
    tiny_settings.TOP_K_SIMILAR = 20
    system = initialize_system()
    first, second = run_experiment(*system, 0), run_experiment(*system, 0)
    assert second["experiment_info"]["new_db_index"] == first["experiment_info"]["new_db_index"]
    before, after = first["similar_images"], second["similar_images"]
    assert [n["metadata"] for n in after] == [n["metadata"] for n in before]
    # One more row in the product may round the last digit otherwise.
    assert [n["similarity"] for n in after] == pytest.approx(
        [n["similarity"] for n in before], abs=1e-5
    )
    assert second["generated_caption"] == first["generated_caption"]


def test_all_experiments_have_one_fixed_pool(tiny_settings):
    system = initialize_system()
    results = run_all_experiments(*system, indices=[2, 0, 1])
    assert [r["experiment_info"]["experiment_index"] for r in results] == [2, 0, 1]
    assert {n["metadata"]["source"] for r in results for n in r["similar_images"]} == {"original"}
    assert len(run_all_experiments(*initialize_system())) == 3


def test_an_image_from_elsewhere_by_path_and_as_pil_image(tiny_settings, tmp_path):
    system = initialize_system()
    picture(77).save(tmp_path / "my own.png")
    by_path = caption_image(tmp_path / "my own.png", *system)
    assert Path(by_path["result_file"]).name.startswith("image_my_own_")
    assert by_path["original_caption"] is None and by_path["generated_caption"]
    by_pixels = caption_image(picture(78), *system)
    assert (
        by_pixels["experiment_info"]["new_db_index"]
        == by_path["experiment_info"]["new_db_index"] + 1
    )
    found = search_images(tmp_path / "my own.png", *system, top_k=3)
    assert len(found) == 3 and by_path["experiment_info"]["new_db_index"] not in [
        n["index"] for n in found
    ]


def test_search_by_image_finds_the_like_and_by_text_the_captions(tiny_settings, photos):
    system = initialize_system()
    like = system[0].get_training_data()[3]
    noisy = np.asarray(like.image).copy()
    noisy[0, 0] = 255 - noisy[0, 0]
    from PIL import Image

    assert (
        search_images(Image.fromarray(noisy), *system, top_k=1)[0]["metadata"]["original_index"]
        == like.original_index
    )
    run_experiment(*system, 0)
    found = search_images("a dog", *system, top_k=99)
    assert len(found) == 10
    assert sorted(n["metadata"]["source"] for n in found) == ["generated"] + 9 * ["original"]
    with pytest.raises(SettingError, match="empty"):
        search_images("  ", *system)
    with pytest.raises(ImageError, match=r"gone\.png"):
        search_images(photos / "gone.png", *system)


@pytest.mark.parametrize("name", ["typo.jpg", "./my photos/Typo.JPEG", "~/x.webp", "~typo.ppm"])
def test_a_text_that_ends_as_image_files_do_is_refused_as_a_missing_file(tiny_settings, name):
    system = initialize_system()
    with pytest.raises(ImageError, match=r"(?i)no image file '.*(typo|x)\.(jpe?g|webp|ppm)'"):
        search_images(name, *system)
    assert search_images("a photo.", *system)  # a sentence is a text


def test_only_new_images_are_embedded(tiny_settings, photos, monkeypatch):
    import image_embedder

    counts = []
    embed = image_embedder.ImageEmbedder.embed_pixels
    monkeypatch.setattr(
        image_embedder.ImageEmbedder,
        "embed_pixels",
        lambda self, pixels: counts.append(len(pixels)) or embed(self, pixels),
    )
    initialize_system()[1].close()
    initialize_system()[1].close()
    assert counts == [9]
    picture(99).save(photos / "new.png")
    with (photos / "captions.txt").open("a", encoding="utf-8") as file:
        file.write("new.png,something new\n")
    initialize_system()
    assert sum(counts) in (10, 11)  # an experiment may have become a gallery image


def test_an_interrupted_embedding_goes_on_where_it_was(tiny_settings, monkeypatch):
    import image_embedder

    tiny_settings.IMAGE_BATCH_SIZE = 2
    embed, calls = image_embedder.ImageEmbedder.embed_pixels, []

    def interrupted(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(self, pixels)

    monkeypatch.setattr(image_embedder.ImageEmbedder, "embed_pixels", interrupted)
    with pytest.raises(KeyboardInterrupt):
        initialize_system()
    initialize_system()
    assert calls == [2, 2, 2, 2, 2, 1]


def test_an_unreadable_gallery_image_is_skipped_and_named_the_others_keep_theirs(
    tiny_settings, photos, caplog
):
    before = initialize_system()
    bad = before[0].get_training_data()[4]
    before[1].close()
    Path(bad.label).write_bytes(b"no image")
    tiny_settings.TOP_K_SIMILAR = 20
    dataset_loader, db_manager = initialize_system()
    result = run_experiment(dataset_loader, db_manager)
    assert caplog.text.count(Path(bad.label).name) == 1
    assert len(dataset_loader.unreadable) == 1
    for neighbor in result["similar_images"]:
        assert f"number {neighbor['metadata']['original_index']}" in neighbor["metadata"]["caption"]


def test_a_requested_image_that_cannot_be_read_is_an_error(tiny_settings, photos):
    system = initialize_system()
    Path(system[0].get_experiment_data()[1].label).write_bytes(b"GIF89a")
    with pytest.raises(ImageError, match=r"\.png"):
        run_experiment(*system, 1)


def test_changing_a_model_in_a_notebook_takes_effect_at_the_next_call(tiny_settings, tiny):
    system = initialize_system()
    first = run_experiment(*system, 0)
    tiny_settings.CLIP_MODEL_NAME, tiny_settings.VLM_MODEL_NAME = (
        str(tiny("siglip")),
        str(tiny("blip")),
    )
    second = run_experiment(*system, 0)
    assert second["prompt"] is None and second["generated_caption"]
    assert second["experiment_info"]["models"]["clip"] != first["experiment_info"]["models"]["clip"]
    assert len(second["similar_images"]) == 5
    tiny_settings.TOP_K_SIMILAR = 20
    # the captioned image too, embedded anew
    assert len(run_experiment(*system, 1)["similar_images"]) == 10


@pytest.fixture
def changing_model(tiny_settings, tiny, tmp_path):
    """changing_model(n) gives the image model's folder, which is in use, other weights."""
    folder = tmp_path / "clip"
    shutil.copytree(tiny("clip"), folder)
    tiny_settings.CLIP_MODEL_NAME = str(folder)

    def change(number: int) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-4] + bytes([0, 0, 0, number]))

    return change


@pytest.mark.parametrize(
    ("name", "value"), [("PROMPT_TEMPLATE", "Describe it."), ("TOP_K_SIMILAR", 0)]
)
def test_a_setting_changed_between_calls_is_checked(tiny_settings, name, value):
    system = initialize_system()
    setattr(tiny_settings, name, value)
    with pytest.raises(SettingError, match=name):
        run_experiment(*system)
    with pytest.raises(SettingError, match=name):
        search_images("a dog", *system)


def test_a_model_folder_whose_files_changed_is_not_mixed_in(changing_model):
    initialize_system()[1].close()
    changing_model(1)
    locate.cache_clear()  # as another process
    with pytest.raises(DatabaseError, match="revision.*--rebuild"):
        initialize_system()
    assert len(run_experiment(*initialize_system(rebuild=True), 0)["similar_images"]) == 5


def test_a_rebuild_in_the_same_process_uses_the_model_as_it_is_now(changing_model):
    for _ in range(2):
        initialize_system()[1].close()
    changing_model(1)
    initialize_system(rebuild=True)[1].close()
    locate.cache_clear()  # another process finds that they fit
    assert len(run_experiment(*initialize_system(), 0)["similar_images"]) == 5


@pytest.mark.parametrize("index", [-1, 3, "0", 1.0, None])
def test_an_index_outside_the_range_is_refused(tiny_settings, index):
    system = initialize_system()
    if index is None:
        tiny_settings.EXPERIMENT_IMAGE_INDEX = 3
    with pytest.raises(SettingError, match="0 to 2"):
        run_experiment(*system, experiment_index=index)


# --- Modes ----------------------------------------------------------------------------------
@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr("support.hub.revisions.probe_hub", lambda: "down")
    hub._warn_once.cache_clear()


def test_auto_falls_back_to_the_demo_only_without_own_data(
    settings, no_hub, photos, caplog, monkeypatch
):
    import demo

    monkeypatch.setattr(demo, "prepare_scenes", demo.scenes_folder)
    settings.MODE = "auto"
    names = resolve_names(demo.EMBEDDED)
    assert (names.mode, names.dataset) == ("demo", str(demo.scenes_folder()))
    for name in (settings.DATASET_NAME, settings.VLM_MODEL_NAME):
        assert name in caplog.text
    with pytest.raises(HubError, match="--mode demo"):
        resolve_names(demo.EMBEDDED, own_images=True)
    settings.DATASET_NAME = str(photos)
    with pytest.raises(HubError, match="HuggingFaceTB/SmolVLM-Instruct"):
        resolve_names(demo.EMBEDDED)


def test_auto_uses_local_models_without_asking_the_hub(tiny_settings, no_hub):
    tiny_settings.MODE = "auto"
    assert resolve_names(demo.EMBEDDED).mode == "hub"


def test_databases_call_a_local_dataset_by_its_absolute_path(tiny_settings, photos, monkeypatch):
    for mode, suffix in (("hub", ""), ("demo", "-tried-with-demo")):
        tiny_settings.MODE = mode
        monkeypatch.chdir(photos.parent)
        for spelling in (str(photos), f"./{photos.name}", f"{photos}/../{photos.name}"):
            tiny_settings.DATASET_NAME = spelling
            names = resolve_names(demo.EMBEDDED)
            assert (names.label, names.database_suffix) == (str(photos.resolve()), suffix)


def test_a_dataset_folder_that_cannot_be_is_a_wrong_setting(tiny_settings, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in (str(tmp_path / "loop"), "~nobody-of-this-name/photos"):
        tiny_settings.DATASET_NAME = name
        with pytest.raises(SettingError, match="no such file|Too many levels of symbolic"):
            initialize_system()


def test_demo_mode_takes_a_local_dataset_and_says_what_its_models_know(
    tiny_settings, no_hub, photos, caplog
):
    tiny_settings.MODE = "demo"
    names = resolve_names(demo.EMBEDDED)
    assert (names.mode, names.dataset) == ("demo", str(photos))
    assert "drawings only" in caplog.text


def test_what_the_demos_models_say_of_photos_never_becomes_context_for_others(
    tiny_settings, no_hub
):
    tiny_settings.MODE = "demo"
    run_experiment(*initialize_system(), 0)
    tiny_settings.MODE, tiny_settings.TOP_K_SIMILAR = "hub", 20
    result = run_experiment(*initialize_system(), 1)
    assert {n["metadata"]["source"] for n in result["similar_images"]} == {"original"}


def test_hub_mode_never_falls_back(settings, no_hub, photos):
    settings.MODE, settings.DATASET_NAME = "hub", str(photos)
    with pytest.raises(HubError, match="openai/clip-vit-base-patch32.*--mode demo"):
        initialize_system()


def test_a_local_model_folder_without_a_model_is_an_error(tiny_settings, tmp_path):
    for name in (str(tmp_path), "./no/such/model", "a/b/c"):
        tiny_settings.VLM_MODEL_NAME = name
        with pytest.raises(SettingError, match="VLM_MODEL_NAME"):
            resolve_names(demo.EMBEDDED)
