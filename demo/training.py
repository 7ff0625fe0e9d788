"""The training loop both models share: cosine schedule, bfloat16 where it pays, checkpoints, resuming, a log."""

import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

LOG = logging.getLogger("demo")
CHECKPOINT_SECONDS = 180  # how much work an interruption may cost
LOG_STEPS = 50
WARMUP_STEPS = 60
WEIGHT_DECAY = 0.05
GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Phase:
    """A stretch of training with a schedule of its own."""

    name: str  # also the checkpoint's name
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Setting:
    """What every phase needs to know."""

    work: Path  # checkpoints, log, cached scenes
    seed: int
    device: torch.device
    bfloat16: bool
    stop: "Stop"
    steps_scale: float = 1.0  # 0.5 halves every phase

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)


class Stop:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads between two steps."""

    def __init__(self) -> None:
        self.signal_number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame) -> None:
        self.signal_number = number


def choose_setting(work: Path, seed: int, threads: int | None, steps_scale: float) -> Setting:
    """GPU if there is one; bfloat16 if a matrix product is clearly faster in it here."""
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    single, half = (_product_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    bfloat16 = half < 0.7 * single
    LOG.info("device %s, %d threads, %s", device, torch.get_num_threads(), "bfloat16" if bfloat16 else "float32")
    LOG.info("a matrix product takes %.2f ms in float32, %.2f ms in bfloat16", 1000 * single, 1000 * half)
    return Setting(work, seed, device, bfloat16, Stop(), steps_scale)


def train_phase(
    module: nn.Module,
    phase: Phase,
    setting: Setting,
    loss_of_step: Callable[[np.random.Generator], dict[str, torch.Tensor]],
    save_models: Callable[[], None] = lambda: None,
) -> None:
    """Train `module` through `phase`, or go on where its checkpoint stands; a finished phase only loads its weights.

    `loss_of_step` gives named losses that are summed. Its random generator depends on seed, phase and step alone, so a
    resumed run sees the same examples as one that was never stopped. Stopping saves, then raises SystemExit.
    """
    path = setting.work / f"{phase.name}.pt"
    steps = max(1, round(phase.steps * setting.steps_scale))
    optimizer = _optimizer(module, phase.learning_rate)
    step, seconds = _resume(path, module, optimizer, setting)
    started = saved = time.monotonic()
    module.train()
    figures: dict[str, float] = {}  # running means of the losses
    while step < steps:
        rng = np.random.default_rng([setting.seed, *phase.name.encode(), step])
        torch.manual_seed(setting.seed + step)
        for group in optimizer.param_groups:
            group["lr"] = phase.learning_rate * _schedule(step, steps)
        losses = loss_of_step(rng)
        _update(module, optimizer, sum(losses.values()))
        step += 1
        for key, loss in losses.items():
            figures[key] = 0.95 * figures.get(key, loss.item()) + 0.05 * loss.item()
        now = time.monotonic()
        spent = seconds + now - started
        if step % LOG_STEPS == 0 or step == steps:
            text = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            LOG.info("%s %5d/%d  %5.1f min  %s", phase.name, step, steps, spent / 60, text)
        if step == steps or setting.stop.signal_number or now - saved > CHECKPOINT_SECONDS:
            _save_checkpoint(path, module, optimizer, step, spent)
            save_models()
            saved = now
        if setting.stop.signal_number:
            raise SystemExit(128 + setting.stop.signal_number)
    module.eval()


def _update(module: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a new folder with `write`, then put it in `folder`'s place: readers never meet a half-written model."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _optimizer(module: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW; biases, norms and embeddings of positions do not decay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, setting: Setting) -> tuple[int, float]:
    """Steps and seconds already spent on this phase."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=setting.device, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    LOG.info("%s goes on at step %d", path.stem, state["step"])
    return state["step"], state["seconds"]


def _save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    os.replace(fresh, path)


def _product_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Seconds for a product of two 1024 x 1024 matrices."""
    matrix = torch.randn(1024, 1024, device=device).to(dtype)
    for _ in range(3):
        product = matrix @ matrix
    product.sum().item()
    started = time.perf_counter()
    for _ in range(10):
        product = matrix @ matrix
    product.sum().item()  # waits for a GPU
    return (time.perf_counter() - started) / 10
