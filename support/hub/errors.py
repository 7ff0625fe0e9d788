"""What the Hugging Face Hub, its cache or a model folder raises, explained with the remedy."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from support.errors import HubError, PipelineError, causes
from support.hub.token import HUB_PAGES, TOKEN_PAGE, token_state

FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def errors_explained(name: str, kind: str, revision: str | None = None) -> Iterator[None]:
    """Turns whatever is raised about the `kind` ("model" or "dataset") `name` into a HubError."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # each library has errors of its own
        raise HubError(_explain(Failure(name, kind, revision, list(causes(error))))) from error


def licence_page(name: str, kind: str = "model") -> str:
    """The Hub page where the licence of a gated model or dataset is accepted."""
    return f"{HUB_PAGES}/{'datasets/' if kind == 'dataset' else ''}{name}"


def unreachable(what: str, reason: str) -> HubError:
    """The error when `what` is not in the cache and the Hub does not answer."""
    return HubError(
        f"{what} cannot be fetched: the Hugging Face Hub does not answer ({reason}), and the local "
        "cache does not hold all of it. Connect to the internet and run again (complete files are "
        "kept), or use --mode demo."
    )


def disk_full(name: str, kind: str, needed: str = "") -> HubError:
    """The error when a model or dataset does not fit on the disk."""
    return HubError(
        f"The disk is full: no room for the {kind} '{name}'{needed}. Free some, or set HF_HOME to "
        "a folder on a larger disk; complete files are kept."
    )


@dataclass(frozen=True)
class Failure:
    """What failed, and the chain of errors, outermost first."""

    name: str
    kind: str
    revision: str | None
    causes: Sequence[BaseException]

    def among(self, *types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in self.causes)

    def has_errno(self, numbers: Sequence[int]) -> bool:
        return any(getattr(cause, "errno", None) in numbers for cause in self.causes)


def _explain(failure: Failure) -> str:
    """The message for a failure: of the disk, the Hub's answer, the connection, or another."""
    for explain in (_explain_disk, _explain_answer, _explain_connection):
        message = explain(failure)
        if message is not None:
            return message
    first = _first_line(failure.causes[0])
    return f"The {failure.kind} '{failure.name}' cannot be loaded: {first}"


def _explain_disk(failure: Failure) -> str | None:
    full = any("No space left on device" in str(cause) for cause in failure.causes)
    if failure.has_errno(FULL) or full:
        return str(disk_full(failure.name, failure.kind))
    return None


def _explain_answer(failure: Failure) -> str | None:
    """What the Hub's answer means; None without one."""
    from huggingface_hub import errors as hf

    name, kind, among = failure.name, failure.kind, failure.among
    status, said = _answer(failure.causes)
    if among(hf.GatedRepoError):
        return _gated(name, kind)
    if among(hf.RevisionNotFoundError):
        return (
            f"The {kind} '{name}' has no revision '{failure.revision or 'main'}'. Check its "
            "*_REVISION in config.py; None means the newest. If it is the one the databases were "
            "made with, --rebuild recomputes the vectors."
        )
    if among(hf.HFValidationError):
        return (
            f"'{name}' is no name that a {kind} can have on the Hub ('owner/name'). Check the "
            "spelling in config.py."
        )
    if status == 401 and ("credentials" in said or not among(hf.RepositoryNotFoundError)):
        return (
            f"The Hub did not accept the token for '{name}' ({token_state()}). Create a new one at "
            f"{TOKEN_PAGE}, then: python setup_token.py"
        )
    if among(hf.RepositoryNotFoundError):
        return (
            f"The Hub has no {kind} '{name}', or it is private. Check the spelling in config.py; "
            f"for a private one, log in with: python setup_token.py ({token_state()}; tokens: "
            f"{TOKEN_PAGE})"
        )
    if status == 403:
        return f"{_gated(name, kind)} The Hub says: {said or 'forbidden'}"
    if status is not None:
        return (
            f"The {kind} '{name}' cannot be fetched: the Hub answered with status {status}. {said} "
            "Try again later."
        )
    return None


def _explain_connection(failure: Failure) -> str | None:
    from huggingface_hub import errors as hf

    what = f"The {failure.kind} '{failure.name}'"
    lost = failure.among(ConnectionError, TimeoutError, hf.LocalEntryNotFoundError)
    if lost or any(map(_from_http_client, failure.causes)):
        return str(unreachable(what, _first_line(failure.causes[-1])))
    if failure.has_errno(READ_ONLY):
        first = _first_line(failure.causes[0])
        return (
            f"{what} cannot be stored or read: {first}. Check the permissions there, or set "
            "HF_HOME to another folder."
        )
    return None


def _gated(name: str, kind: str) -> str:
    return (
        f"The {kind} '{name}' is gated ({token_state()}). Accept its licence at "
        f"{licence_page(name, kind)} with your Hugging Face account, create a token that may read "
        f"it at {TOKEN_PAGE}, then run: python setup_token.py"
    )


def _answer(causes: Sequence[BaseException]) -> tuple[int | None, str]:
    """The HTTP status among `causes` and what the Hub said with it."""
    for cause in causes:
        response = getattr(cause, "response", None)
        if response is not None:
            return response.status_code, response.headers.get("X-Error-Message", "")
    return None, ""


def _from_http_client(error: BaseException) -> bool:
    """Whether huggingface_hub's HTTP client raised it: its errors are no ConnectionError."""
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
