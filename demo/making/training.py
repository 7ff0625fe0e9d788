"""The training loop of all models: cosine schedule, bfloat16, checkpoints, resuming, logging."""

import functools
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import nn

LOG = logging.getLogger("demo")
CHECKPOINT_SECONDS = 180  # between checkpoints: the most work that a crash can lose
LOG_STEPS = 50
WARMUP_STEPS = 60
WEIGHT_DECAY = 0.05
GRADIENT_CLIP = 1.0


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own schedule."""

    name: str  # also the name of its checkpoint
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Setting:
    """Settings shared by all phases."""

    work: Path  # checkpoints, log, cached scenes
    seed: int
    device: torch.device
    bfloat16: bool
    stop: "Stop"
    steps_scale: float = 1.0  # scales the steps of every phase

    def autocast(self) -> torch.autocast:
        """Context in which matrix products run in bfloat16 if that is enabled."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)


class Stop:
    """Turns Ctrl-C and SIGTERM into a flag that the loop checks after every step."""

    def __init__(self) -> None:
        self.signal_number = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number


def choose_setting(work: Path, seed: int, threads: int | None, steps_scale: float) -> Setting:
    """Choose a GPU if there is one, and bfloat16 if matrix products are much faster in it."""
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    single, half = (_product_seconds(device, dtype) for dtype in (torch.float32, torch.bfloat16))
    bfloat16 = half < 0.7 * single
    dtype_name = "bfloat16" if bfloat16 else "float32"
    LOG.info("device %s, %d threads, %s", device, torch.get_num_threads(), dtype_name)
    LOG.info("matrix product: %.2f ms in float32, %.2f ms in bfloat16", 1000 * single, 1000 * half)
    return Setting(work, seed, device, bfloat16, Stop(), steps_scale)


def train_phase(
    module: nn.Module,
    phase: Phase,
    setting: Setting,
    compute_losses: Callable[[np.random.Generator], dict[str, torch.Tensor]],
    save_models: Callable[[], None] = lambda: None,
) -> None:
    """Train `module` for `phase`, resuming from its checkpoint; a finished phase is only loaded.

    `compute_losses` returns named losses, which are summed. Its random generator depends on seed,
    phase and step alone, so a resumed run sees the same examples as an uninterrupted one. A stop
    signal saves a checkpoint and raises SystemExit.
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
        losses = compute_losses(rng)
        _update(module, optimizer, functools.reduce(torch.add, losses.values()))
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
    """Take one optimiser step with clipped gradients."""
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace `folder` by one that `write` fills; readers never see a half-written model."""
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
    """Factor of the learning rate: linear warm-up, then a cosine decay to 2 %."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _optimizer(module: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW without weight decay for one-dimensional parameters (biases, norms)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _resume(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, setting: Setting
) -> tuple[int, float]:
    """Load the checkpoint of a phase; returns the steps and seconds already spent on it."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=setting.device, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    LOG.info("%s resumes at step %d", path.stem, state["step"])
    return state["step"], state["seconds"]


def _save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float
) -> None:
    """Write a checkpoint, replacing the last one only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "seconds": seconds,
    }
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
    product.sum().item()  # waits until the GPU is done
    return (time.perf_counter() - started) / 10
