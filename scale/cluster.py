"""Ray: started on this machine, or joined; how its processors are shared; its errors."""

import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import config
from support.errors import PipelineError, SettingError
from support.log import silence

LEFT_CPUS = 2  # of Ray: one for reading, one for the filter of what is finished
SMALL_BLOCK = 8 * 2**20  # bytes: what passes between Ray's tasks is saved in such parts
SECONDS_TO_CONNECT = 10.0
TRIES = 3
AGAIN = "What was done is saved: run the same command again to go on."
NOT_SENT = [".git", ".venv", "databases", "results", "demo/.cache", "docs", "tests"]


def check_packages() -> None:
    """Raises PipelineError, with the line to run, without the packages that this program needs."""
    missing = [name for name in ("ray", "pymilvus") if find_spec(name) is None]
    if missing:
        raise PipelineError(
            f"scale needs {' and '.join(missing)}. Run: python -m pip install -r "
            "requirements-scale.txt"
        )


def start() -> None:
    """Joins the Ray cluster that RAY_ADDRESS names, or starts Ray here, for this machine alone.

    Before anything connects to Milvus: Ray's processes are forked off, and where gRPC has threads,
    some never began to run.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what it logs is raised too
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Bound to 127.0.0.1, as everywhere but on Linux; read when ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray
    from ray.data import DataContext

    project = str(Path(config.__file__).resolve().parent)
    here: dict[str, Any] = {"working_dir": project, "excludes": NOT_SENT}
    options: dict[str, Any] = {}
    if not address:
        paths = os.pathsep.join(filter(None, (project, os.environ.get("PYTHONPATH"))))
        here = {"env_vars": {"PYTHONPATH": paths}}
        cpus = max(LEFT_CPUS + 1, os.cpu_count() or 1)  # reading mostly waits for the disk
        options = {"address": "local", "include_dashboard": False, "num_cpus": cpus}
    here["worker_process_setup_hook"] = _with_these_settings()
    try:
        _probe(address)
        with _no_stderr():  # where it says what level it logs at
            ray.init(logging_level=logging.ERROR, log_to_driver=False, runtime_env=here, **options)
    except Exception as error:  # ConnectionError, RuntimeError, ValueError, or plain Exception
        where = f"at RAY_ADDRESS, '{address}'," if address else "on this machine"
        raise PipelineError(
            f"Ray {where} cannot be used: {str(error).rstrip('.')}. Run again; if a cluster asks "
            "for a token, give RAY_AUTH_MODE=token to the programs and to `ray start` alike."
        ) from error
    silence("ray.data")
    context = DataContext.get_current()
    context.enable_progress_bars = config.SHOW_PROGRESS and sys.stderr.isatty()
    context.target_max_block_size = SMALL_BLOCK


def _with_these_settings() -> Callable[[], None]:
    """What gives a process of Ray the settings of this one: flags change them."""
    settings = {name: value for name, value in vars(config).items() if name.isupper()}
    settings["SHOW_PROGRESS"] = False

    def share_settings() -> None:
        vars(config).update(settings)

    return share_settings


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drops what is written to stderr, by libraries in C++ too; errors are raised all the same."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _probe(address: str | None) -> None:
    """Raises OSError where nothing listens at host:port: Ray would try for two minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()


def worker_options(workers: int | None, gpus: float) -> dict[str, Any]:
    """How many workers there are, and what Ray reserves for each, as map_batches takes it.

    By default as many as there is room for, with CPUs left for reading: without one, Ray would wait
    for ever. Raises SettingError for more than there is room for.
    """
    import ray
    from ray.data import ActorPoolStrategy

    there = ray.cluster_resources()
    cpus, cards = int(there.get("CPU", 0)) - LEFT_CPUS, there.get("GPU", 0)
    most = min(cpus, int(cards / gpus)) if gpus else cpus
    if most < 1 or (workers or 1) > most:
        raise SettingError(
            f"--workers is {workers or 1} and --gpus {gpus:g}; Ray has {max(0, cpus)} CPUs beside "
            f"the {LEFT_CPUS} that are left for reading, and {cards:g} GPUs: room for "
            f"{max(0, most)} workers."
        )
    count = workers or most
    pool = ActorPoolStrategy(size=count)
    return {"compute": pool, "num_cpus": cpus // count, "num_gpus": gpus}


@contextmanager
def errors_explained(attempts: Any) -> Iterator[None]:
    """Raises what stopped a worker, and Ray's own errors, as a PipelineError.

    `attempts` is a handle of `Attempts`. Ray's work ends with it. What Ray prints goes to stderr:
    stdout is for results.
    """
    import ray

    with redirect_stdout(sys.stderr):
        try:
            yield
        except (ray.exceptions.RayError, ray.data.exceptions.UserCodeException) as error:
            raise _explained(error, attempts) from error
        finally:
            ray.shutdown()


def _explained(error: Exception, attempts: Any) -> PipelineError:
    import ray

    with suppress(ray.exceptions.RayError):
        if failure := ray.get(attempts.failure.remote(), timeout=SECONDS_TO_CONNECT):
            return PipelineError(failure)
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return PipelineError(f"Ray failed: {last[:500].rstrip('.')}. {AGAIN}")


@contextmanager
def failure_handed_on(attempts: Any) -> Iterator[None]:
    """Tells `attempts` what stops a worker: on its way through Ray an error loses its causes."""
    import ray

    try:
        yield
    except Exception as error:
        failed = f"A worker failed: {type(error).__name__}: {str(error)[:500]}. {AGAIN}"
        text = str(error) if isinstance(error, PipelineError) else failed
        ray.get(attempts.fail.remote(text))
        raise


# --- What kills its process -----------------------------------------------------------------------
class Attempts:
    """Counts how often work on an image was begun and not ended: its process was killed then.

    Keeps what stopped a worker, too. It lives in a process of its own, which no image can kill.
    """

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._failure = ""

    def fail(self, text: str) -> None:
        """A worker stops with this error."""
        self._failure = text

    def failure(self) -> str:
        """What stopped a worker; "" while nothing has."""
        return self._failure

    def counts(self, ids: Collection[str]) -> dict[str, int]:
        """How often work on each of `ids` was begun in vain; only those where it was."""
        return {name: self._begun[name] for name in ids if self._begun[name]}

    def begin(self, ids: Collection[str]) -> None:
        """Work on these begins."""
        self._begun.update(ids)

    def end(self, ids: Collection[str]) -> None:
        """Work on these has ended, however."""
        for name in ids:
            self._begun.pop(name, None)


def new_attempts() -> Any:
    """A handle of `Attempts` that workers on any machine can use."""
    import ray

    return ray.remote(Attempts).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
