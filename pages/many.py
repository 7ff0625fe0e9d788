"""Pages of a run over many images, and of an evaluation: cards to search, sort and open."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from PIL import Image

from pages.pictures import MOST_BYTES, Pictures, thumbnails
from pages.render import clean, page
from pages.single import facts, heading, plain_neighbor
from support.result import Result, SimilarImage

CARDS = 400  # of a page
SHORT = 240  # characters of a caption on a card; all of them are in what it opens
FileOf = Callable[[int], str]  # the name of a page's file


@dataclass(frozen=True)
class Card:
    """An image of a run: what its card shows, and what it opens."""

    title: str
    image: str  # path or dataset row
    key: str  # content hash
    caption: str
    references: Sequence[str] = ()
    neighbors: Sequence[SimilarImage] = ()
    prompt: str | None = None
    facts: Sequence[tuple[str, str]] = ()
    arms: Sequence[tuple[str, str, Sequence[str]]] = ()  # of an evaluation: name, caption, scores


@dataclass(frozen=True)
class Sort:
    """An order of the cards: by a number of each, from high to low if `down`."""

    name: str
    values: Sequence[float]
    down: bool = True


@dataclass(frozen=True)
class Run:
    """What is said above the cards of a run."""

    title: str
    kicker: str
    summary: str
    cards: Sequence[Card]
    sorts: Sequence[Sort] = ()
    metrics: Sequence[str] = ()  # heads of the arms' scores
    scores: Sequence[Mapping[str, Any]] = ()  # tables: name, heads, rows
    plot: str | None = None  # a data URI
    plot_alt: str = ""
    # Metric -> arm -> its value for each card, by which they are sorted too.
    measures: Mapping[str, Mapping[str, Sequence[float | None]]] = field(default_factory=dict)


def card_of(result: Result) -> Card:
    """The card of a captioned image."""
    return Card(
        title=heading(result),
        image=result["metadata"]["image"],
        key=result["metadata"]["content_hash"],
        caption=result["generated_caption"],
        references=result["query_info"]["captions"],
        neighbors=result["similar_images"],
        prompt=result["prompt"],
        facts=facts(result),
    )


def nearest_first(cards: Sequence[Card]) -> list[Sort]:
    """The orders of any run."""
    similarities = [card.neighbors[0]["similarity"] if card.neighbors else -1 for card in cards]
    lengths = [len(card.caption) for card in cards]
    return [
        Sort("order of the run", range(len(cards)), down=False),
        Sort("similarity of the nearest image, highest first", similarities),
        Sort("similarity of the nearest image, lowest first", similarities, down=False),
        Sort("length of the caption, longest first", lengths),
    ]


def run_pages(run: Run, pictures: Pictures, file_of: FileOf) -> Iterator[tuple[str, str]]:
    """File name and HTML of the pages of a run, CARDS on each."""
    starts = range(0, max(1, len(run.cards)), CARDS)
    for number, start in enumerate(starts):
        part = slice(start, start + CARDS)
        others = [
            {
                "name": f"{at + 1} to {min(at + CARDS, len(run.cards))}",
                "file": file_of(other),
                "here": other == number,
            }
            for other, at in enumerate(starts)
        ]
        yield file_of(number), _page(run, part, others, pictures)


def _page(run: Run, part: slice, others: Sequence[Mapping[str, Any]], pictures: Pictures) -> str:
    cards = run.cards[part]
    uris = _pictures(cards, pictures, MOST_BYTES - _bytes_of_texts(run, cards))
    numbers = {key: number for number, key in enumerate(uris)}
    data = {
        "pictures": list(uris.values()),
        "cards": [_card_data(card, numbers, pictures) for card in cards],
        "sorts": [
            {"name": sort.name, "values": list(sort.values[part]), "down": sort.down}
            for sort in run.sorts
        ],
        "metrics": list(run.metrics),
        "measures": {
            metric: {arm: list(values[part]) for arm, values in arms.items()}
            for metric, arms in run.measures.items()
        },
    }
    heads = [_head(card, numbers) for card in cards]
    first = part.start == 0  # the scores of an evaluation stand on its first page
    return page(
        "many.html",
        run.title,
        "many.js",
        kicker=clean(run.kicker),
        summary=clean(run.summary),
        cards=heads,
        others=others,
        data=data,
        scores=clean(list(run.scores)) if first else [],
        plot=run.plot if first else None,
        plot_alt=run.plot_alt,
    )


def _pictures(cards: Sequence[Card], pictures: Pictures, most: int) -> dict[Hashable, str]:
    """The pictures of cards and of their neighbors, the nearest first, each once."""
    large: dict[Hashable, Callable[[int], Image.Image | None]] = {
        card.key: partial(pictures.by_hash, card.key) for card in cards
    }
    small: dict[Hashable, Callable[[int], Image.Image | None]] = {}
    for place in range(max((len(card.neighbors) for card in cards), default=0)):
        for card in (card for card in cards if place < len(card.neighbors)):
            index = card.neighbors[place]["index"]
            small.setdefault(_key_of(index, pictures), partial(pictures.by_number, index))
    return thumbnails(large, small, most)


def _key_of(index: int, pictures: Pictures) -> Hashable:
    """What a neighbor's picture goes by: its content hash, as that of a card does."""
    return pictures.key_of(index) or index


def _bytes_of_texts(run: Run, cards: Sequence[Card]) -> int:
    """About what a page takes without its pictures."""
    texts = len(json.dumps([vars(card) for card in cards], ensure_ascii=False).encode())
    return texts + 600 * len(cards) + len(run.plot or "") + 20 * len(cards) * len(run.measures) * 6


def _head(card: Card, numbers: Mapping[Hashable, int]) -> dict[str, Any]:
    caption = clean(card.caption)
    return {
        "picture": numbers.get(card.key),
        "alt": "",  # the caption beside it says the same
        "short": caption if len(caption) <= SHORT else caption[:SHORT] + "…",
        "name": clean(card.title),
    }


def _card_data(card: Card, numbers: Mapping[Hashable, int], pictures: Pictures) -> dict[str, Any]:
    neighbors = []
    for one in card.neighbors:
        picture = numbers.get(_key_of(one["index"], pictures))
        neighbors.append({**plain_neighbor(one), "picture": picture})
    return {
        "title": card.title,
        "image": card.image,
        "caption": card.caption,
        "alt": f"The image that was captioned: {card.caption[:SHORT]}",
        "picture": numbers.get(card.key),
        "references": list(card.references),
        "neighbors": neighbors,
        "prompt": card.prompt,
        "facts": [list(row) for row in card.facts],
        "arms": [
            {"name": name, "caption": text, "scores": list(scores)}
            for name, text, scores in card.arms
        ],
    }
