"""Whether the Hub answers: found out once, within seconds."""

import threading
from functools import lru_cache
from typing import Any

PROBE_SECONDS = 5.0  # how long finding out whether the Hub answers may take
ANSWER_SECONDS = 15.0  # how long any answer of the Hub may take


def probe_hub() -> str:
    """Asks the Hub for an answer; why there is none, in words, or an empty string.

    Takes at most PROBE_SECONDS. A good answer is remembered for the life of the process, and from
    now on no request waits for ever.
    """
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["request"]
    if _limit_waiting not in hooks:
        hooks.append(_limit_waiting)
    reason = _probe()
    if reason:
        _probe.cache_clear()  # the connection may come back while a notebook is open
    return reason


@lru_cache(maxsize=1)
def _probe() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answers: list[str] = []

    def ask() -> None:
        answers.append(_head(constants.ENDPOINT))

    # A name server that does not answer blocks the look-up beyond any timeout of the request.
    probe = threading.Thread(target=ask, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    if answers:
        return answers[0]
    return f"{constants.ENDPOINT}: no answer within {PROBE_SECONDS:.0f} seconds"


def _head(endpoint: str) -> str:
    """What keeps `endpoint` from answering, in words; empty if it answers."""
    from huggingface_hub import get_session

    try:
        status = get_session().head(endpoint, timeout=PROBE_SECONDS).status_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the Hub is out of reach: reported
        return f"{endpoint}: {str(error) or type(error).__name__}"
    return f"{endpoint}: status {status}" if status >= 500 else ""


def _limit_waiting(request: Any) -> None:
    """Gives a request that would wait for ever (some of huggingface_hub's do) a limit."""
    timeouts = request.extensions["timeout"].items()
    limits = {phase: seconds or ANSWER_SECONDS for phase, seconds in timeouts}
    request.extensions = {**request.extensions, "timeout": limits}
