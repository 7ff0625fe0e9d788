"""Captions by an OpenAI-compatible server: vLLM, SGLang, llama.cpp, transformers serve.

The key comes from the environment variable VLM_SERVER_KEY. Without one a dummy is sent:
huggingface_hub's client would send the user's Hugging Face token.
"""

import base64
import io
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from PIL import Image

import config
from support.errors import PipelineError, ServerError, SettingError
from support.hub.names import is_local
from support.hub.token import looks_like_token
from support.log import log
from support.records import ModelRef
from support.server.retries import ATTEMPTS, persist
from support.text import clean_text, first_few, without_credentials
from support.threads import in_daemon_threads

KEY_VARIABLE = "VLM_SERVER_KEY"
DUMMY_KEY = "no-key"
CONNECT_SECONDS = 10.0
LIST_SECONDS = 15.0  # for the list of models
LIST_ATTEMPTS = 3
ANSWER_SECONDS = 300.0  # for a caption, with those before it in the server's queue
MOST_REQUESTS = 100  # at once: huggingface_hub's client opens no more connections
MOST_TOKENS = 600  # of an image in one piece: LLaVA has 576, SmolVLM 64 or 81


class Written(NamedTuple):
    """What the server has written for an image, and how many tokens it read for that."""

    caption: str
    prompt_tokens: int | None


