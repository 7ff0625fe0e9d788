"""An OpenAI-compatible server on 127.0.0.1 that answers as a test wants it to."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

MODEL = "org/tiny-vlm"


@dataclass(frozen=True)
class Reply:
    """What is sent back, after so many seconds; without a body the connection is cut."""

    status: int = 200
    body: Any = None  # bytes, or anything else as JSON
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """What has arrived."""

    path: str
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]  # empty for a GET

    @property
    def image(self) -> Image.Image:
        url = self.body["messages"][0]["content"][0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"][1]["text"]


def completion(text: Any, prompt_tokens: int = 90, seconds: float = 0.0) -> Reply:
    """A chat completion as vLLM sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 9}
    return Reply(body={"id": "1", "choices": [choice], "usage": usage}, seconds=seconds)


def colour_of(request: Request) -> Reply:
    """A caption that tells images apart: the colour of the first pixel."""
    return completion("colour {} {} {}".format(*request.image.getpixel((0, 0))))


def model_list(*names: str) -> Reply:
    return Reply(body={"object": "list", "data": [{"id": name} for name in names]})


class VlmServer:
    """`with VlmServer() as server: server.url`; `answer` and `models` may change at any time."""

    def __init__(self, answer: Callable[[Request], Reply] = colour_of, port: int = 0):
        self.answer = answer
        self.models = model_list(MODEL)
        self.requests: list[Request] = []
        self.at_once = 0  # the most completions that were asked for at one time
        self._open = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "VlmServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def completions(self) -> list[Request]:
        return [request for request in self.requests if request.path == "/v1/chat/completions"]

    def reply_to(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
        if request.path == "/v1/models":
            return self.models
        if request.path != "/v1/chat/completions":
            return Reply(404, {"detail": "Not Found"})
        with self._lock:
            self._open += 1
            self.at_once = max(self.at_once, self._open)
        try:
            reply = self.answer(request)
            time.sleep(reply.seconds)
        finally:
            with self._lock:
                self._open -= 1
        return reply


class _Handler(BaseHTTPRequestHandler):
    owner: VlmServer

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body: dict[str, Any]) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.owner.reply_to(Request(self.path, headers, body))
        if reply.body is None:
            self.close_connection = True
            return
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client has given up
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass
