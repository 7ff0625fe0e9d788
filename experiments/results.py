"""Result files: one per captioned image, and a summary of a run over many."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import config
from dataset_loader import DatasetLoader
from support.records import GeneratedCaption, Models, Neighbor, Sample
from support.result import MadeWith, ModelVersion, Result, SummaryRow
from support.settings import caption_settings, configured_folder
from support.storage.files import publish_file
from support.storage.strict_json import to_json

Arguments = ParamSpec("Arguments")
Output = TypeVar("Output")


@dataclass
class Clock:
    """Seconds for each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(
        self,
        stage: str,
        run: Callable[Arguments, Output],
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Output:
        """The output of `run(*arguments, **options)`, its seconds noted under `stage`."""
        start = time.perf_counter()
        output = run(*arguments, **options)
        self.seconds[stage] = round(time.perf_counter() - start, 3)
        return output


def results_folder() -> Path:
    """config.RESULTS_DIR; a relative one is relative to config.py's folder."""
    return configured_folder(config.RESULTS_DIR)


def describe(models: Models) -> dict[str, ModelVersion]:
    """The models as results record them."""
    described: dict[str, ModelVersion] = {}
    for kind, ref in vars(models).items():
        described[kind] = {"name": ref.name, "revision": ref.revision}
    return described


def made_with(dataset_loader: DatasetLoader, models: Models) -> MadeWith:
    """What results and generated captions record of where they come from."""
    return {
        "mode": dataset_loader.mode,
        "dataset": dataset_loader.name,
        "dataset_revision": dataset_loader.revision,
        "models": describe(models),
    }


def build_results(
    samples: Sequence[Sample],
    neighbors: Sequence[Sequence[Neighbor]],
    captions: Sequence[GeneratedCaption],
    indices: Sequence[int],
    clock: Clock,
) -> list[Result]:
    """What a run returns and its result files hold, one for each image of a batch."""
    batch = zip(samples, neighbors, captions, indices, strict=True)
    return [_build_result(*parts, clock) for parts in batch]


def _build_result(
    sample: Sample,
    neighbors: Sequence[Neighbor],
    caption: GeneratedCaption,
    index: int,
    clock: Clock,
) -> Result:
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
        "metadata": {
            "image": sample.label,
            "content_hash": sample.content_hash,
            "settings": caption_settings(),
        },
    }


def save_results(results: Sequence[Result], samples: Sequence[Sample]) -> list[Result]:
    """Writes a file for each result; the results with their paths under "result_file"."""
    return [_save_result(*pair) for pair in zip(results, samples, strict=True)]


def _save_result(result: Result, sample: Sample) -> Result:
    stem = re.sub(r"[^\w-]+", "_", Path(sample.label).stem)
    # A file name has room for 255 bytes; whole characters are kept.
    stem = stem.encode()[:80].decode(errors="ignore") or "image"
    name = f"image_{stem}" if sample.role == "own" else f"experiment_{sample.role_index}"
    return {**result, "result_file": str(publish(name, result))}


def summary_row(result: Result, path: Path) -> SummaryRow:
    """What a summary says of a result, saved in `path`."""
    return {
        "experiment_index": result["experiment_info"]["experiment_index"],
        "image": result["metadata"]["image"],
        "generated_caption": result["generated_caption"],
        "original_caption": result["original_caption"],
        "result_file": path.name,
    }


def save_summary(
    kind: str,
    origin: MadeWith,
    run: str,
    rows: Sequence[SummaryRow],
    failures: Mapping[str, str],
    seconds: float,
) -> Path:
    """Writes {kind}_summary_{timestamp}.json: every caption of a run, and what failed."""
    summary = {
        **{key: origin[key] for key in ("mode", "dataset", "models")},
        "run": run,
        "settings": caption_settings(),
        "captioned": len(rows),
        "failed": len(failures),
        "seconds": round(seconds, 1),
        "failures": failures,
        kind: rows,
    }
    return publish(f"{kind}_summary", summary)


def publish(name: str, content: Any) -> Path:
    """Writes `content` to a new file NAME_{timestamp}.json in the results folder; its path."""
    text = to_json(content, indent=2) + "\n"
    return publish_file(results_folder(), f"{name}_{datetime.now():%Y%m%d_%H%M%S}", ".json", text)
