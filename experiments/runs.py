"""Runs over many images: one fixed pool, resumed where stopped; a failure costs one image."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import config
from experiments.results import describe, results_of_run
from experiments.system import System
from similarity_search import Candidate, Pool
from support.batches import batches
from support.errors import DatabaseError, HubError, ImageError, SettingError
from support.records import Models, Sample
from support.result import ModelVersion, Result
from support.settings import caption_settings
from support.sources.own import own_sample
from support.storage.captions import CaptionRecord
from support.storage.files import replace_file
from support.storage.strict_json import to_json
from support.storage.vectors import VectorTable

log = logging.getLogger("captioning")
CaptionBatch = Callable[[Sequence[Sample]], Sequence[Result]]


@dataclass
class Outcome:
    """The results and failures of a run over many images."""

    results: dict[str, Result] = field(default_factory=dict)  # by content hash
    failures: dict[str, str] = field(default_factory=dict)  # label -> reason

    def failures_text(self, total: int) -> str:
        """The failures in one line; empty without any."""
        if not self.failures:
            return ""
        reasons = "; ".join(self.failures.values())
        return f"{len(self.failures)} of {total} images failed: {reasons}"

    def of(self, samples: Sequence[Sample]) -> list[Result]:
        """The results of `samples` in their order, without those that failed."""
        hashes = [sample.content_hash for sample in samples]
        return [self.results[key] for key in hashes if key in self.results]


def caption_all(samples: Sequence[Sample], caption: CaptionBatch, outcome: Outcome) -> Outcome:
    """Captions those of `samples` not in `outcome` yet, in batches of config.VLM_BATCH_SIZE."""
    missing = [sample for sample in samples if sample.content_hash not in outcome.results]
    done = len(samples) - len(missing)
    for batch in batches(missing, config.VLM_BATCH_SIZE, "Captioning", "image", done=done):
        _caption_batch(batch, caption, outcome)
    return outcome


def caption_files(
    paths: Sequence[Path], caption: CaptionBatch, show: Callable[[Result], None]
) -> Outcome:
    """Captions a user's own files batch by batch; each result is passed to `show` at once."""
    outcome = Outcome()
    for some in batches(paths, config.VLM_BATCH_SIZE, "Captioning", "image"):
        samples = _open_files(some, outcome)
        if not samples:
            continue
        _caption_batch(samples, caption, outcome)
        for result in outcome.of(samples):
            show(result)
    return outcome


def _open_files(paths: Sequence[Path], outcome: Outcome) -> list[Sample]:
    """A sample for each distinct image; files that cannot be read are added to the failures."""
    samples: dict[str, Sample] = {}
    for path in paths:
        try:
            sample = own_sample(path)
        except ImageError as error:
            outcome.failures[str(path)] = str(error)
        else:
            samples.setdefault(sample.content_hash, sample)
    return list(samples.values())


def _caption_batch(batch: Sequence[Sample], caption: CaptionBatch, outcome: Outcome) -> None:
    """Adds the results of `batch` to `outcome`; if one image fails, each is captioned alone."""
    try:
        captioned = caption(batch)
    except (DatabaseError, HubError, SettingError):
        raise  # no other image would fare better
    except Exception as error:  # whatever one image causes is reported at the end
        if len(batch) > 1:
            for sample in batch:
                _caption_batch([sample], caption, outcome)
            return
        log.debug("%s failed", batch[0].label, exc_info=error)
        outcome.failures[batch[0].label] = str(error) or type(error).__name__
    else:
        hashes = [sample.content_hash for sample in batch]
        outcome.results.update(zip(hashes, captioned, strict=True))


# --- Runs over all experiments --------------------------------------------------------------------
class Run(NamedTuple):
    """A run over all experiments, and what is done of it."""

    name: str
    pool: Pool  # where neighbors are found, fixed for the whole run
    done: Outcome


def resume_run(system: System, vectors: VectorTable, models: Models, recaption: bool) -> Run:
    """The run with this gallery, these models and config's settings; a new one to `recaption`."""
    folder, captions = system.db_manager.folder, system.db_manager.captions
    name, frozen = frozen_candidates(system.candidates(), describe(models), folder, recaption)
    return Run(name, Pool(frozen, vectors.rows, vectors.matrix), finished(name, captions))


def frozen_candidates(
    found: Sequence[Candidate], models: Mapping[str, ModelVersion], folder: Path, recaption: bool
) -> tuple[str, list[Candidate]]:
    """The name of a run over all experiments, and those of `found` that give it context.

    The gallery's always; of those captioned earlier, the ones in the databases when the first run
    with the same gallery, models and settings began. They are kept in a file of `folder`, so that a
    run that was stopped, and one that only adds what is missing, has the same context. With
    `recaption` another run begins. Candidate's field names are part of the file and of the name.
    """
    originals = [candidate for candidate in found if candidate.source == "original"]
    decisive = [models, caption_settings(), [vars(candidate) for candidate in originals]]
    name = hashlib.sha256(to_json(decisive).encode()).hexdigest()[:12]
    path = folder / "frozen_pools" / f"{name}.json"
    if recaption or not path.exists():
        captioned = [vars(candidate) for candidate in found if candidate.source == "generated"]
        pool = {"started": datetime.now().isoformat(), "captioned": captioned}
        replace_file(path, [to_json(pool) + "\n"])
    content = path.read_bytes()
    frozen = [_as_candidate(fields) for fields in json.loads(content)["captioned"]]
    return f"{name}-{hashlib.sha256(content).hexdigest()[:12]}", originals + frozen


def _as_candidate(fields: Mapping[str, Any]) -> Candidate:
    return Candidate(**{**fields, "captions": tuple(fields["captions"])})


def finished(run: str, records: Mapping[str, CaptionRecord]) -> Outcome:
    """The results of `run` that are both in the databases' `records` and in the results folder."""
    done = {}
    for key, result in results_of_run(run).items():
        if _is_recorded(run, records.get(key), result):
            done[key] = result
    return Outcome(done)


def _is_recorded(run: str, record: CaptionRecord | None, result: Result) -> bool:
    generated = (record or {}).get("generated") or {}
    return generated.get("run") == run and generated["caption"] == result["generated_caption"]
