"""Requests to a server: tried again while that may help, and what ends them explained."""

import itertools
import re
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple, TypeVar

from support.errors import PipelineError, ServerError, causes
from support.text import without_credentials

Answer = TypeVar("Answer")

ATTEMPTS = 6  # of a request: 31 seconds of waiting in all
FIRST_WAIT = 1.0  # seconds; doubled each time
GIVE_UP_SECONDS = 600.0  # after which nothing is tried again
REMEDY = (
    "Start it, or correct VLM_SERVER (--vlm-server); with None captions are written on this "
    "machine. What was done is saved."
)


class Failure(NamedTuple):
    """Why a request has no answer."""

    text: str
    passes: bool = False  # the same request may succeed later
    of_image: bool = False  # another image may fare better
    wait: float = 0.0  # seconds that the server asks to wait

    def error(self) -> PipelineError:
        """As an error: a ServerError if no other image would fare better."""
        return PipelineError(self.text) if self.of_image else ServerError(self.text)


def persist(
    request: Callable[[], Answer], server: str, stop: threading.Event, attempts: int = ATTEMPTS
) -> Answer:
    """The answer of `server`, an address, to a request; tried again while it may yet come.

    At most `attempts` times, with growing pauses or those that the server asks for, and not after
    GIVE_UP_SECONDS. Raises ServerError, also when `stop` is set meanwhile, or PipelineError where
    another image may fare better.
    """
    start = time.monotonic()
    for attempt in itertools.count(1):
        try:
            return request()
        except Exception as error:  # the client's, the HTTP library's, or of parsing
            failure = explain(error, f"The VLM server {without_credentials(server)}")
            pause = max(failure.wait, FIRST_WAIT * 2 ** (attempt - 1))
            late = time.monotonic() + pause > start + GIVE_UP_SECONDS
            if not failure.passes or attempt >= attempts or late or stop.wait(pause):
                raise failure.error() from error
    raise AssertionError("unreachable")


def explain(error: Exception, server: str) -> Failure:
    """What an error says of the request, `server` being its name in a sentence."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    for cause in causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return Failure(
                f"{server} is not asked: with HF_HUB_OFFLINE set, huggingface_hub's client sends "
                "nothing to any server. Unset it; models in the local cache are used all the same."
            )
        if isinstance(cause, TimeoutError | httpx2.TimeoutException):
            text = f"{server} does not answer in time. If it is only slow, lower VLM_BATCH_SIZE."
            return Failure(f"{text} {REMEDY}", passes=True)
        if isinstance(cause, httpx2.TransportError):
            return Failure(f"{server} cannot be reached: {cause}. {REMEDY}", passes=True)
        if getattr(cause, "response", None) is not None:
            return _refusal(cause.response, server)  # type: ignore[attr-defined]
    return Failure(
        f"{server} gives an answer that is none ({type(error).__name__}). VLM_SERVER must be the "
        "address of an OpenAI-compatible server, such as http://host:8000/v1.",
        of_image=True,
    )


def _refusal(response: Any, server: str) -> Failure:
    """What an HTTP status of 400 or more means."""
    status = response.status_code
    if status in (401, 403):  # without the server's words: they may quote the key
        return Failure(
            f"{server} refuses access (status {status}). Set the environment variable "
            "VLM_SERVER_KEY to a key that it accepts."
        )
    said = f"{server} answers with status {status}{_words(response)}"
    if status in (404, 405):
        return Failure(
            f"{said}. The address (VLM_SERVER, --vlm-server) or the model's name (VLM_MODEL_NAME, "
            "--vlm-model) is wrong."
        )
    pause = _asked_pause(response.headers.get("Retry-After", ""))
    asked = f" It asks to wait {pause:.0f} seconds." if pause else ""
    if status in (408, 429, 502, 503, 504):
        text = f"{said}: it is busy or not ready.{asked} Try again later; what was done is saved."
        return Failure(text, passes=True, wait=pause)
    # A server may answer 500 for one image that it cannot read, and for all when it is broken.
    name = "" if status >= 500 else " Is VLM_MODEL_NAME (--vlm-model) a model that it has?"
    text = f"{said}.{asked}{name} Its log may say more."
    return Failure(text, passes=status >= 500, of_image=True, wait=pause)


def _words(response: Any) -> str:
    """What the server says with a refusal, as a part of a sentence; empty for a page of HTML."""
    body = " ".join(response.text.split())
    told = re.search(r'"(?:message|detail|error)": ?"((?:[^"\\]|\\.)+)"', body)
    words = told[1] if told else body
    return "" if not words or words.startswith("<") else f" ('{words[:200]}')"


def _asked_pause(header: str) -> float:
    """The seconds of a Retry-After header, which holds a number or a date; 0 for anything else."""
    try:
        if re.fullmatch(r"[0-9]{1,9}", header):
            return float(header)
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
