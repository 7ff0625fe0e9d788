"""The demo's images and captions: reproducible, true to the scene, and correct English."""

import random
import re

import numpy as np
import pytest

from demo.captions import write_captions
from demo.names import PLACE_NAMES, invent_name
from demo.reading import read_mentions
from demo.scenes import (
    COLORS,
    GROUNDS,
    KINDS,
    PLACES,
    SCENE_SIZE,
    TIMES,
    WEATHERS,
    Scene,
    Thing,
    draw,
    sample_scene,
    thing_boxes,
)

SEEDS = range(300)


def captions_of(seed):
    scene = sample_scene(seed)
    return write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))


def test_a_seed_gives_one_scene_one_picture_and_one_set_of_captions():
    assert sample_scene(5) == sample_scene(5)
    assert draw(sample_scene(5)).tobytes() == draw(sample_scene(5)).tobytes()
    assert captions_of(5) == captions_of(5)


def test_a_known_seed_stays_as_it_was():
    scene = sample_scene(0)
    assert (scene.place, scene.time, scene.weather) == (10, "night", "clear")
    things = {(thing.color, thing.kind) for thing in scene.things}
    assert things == {("pink", "car"), ("black", "tent")}


def test_seeds_give_different_scenes_and_pictures():
    assert len({sample_scene(seed).things for seed in SEEDS}) == len(SEEDS)
    assert len({draw(sample_scene(seed)).tobytes() for seed in SEEDS}) == len(SEEDS)


def test_scenes_use_all_that_there_is():
    scenes = [sample_scene(seed) for seed in SEEDS]
    assert {scene.place for scene in scenes} == set(range(len(PLACES)))
    assert len(PLACE_NAMES) == len(PLACES)
    assert {scene.time for scene in scenes} == set(TIMES)
    assert {scene.weather for scene in scenes} == set(WEATHERS)
    assert {thing.kind for scene in scenes for thing in scene.things} == set(KINDS)
    assert {thing.color for scene in scenes for thing in scene.things} == set(COLORS)
    assert {place.ground for place in PLACES} == set(GROUNDS)
    for scene in scenes:
        assert len({thing.kind for thing in scene.things}) == len(scene.things) in (1, 2, 3)


def test_pictures_are_rgb_of_the_stated_size():
    picture = draw(sample_scene(1))
    assert picture.mode == "RGB" and picture.size == (SCENE_SIZE, SCENE_SIZE)


def test_boxes_lie_inside_the_picture():
    for seed in range(1000):
        for left, top, right, bottom in thing_boxes(sample_scene(seed)):
            assert 0 <= left < right <= SCENE_SIZE and 0 <= top < bottom <= SCENE_SIZE
            assert min(right - left, bottom - top) >= 24 and max(right - left, bottom - top) >= 34


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_holds_the_colour_of_its_thing(kind):
    for color, rgb in COLORS.items():
        scene = Scene(3, 0, "noon", "clear", (Thing(kind, color, "small", 0.7, 0.85),))
        inside = np.asarray(draw(scene).crop(thing_boxes(scene)[0]), np.int16).reshape(-1, 3)
        assert (np.abs(inside - rgb).max(1) < 40).mean() > 0.08


@pytest.mark.parametrize("seed", SEEDS)
def test_captions_tell_the_truth_and_the_first_tells_all(seed):
    scene, captions = sample_scene(seed), captions_of(seed)
    place, name = PLACES[scene.place], PLACE_NAMES[scene.place]
    things = {(thing.color, thing.kind) for thing in scene.things}
    assert len(set(captions)) == 5 and sum(name in caption for caption in captions) >= 3
    first, *others = map(read_mentions, captions)
    assert name in captions[0]
    assert (first.things, first.time, first.ground) == (things, scene.time, place.ground)
    for other in others:
        assert other.things <= things and other.kinds <= {kind for _, kind in things}
        assert other.time in (None, scene.time) and other.ground == place.ground
        assert other.landmark in (None, place.landmark)


def test_captions_are_correct_english():
    captions = [caption for seed in SEEDS for caption in captions_of(seed)]
    for caption in captions:
        assert caption[0].isupper() and caption.endswith(".")
        assert "  " not in caption and "{" not in caption
        for article, following in re.findall(r"\b(an?) (\w)", caption, re.IGNORECASE):
            assert (article.lower() == "an") == (following in "aeiou"), caption
    assert len({word for caption in captions for word in re.findall("[a-z]+", caption)}) < 350


def test_the_reader_survives_garbage_and_needs_the_colour_before_the_kind():
    assert read_mentions("").kinds == frozenset()
    assert read_mentions("%% red red 12").things == frozenset()
    text = "a small red puppy and a boat, blue, on on snow at dusk by the old oak"
    mentions = read_mentions(text)
    assert mentions.things == {("red", "dog")} and mentions.kinds == {"dog", "boat"}
    assert (mentions.time, mentions.ground, mentions.landmark) == ("evening", "snow", "oak")


def test_invented_names_are_many_and_never_the_demo_s_own():
    names = {invent_name(random.Random(seed)) for seed in range(3000)}
    own = {word for name in PLACE_NAMES for word in name.split()} - {"Mount", "Port", "Cape"}
    invented = own - {name.split()[1] for name in PLACE_NAMES}
    assert len(names) > 2500 and not names & set(PLACE_NAMES)
    assert not any(word in name.split() for name in names for word in invented)
