"""Work beside other work: in order, with its errors at their places, in bounded memory."""

import io
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments.results import Clock
from experiments.runs import Prepared, Work, caption_all
from image_embedder import EmbeddedImages, embed_gallery
from support.batches import batches_read
from support.errors import ImageError, MemoryShortage, PipelineError
from support.records import Sample
from support.sources import images
from support.threads import in_threads
from tests.helpers import picture
from tests.test_db_manager import opened


def test_results_come_in_the_order_of_the_items():
    def late(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number, threading.current_thread().name

    found = in_threads(late, range(20))
    assert [number for number, _ in found] == list(range(20))
    assert in_threads(late, []) == [] and threading.active_count() < 10


def test_the_first_error_in_order_is_raised():
    def fail(number):
        if number in (3, 7):
            raise ImageError(f"number {number}")

    with pytest.raises(ImageError, match="number 3"):
        in_threads(fail, range(10))


# --- Batches --------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 3, 4, 10])
@pytest.mark.parametrize("ahead", [False, True])
def test_batches_are_read_in_order(settings, ahead, count):
    settings.SHOW_PROGRESS = False
    got = list(batches_read(range(count), 4, "x", "x", lambda batch: sum(batch), ahead))
    assert got == [sum(range(count)[start : start + 4]) for start in range(0, count, 4)]


def test_the_next_batch_is_read_while_the_caller_works(settings):
    settings.SHOW_PROGRESS = False
    reads = {number: threading.Event() for number in range(3)}
    read = lambda batch: batch and reads[batch[0]].set()  # noqa: E731
    for number, _ in enumerate(batches_read(range(3), 1, "x", "x", read, ahead=True)):
        if number + 1 in reads:
            assert reads[number + 1].wait(10)


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_while_reading_is_raised_at_its_batch(settings, ahead):
    settings.SHOW_PROGRESS = False

    def read(batch):
        if 5 in batch:
            raise PipelineError("batch of 5")
        return list(batch)

    found = []
    with pytest.raises(PipelineError, match="batch of 5"):
        for batch in batches_read(range(9), 2, "x", "x", read, ahead):
            found += batch
    assert found == [0, 1, 2, 3]


class Means:
    """An image model whose vectors are the means of an image's pixels."""

    def __init__(self, device: str):
        self.device = device

    def pixels(self, image):
        return float(np.asarray(image).mean())

    def embed_pixels(self, pixels):
        return np.array(pixels)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_photos_read_ahead_keep_their_vectors_and_bad_ones_their_names(settings, device):
    settings.SHOW_PROGRESS, settings.IMAGE_BATCH_SIZE = False, 4

    def opener(number):
        def image(seen=None):
            if number % 7 == 3:
                raise ImageError(f"{number}.jpg: damaged")
            return picture(number)

        return image

    samples = [Sample(f"k{n}", f"{n}.jpg", opener(n)) for n in range(30)]
    found = {}
    opened_images = EmbeddedImages(Means(device), SimpleNamespace(decoded_for=None))
    skipped = embed_gallery(samples, opened_images, found.update)
    bad = {n for n in range(30) if n % 7 == 3}
    assert skipped == {f"{n}.jpg": f"{n}.jpg: damaged" for n in bad}
    expected = {f"k{n}": float(np.asarray(picture(n)).mean()) for n in range(30) if n not in bad}
    assert found == pytest.approx(expected)


# --- Decoding -------------------------------------------------------------------------------------
def test_images_decoded_at_once_take_no_more_memory_than_one_may(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(file, "PNG")  # 4 MB as Pillow holds it
    at_once, most, usual = [0], [0], images.to_rgb

    def slow(image):
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1
        return usual(image)

    monkeypatch.setattr(images, "to_rgb", slow)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    for limit, expected in ((10**9, 6), (13 * 10**6, 3), (10**6, 1)):
        monkeypatch.setattr(images, "TOGETHER_BYTES", limit)
        most[0] = 0
        in_threads(lambda _: images.decode_image(file.getvalue(), "x"), range(24))
        assert most[0] <= expected and (most[0] == expected or expected == 6)
    assert images._memory._taken == 0


def test_the_coefficients_of_a_jpeg_count(monkeypatch):
    file = io.BytesIO()
    picture(1, (800, 600)).save(file, "JPEG", subsampling=0, progressive=True)
    needed = []
    usual = images._memory.take
    monkeypatch.setattr(images._memory, "take", lambda n: needed.append(n) or usual(n))
    images.decode_image(file.getvalue(), "x")
    assert needed == [800 * 600 * (4 + 6)]


def test_decoding_warns_of_nothing(recwarn):
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "PNG", transparency=bytes(8))
    in_threads(lambda _: images.decode_image(file.getvalue(), "x"), range(40))
    assert not recwarn.list


# --- Runs over many images ------------------------------------------------------------------------
def prepared(batch) -> Prepared:
    return Prepared(batch, [], np.zeros((len(batch), 1)), [], [], Clock())


def some(count: int) -> list[Sample]:
    return [Sample(f"k{n}", f"{n}.jpg", picture) for n in range(count)]


def result(sample: Sample) -> dict:
    return {
        "experiment_info": {"experiment_index": None},
        "metadata": {"image": sample.label},
        "generated_caption": "a dog",
        "original_caption": None,
        "result_file": f"{sample.label}.json",
    }


@pytest.fixture
def small_batches(settings):
    settings.SHOW_PROGRESS, settings.VLM_BATCH_SIZE = False, 2


def test_the_next_batch_is_prepared_while_one_is_captioned(small_batches, tmp_path):
    begun = {f"k{n}": threading.Event() for n in range(7)}
    captioned = []

    def prepare(batch):
        for each in batch:
            begun[each.content_hash].set()
        return prepared(batch)

    def caption(batch):
        captioned.append([each.label for each in batch.samples])
        following = f"k{2 * len(captioned)}"
        assert following not in begun or begun[following].wait(10)
        return list(map(result, batch.samples))

    outcome = caption_all(some(7), "run", opened(tmp_path), Work(prepare, caption))
    assert len(outcome.rows) == 7 and not outcome.failures
    assert captioned == [["0.jpg", "1.jpg"], ["2.jpg", "3.jpg"], ["4.jpg", "5.jpg"], ["6.jpg"]]


def test_what_does_not_fit_beside_the_vlm_is_prepared_after_it(small_batches, tmp_path):
    main_thread, threads = threading.current_thread(), []

    def prepare(batch):
        threads.append(threading.current_thread() is main_thread)
        if not threads[-1]:
            raise MemoryShortage("Not enough memory")
        return prepared(batch)

    work = Work(prepare, lambda batch: list(map(result, batch.samples)))
    outcome = caption_all(some(7), "run", opened(tmp_path), work)
    assert len(outcome.rows) == 7 and not outcome.failures
    assert threads == [True, False, True, True, True]  # tried once beside the VLM


def test_an_image_that_cannot_be_prepared_costs_no_other(small_batches, tmp_path):
    def prepare(batch):
        if any(each.label in ("3.jpg", "6.jpg") for each in batch):
            raise ImageError("damaged")
        return prepared(batch)

    work = Work(prepare, lambda batch: list(map(result, batch.samples)))
    outcome = caption_all(some(9), "run", opened(tmp_path), work)
    assert outcome.failures == {"3.jpg": "damaged", "6.jpg": "damaged"}
    assert list(outcome.rows) == ["k0", "k1", "k2", "k4", "k5", "k7", "k8"]
