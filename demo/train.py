"""Train the demo's models: `python -m demo.train` (about an hour on 2 cores that have bfloat16).

The tokenizer comes first, then CLIP (train_clip.py), the VLM (train_vlm.py) and the text model's layer (train_text.py).
Ctrl-C or SIGTERM saves, and the next start goes on from there. Scenes, checkpoints and the log lie in demo/.cache;
delete its *.pt to start anew. Training scenes have other seeds than the demo's dataset.
"""

import argparse
import logging
import sys
from pathlib import Path

import prompt_generator

HERE = Path(__file__).parent
MODELS = HERE / "models"
TRAINING_SCENES = 30_000


def main() -> None:
    """Train whatever is not trained yet."""
    args = _parse()
    # Imported after the flags are parsed: --help need not wait for torch.
    from demo.train_clip import train_clip
    from demo.train_text import train_text
    from demo.train_vlm import train_vlm
    from demo.training import LOG, choose_setting
    from demo.training_data import FIRST_TRAINING_SEED, invented_names, load_scenes

    _log_to(args.work)
    setting = choose_setting(args.work, args.seed, args.threads, args.steps_scale)
    scenes = load_scenes(FIRST_TRAINING_SEED, args.scenes, args.work)
    LOG.info("%d training scenes, seed %d", len(scenes), args.seed)
    names = invented_names(40_000, args.seed)
    vocabulary = _tokenizer_file(scenes, names, args.work)
    clip = train_clip(scenes, names, vocabulary, args.models / "clip", setting)
    train_vlm(scenes, names, clip, vocabulary, args.models / "vlm", setting)
    train_text(names, args.models / "text", setting)
    LOG.info("done")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=TRAINING_SCENES, help="training scenes (default: %(default)s)")
    parser.add_argument("--steps-scale", type=float, default=1.0, help="0.5 halves every phase")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--work", type=Path, default=HERE / ".cache", help="scenes, checkpoints, log")
    parser.add_argument("--models", type=Path, default=MODELS, help="where the finished models go")
    return parser.parse_args()


def _log_to(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(work / "train.log", encoding="utf-8"), logging.StreamHandler(sys.stderr)]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _tokenizer_file(scenes, names: list[str], work: Path) -> Path:
    """The trained vocabulary, made once: every scene's captions with an invented name, as prompts hold them."""
    from demo.tokenizer import train_tokenizer
    from demo.training_data import NAME

    path = work / "tokenizer.json"
    if not path.exists():
        captions = [
            text.replace(NAME, names[(7 * index + place) % len(names)])
            for index, texts in enumerate(scenes.named[:8000])
            for place, text in enumerate(texts)
        ]
        prompts = [prompt_generator.build_prompt(captions[at : at + 5]) for at in range(0, len(captions), 5)]
        train_tokenizer([*prompts, *(" " + caption for caption in captions), prompt_generator.build_prompt([])], path)
    return path


if __name__ == "__main__":
    main()