class ServedCaptioner:
    """A VLM of a server; offers what a local Captioner offers."""

    takes_prompt = True

    def __init__(self, ref: ModelRef):
        assert ref.server is not None
        self._model, self._server = ref.path, ref.server
        self._warned = False

    def shown(self, prompts: Sequence[str]) -> list[str | None]:
        """The prompts that the model is shown: all of them."""
        return list(prompts)

    def write_captions(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """One caption for each RGB image with its prompt; config.VLM_BATCH_SIZE requests at once.

        Raises ServerError where no other image would fare better, PipelineError for an image that
        gets no caption.
        """
        pairs = list(zip(images, prompts, strict=True))
        count = min(config.VLM_BATCH_SIZE, MOST_REQUESTS)
        written = []
        for answer in in_daemon_threads(self._write, pairs, count):
            if isinstance(answer, PipelineError):
                raise self._blamed(answer)
            written.append(answer)
        for prompt, answer in zip(prompts, written, strict=True):
            self._warn_of_tiles(prompt, answer.prompt_tokens)
        if not all(answer.caption for answer in written):
            raise PipelineError(
                f"The VLM server {self._shown_server()} wrote no text for an image."
            )
        return [answer.caption for answer in written]

    def _write(
        self, pair: tuple[Image.Image, str], stop: threading.Event, attempts: int = ATTEMPTS
    ) -> Written | PipelineError:
        """What the server writes for an image, or why it has no answer for this one."""
        client, message, sampling = _client(self._server), _message(*pair), _sampling()

        def request() -> Written:
            output = client.chat_completion([message], model=self._model, **sampling)
            text = output.choices[0].message.content or ""
            tokens = output.usage.prompt_tokens if output.usage else None
            return Written(" ".join(clean_text(text).split()), tokens)

        try:
            return persist(request, self._server, stop, attempts)
        except ServerError:
            _served_name.cache_clear()  # it may come back with another model
            raise
        except PipelineError as error:
            return error

    def _blamed(self, failure: PipelineError) -> PipelineError:
        """`failure` at an image; as a ServerError, if the server fails at a plain picture too."""
        plain = Image.new("RGB", (64, 64), "gray"), config.PROMPT_WITHOUT_CONTEXT
        answer = self._write(plain, threading.Event(), attempts=1)
        return ServerError(str(failure)) if isinstance(answer, PipelineError) else failure

    def _warn_of_tiles(self, prompt: str, tokens: Any) -> None:
        """Warns once if the server has read more tokens than text and one image can have."""
        # English has a token in 4 characters or so, other scripts at most one in a byte.
        text = len(prompt) // 3 if prompt.isascii() else len(prompt.encode())
        of_image = tokens - text if isinstance(tokens, int) else 0
        if of_image > MOST_TOKENS and not (self._warned or config.VLM_IMAGE_SPLITTING):
            self._warned = True
            log.warning(
                "The VLM server %s reads some %d tokens for an image: it seems to cut images into "
                "tiles, which takes many times as long. That cannot be turned off from here "
                "(VLM_IMAGE_SPLITTING is for local models); vLLM has the option "
                "--mm-processor-kwargs '{\"do_image_splitting\": false}'.",
                self._shown_server(),
                of_image,
            )

    def _shown_server(self) -> str:
        return without_credentials(self._server)


def _message(image: Image.Image, prompt: str) -> dict[str, Any]:
    """A chat message with the image as a PNG data URL: the very pixels, and nothing else of it."""
    pixels, file = image.copy(), io.BytesIO()
    pixels.info = {}  # what the photo's file said of place, camera and colours
    pixels.save(file, "PNG", compress_level=1)  # as exact as any, and quick
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    return {"role": "user", "content": content}


def _sampling() -> dict[str, Any]:
    """What a request says of sampling: greedy unless config.TEMPERATURE differs."""
    sampling = {"max_tokens": config.MAX_NEW_TOKENS, "temperature": config.TEMPERATURE}
    if config.TEMPERATURE > 0:
        sampling["seed"] = config.RANDOM_SEED
    return sampling


@lru_cache(maxsize=1)
def load_served_captioner(ref: ModelRef) -> ServedCaptioner:
    """The client for the server of `ref`, one per process: it warns once."""
    return ServedCaptioner(ref)


# --- The server and its models --------------------------------------------------------------------
def served_model(address: str) -> ModelRef:
    """The model of the server at `address`: named with the address, without a revision.

    The server is asked once per process which models it has. Raises ServerError, and SettingError
    when config.VLM_MODEL_NAME is none of several.
    """
    server = _base_address(address)
    name = _served_name(server, config.VLM_MODEL_NAME)
    return ModelRef(f"{name} @ {without_credentials(server)}", name, server=server)


def _base_address(address: str) -> str:
    """`address` up to its "/v1", which may be left out."""
    url = urlsplit(address)
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit(url._replace(path=path if path.endswith("/v1") else path + "/v1"))


@lru_cache(maxsize=8)
def _served_name(server: str, wanted: str) -> str:
    """The model to ask for: `wanted` where the server has it, or else its only one."""
    listed = _listed_models(server)
    # `transformers serve` lists what its cache holds, and takes the name of a folder all the same.
    if wanted in listed or not listed or (len(listed) > 1 and is_local(wanted)):
        return wanted
    shown = without_credentials(server)
    if len(listed) > 1:
        raise SettingError(
            f"VLM_MODEL_NAME (--vlm-model) is '{wanted}', but the VLM server {shown} has: "
            f"{first_few(listed)}. Set it to one of them."
        )
    log.info("Captions are written by '%s', the model that %s has.", listed[0], shown)
    return listed[0]


def _listed_models(server: str) -> list[str]:
    """The names of the models that a server lists; none where it fails to make a list."""
    import httpx2
    from huggingface_hub.utils import get_session, hf_raise_for_status

    headers = {"authorization": f"Bearer {_key()}"}
    timeout = httpx2.Timeout(LIST_SECONDS, connect=CONNECT_SECONDS)

    def request() -> list[str]:
        response = get_session().get(f"{server}/models", headers=headers, timeout=timeout)
        if response.status_code == 500:  # `transformers serve` where there is no cache folder
            return []
        hf_raise_for_status(response)
        names = [clean_text(model["id"]) for model in response.json()["data"]]
        return list(dict.fromkeys(names))

    try:
        return persist(request, server, threading.Event(), LIST_ATTEMPTS)
    except ServerError:
        raise
    except PipelineError as error:
        raise ServerError(str(error)) from error


def _client(server: str) -> Any:
    """A client for `server`; it holds no connection of its own."""
    import httpx2
    from huggingface_hub import InferenceClient

    timeout: Any = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    return InferenceClient(base_url=server, api_key=_key(), timeout=timeout)


def _key() -> str:
    """The key for the server, never the Hugging Face token. Raises SettingError for no key."""
    key = os.environ.get(KEY_VARIABLE, "").strip() or DUMMY_KEY
    if not looks_like_token(key):  # the HTTP client's error would quote it
        raise SettingError(
            f"The environment variable {KEY_VARIABLE} cannot hold a key: it has spaces or unusual "
            "characters. Set it to the key of the VLM server, or unset it."
        )
    return key
