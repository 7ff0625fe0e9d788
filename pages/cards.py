"""What notebook functions return: plain dicts and lists that show themselves as cards.

They are equal to plain ones, and JSON and pickle take them. Their pictures are made on return and
kept beside the content, so an exported notebook keeps them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from pages.pictures import NEIGHBOR_LEVEL, Pictures
from pages.render import clean, fragment
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


def table_card(
    outcome: Mapping[str, Any], name: str, heads: Sequence[str], rows: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """`outcome`, showing itself as a table."""
    shown = DictCard(outcome)
    values = clean({"name": name, "heads": list(heads), "rows": [list(row) for row in rows]})
    shown.card = {"template": "table_card.html", "plot": None, "plot_alt": "", **values}
    return shown
