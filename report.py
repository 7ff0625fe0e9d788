"""What people read of a run: result files, and text on the terminal."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import config
from records import GeneratedCaption, Neighbor, Sample, printable
from safe_files import publish_file, replace_file, to_json

# Everything that decides which caption an image gets, beside the image, the models and the pool.
CAPTION_SETTINGS = (
    "TOP_K_SIMILAR", "CAPTIONS_PER_NEIGHBOR", "USE_GENERATED_AS_CONTEXT", "MAX_CONTEXT_CAPTION_CHARS",
    "PROMPT_TEMPLATE", "PROMPT_WITHOUT_CONTEXT", "MAX_NEW_TOKENS", "NUM_BEAMS", "TEMPERATURE", "VLM_IMAGE_SPLITTING",
    "RANDOM_SEED", "DTYPE",
)  # fmt: skip


@dataclass
class Clock:
    """Seconds for each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, stage: str, run: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        outcome = run(*arguments)
        self.seconds[stage] = round(time.perf_counter() - start, 3)
        return outcome


def caption_settings() -> dict[str, Any]:
    """The settings that decide a caption, as results record them."""
    return {name.lower(): getattr(config, name) for name in CAPTION_SETTINGS}


# --- Result files ----------------------------------------------------------------------------------
def results_folder() -> Path:
    """config.RESULTS_DIR; a relative one counts from config.py's folder."""
    return Path(config.__file__).resolve().parent / Path(config.RESULTS_DIR).expanduser()


def build_result(
    sample: Sample, neighbors: Sequence[Neighbor], caption: GeneratedCaption, index: int, clock: Clock
) -> dict[str, Any]:
    """What a run returns and its result file holds, JSON-ready."""
    return {
        "experiment_info": {
            "experiment_index": sample.role_index,
            "new_db_index": index,
            **caption.made_with,
            "seconds": clock.seconds,
        },
        "query_info": {
            "experiment_index": sample.role_index,
            "original_index": sample.original_index,
            "caption": sample.caption,
            "captions": list(sample.captions),
        },
        "similar_images": [neighbor.as_dict() for neighbor in neighbors],
        "prompt": caption.prompt,
        "generated_caption": caption.caption,
        "original_caption": sample.caption,
        "metadata": {"image": sample.label, "content_hash": sample.content_hash, "settings": caption_settings()},
    }


