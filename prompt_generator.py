"""Stage 4: the prompt that shows the VLM the captions of the images most like the query."""

import config

# A caption is only ever text: "<image>" or "<end_of_utterance>" would be read by a model's tokenizer as its own marks.
AS_TEXT = str.maketrans({"<": "(", ">": ")", **{chr(code): " " for code in (*range(32), *range(127, 160))}})


def build_prompt(captions: list[str]) -> str:
    """The instruction for the VLM, listing `captions` (nearest first), each once.

    Captions that differ only in case, white space or a final stop count as one. Without any, the prompt asks for a
    description and nothing else. The templates are `config.PROMPT_TEMPLATE` and `config.PROMPT_WITHOUT_CONTEXT`.
    """
    lines = [f"- {_shorten(caption)}" for caption in distinct_captions(captions)]
    if not lines:
        return config.PROMPT_WITHOUT_CONTEXT
    # str.replace, not str.format: braces inside a caption or a template are text.
    return config.PROMPT_TEMPLATE.replace("{captions}", "\n".join(lines))


def distinct_captions(captions: list[str]) -> list[str]:
    """`captions` on one line each, in their order, without empty ones and repetitions."""
    kept = {}
    for caption in captions:
        text = " ".join(caption.translate(AS_TEXT).split())  # a line break would end the caption's place in the list
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
