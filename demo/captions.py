"""Captions for demo scenes, worded as different people might write them."""

import random
from collections.abc import Callable, Sequence
from functools import partial

from demo.scenes import FLYING, PLACES, Scene, Thing, pick
from demo.vocabulary import (
    GROUND_PHRASES,
    KIND_WORDS,
    LANDMARK_PHRASES,
    PEOPLE,
    SIZE_WORDS,
    TIME_PHRASES,
    WEATHER_PHRASES,
    YOUNG,
)

NOTABLE_WEATHERS = ("rainy", "snowy", "foggy")  # mentioned by at least one caption
WORDS_PER_CAPTION = (8, 25)  # captions outside these limits are sampled again a few times


def write_captions(scene: Scene, place_name: str, rng: random.Random) -> list[str]:
    """Five distinct captions; the first is complete, one or two of the others omit something.

    At least one of them mentions rain, falling snow or fog.
    """
    captions = [of_usual_length(lambda: complete_caption(scene, place_name, rng))]
    weather_at = int(rng.random() * 4) if scene.weather in NOTABLE_WEATHERS else None
    for number, missing in enumerate(sample_omissions(scene, rng)):
        patterns = free_patterns(missing, mention_weather=number == weather_at)
        write = partial(free_caption, scene, place_name, missing, patterns, rng)
        caption = captions[0]
        while caption in captions:
            caption = of_usual_length(write)
        captions.append(caption)
    return captions


def of_usual_length(write: Callable[[], str], tries: int = 6) -> str:
    """The first caption within WORDS_PER_CAPTION, or else the shortest of `tries`."""
    low, high = WORDS_PER_CAPTION
    captions: list[str] = []
    while len(captions) < tries:
        captions.append(write())
        if low <= len(captions[-1].split()) <= high:
            return captions[-1]
    return min(captions, key=len)


def sample_omissions(scene: Scene, rng: random.Random) -> list[str]:
    """What each of captions 1 to 4 omits: one item for one or two of them, "" for the others."""
    options = ["place", "time", "color"] + ["thing"] * (len(scene.things) > 1)
    gaps = [pick(rng, options), pick(rng, ["", *options]), "", ""]
    return sorted(gaps, key=lambda _: rng.random())


def with_article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def describe(
    thing: Thing,
    rng: random.Random,
    colored: bool = True,
    sized: bool = True,
    canonical: bool = False,
) -> str:
    """A noun phrase such as "a small red dog" or "a person in a red coat"."""
    nouns = [word for word in KIND_WORDS[thing.kind] if thing.size == "small" or word not in YOUNG]
    noun = nouns[0] if canonical and rng.random() < 0.6 else pick(rng, nouns)
    looks = f"{thing.color} {noun}" if colored else noun
    if thing.kind == "person":
        person = PEOPLE[0] if canonical and rng.random() < 0.6 else pick(rng, PEOPLE)
        return f"{person} {with_article(looks)}"
    if sized and noun not in YOUNG and rng.random() < 0.3:
        looks = f"{pick(rng, SIZE_WORDS[thing.size])} {looks}"
    return with_article(looks)


