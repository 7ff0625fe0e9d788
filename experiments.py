"""Runs over many images: one fixed pool, going on where a run was stopped, failures that cost no other image."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

import config
import report
from records import DatabaseError, HubError, Sample, SettingError
from safe_files import replace_file, to_json
from similarity_search import Candidate

log = logging.getLogger("captioning")
CaptionBatch = Callable[[Sequence[Sample]], list[dict[str, Any]]]


@dataclass
class Outcome:
    """What a run over many images has come to."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # by content hash
    failures: dict[str, str] = field(default_factory=dict)  # label -> reason

    def failures_text(self, total: int) -> str:
        return f"{len(self.failures)} of {total} images failed: " + "; ".join(self.failures.values())


def caption_all(samples: Sequence[Sample], caption: CaptionBatch, outcome: Outcome) -> Outcome:
    """Captions those of `samples` that are not in `outcome` yet, in batches of config.VLM_BATCH_SIZE."""
    missing = [sample for sample in samples if sample.content_hash not in outcome.results]
    progress = {"total": len(samples), "initial": len(samples) - len(missing), "disable": not config.SHOW_PROGRESS}
    with tqdm(desc="Captioning", unit="image", **progress) as bar:
        for start in range(0, len(missing), config.VLM_BATCH_SIZE):
            batch = missing[start : start + config.VLM_BATCH_SIZE]
            caption_or_note(batch, caption, outcome)
            bar.update(len(batch))
    return outcome


def caption_or_note(batch: Sequence[Sample], caption: CaptionBatch, outcome: Outcome) -> None:
    """Adds the results of `batch` to `outcome`; where one image fails, the others are captioned without it."""
    try:
        results = caption(batch)
    except (DatabaseError, HubError, SettingError):
        raise  # no other image would fare better
    except Exception as error:  # whatever one image causes is reported at the end
        if len(batch) == 1:
            log.debug("%s failed", batch[0].label, exc_info=error)
            outcome.failures[batch[0].label] = str(error) or type(error).__name__
            return
        for sample in batch:
            caption_or_note([sample], caption, outcome)
        return
    outcome.results.update(zip((sample.content_hash for sample in batch), results, strict=True))


def frozen_candidates(
    found: Sequence[Candidate], models: dict[str, Any], folder: Path, anew: bool
) -> tuple[str, list[Candidate]]:
    """The name of a run over all experiments, and the images that give it context, out of those that were `found`.

    The gallery's always; of those captioned earlier, the ones that stood in the databases when the first run with the
    same gallery, models and settings began. They are kept in a file of `folder`, so that a run that was stopped, and
    one that only adds what is missing, has the same context. `anew` begins another run.
    """
    originals = [candidate for candidate in found if candidate.source == "original"]
    decisive = [models, report.caption_settings(), [vars(candidate) for candidate in originals]]
    name = hashlib.sha256(to_json(decisive).encode()).hexdigest()[:12]
    path = folder / "frozen_pools" / f"{name}.json"
    if anew or not path.exists():
        captioned = [vars(candidate) for candidate in found if candidate.source == "generated"]
        replace_file(path, [to_json({"started": datetime.now().isoformat(), "captioned": captioned}) + "\n"])
    content = path.read_bytes()
    frozen = [Candidate(**{**c, "captions": tuple(c["captions"])}) for c in json.loads(content)["captioned"]]
    return f"{name}-{hashlib.sha256(content).hexdigest()[:12]}", originals + frozen


def finished(run: str, records: dict[str, dict[str, Any]]) -> Outcome:
    """The results of `run` that stand both in the databases' `records` and in the results folder."""
    results = report.results_of_run(run)
    return Outcome({key: result for key, result in results.items() if _recorded(run, records.get(key), result)})


def _recorded(run: str, record: dict[str, Any] | None, result: dict[str, Any]) -> bool:
    generated = (record or {}).get("generated") or {}
    return generated.get("run") == run and generated["caption"] == result["generated_caption"]
