"""From a name to a loaded model: device, dtype, one load a process, and smaller batches when memory runs out."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import config
from hub_errors import errors_explained
from records import ModelRef, PipelineError, SettingError

log = logging.getLogger("captioning")

Model = TypeVar("Model")
Item = TypeVar("Item")
_fitting: dict[str, int] = {}  # what is done in batches -> the batch size that fits, where a larger one did not
_loaded: dict[str, tuple[tuple, Any]] = {}  # kind -> (all that the load depended on, the model)


def load_once(kind: str, ref: ModelRef, build: Callable[[str, dict, str], Model], *settings: Any) -> Model:
    """The model of `ref`, loaded by `build(path, from_pretrained_arguments, device)` at the first call and kept.

    `ref` is as `hub.locate` gives it, with the folder of its files.
    One model of each kind ("clip", "vlm", "text") is kept: another name, revision, device, dtype or setting loads anew.
    Raises HubError when it cannot be had.
    """
    device = pick_device()
    dtype = pick_dtype(device)
    key = (ref.path, ref.revision, device, dtype, *settings)
    if kind not in _loaded or _loaded[kind][0] != key:
        _loaded.pop(kind, None)  # the old one's memory first
        _fitting.clear()
        free_memory()
        quiet_libraries()
        with errors_explained(ref.name, "model"):
            _loaded[kind] = (key, build(ref.path, _arguments(dtype), device))
    return _loaded[kind][1]


def _arguments(dtype: str) -> dict[str, Any]:
    """What every from_pretrained call is given: a folder is all they need, and code from a repository is never run."""
    import torch

    return {"dtype": getattr(torch, dtype), "local_files_only": True, "trust_remote_code": False}


def pick_device() -> str:
    """config.DEVICE, or with "auto" the best there is: cuda, mps, cpu. Raises SettingError for one not there."""
    import torch

    wanted = config.DEVICE
    has_mps = torch.backends.mps.is_available()
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(["mps"] if has_mps else []), *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if wanted not in present:
        raise SettingError(
            f"DEVICE is '{wanted}', but this machine has: {', '.join(present)}. Use one of them, or \"auto\"."
        )
    return wanted


def pick_dtype(device: str) -> str:
    """config.DTYPE, or with "auto" bfloat16 on CUDA cards that have it and float32 elsewhere.

    Not bfloat16 on a CPU: without native support it was measured 7 times slower than float32. Not float16:
    EmbeddingGemma gives NaN in it.
    """
    import torch

    if config.DTYPE != "auto":
        return config.DTYPE
    return "bfloat16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "float32"


def in_batches(
    items: Sequence[Item], batch_size: int, run: Callable[[Sequence[Item]], Any], what: str
) -> Iterator[Any]:
    """`run(batch)` for consecutive batches of `items`; the batch size halves until it fits when memory runs out.

    One notice says so, and the size that fits is kept for later calls for the same `what`.
    """
    size = fitting = min(batch_size, _fitting.get(what, batch_size))
    start = 0
    while start < len(items):
        batch = items[start : start + size]
        fits, result = _run_if_it_fits(run, batch)
        if not fits:
            free_memory()
            if len(batch) == 1:
                raise PipelineError(
                    f"Not enough memory for {what}, one at a time. Choose a smaller model in config.py, or DEVICE "
                    '= "cpu".'
                )
            size = len(batch) // 2
            continue
        if size < fitting:
            log.warning("Not enough memory for %s in batches of %d: going on with batches of %d.", what, fitting, size)
            fitting = _fitting[what] = size
        start += size
        yield result


def _run_if_it_fits(run: Callable[[Sequence[Item]], Any], batch: Sequence[Item]) -> tuple[bool, Any]:
    """Whether `run(batch)` had enough memory, and its result. On return nothing holds the failed attempt's tensors."""
    try:
        return True, run(batch)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return False, None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA, MPS, or the CPU allocator."""
    import torch

    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(text in str(error) for text in ("out of memory", "can't allocate memory", "not enough memory"))


def free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def quiet_libraries() -> None:
    """Keeps the libraries' own progress bars and advice off the terminal; errors still come through."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
