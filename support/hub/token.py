"""The Hugging Face token: where it is found, whether it can be one. Never printed, never stored."""

import os
import re

from support.errors import HubError

HUB_PAGES = "https://huggingface.co"
TOKEN_PAGE = f"{HUB_PAGES}/settings/tokens"


def use_huggingface_token() -> None:
    """Makes the libraries see HUGGINGFACE_TOKEN, a name many people use; HF_TOKEN precedes it."""
    if os.environ.get("HUGGINGFACE_TOKEN") and not os.environ.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = os.environ["HUGGINGFACE_TOKEN"]


def read_token() -> str | None:
    """The token that would be used. Raises HubError for a stored one that cannot be read."""
    from huggingface_hub import constants, get_token

    try:
        return get_token()
    except (OSError, ValueError) as error:
        raise HubError(
            f"The Hugging Face token in {constants.HF_TOKEN_PATH} cannot be read "
            f"({type(error).__name__}). Delete that file, then: python setup_token.py"
        ) from error


def check_token() -> None:
    """Raises HubError for a token no header can hold; the HTTP client's error would quote it."""
    token = read_token()
    if token is not None and not looks_like_token(token):
        raise HubError(
            "The Hugging Face token cannot be one: it holds spaces or unusual characters "
            f"({token_state()}). Copy it again from {TOKEN_PAGE}, then: python setup_token.py"
        )


def looks_like_token(text: str) -> bool:
    """Whether `text` is visible ASCII without spaces."""
    return re.fullmatch(r"[!-~]+", text) is not None


def token_state() -> str:
    """Where the token that would be used was found, in words; never the token."""
    token = read_token()
    # HUGGINGFACE_TOKEN first: it was copied to HF_TOKEN.
    for variable in ("HUGGINGFACE_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token and os.environ.get(variable, "").strip() == token:
            return f"a token was found in {variable}"
    return "a stored token was found" if token else "no token was found"
