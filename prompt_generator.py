"""Stage 4: the prompt that shows the VLM the captions of the images most like the query."""

from collections.abc import Sequence

import config
from support.records import Neighbor

# A caption is only ever text: a model's tokenizer would read "<image>" or "<end_of_utterance>" as
# its own special tokens.
CONTROL_CHARACTERS = (*range(32), *range(127, 160))
AS_TEXT = str.maketrans({"<": "(", ">": ")", **{chr(code): " " for code in CONTROL_CHARACTERS}})


def build_prompts(neighbors: Sequence[Sequence[Neighbor]]) -> list[str]:
    """One prompt for each query image, from the captions of its neighbors."""
    return [build_prompt(context_captions(found)) for found in neighbors]


def context_captions(neighbors: Sequence[Neighbor]) -> list[str]:
    """The first config.CAPTIONS_PER_NEIGHBOR captions of each neighbor, nearest first."""
    captions: list[str] = []
    for neighbor in neighbors:
        captions += neighbor.captions[: config.CAPTIONS_PER_NEIGHBOR]
    return captions


def build_prompt(captions: Sequence[str]) -> str:
    """The instruction for the VLM, listing `captions` (nearest first), each once.

    Captions that differ only in case, white space or a final stop count as one. Without any, the
    prompt asks for a description and nothing else. The templates are `config.PROMPT_TEMPLATE` and
    `config.PROMPT_WITHOUT_CONTEXT`.
    """
    lines = [f"- {_shorten(caption)}" for caption in distinct_captions(captions)]
    if not lines:
        return config.PROMPT_WITHOUT_CONTEXT
    # str.replace, not str.format: braces inside a caption or a template are text.
    return config.PROMPT_TEMPLATE.replace("{captions}", "\n".join(lines))


def distinct_captions(captions: Sequence[str]) -> list[str]:
    """`captions` on one line each, in their order, without empty ones and repetitions."""
    kept: dict[str, str] = {}
    for caption in captions:
        # A line break would end the caption's place in the list.
        text = " ".join(caption.translate(AS_TEXT).split())
        if text:
            kept.setdefault(text.casefold().rstrip(" ."), text)
    return list(kept.values())


def _shorten(caption: str) -> str:
    """`caption` cut at a word within `config.MAX_CONTEXT_CAPTION_CHARS` characters."""
    limit = config.MAX_CONTEXT_CAPTION_CHARS
    if len(caption) <= limit:
        return caption
    head = caption[:limit]
    return (head.rsplit(" ", 1)[0] if " " in head else head) + " …"
