"""Load a model once per process, on a device, in a dtype; run it in batches that fit the memory."""

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import numpy as np

import config
from support.errors import MemoryShortage, PipelineError, SettingError
from support.hub.errors import errors_explained
from support.log import log
from support.records import ModelRef

LARGEST_DIMENSION = 100_000  # of a vector
SETTING_OF_WORK = {
    "embedding images": "CLIP_MODEL_NAME",
    "embedding texts": "CLIP_MODEL_NAME",
    "captioning": "VLM_MODEL_NAME",
    "embedding captions": "CAPTION_EMBEDDING_MODEL",
}

Model = TypeVar("Model")
Item = TypeVar("Item")
Output = TypeVar("Output")
_loaded: dict[str, tuple[tuple[Any, ...], Any]] = {}  # kind -> (what the load depended on, model)
_sizes_that_fit: dict[str, int] = {}  # work -> batch size, where a larger one ran out of memory


# --- Loading --------------------------------------------------------------------------------------
def load_once(
    kind: str, ref: ModelRef, build: Callable[[str, dict[str, Any], str], Model], *settings: Any
) -> Model:
    """The model of `ref`, loaded by `build(path, from_pretrained_arguments, device)` once.

    `ref` is as `locate` gives it, with the folder of its files. One model of each kind ("clip",
    "vlm", "text", "clip_score") is kept: another name, revision, device, dtype or setting replaces
    it. Raises HubError when it cannot be loaded.
    """
    device = pick_device()
    dtype = pick_dtype(device)
    key = (ref.path, ref.revision, device, dtype, *settings)
    if kind not in _loaded or _loaded[kind][0] != key:
        _loaded.pop(kind, None)  # frees the old one's memory first
        _sizes_that_fit.clear()
        free_memory()
        prepare_libraries()
        with errors_explained(ref.name, "model"):
            _loaded[kind] = (key, build(ref.path, _arguments(dtype), device))
    return cast(Model, _loaded[kind][1])


def _arguments(dtype: str) -> dict[str, Any]:
    """What every from_pretrained call is given: files of a folder only, and never its code."""
    import torch

    return {"dtype": getattr(torch, dtype), "local_files_only": True, "trust_remote_code": False}


def without_dtype(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments for what has no weights, such as a processor."""
    return {key: value for key, value in arguments.items() if key != "dtype"}


def prepare_libraries() -> None:
    """Keeps the libraries' progress bars and advice off the terminal; errors still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # Models are loaded from folders, for which transformers never asks its bot to convert .bin
    # weights. This makes sure of it.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")


def pick_device() -> str:
    """config.DEVICE; with "auto" cuda, mps or cpu, the first there is.

    Raises SettingError for a device this machine does not have.
    """
    import torch

    wanted = config.DEVICE
    has_mps = torch.backends.mps.is_available()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if count else "mps" if has_mps else "cpu"
    present = ["cpu"]
    if has_mps:
        present.append("mps")
    if count:
        present += ["cuda", *(f"cuda:{number}" for number in range(count))]
    if wanted not in present:
        raise SettingError(
            f"DEVICE is '{wanted}', but this machine has: {', '.join(present)}. Use one of them, "
            'or "auto".'
        )
    return wanted


def pick_dtype(device: str) -> str:
    """config.DTYPE; with "auto" bfloat16 on CUDA cards that have it and float32 elsewhere.

    Not bfloat16 on a CPU: without native support it was measured 7 times slower than float32. Not
    float16: EmbeddingGemma gives NaN in it.
    """
    import torch

    if config.DTYPE != "auto":
        return config.DTYPE
    native = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    return "bfloat16" if native else "float32"


# --- Batches that fit the memory ------------------------------------------------------------------
def run_in_batches(
    items: Sequence[Item], batch_size: int, run: Callable[[Sequence[Item]], Output], work: str
) -> Iterator[Output]:
    """`run(batch)` for consecutive batches of `items`; the batch size halves until it fits.

    One notice says so, and the size that fits is kept for later calls for the same `work`. Raises
    MemoryShortage when one item alone does not fit, PipelineError when the model fails.
    """
    size = known = min(batch_size, _sizes_that_fit.get(work, batch_size))
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        outputs = _run_if_it_fits(run, batch, work)
        if not outputs:
            free_memory()
            if len(batch) == 1:
                raise MemoryShortage(
                    f"Not enough memory for {work}, one at a time. Choose a smaller model in "
                    'config.py, or DEVICE = "cpu".'
                )
            size = len(batch) // 2
            continue
        if size < known:
            log.warning(
                "Not enough memory for %s in batches of %d: continuing with batches of %d.",
                work,
                known,
                size,
            )
            known = _sizes_that_fit[work] = size
        start += size
        yield outputs[0]


def checked_dimension(dimension: Any, name: str) -> int:
    """The length of a model's vectors, by its configuration. Raises PipelineError for no length."""
    if type(dimension) is not int or not 0 < dimension < LARGEST_DIMENSION:
        raise PipelineError(
            f"The model '{name}' says that its vectors have {str(dimension)[:20]} numbers; it must "
            f"be 1 to {LARGEST_DIMENSION - 1}. Its files are damaged: fetch them again."
        )
    return dimension


def joined_rows(parts: Iterable[np.ndarray], dimension: int) -> np.ndarray:
    """(N, D) float32 of the (B, D) outputs of batches; (0, D) without any.

    Raises PipelineError for another D.
    """
    parts = list(parts)
    for part in parts:
        if part.shape[1:] != (dimension,):
            raise PipelineError(
                f"A model gave vectors of the shape {part.shape[1:]}, but its configuration says "
                f"{dimension}: its files do not belong together. Fetch them again, or change "
                "CLIP_MODEL_NAME or CAPTION_EMBEDDING_MODEL."
            )
    return np.concatenate([np.zeros((0, dimension), np.float32), *parts])


def _run_if_it_fits(
    run: Callable[[Sequence[Item]], Output], batch: Sequence[Item], work: str
) -> tuple[Output] | tuple[()]:
    """The output of `run(batch)`, or nothing when memory ran out.

    On return nothing holds the failed attempt's tensors. Raises PipelineError for other failures.
    """
    try:
        return (run(batch),)
    except PipelineError:
        raise
    except Exception as error:  # a model whose files do not belong together raises nearly anything
        if out_of_memory(error):
            return ()
        raise PipelineError(
            f"The model failed at {work}: {type(error).__name__}: {str(error)[:300]}. If it fails "
            "with every input, its files may be damaged or not belong together: fetch them again, "
            f"or change {SETTING_OF_WORK.get(work, 'config.py')}."
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA, MPS, or the CPU allocator."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return any(text in str(error) for text in texts)


def free_memory() -> None:
    """Collects garbage, and returns cached GPU memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