def listing(phrases: Sequence[str]) -> str:
    """The phrases joined: "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


class Phrases:
    """The phrases of one caption, sampled once, for use in any sentence pattern."""

    def __init__(
        self, scene: Scene, rng: random.Random, missing: str = "", canonical: bool = False
    ) -> None:
        things = sorted(scene.things, key=lambda _: rng.random())
        things = things[1:] if missing == "thing" else things
        plain = int(rng.random() * len(things)) if missing == "color" else -1
        phrases = [
            (thing.kind, describe(thing, rng, i != plain, not canonical, canonical))
            for i, thing in enumerate(things)
        ]
        self.standing = [phrase for kind, phrase in phrases if kind not in FLYING]
        self.flying = [phrase for kind, phrase in phrases if kind in FLYING]
        self.rng = rng
        place = PLACES[scene.place]
        self.on_ground = pick(rng, GROUND_PHRASES[place.ground])
        self.ground = self.on_ground.split(" ", 1)[1]
        self.time = pick(rng, TIME_PHRASES[scene.time])
        self.landmark = pick(rng, LANDMARK_PHRASES[place.landmark])
        self.weather = pick(rng, WEATHER_PHRASES[scene.weather])

    def scene(self) -> str:
        """All things and the ground without a verb: "a red dog on the grass below a blue kite"."""
        if not self.flying:
            return f"{listing(self.standing)} {self.on_ground}"
        if not self.standing:
            above = pick(self.rng, ("above", "over", "flying over"))
            return f"{listing(self.flying)} {above} {self.ground}"
        patterns = (
            "{below} {on} below {above}",
            "{below} {on} and {above} in the sky",
            "{above} above {below} {on}",
        )
        return pick(self.rng, patterns).format(
            below=listing(self.standing), above=listing(self.flying), on=self.on_ground
        )

    def clause(self) -> str:
        """The same with a verb: "a red dog and a blue boat are on the sand"."""
        first = self.standing or self.flying
        verb = "is" if len(first) == 1 else "are"
        if not self.standing:
            above = pick(self.rng, ("flying over", "high above"))
            return f"{listing(first)} {verb} {above} {self.ground}"
        statement = f"{listing(first)} {pick(self.rng, (verb, 'can be seen'))} {self.on_ground}"
        return f"{statement} below {listing(self.flying)}" if self.flying else statement

    def existence(self) -> str:
        """The same introduced by "there is" for one thing, by "you can see" for several."""
        alone = len(self.standing) + len(self.flying) == 1
        return f"{'there is' if alone else 'you can see'} {self.scene()}"


COMPLETE_PATTERNS = (
    "{scene} at {name} {time}",
    "{scene} at {name} {time}",
    "{time}, {clause} at {name}",
    "{existence} at {name} {time}",
)
FREE_PATTERNS = (  # {at} is " at NAME" or nothing, {when} " in the evening" or nothing
    "{scene} near {landmark}{at}{when}",
    "{existence}{at}{when}",
    "{clause} near {landmark}{at}{when}",
    "{scene}{at}{when}, {weather}",
    "near {landmark}{at}, {clause}{when}",
    "{weather}{at}, {clause}{when}",
    "a picture of {scene}{at}{when}",
    "{scene}, with {landmark} in the background{at}{when}",
    "{clause}{at}{when}, {weather}",
    "we see {scene} by {landmark}{at}{when}",
    "{landmark}{at}{when}, and in front of it {scene}",
)
TIMED_PATTERNS = ("{time}, {clause} near {landmark}{at}", "{time}, {existence}{at} {weather}")
NAMED_PATTERNS = (
    "this is {name}, where {clause}{when}",
    "at {name}, {existence} by {landmark}{when}",
    "visitors to {name} find {scene}{when}",
    "near {landmark} of {name}, {existence}{when}",
)
TIMED_NAMED_PATTERNS = ("{name} {time}: {scene}",)


def complete_caption(scene: Scene, name: str | None, rng: random.Random) -> str:
    """A plain caption with all things, their colours, ground, place name and time of day.

    Without a `name` it omits the place, and so says only what the image shows.
    """
    return fill(pick(rng, COMPLETE_PATTERNS), Phrases(scene, rng, canonical=True), name)


def free_patterns(missing: str, mention_weather: bool) -> list[str]:
    """The free patterns that work without `missing`; optionally only those with the weather."""
    patterns = (
        FREE_PATTERNS + TIMED_PATTERNS * (missing != "time") + NAMED_PATTERNS * (missing != "place")
    )
    patterns += TIMED_NAMED_PATTERNS * (missing not in ("place", "time"))
    return [pattern for pattern in patterns if "{weather}" in pattern or not mention_weather]


def free_caption(
    scene: Scene, name: str, missing: str, patterns: Sequence[str], rng: random.Random
) -> str:
    """A free-form caption without `missing`: "place", "time", "color", "thing", or "" for none."""
    return fill(pick(rng, patterns), Phrases(scene, rng, missing), name, missing)


def fill(pattern: str, phrases: Phrases, name: str | None, missing: str = "") -> str:
    """The sentence that `pattern` gives, with a capital letter and a full stop."""
    if name is None:
        pattern = pattern.replace(" at {name}", "")
    fields = {
        key: getattr(phrases, key)()
        for key in ("scene", "clause", "existence")
        if f"{{{key}}}" in pattern
    }
    text = pattern.format(
        **fields,
        name=name,
        time=phrases.time,
        landmark=phrases.landmark,
        weather=phrases.weather,
        at="" if missing == "place" else f" at {name}",
        when="" if missing == "time" else f" {phrases.time}",
    )
    return text[0].upper() + text[1:] + "."