def save_result(result: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Writes a result into config.RESULTS_DIR under a name of its own, and returns it with that path."""
    stem = re.sub(r"[^\w-]+", "_", Path(sample.label).stem)
    stem = stem.encode()[:80].decode(errors="ignore") or "image"  # a file name has room for 255 bytes, whole characters
    name = f"image_{stem}" if sample.role == "own" else f"experiment_{sample.role_index}"
    return {**result, "result_file": str(_publish(name, result))}


def save_summary(results: Sequence[dict[str, Any]], failures: dict[str, str], seconds: float) -> Path:
    """Writes experiments_summary_{timestamp}.json: every caption of a run over all experiments, and what failed."""
    rows = [
        {
            "experiment_index": result["experiment_info"]["experiment_index"],
            "generated_caption": result["generated_caption"],
            "original_caption": result["original_caption"],
            "result_file": Path(result["result_file"]).name,
        }
        for result in results
    ]
    info = results[0]["experiment_info"] if results else {}
    made_with = {key: info.get(key) for key in ("mode", "dataset", "models", "run")}
    counts = {"captioned": len(rows), "failed": len(failures), "seconds": round(seconds, 1)}
    summary = {**made_with, "settings": caption_settings(), **counts, "failures": failures, "experiments": rows}
    return _publish("experiments_summary", summary)


def _publish(name: str, content: dict[str, Any]) -> Path:
    text = to_json(content, indent=2) + "\n"
    return publish_file(results_folder(), f"{name}_{datetime.now():%Y%m%d_%H%M%S}", ".json", text)


def results_of_run(run: str) -> dict[str, dict[str, Any]]:
    """The results in config.RESULTS_DIR that a run over all experiments has left: content hash -> the newest result."""
    found = {}
    for path in sorted(results_folder().glob("experiment_*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["experiment_info"]["run"] == run:
                found[result["metadata"]["content_hash"]] = {**result, "result_file": str(path)}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another program's file, or a single experiment's, which belongs to no run
    return found


# --- The evaluation ----------------------------------------------------------------------------------
METRICS = {  # column -> its heading and how it is written
    "cider": ("CIDEr", "{:.3f}"), "cider_masked": ("CIDEr, places masked", "{:.3f}"), "bleu_1": ("BLEU-1", "{:.3f}"),
    "bleu_2": ("BLEU-2", "{:.3f}"), "bleu_3": ("BLEU-3", "{:.3f}"), "bleu_4": ("BLEU-4", "{:.3f}"),
    "rouge_l": ("ROUGE-L", "{:.3f}"), "clip_score": ("CLIPScore", "{:.3f}"), "text_cosine": ("text cosine", "{:.3f}"),
    "copied": ("copied", "{:.1%}"), "place": ("place", "{:.1%}"), "things": ("things with colours", "{:.1%}"),
    "kinds": ("things", "{:.1%}"), "colors": ("colours", "{:.1%}"), "time": ("time", "{:.1%}"),
    "ground": ("ground", "{:.1%}"),
}  # fmt: skip
ARM_NAMES = {
    "none": "no retrieval", "retrieved": "retrieved", "random": "random captions", "wrong": "wrong captions",
    "nearest": "copy of the nearest", "consensus": "consensus of the neighbours",
}  # fmt: skip


def evaluation_table(outcome: dict[str, Any]) -> str:
    """The scores as a Markdown table, an arm a row, and under it the CIDEr differences with their 95 % intervals."""
    scores = outcome["scores"]
    columns = [column for column in METRICS if any(column in row for row in scores.values())]
    rows = [["arm", *(METRICS[column][0] for column in columns)]]
    for arm, row in scores.items():
        rows.append([ARM_NAMES[arm], *(METRICS[column][1].format(row[column]["value"]) for column in columns)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "| --- |" + " ---: |" * len(columns))
    return "\n".join([*lines, "", *_interval_lines(scores, columns)]) + "\n"


def _interval_lines(scores: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """A Markdown table of differences in CIDEr (masked too, where there are names) with paired bootstrap intervals."""
    shown = [column for column in ("cider", "cider_masked") if column in columns]
    pairs = [(column, baseline) for column in shown for baseline in ("none", "retrieved")]
    heads = [f"{METRICS[column][0]} minus {ARM_NAMES[baseline]}" for column, baseline in pairs]
    lines = ["| arm | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(pairs)]
    for arm, row in scores.items():
        cells = [row[column].get(f"minus_{baseline}") for column, baseline in pairs]
        texts = ["" if c is None else f"{c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells]
        lines.append(f"| {ARM_NAMES[arm]} | " + " | ".join(texts) + " |")
    return lines


def save_evaluation(outcome: dict[str, Any]) -> list[Path]:
    """Writes evaluation_{timestamp}.json, and beside it the tables (.md) and a plot (.png); their paths."""
    path = _publish("evaluation", outcome)
    table, plot = path.with_suffix(".md"), path.with_suffix(".png")
    replace_file(table, [evaluation_table(outcome)])
    plot_evaluation(outcome, plot)
    return [path, table, plot]


def plot_evaluation(outcome: dict[str, Any], path: Path) -> None:
    """Each arm's CIDEr minus that of no retrieval (the first arm, where that was left out), with 95 % intervals."""
    from matplotlib.figure import Figure

    scores = outcome["scores"]
    columns = [column for column in ("cider", "cider_masked") if column in next(iter(scores.values()))]
    figure = Figure(figsize=(5.2 * len(columns), 0.5 * len(scores) + 1.3), layout="constrained")
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        for place, row in enumerate(scores.values()):
            change = row[column].get("minus_none") or {"difference": 0.0, "low": 0.0, "high": 0.0}
            axes.plot([change["low"], change["high"]], [place, place], color="#3b6ea5", linewidth=2)
            axes.plot(change["difference"], place, "o", color="#3b6ea5")
            axes.annotate(f"{row[column]['value']:.2f}", (1.02, place), xycoords=("axes fraction", "data"), va="center")
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_yticks(range(len(scores)), [ARM_NAMES[arm] for arm in scores])
        axes.invert_yaxis()
        axes.set_xlabel(f"{METRICS[column][0]}: difference from no retrieval")
    figure.savefig(path, dpi=130)


# --- The terminal ----------------------------------------------------------------------------------
def print_result(result: dict[str, Any]) -> None:
    info = result["experiment_info"]
    number = info["experiment_index"]
    print(f"{'Image' if number is None else f'Experiment {number}'}: {printable(result['metadata']['image'])}")
    print(f"Mode: {info['mode']}   dataset: {info['dataset']}   VLM: {info['models']['vlm']['name']}")
    print("Similar images:")
    for neighbor in result["similar_images"]:
        print_neighbor(neighbor)
    print("Prompt:" if result["prompt"] else "Prompt: none, this model captions from the image alone")
    for line in (result["prompt"] or "").splitlines():
        print(f"  {printable(line)}")
    print(f"Caption:   {printable(result['generated_caption'])}")
    if result["original_caption"]:
        print(f"Reference: {printable(result['original_caption'])}")
    print(f"Saved:     {result['result_file']}\n", flush=True)


def print_neighbor(neighbor: dict[str, Any]) -> None:
    data = neighbor["metadata"]
    shown = f"{printable(data['caption'])}  [{data['source']}; {printable(data['image'])}]"
    print(f"  {neighbor['similarity']:.4f}  #{neighbor['index']:<5} {shown}")
