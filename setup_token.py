"""Stores a Hugging Face token, which gated models such as EmbeddingGemma need.

    python setup_token.py          asks for a token, verifies it, stores it as huggingface_hub does
    python setup_token.py --check  says whether one is there and what it opens; exit status 0, or 2
                                   without a valid one

Create a token (type "read") at https://huggingface.co/settings/tokens. Tokens are looked for in
this order: the variable HF_TOKEN, the variable HUGGINGFACE_TOKEN, the stored one.
"""

import argparse
import getpass
import re
import sys
from pathlib import Path

import config
from support.errors import HubError, PipelineError
from support.hub.connection import probe_hub
from support.hub.errors import errors_explained, licence_page
from support.hub.names import is_local
from support.hub.token import (
    TOKEN_PAGE,
    check_token,
    looks_like_token,
    read_token,
    token_state,
    use_huggingface_token,
)
from support.terminal import guard_terminal

MODEL_SETTINGS = ("CLIP_MODEL_NAME", "VLM_MODEL_NAME", "CAPTION_EMBEDDING_MODEL")
REMEDY = f"Create a new one at {TOKEN_PAGE}, then run: python setup_token.py"


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    guard_terminal()
    parser = argparse.ArgumentParser(
        prog="setup_token.py", description="Store or check a Hugging Face token."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="report without asking; exit status 2 without a valid token",
    )
    arguments = parser.parse_args(argv)
    use_huggingface_token()
    try:
        check() if arguments.check else ask_and_store()
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, EOFError):
        print("\nNothing was stored.", file=sys.stderr)
        return 130
    return 0


def check() -> None:
    """Reports on the token that would be used. Raises HubError without one, or when the Hub does
    not accept it.
    """
    check_token()
    token = read_token()
    if not token:
        raise HubError(
            f"No token was found. Create one at {TOKEN_PAGE}, then run: python setup_token.py"
        )
    name = account(token)
    if name is None:
        raise HubError(f"The Hub does not accept the token ({token_state()}). {REMEDY}")
    print(f"The token is valid ({token_state()}); account: {name}.")
    report_access(token)


def ask_and_store() -> None:
    """Asks for a token without showing it (or reads a line from a pipe), verifies it, then stores
    it.
    """
    from huggingface_hub import login

    token = _ask()
    if not token:
        raise HubError("No token was given. Nothing was stored.")
    if not looks_like_token(token):
        raise HubError(
            f"That is no token: it holds spaces or unusual characters. Nothing was stored. {REMEDY}"
        )
    name = account(token)
    if name is None:
        raise HubError(f"The Hub does not accept this token. Nothing was stored. {REMEDY}")
    try:
        login(token=token, add_to_git_credential=False, skip_if_logged_in=False)
    except (OSError, ValueError) as error:
        raise HubError(f"The token is valid, but it cannot be stored: {error}") from error
    print(f"The token is valid and stored; account: {name}.")
    if read_token() != token:
        print(
            f"Another one precedes it ({token_state()}): remove that variable from your "
            "environment."
        )
    report_access(token)


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    print(f"Create a token at {TOKEN_PAGE} and paste it here; it is not shown.", flush=True)
    return getpass.getpass("Token: ").strip()


def account(token: str) -> str | None:
    """The account that `token` belongs to, None when the Hub does not accept it. Raises HubError
    without a Hub.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    reason = probe_hub()
    if reason:
        raise HubError(
            f"The Hugging Face Hub cannot be reached ({reason}), so the token cannot be verified. "
            "Connect to the internet and run again."
        )
    try:
        return HfApi().whoami(token=token)["name"]
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            return None
        status = error.response.status_code
        raise HubError(
            f"The Hub could not verify the token just now (status {status}). Try again."
        ) from error


def report_access(token: str) -> None:
    """Says for each gated model that config.py names, in use or as an alternative, whether the
    token opens it.
    """
    gated = [name for name in model_names() if _is_gated(name, token)]
    for name in gated:
        closed = f"not open to this token; accept its licence at {licence_page(name)}"
        print(f"  {name}: gated, {'open to this token' if _opens(name, token) else closed}")
    if not gated:
        print("  No model that config.py names is gated.")


def model_names() -> list[str]:
    """The Hub models that config.py names: those in use, and the alternatives in its commented
    lines.
    """
    written = Path(config.__file__).read_text(encoding="utf-8")
    lines = re.findall(
        rf'^(?:# *)?(?:{"|".join(MODEL_SETTINGS)}) *= *"([^"]+)"', written, re.MULTILINE
    )
    names = dict.fromkeys([*(getattr(config, setting) for setting in MODEL_SETTINGS), *lines])
    return [name for name in names if not is_local(name)]


def _is_gated(name: str, token: str) -> bool:
    """Whether a model wants its licence accepted. One that cannot be looked up is named, and left
    out.
    """
    from huggingface_hub import HfApi

    try:
        with errors_explained(name, "model"):
            return bool(HfApi().model_info(name, token=token).gated)
    except HubError as error:
        print(f"  {error}", file=sys.stderr)
        return False


def _opens(name: str, token: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().auth_check(name, token=token)
    except HfHubHTTPError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
