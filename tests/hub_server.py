"""A Hugging Face Hub on 127.0.0.1 that serves folders to huggingface_hub.

Describes repositories, lists their trees, resolves files with ETag and commit headers, serves
ranges, sends large files by a redirect to another origin (as the Hub does with its CDN), and
refuses as the Hub does: 401, 403 and 404 with its X-Error-Code. Every request is recorded; faults
can be switched on.
"""

import hashlib
import json
import re
import shutil
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# kept outside git, behind a redirect
LARGE = (".safetensors", ".bin", ".parquet", ".h5", ".msgpack", ".onnx")
TOKEN_PATTERN = re.compile(r"Bearer (\S+)")


@dataclass
class Repository:
    """One repository: its commits, oldest first, each a folder of files."""

    commits: dict[str, Path] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # branch or tag -> commit
    gated: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None
    range: str | None
    host: str


class Hub:
    """The server and what it serves; `with Hub(folder) as hub: hub.url`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.members: dict[str, set[str]] = {}  # token -> the gated repositories it opens
        self.requests: list[Request] = []
        # file name -> bytes after which its next download breaks off
        self.cut_after: dict[str, int] = {}
        self.silent = ""  # what is asked of these paths (a pattern) is never answered
        # paths (a pattern) -> status and message of the answer
        self.refusals: dict[str, tuple[int, str]] = {}
        self.down = False  # answer 503
        self.tells_sizes = True  # of files, and how many numbers a model has
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self})
        )
        self._server.daemon_threads = True
        self._stop = threading.Event()
        self._connections: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on connections are refused."""
        if not self._stop.is_set():
            self._stop.set()
            self._server.shutdown()
            self._server.server_close()
            for connection in list(self._connections):  # those that clients keep for later
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def publish(self, name: str, source: Path, kind: str = "model", gated: bool = False) -> str:
        """A new commit on main, with the files of `source`; its number."""
        digest = hashlib.sha1(name.encode())
        for path in sorted(source.rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(source).as_posix().encode() + path.read_bytes())
        commit = digest.hexdigest()
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.gated = repository.gated or gated
        if commit not in repository.commits:
            repository.commits[commit] = self.folder / kind / name / commit
            shutil.copytree(source, repository.commits[commit])
        repository.names["main"] = commit
        return commit

    def asked(self, pattern: str) -> list[Request]:
        """The requests so far whose "METHOD path" holds `pattern`."""
        return [
            request
            for request in self.requests
            if re.search(pattern, f"{request.method} {request.path}")
        ]


