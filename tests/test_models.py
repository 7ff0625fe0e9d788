"""Stages 2, 5 and 7 on tiny random models of all architectures and both formats of weights."""

import os
import shutil

import numpy as np
import pytest
import torch

from caption_embedder import BGE_QUERY_PROMPT, load_caption_embedder, query_prompt
from image_embedder import load_image_embedder
from support import models as model_loader
from support.errors import HubError, PipelineError, SettingError
from support.hub.revisions import folder_fingerprint, locate
from support.records import ModelRef
from tests.helpers import picture
from vlm_captioner import load_captioner

FORMS = ("safetensors", "bin")
PICTURES = [picture(n, (60 + 10 * n, 50)) for n in range(3)]


def ref(folder) -> ModelRef:
    return locate(ModelRef(str(folder), str(folder), local=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture, dimension", [("clip", 16), ("siglip", 32)])
def test_image_models_give_unit_vectors_whatever_the_batch(
    settings, tiny, architecture, dimension, form
):
    embedder = load_image_embedder(ref(tiny(architecture, form)))
    together = embedder.embed(PICTURES)
    settings.IMAGE_BATCH_SIZE = 1
    assert together.shape == (3, dimension) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(embedder.embed(PICTURES), together, atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "architecture, takes_prompt", [("idefics3", True), ("blip", False), ("git", False)]
)
def test_vlms_caption_alike_in_batches_and_alone(settings, tiny, architecture, takes_prompt, form):
    captioner = load_captioner(ref(tiny(architecture, form)))
    # of unequal length: padding matters
    prompts = ["describe", "a small red dog runs in the green", "the cat sits"]
    together = captioner.write_captions(PICTURES, prompts)
    settings.VLM_BATCH_SIZE = 1
    assert captioner.takes_prompt is takes_prompt
    assert captioner.write_captions(PICTURES, prompts) == together
    assert all(together) and not any("<" in caption for caption in together)


def test_the_prompt_reaches_a_model_that_takes_one(settings, tiny):
    captioner = load_captioner(ref(tiny("idefics3")))
    inputs = captioner._inputs([(PICTURES[0], "a red dog")])
    text = captioner.processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.endswith("<fake_token_around_image> a red dog <end_of_utterance> Assistant :")
    assert text.count("<image>") == 4


@pytest.mark.parametrize("splitting, tiles", [(False, 1), (True, 17)])
def test_an_image_is_one_tile_unless_splitting_is_on(settings, tiny, splitting, tiles):
    settings.VLM_IMAGE_SPLITTING = splitting
    captioner = load_captioner(ref(tiny("idefics3")))
    inputs = captioner._inputs([(picture(1, (128, 128)), "a dog")])
    assert inputs["pixel_values"].shape[1] == tiles


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "gemma3_text"])
def test_text_models_give_unit_vectors(settings, tiny, architecture, form):
    folder = tiny(architecture, form)
    embedder = load_caption_embedder(ref(folder))
    texts = ["a dog runs", "the cat sits on the green", "red"]
    vectors = embedder.embed_captions(texts)
    assert vectors.shape == (3, 32) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    settings.TEXT_BATCH_SIZE = 1
    assert np.allclose(embedder.embed_captions(texts), vectors, atol=1e-5)


def test_queries_get_the_prompt_that_each_model_was_trained_with(settings, tiny):
    assert (
        query_prompt("BAAI/bge-base-en-v1.5")
        == BGE_QUERY_PROMPT
        == query_prompt("/models/bge-large-en-v1.5")
    )
    assert query_prompt("sentence-transformers/all-mpnet-base-v2") is None
    plain = load_caption_embedder(ref(tiny("bert")))
    assert np.allclose(plain.embed_query("a dog"), plain.embed_captions(["a dog"])[0], atol=1e-6)
    gemma = load_caption_embedder(ref(tiny("gemma3_text")))
    assert not np.allclose(
        gemma.embed_query("a dog"), gemma.embed_captions(["a dog"])[0], atol=1e-3
    )
    settings.CAPTION_QUERY_PROMPT = "the small cat "
    assert np.allclose(
        load_caption_embedder(ref(tiny("bert"))).embed_query("a dog"),
        load_caption_embedder(ref(tiny("bert"))).embed_captions(["the small cat a dog"])[0],
        atol=1e-5,
    )


