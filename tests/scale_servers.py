"""Real Milvus servers on loopback, in virtual environments of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
import venv
from contextlib import closing
from pathlib import Path

import pytest
from platformdirs import user_cache_path

# Their requirements are others than the project's.
MILVUS, LITE = ("milvus==2.3.5",), ("milvus-lite==3.2.2", "pymilvus==3.0.2")
PREPARE = """
import sys
from milvus import MilvusServer, MilvusServerConfig, _initialize_data_files
config = MilvusServerConfig(data_dir=sys.argv[1], proxy_port=int(sys.argv[2]))
MilvusServer(config)
config.resolve()
_initialize_data_files(config.base_data_dir)
"""


def environment(name: str, requirements: tuple[str, ...]) -> Path:
    """The bin folder of a virtual environment; skips the test where it cannot be filled."""
    folder = user_cache_path("retrieval-augmented-captioning", appauthor=False) / f"tests-{name}"
    done = folder / "done.txt"
    if not done.exists() or done.read_text() != " ".join(requirements):
        venv.create(folder, with_pip=True, clear=True)
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"{' and '.join(requirements)} cannot be installed")
        done.write_text(" ".join(requirements))
    return folder / "bin"


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


class Server:
    """A server process that can be killed and started again on the same port and data."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._prepare()
        self.start()

    def _prepare(self) -> None:
        """Before the first start."""

    def _command(self) -> list[str | Path]:
        raise NotImplementedError

    def start(self) -> None:
        """Starts the server, and waits until it accepts connections."""
        with (self.folder / "log.txt").open("ab") as log:
            options = {"cwd": self.folder, "env": self._environment()}
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log, **options)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until and self._process.poll() is None, self.folder
                time.sleep(0.2)

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class MilvusServer(Server):
    """The server of the PyPI package `milvus`, in C++ and Go.

    Its own launcher takes another port after a kill, so it prepares the folder only. The server
    cannot be told to listen on 127.0.0.1 alone.
    """

    def _prepare(self) -> None:
        python = environment("milvus", MILVUS) / "python"
        subprocess.run([python, "-c", PREPARE, self.folder, str(self.port)], check=True)

    def _command(self) -> list[str | Path]:
        return [self.folder / "bin" / "milvus", "run", "standalone"]

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        own = {"MILVUS_RUN_DIR": f"{folder}/run", "LD_LIBRARY_PATH": f"{folder}/bin"}
        ports = {"DEPLOY_MODE": "STANDALONE", "METRICS_PORT": str(free_port())}
        return {**os.environ, **own, **ports}


class LiteServer(Server):
    """Milvus Lite's server, in Python, with today's protocol."""

    def _command(self) -> list[str | Path]:
        lite = environment("milvus-lite", LITE) / "milvus-lite"
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [lite, "server", "--data-dir", self.folder / "data", *where]


def scale(*arguments: str | Path, **options) -> subprocess.Popen:
    """`python -m scale ...` with the demo's models, begun."""
    root = Path(__file__).resolve().parent.parent
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "scale", *map(str, arguments), "--mode", "demo"]
    return subprocess.Popen(command, cwd=root, **pipes, **options)


def run_scale(*arguments: str | Path, timeout: float = 240) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m scale ...`."""
    process = scale(*arguments)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, stdout, stderr