class _Handler(BaseHTTPRequestHandler):
    """Routes a request; `hub` is set in a subclass for each server."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    ROUTES = (
        (r"/", "_root"),
        (r"/api/whoami-v2", "_whoami"),
        (r"/api/(models|datasets)/([^/]+/[^/]+)/auth-check", "_auth_check"),
        (r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", "_info"),
        (r"/api/(models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", "_tree"),
        (r"/(datasets/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "_resolve"),
        (r"/cdn/(.+)", "_cdn"),
    )

    def setup(self) -> None:
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.hub._connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        found = TOKEN_PATTERN.match(self.headers.get("Authorization", ""))
        self.token = found and found[1]
        self.hub.requests.append(
            Request(
                self.command,
                self.path,
                self.token,
                self.headers.get("Range"),
                self.headers.get("Host", ""),
            )
        )
        refusals = [
            answer for pattern, answer in self.hub.refusals.items() if re.match(pattern, path)
        ]
        if self.hub.silent and re.match(self.hub.silent, path):
            self.hub._stop.wait(120)
            self.close_connection = True
        elif self.hub.down:
            self._send(503, b"down for maintenance")
        elif refusals:
            self._refuse(refusals[0][0], None, refusals[0][1])
        elif self.token and self.token not in self.hub.members:
            self._refuse(401, None, "Invalid credentials in Authorization header")
        else:
            for pattern, name in self.ROUTES:
                match = re.fullmatch(pattern, path)
                if match:
                    return getattr(self, name)(*match.groups())
            self._refuse(404, None, f"no such route: {path}")

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass

    # --- Answers ----------------------------------------------------------------------------------
    def _root(self) -> None:
        self._send(200, b"<html>a hub</html>", {"Content-Type": "text/html"})

    def _whoami(self) -> None:
        if not self.token:
            return self._refuse(401, None, "Invalid username or password.")
        access = {"displayName": "reading", "role": "read"}
        self._json(
            {
                "type": "user",
                "name": "somebody",
                "auth": {"type": "access_token", "accessToken": access},
            }
        )

    def _auth_check(self, kind: str, name: str) -> None:
        if self._commit(kind, name, None) and not self._closed(kind, name):
            self._send(200, b"")

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        commit = self._commit(kind, name, revision)
        if commit:
            repository = self._repository(kind, name)
            files = _listing(repository.commits[commit])
            siblings = [
                {"rfilename": f["path"], "size": f["size"], "blobId": f["oid"]} for f in files
            ]
            if not self.hub.tells_sizes:
                siblings = [{"rfilename": f["path"]} for f in files]
            described = {
                "id": name, "modelId": name, "sha": commit, "private": False, "disabled": False,
                "tags": [], "downloads": 1, "likes": 1, "siblings": siblings,
                "gated": "manual" if repository.gated else False,
            }  # fmt: skip
            numbers = _float_counts(repository.commits[commit])
            if numbers and self.hub.tells_sizes:
                described["safetensors"] = {"parameters": numbers, "total": sum(numbers.values())}
            self._json(described)

    def _tree(self, kind: str, name: str, revision: str) -> None:
        commit = self._commit(kind, name, revision)
        if commit:
            self._json(_listing(self._repository(kind, name).commits[commit]))

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> None:
        kind = "datasets" if kind else "models"
        commit = self._commit(kind, name, revision)
        if not commit or self._closed(kind, name):
            return
        path = self._repository(kind, name).commits[commit] / file
        headers = {"X-Repo-Commit": commit}
        if not path.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found", headers)
        elif path.suffix in LARGE:
            content = path.read_bytes()
            headers |= {
                "X-Linked-Size": str(len(content)),
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            }
            # "localhost" is another origin than "127.0.0.1": tokens must not follow
            port = self.server.server_port
            cdn = f"http://localhost:{port}/cdn/{path.relative_to(self.hub.folder).as_posix()}"
            self._send(302, b"", headers | {"Location": cdn})
        else:
            self._file(path, headers | {"ETag": f'"{_oid(path)}"'})

    def _cdn(self, file: str) -> None:
        self._file(self.hub.folder / file, {})

    def _file(self, path: Path, headers: dict[str, str]) -> None:
        content = path.read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, size = int(match[1]) if match else 0, len(content)
        if match:
            headers = headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self._send(206 if match else 200, content[start:], headers, path.name)

    # --- Refusals ---------------------------------------------------------------------------------
    def _repository(self, kind: str, name: str) -> Repository | None:
        return self.hub.repositories.get((kind.removesuffix("s"), name))

    def _commit(self, kind: str, name: str, revision: str | None) -> str | None:
        repository = self._repository(kind, name)
        # without a login, the Hub does not reveal whether a private repository exists
        if repository is None:
            return self._refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        revision = revision or "main"
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _closed(self, kind: str, name: str) -> bool:
        """Whether a gated repository stays closed to this request, which then has its answer."""
        if not self._repository(kind, name).gated or (
            self.token and name in self.hub.members[self.token]
        ):
            return False
        restricted = f"Access to {kind.removesuffix('s')} {name} is restricted"
        if self.token:
            page = f"https://huggingface.co/{name}"
            ask = f"and you are not in the authorized list. Visit {page} to ask for access."
            self._refuse(403, "GatedRepo", f"{restricted} {ask}")
        else:
            ask = "You must have access to it and be authenticated to access it. Please log in."
            self._refuse(401, "GatedRepo", f"{restricted}. {ask}")
        return True

    def _refuse(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        codes = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {**(headers or {}), **codes, "X-Error-Message": message})

    def _json(self, data: object) -> None:
        self._send(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, file: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut_after.pop(file, None)
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _listing(folder: Path) -> list[dict]:
    """The tree of a commit, as the Hub gives it."""
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            entry = {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
            }
            entry["oid"] = _oid(path)
            if path.suffix in LARGE:
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                entry["lfs"] = {"oid": sha256, "size": entry["size"], "pointerSize": 130}
            files.append(entry)
    return files


def _float_counts(folder: Path) -> dict[str, int]:
    """How many numbers of each type the safetensors at the top hold: read from their headers."""
    counts: dict[str, int] = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for tensor in (value for key, value in header.items() if key != "__metadata__"):
            size = 1
            for length in tensor["shape"]:
                size *= length
            counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + size
    return counts