def test_a_model_is_loaded_once_and_anew_when_a_setting_changes(settings, tiny):
    first = load_image_embedder(ref(tiny("clip")))
    assert load_image_embedder(ref(tiny("clip"))) is first
    settings.DTYPE = "bfloat16"
    assert load_image_embedder(ref(tiny("clip"))) is not first


def test_a_model_of_the_wrong_kind_is_named(settings, tiny):
    with pytest.raises(PipelineError, match="CLIP_MODEL_NAME|cannot be loaded"):
        load_image_embedder(ref(tiny("bert")))


def test_a_damaged_model_folder_is_named(settings, tiny, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny("clip"), broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(HubError, match="broken"):
        load_image_embedder(ref(broken))


def test_weights_that_would_run_code_are_refused(settings, tiny, tmp_path):
    import pickle
    import shutil

    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    folder = tmp_path / "evil"
    shutil.copytree(tiny("clip", "bin"), folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(HubError, match="evil"):
        load_image_embedder(ref(folder))
    assert not (tmp_path / "owned").exists()


def test_the_fingerprint_of_a_folder_follows_its_contents(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny("clip"), folder)
    before = folder_fingerprint(folder)
    assert before == folder_fingerprint(tiny("clip"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert folder_fingerprint(folder) != before


def test_a_pipe_in_a_models_folder_is_named_and_not_waited_for(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny("clip"), folder)
    (folder / "README.md").unlink(missing_ok=True)
    os.mkfifo(folder / "README.md")
    with pytest.raises(HubError, match=r"Not a file.*README\.md"):
        locate(ModelRef(str(folder), str(folder), local=True))


# --- Memory and devices ---------------------------------------------------------------------------
def hungry(limit: int, error: Exception):
    sizes = []

    def run(batch):
        if len(batch) > limit:
            raise error
        sizes.append(len(batch))
        return list(batch)

    return run, sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_batches_halve_until_they_fit_with_one_notice_and_the_size_is_kept(error, caplog):
    model_loader._sizes_that_fit.clear()
    run, sizes = hungry(3, error)
    for _ in range(2):
        results = [
            item
            for batch in model_loader.run_in_batches(range(20), 16, run, "captioning")
            for item in batch
        ]
        assert results == list(range(20))
    assert sizes == [2] * 20
    assert (
        caplog.text.count(
            "Not enough memory for captioning in batches of 16: continuing with batches of 2."
        )
        == 1
    )
    model_loader._sizes_that_fit.clear()


def test_no_memory_for_one_says_what_to_do():
    run, _ = hungry(0, MemoryError())
    with pytest.raises(PipelineError, match=r"one at a time.*config\.py"):
        list(model_loader.run_in_batches([1, 2], 2, run, "captioning"))


def test_other_errors_are_not_taken_for_memory():
    run, _ = hungry(0, RuntimeError("shapes do not fit"))
    with pytest.raises(PipelineError, match=r"failed at captioning: RuntimeError: shapes do not"):
        list(model_loader.run_in_batches([1], 1, run, "captioning"))


def test_a_device_that_is_not_there_is_refused(settings):
    settings.DEVICE = "cuda:7"
    with pytest.raises(SettingError, match="cuda:7.*cpu"):
        model_loader.pick_device()
    settings.DEVICE = "auto"
    assert model_loader.pick_dtype("cpu") == "float32"


@pytest.mark.parametrize("dimension", [10**30, 0, -1, True, None, "32"])
def test_a_length_of_vectors_that_cannot_be_names_the_model(dimension):
    with pytest.raises(PipelineError, match=r"The model 'org/text' says .* fetch them again"):
        model_loader.checked_dimension(dimension, "org/text")
    assert model_loader.checked_dimension(32, "org/text") == 32
