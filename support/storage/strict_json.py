"""JSON that any program can read: no NaN, no infinity, no lone surrogates."""

import json
import math
import re
from typing import Any, NoReturn

from support.text import clean_text

LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # or half of a pair, which does no harm


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON, readable in any script; lone surrogates become U+FFFD."""
    return clean_text(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def parse_json(data: bytes) -> Any:
    """The value of a UTF-8 JSON text. Raises ValueError for what `to_json` never writes."""
    try:
        value = json.loads(data, parse_constant=_refuse, parse_float=_finite)
        return json.loads(to_json(value)) if LONE_SURROGATE.search(data) else value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value
