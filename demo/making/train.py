"""Train the demo's models: `python -m demo.train` (about an hour on 2 cores with bfloat16).

It trains the tokenizer, CLIP (train_clip.py; its text side again, train_clip_text.py), the VLM
(train_vlm.py) and the text model's layer (train_text.py). Ctrl-C or SIGTERM saves a checkpoint,
from which the next run resumes. Scenes, checkpoints and the log are in demo/.cache; delete its *.pt
files to start over. Training scenes and the demo's dataset have different seeds.
"""

import argparse
import logging
import sys
from pathlib import Path

import demo
import prompt_generator
from demo.making.training_data import (
    FIRST_TRAINING_SEED,
    NAME,
    TrainingScenes,
    invented_names,
    load_scenes,
)

MODELS = demo.FOLDER / "models"
TRAINING_SCENES = 30_000


def main() -> None:
    """Train every model that is not trained yet."""
    args = _parse()
    # Imported after the flags are parsed, so that --help does not load torch.
    from demo.making.train_clip import train_clip
    from demo.making.train_clip_text import train_clip_text
    from demo.making.train_text import train_text
    from demo.making.train_vlm import train_vlm
    from demo.making.training import LOG, choose_setting

    _log_to(args.work)
    setting = choose_setting(args.work, args.seed, args.threads, args.steps_scale)
    scenes = load_scenes(FIRST_TRAINING_SEED, args.scenes, args.work)
    LOG.info("%d training scenes, seed %d", len(scenes), args.seed)
    names = invented_names(40_000, args.seed)
    vocabulary = _tokenizer_file(scenes, names, args.work)
    clip = train_clip(scenes, names, vocabulary, args.models / "clip", setting)
    train_clip_text(scenes, names, clip, vocabulary, args.models / "clip", setting)
    train_vlm(scenes, names, clip, vocabulary, args.models / "vlm", setting)
    train_text(names, args.models / "text", setting)
    LOG.info("done")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scenes",
        type=int,
        default=TRAINING_SCENES,
        help="number of training scenes (default: %(default)s)",
    )
    parser.add_argument(
        "--steps-scale", type=float, default=1.0, help="scales the steps of every phase"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--work", type=Path, default=demo.CACHE, help="folder of scenes, checkpoints and log"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="folder for the trained models")
    return parser.parse_args()


def _log_to(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(work / "train.log", encoding="utf-8")
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[file, logging.StreamHandler(sys.stderr)],
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _tokenizer_file(scenes: TrainingScenes, names: list[str], work: Path) -> Path:
    """The tokenizer, trained once on captions with invented names and on prompts with them."""
    from demo.making.tokenizer import train_tokenizer

    path = work / "tokenizer.json"
    if not path.exists():
        captions = [
            text.replace(NAME, names[(7 * index + place) % len(names)])
            for index, texts in enumerate(scenes.named[:8000])
            for place, text in enumerate(texts)
        ]
        groups = [captions[at : at + 5] for at in range(0, len(captions), 5)]
        prompts = [prompt_generator.build_prompt(group) for group in groups]
        answers = [" " + caption for caption in captions]
        train_tokenizer([*prompts, *answers, prompt_generator.build_prompt([])], path)
    return path
