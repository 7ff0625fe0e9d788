"""Text queries for demo scenes: what they ask for, which scenes match, and queries to train on.

A query asks for facts, given as in queries.json: `things` ([colour, kind] each), `kinds` of any
colour, `time`, `weather`, `ground`, `landmark`. A scene matches if it has all of them.

Training queries use the words of captions and, as often, synonyms of them. The synonyms in
queries.json and tuning_queries.json are excluded here, since those files measure how well search
generalises to unseen words.
"""

import random
from typing import Any

from demo.captions import listing, with_article
from demo.reading import read_mentions
from demo.scenes import PLACES, Scene, pick
from demo.vocabulary import (
    GROUND_PHRASES,
    KIND_WORDS,
    LANDMARK_PHRASES,
    PEOPLE,
    TIME_PHRASES,
    WEATHER_PHRASES,
    WordTable,
)

Facts = dict[str, Any]
CAPTION_WORDS: dict[str, WordTable] = {
    "kinds": KIND_WORDS,
    "time": TIME_PHRASES,
    "weather": WEATHER_PHRASES,
    "ground": GROUND_PHRASES,
    "landmark": LANDMARK_PHRASES,
}
OTHER_WORDS: dict[str, WordTable] = {
    "kinds": {
        "dog": ("canine", "pooch", "terrier", "doggy"),
        "cat": ("kitty", "tomcat", "pussycat", "tabby"),
        "horse": ("mare", "stallion", "foal", "colt"),
        "sheep": ("ewe", "ram", "fleecy ewe"),
        "rabbit": ("bunny rabbit", "coney", "long-eared rabbit"),
        "duck": ("mallard", "drake", "waterfowl"),
        "bird": ("sparrow", "finch", "robin", "winged creature"),
        "boat": ("yacht", "dinghy", "boat with a sail", "sloop"),
        "car": ("sedan", "motorcar", "hatchback", "passenger car"),
        "bus": ("minibus", "shuttle bus", "double-decker", "city bus"),
        "bicycle": ("pushbike", "mountain bike", "velocipede", "pedal bike"),
        "tent": ("canvas shelter", "wigwam", "bivouac"),
        "bench": ("seat", "wooden bench", "garden bench"),
        "umbrella": ("brolly", "gamp", "open umbrella"),
        "ball": ("football", "toy ball", "round ball", "rubber ball"),
        "kite": ("paper kite", "toy kite", "kite on a string"),
        "balloon": ("party balloon", "aerostat", "inflated balloon"),
        "person": ("anorak", "parka", "overcoat", "blazer"),
    },
    "time": {
        "morning": ("early in the day", "at cockcrow", "before breakfast", "at sunup"),
        "noon": ("at twelve", "at high noon", "in full daylight", "in broad daylight",
                 "around noon"),
        "evening": ("at sundown", "at the close of the day", "at dinner time", "in the gloaming"),
        "night": ("under the stars", "in the small hours", "during the night", "in starlight",
                  "at bedtime"),
    },
    "weather": {
        "clear": ("under a cloudless sky", "in fine weather", "in fair weather"),
        "cloudy": ("with clouds overhead", "in cloudy weather", "under grey clouds"),
        "rainy": ("in a shower", "in the drizzle", "in pouring rain", "while it rains",
                  "in a rainstorm"),
        "snowy": ("in a snowfall", "in a snowstorm", "while it snows", "in flurries of snow"),
        "foggy": ("in the haze", "in hazy weather", "in poor visibility", "in dense fog",
                  "in the murk"),
    },
    "ground": {
        "grass": ("on the turf", "in a green field", "on a pasture", "in grassland"),
        "sand": ("in the sands", "on a sandy shore", "on sandy soil", "by the coast"),
        "snow": ("on snow-covered ground", "in a snowfield", "on white ground", "in deep snow"),
        "street": ("in the city", "on the asphalt", "in an alley", "in a lane", "downtown"),
        "deck": ("on a wooden platform", "on the wharf", "on the quay", "on a dock",
                 "on timber boards"),
    },
    "landmark": {
        "lighthouse": ("the harbour beam", "the harbour tower", "the signal tower"),
        "windmill": ("the mill", "the mill with vanes", "the flour mill"),
        "castle": ("the citadel", "the palace", "the stronghold", "the castle of the knights"),
        "pagoda": ("the shrine", "the Chinese tower", "the Buddhist monument"),
        "ferris wheel": ("the giant wheel", "the observation wheel", "the carnival ride"),
        "barn": ("the stable", "the hay shed", "the granary"),
        "pyramid": ("the tomb of a pharaoh", "the Egyptian monument", "the ancient tomb"),
        "clock tower": ("the belfry", "the tower with a dial", "the dial tower"),
        "church": ("the chapel", "the cathedral", "the steeple"),
        "oak": ("the tree", "the leafy tree", "the broad old tree"),
        "bridge": ("the viaduct", "the arched bridge", "the footbridge"),
        "water tower": ("the reservoir on stilts", "the raised cistern", "the reservoir tower"),
    },
}  # fmt: skip
OTHER_PEOPLE = ("a man in", "a woman in", "a passer-by in", "a figure in", "a pedestrian with")
NEAR = ("near", "by", "next to", "close to", "not far from", "at", "with")
OPENINGS = ("",) * 6 + ("a photo of ", "a picture with ", "find ", "an image showing ")


