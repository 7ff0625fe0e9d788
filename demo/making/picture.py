"""Draw the README's picture of a run, demo/run.png: `python -m demo.picture [--index N]`."""

import argparse
import textwrap
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFont

import config
import demo
from main import initialize_system, run_experiment
from support.hub.revisions import locate
from support.result import Result
from vlm_captioner import load_captioner

WIDTH, MARGIN, GAP = 1180, 24, 16
PAPER, INK, FAINT, ACCENT = "#fbfaf7", "#22262e", "#6c7480", "#2f6b4f"
LARGE, SMALL = 224, 150  # side of the query and of a neighbour in pixels


def main() -> None:
    """Run one experiment of the demo with and without retrieval, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=int, default=0, help="index of the experiment")
    index = parser.parse_args().index
    config.MODE, config.USE_GENERATED_AS_CONTEXT = "demo", False
    with TemporaryDirectory() as config.DB_DIR, TemporaryDirectory() as config.RESULTS_DIR:
        dataset_loader, db_manager = initialize_system()
        with db_manager:
            result = run_experiment(dataset_loader, db_manager, index)
    query = dataset_loader.get_experiment_data()[index].image
    captioner = load_captioner(locate(demo.model("vlm")))
    alone = captioner.write_captions([query], [config.PROMPT_WITHOUT_CONTEXT])[0]
    draw_run(result, query, alone).save(demo.FOLDER / "run.png", optimize=True)


def draw_run(result: Result, query: Image.Image, alone: str) -> Image.Image:
    """Draw the query, its neighbours, the prompt, and the captions with and without retrieval."""
    sheet = Image.new("RGB", (WIDTH, 760), PAPER)
    pen = ImageDraw.Draw(sheet)
    index = result["experiment_info"]["experiment_index"]
    _heading(pen, MARGIN, MARGIN, f"Query: experiment {index}")
    sheet.paste(query.resize((LARGE, LARGE)), (MARGIN, MARGIN + 28))
    left = MARGIN + LARGE + 2 * GAP
    _heading(pen, left, MARGIN, "The five gallery images most like it, and their captions")
    bottom = MARGIN + 28 + LARGE
    for place, neighbor in enumerate(result["similar_images"]):
        x = left + place * (SMALL + GAP + 10)
        with Image.open(neighbor["metadata"]["image"]) as image:
            sheet.paste(image.convert("RGB").resize((SMALL, SMALL)), (x, MARGIN + 28))
        _write(pen, x, MARGIN + 34 + SMALL, f"{neighbor['similarity']:.3f}", FAINT, 14, 24)
        caption = neighbor["metadata"]["caption"] or ""
        bottom = max(bottom, _write(pen, x, MARGIN + 54 + SMALL, caption, INK, 14, 23))
    y = _prompt(pen, result["prompt"] or "", bottom + GAP)
    for title, caption, color in (
        ("Caption with retrieval", result["generated_caption"], ACCENT),
        ("Caption without", alone, INK),
        ("Reference", result["original_caption"] or "", FAINT),
    ):
        _heading(pen, MARGIN, y, title)
        y = _write(pen, MARGIN + 200, y - 2, caption, color, 17, 100) + 10
    return sheet.crop((0, 0, WIDTH, y + MARGIN - 10))


def _prompt(pen: ImageDraw.ImageDraw, prompt: str, y: int) -> int:
    """Write the prompt with its heading; returns the y of what follows."""
    _heading(pen, MARGIN, y, "Prompt")
    for line in prompt.splitlines():
        y = _write(pen, MARGIN + 200, y, line, FAINT, 14, 125)
    return y + 18


def _heading(pen: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    pen.text((x, y), text, fill=INK, font=ImageFont.load_default(16))


def _write(
    pen: ImageDraw.ImageDraw, x: int, y: int, text: str, color: str, size: int, columns: int
) -> int:
    """Write `text`, wrapped to `columns`; returns the y of the next line."""
    for line in textwrap.wrap(text, columns):
        pen.text((x, y), line, fill=color, font=ImageFont.load_default(size))
        y += size + 5
    return y
