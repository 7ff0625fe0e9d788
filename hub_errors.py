"""What the Hugging Face Hub, its cache or a damaged model folder raises, in one sentence with the remedy."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from records import HubError, PipelineError

HUB_PAGES = "https://huggingface.co"
TOKEN_PAGE = f"{HUB_PAGES}/settings/tokens"
FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def errors_explained(name: str, kind: str, revision: str | None = None) -> Iterator[None]:
    """Turns whatever is raised about the `kind` ("model" or "dataset") `name` into one HubError with the remedy."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # each library has errors of its own
        raise HubError(_explain(list(_causes(error)), name, kind, revision)) from error


def use_huggingface_token() -> None:
    """Makes the libraries see HUGGINGFACE_TOKEN, a name that many people use. Their own HF_TOKEN goes before it."""
    if os.environ.get("HUGGINGFACE_TOKEN") and not os.environ.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = os.environ["HUGGINGFACE_TOKEN"]


def check_token() -> None:
    """Raises HubError for a token that no header can hold: the HTTP client's own error would quote it."""
    from huggingface_hub import get_token

    token = get_token()
    if token is not None and not looks_like_token(token):
        raise HubError(
            f"The Hugging Face token cannot be one: it holds spaces or unusual characters ({token_state()}). Copy it "
            f"again from {TOKEN_PAGE}, then: python setup_token.py"
        )


def looks_like_token(text: str) -> bool:
    """Whether `text` is visible ASCII without spaces."""
    return re.fullmatch(r"[!-~]+", text) is not None


def token_state() -> str:
    """Where the token that would be used was found, in words; never the token."""
    from huggingface_hub import get_token

    token = get_token()
    for variable in ("HUGGINGFACE_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):  # the first was copied to the second
        if token and os.environ.get(variable, "").strip() == token:
            return f"a token was found in {variable}"
    return "a stored token was found" if token else "no token was found"


def licence_page(name: str, kind: str = "model") -> str:
    return f"{HUB_PAGES}/{'datasets/' if kind == 'dataset' else ''}{name}"


def unreachable(what: str, reason: str) -> HubError:
    """The error when `what` is not in the cache and the Hub does not answer."""
    return HubError(
        f"{what} cannot be fetched: the Hugging Face Hub does not answer ({reason}), and the local cache does not hold "
        "all of it. Connect to the internet and run again (files that came whole are kept), or use --mode demo."
    )


def disk_full(name: str, kind: str, needed: str = "") -> HubError:
    return HubError(
        f"The disk is full: no room for the {kind} '{name}'{needed}. Free some, or set HF_HOME to a folder on a larger "
        "disk; files that came whole are kept."
    )


def _explain(causes: list[BaseException], name: str, kind: str, revision: str | None) -> str:
    """The message for a chain of errors, outermost first."""
    from huggingface_hub import errors as hf

    def among(*types: type) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    numbers = {getattr(cause, "errno", None) for cause in causes}
    status, said = _answer(causes)
    if numbers & set(FULL) or any("No space left on device" in str(cause) for cause in causes):
        return str(disk_full(name, kind))
    if among(hf.GatedRepoError):
        return _gated(name, kind)
    if among(hf.RevisionNotFoundError):
        return (
            f"The {kind} '{name}' has no revision '{revision or 'main'}'. Check its *_REVISION in config.py; None "
            "means the newest. If it is the one the databases were made with, --rebuild makes the vectors anew."
        )
    if among(hf.HFValidationError):
        return f"'{name}' is no name that a {kind} can have on the Hub ('owner/name'). Check the spelling in config.py."
    if status == 401 and ("credentials" in said or not among(hf.RepositoryNotFoundError)):
        return (
            f"The Hub did not accept the token for '{name}' ({token_state()}). Make a new one at {TOKEN_PAGE}, then: "
            "python setup_token.py"
        )
    if among(hf.RepositoryNotFoundError):
        return (
            f"The Hub has no {kind} '{name}', or it is private. Check the spelling in config.py; for a private one, "
            f"log in with: python setup_token.py ({token_state()}; tokens: {TOKEN_PAGE})"
        )
    if status == 403:
        return f"{_gated(name, kind)} The Hub says: {said or 'forbidden'}"
    if status is not None:
        return f"The {kind} '{name}' cannot be fetched: the Hub answered with status {status}. {said} Try again later."
    if among(ConnectionError, TimeoutError, hf.LocalEntryNotFoundError) or any(map(_from_http_client, causes)):
        return str(unreachable(f"The {kind} '{name}'", _first_line(causes[-1])))
    if numbers & set(READ_ONLY):
        return f"The {kind} '{name}' cannot be stored or read: {_first_line(causes[0])}. Check HF_HOME's permissions."
    return f"The {kind} '{name}' cannot be loaded: {_first_line(causes[0])}"


def _gated(name: str, kind: str) -> str:
    return (
        f"The {kind} '{name}' is gated ({token_state()}). Accept its licence at {licence_page(name, kind)} with your "
        f"Hugging Face account, make a token that may read it at {TOKEN_PAGE}, then run: python setup_token.py"
    )


def _answer(causes: list[BaseException]) -> tuple[int | None, str]:
    """The HTTP status among `causes` and what the Hub said with it."""
    for cause in causes:
        response = getattr(cause, "response", None)
        if response is not None:
            return response.status_code, response.headers.get("X-Error-Message", "")
    return None, ""


def _from_http_client(error: BaseException) -> bool:
    """Whether huggingface_hub's HTTP client raised it: a failed connection, which is no ConnectionError there."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