def matches(scene: Scene, facts: Facts) -> bool:
    """Whether a scene has all `facts`."""
    things = {(thing.color, thing.kind) for thing in scene.things}
    place = PLACES[scene.place]
    truth = {
        "time": scene.time,
        "weather": scene.weather,
        "ground": place.ground,
        "landmark": place.landmark,
    }
    return (
        {kind for _, kind in things} >= set(facts.get("kinds", ()))
        and things >= {tuple(thing) for thing in facts.get("things", ())}
        and all(truth[key] == facts[key] for key in truth.keys() & facts.keys())
    )


def facts_in(caption: str, scene: Scene) -> list[Facts]:
    """What a caption of `scene` states, as single facts."""
    said = read_mentions(caption)
    colored = {kind for _, kind in said.things}
    facts: list[Facts] = [{"things": [thing]} for thing in sorted(said.things)]
    facts += [{"kinds": [kind]} for kind in sorted(said.kinds - colored)]
    facts += [
        {key: getattr(said, key)} for key in ("time", "ground", "landmark") if getattr(said, key)
    ]
    if any(phrase in caption.lower() for phrase in WEATHER_PHRASES[scene.weather]):
        facts.append({"weather": scene.weather})
    return facts


def write_query(facts: list[Facts], rng: random.Random) -> str:
    """A short query for single `facts`, such as "a red pooch in the drizzle at dusk"."""
    nouns, rest = [], []
    for fact in facts:
        ((key, value),) = fact.items()
        if key in ("things", "kinds"):
            color, kind = value[0] if key == "things" else ("", value[0])
            nouns.append(_noun_phrase(color, kind, rng))
        else:
            phrase = _word_for(key, value, rng)
            rest.append(f"{pick(rng, NEAR)} {phrase}" if key == "landmark" else phrase)
    rest.sort(key=lambda _: rng.random())
    head = [listing(nouns)] if nouns else []
    opening = pick(rng, OPENINGS) if head else ""
    return opening + " ".join(head + rest if opening or rng.random() < 0.8 else rest + head)


def _word_for(key: str, value: str, rng: random.Random) -> str:
    return pick(rng, pick(rng, (CAPTION_WORDS, OTHER_WORDS))[key][value])


def _noun_phrase(color: str, kind: str, rng: random.Random) -> str:
    looks = f"{color} {_word_for('kinds', kind, rng)}".strip()
    if kind == "person":
        return f"{pick(rng, pick(rng, (PEOPLE, OTHER_PEOPLE)))} {with_article(looks)}"
    return with_article(looks) if rng.random() < 0.7 else looks
