"""Captions for demo scenes, as five people would write them."""

import random

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

TOLD_WEATHERS = ("rainy", "snowy", "foggy")  # remarkable enough that somebody tells
WORDS_PER_CAPTION = (8, 25)  # captions are drawn again a few times to keep within


def write_captions(scene: Scene, place_name: str, rng: random.Random) -> list[str]:
    """Five distinct captions; the first is complete, one or two of the others leave something out.

    Rain, falling snow and fog are told by one of them at least.
    """
    captions = [of_fair_length(lambda: complete_caption(scene, place_name, rng))]
    teller = int(rng.random() * 4) if scene.weather in TOLD_WEATHERS else None
    for number, missing in enumerate(leave_out(scene, rng)):
        patterns = free_patterns(missing, tell_weather=number == teller)
        caption = captions[0]
        while caption in captions:
            caption = of_fair_length(
                lambda missing=missing, patterns=patterns: free_caption(scene, place_name, missing, patterns, rng)
            )
        captions.append(caption)
    return captions


def of_fair_length(write, tries=6):
    """The first caption within the limits, or the shortest of a few."""
    low, high = WORDS_PER_CAPTION
    captions = []
    while len(captions) < tries:
        captions.append(write())
        if low <= len(captions[-1].split()) <= high:
            return captions[-1]
    return min(captions, key=len)


def leave_out(scene, rng):
    """What each of captions 1 to 4 omits: one or two of them one item, the others nothing ("")."""
    options = ["place", "time", "color"] + ["thing"] * (len(scene.things) > 1)
    gaps = [pick(rng, options), pick(rng, ["", *options]), "", ""]
    return sorted(gaps, key=lambda _: rng.random())


def with_article(phrase):
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def describe(thing: Thing, rng, colored=True, sized=True, canonical=False):
    """A noun phrase such as "a small red dog" or "a person in a red coat"."""
    nouns = [word for word in KIND_WORDS[thing.kind] if thing.size == "small" or word not in YOUNG]
    noun = nouns[0] if canonical and rng.random() < 0.6 else pick(rng, nouns)
    looks = f"{thing.color} {noun}" if colored else noun
    if thing.kind == "person":
        return f"{PEOPLE[0] if canonical and rng.random() < 0.6 else pick(rng, PEOPLE)} {with_article(looks)}"
    if sized and noun not in YOUNG and rng.random() < 0.3:
        looks = f"{pick(rng, SIZE_WORDS[thing.size])} {looks}"
    return with_article(looks)


def listing(phrases):
    """The phrases joined: "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


class Parts:
    """The phrases of one caption, chosen once, ready for any of the sentence patterns."""

    def __init__(self, scene, rng, missing="", canonical=False):
        things = sorted(scene.things, key=lambda _: rng.random())
        things = things[1:] if missing == "thing" else things
        plain = int(rng.random() * len(things)) if missing == "color" else -1
        phrases = [describe(thing, rng, i != plain, not canonical, canonical) for i, thing in enumerate(things)]
        self.standing = [phrase for phrase, thing in zip(phrases, things, strict=False) if thing.kind not in FLYING]
        self.flying = [phrase for phrase, thing in zip(phrases, things, strict=False) if thing.kind in FLYING]
        self.rng = rng
        place = PLACES[scene.place]
        self.on_ground = pick(rng, GROUND_PHRASES[place.ground])
        self.ground = self.on_ground.split(" ", 1)[1]
        self.time = pick(rng, TIME_PHRASES[scene.time])
        self.landmark = pick(rng, LANDMARK_PHRASES[place.landmark])
        self.weather = pick(rng, WEATHER_PHRASES[scene.weather])

    def scene(self):
        """All things and the ground without a verb: "a red dog on the grass below a blue kite"."""
        if not self.flying:
            return f"{listing(self.standing)} {self.on_ground}"
        if not self.standing:
            return f"{listing(self.flying)} {pick(self.rng, ('above', 'over', 'flying over'))} {self.ground}"
        pattern = pick(
            self.rng,
            ("{below} {on} below {above}", "{below} {on} and {above} in the sky", "{above} above {below} {on}"),
        )
        return pattern.format(below=listing(self.standing), above=listing(self.flying), on=self.on_ground)

    def clause(self):
        """The same with a verb: "a red dog and a blue boat are on the sand"."""
        first = self.standing or self.flying
        verb = "is" if len(first) == 1 else "are"
        if not self.standing:
            return f"{listing(first)} {verb} {pick(self.rng, ('flying over', 'high above'))} {self.ground}"
        statement = f"{listing(first)} {pick(self.rng, (verb, 'can be seen'))} {self.on_ground}"
        return f"{statement} below {listing(self.flying)}" if self.flying else statement

    def existence(self):
        """The same as a remark: "there is a red dog on the sand"; of several, "you can see"."""
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


def complete_caption(scene, name, rng):
    """All things with their colours, ground, place name and time of day, in one of a few plain forms.

    With None for `name` the place goes unnamed: what can be said from looking alone.
    """
    return fill(pick(rng, COMPLETE_PATTERNS), Parts(scene, rng, canonical=True), name)


def free_patterns(missing, tell_weather):
    """The free forms that can do without `missing`; with `tell_weather` those alone that tell it."""
    patterns = FREE_PATTERNS + TIMED_PATTERNS * (missing != "time") + NAMED_PATTERNS * (missing != "place")
    patterns += TIMED_NAMED_PATTERNS * (missing not in ("place", "time"))
    return [pattern for pattern in patterns if "{weather}" in pattern] if tell_weather else patterns


def free_caption(scene, name, missing, patterns, rng):
    """One caption in free form that lacks `missing`: "place", "time", "color", "thing" or "" for nothing."""
    return fill(pick(rng, patterns), Parts(scene, rng, missing), name, missing)


def fill(pattern, parts, name, missing=""):
    """The sentence of a pattern, with a capital and a full stop."""
    if name is None:
        pattern = pattern.replace(" at {name}", "")
    fields = {key: getattr(parts, key)() for key in ("scene", "clause", "existence") if f"{{{key}}}" in pattern}
    text = pattern.format(
        **fields,
        name=name,
        time=parts.time,
        landmark=parts.landmark,
        weather=parts.weather,
        at="" if missing == "place" else f" at {name}",
        when="" if missing == "time" else f" {parts.time}",
    )
    return text[0].upper() + text[1:] + "."
