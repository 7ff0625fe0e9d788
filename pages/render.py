"""Templates filled in: everything from outside is escaped, and nothing is loaded."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from support.text import clean_text

TEMPLATES = Path(__file__).parent / "templates"
# Characters that HTML forbids, or that would reorder the text around them.
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
MARK = '<meta name="generator" content="retrieval-augmented-captioning">'
MOST_TITLE = 120  # characters
WORD = re.compile(r"\w+")
# Too common to say anything when two captions share them.
STOP_WORDS = frozenset(
    "a an and are as at by for from in is it of on or that the there this to with".split()  # noqa: SIM905
)


def page(template: str, title: str, script: str | None = None, **values: Any) -> str:
    """A whole page of a template, with its style, and the script in a file if it needs one."""
    style = _asset("style.css")
    code = _asset(script) if script else ""
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
    policy += f"script-src '{_digest(code)}'; " if code else "script-src 'none'; "
    policy += "base-uri 'none'; form-action 'none'"
    title = clean(title)
    title = title if len(title) <= MOST_TITLE else title[:MOST_TITLE] + "…"
    shared = {"title": title, "mark": Markup(MARK), "style": Markup(style), "policy": policy}
    return (
        _environment()
        .get_template(template)
        .render(
            **shared,
            script=Markup(code),
            **values,  # our own files
        )
    )


def fragment(template: str, **values: Any) -> str:
    """A part of a page, such as a card for a notebook."""
    return _environment().get_template(template).render(style=Markup(_asset("card.css")), **values)


def clean(value: Any) -> Any:
    """A text, or all texts in lists and dicts, without what no page can hold."""
    if isinstance(value, str):
        # None of what is unsafe is printable, and most texts are: three times as fast.
        return value if value.isprintable() else UNSAFE.sub(" ", clean_text(value))
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def script_json(value: Any) -> Markup:
    """JSON for a script element: no text in it can end the element, or begin a comment in it."""
    text = json.dumps(clean(value), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def marked(text: str, others: Iterable[str]) -> Markup:
    """`text` escaped, with the words marked that one of `others` has too; common ones are not."""
    shared = {word for other in others for word in _words(other)} - STOP_WORDS
    parts, end = [], 0
    text = clean(text)
    for match in WORD.finditer(text):
        parts.append(escape(text[end : match.start()]))
        word = escape(match[0])
        is_shared = match[0].casefold() in shared
        parts.append(Markup("<mark>{}</mark>").format(word) if is_shared else word)
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]


@lru_cache(maxsize=1)
def _environment() -> Any:
    import jinja2  # here, so that --help is quick

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(marked=marked, script_json=script_json)
    return environment


@lru_cache(maxsize=8)
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8").strip()


def _digest(text: str) -> str:
    """How a policy names a script or a style that may stand in the page."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
