"""What notebook functions return: plain dicts and lists that show themselves as cards.

They are equal to plain ones, and JSON and pickle take them. Their pictures are made on return and
kept beside the content, so an exported notebook keeps them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from pages.evaluation import Table, plain_tables, plot_of
from pages.pictures import NEIGHBOR_LEVEL, Pictures
from pages.render import fragment
from pages.single import found_values, heading, result_values
from support.result import Result, SimilarImage


class DictCard(dict[str, Any]):
    """A dict with a card."""

    card: Mapping[str, Any]  # a template and its values

    def _repr_html_(self) -> str:
        return fragment(**self.card)


class ListCard(list[Any]):
    """A list with a card."""

    card: Mapping[str, Any]

    def _repr_html_(self) -> str:
        return fragment(**self.card)


def result_card(result: Result, pictures: Pictures, query: Image.Image | None = None) -> Result:
    """`result`, showing itself with its neighbors; `query` is its image, if it has no file."""
    shown: Any = DictCard(result)
    values = result_values(result, pictures, query)
    names = ("query", "alt", "caption", "references", "found")
    shown.card = {
        "template": "card.html",
        "heading": heading(result),
        **{name: values[name] for name in names},
    }
    return shown


def found_card(found: Iterable[SimilarImage], pictures: Pictures) -> list[SimilarImage]:
    """What a search has found, showing itself."""
    shown = ListCard(found)
    values = found_values(shown, pictures, NEIGHBOR_LEVEL)
    empty: dict[str, Any] = {
        "query": None,
        "alt": "",
        "caption": None,
        "references": [],
        "heading": "",
    }
    shown.card = {"template": "card.html", "found": values, **empty}
    return shown


def scores_card(outcome: Mapping[str, Any], tables: Sequence[Table], plot: bytes) -> dict[str, Any]:
    """The outcome of an evaluation, showing itself as its tables and its plot, a PNG."""
    shown = DictCard(outcome)
    shown.card = {"template": "scores_card.html", "scores": plain_tables(tables), **plot_of(plot)}
    return shown
