"""What makes two runs the same: the gallery's images and captions, the models, the settings."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import config
from experiments.results import describe
from support.candidates import Candidate
from support.paths import absolute_path, expand_home
from support.records import Models
from support.settings import caption_settings, changed_settings
from support.storage.strict_json import to_json

# The settings that named a run when a run was named by all of them. Nothing is added here.
SETTINGS_OF_FORMER_NAMES = (
    "top_k_similar",
    "captions_per_neighbor",
    "use_generated_as_context",
    "max_context_caption_chars",
    "prompt_template",
    "prompt_without_context",
    "max_new_tokens",
    "num_beams",
    "temperature",
    "vlm_image_splitting",
    "random_seed",
    "dtype",
)


def short_hash(content: Any) -> str:
    """12 hex digits of the SHA-256 of bytes, or of anything else as JSON."""
    data = content if isinstance(content, bytes) else to_json(content).encode()
    return hashlib.sha256(data).hexdigest()[:12]


def run_name(originals: Sequence[Candidate], models: Models) -> str:
    """Names a run by all that decides its captions, and by nothing else.

    Those are the hashes and captions of the gallery's images (`originals`), the models that see
    images and write captions, and the settings that differ from their first default. Not among them
    are paths, the databases' numbers, and settings that came later and keep their default.
    """
    gallery = sorted((candidate.key, candidate.captions) for candidate in originals)
    described = describe(models)
    deciding = {kind: described[kind] for kind in ("clip", "vlm")}
    return short_hash([deciding, changed_settings(), gallery])


def former_run_name(originals: Sequence[Candidate], models: Models) -> str:
    """The name that the same run had in version 0.1, where paths and numbers were part of it."""
    gallery = [{**vars(found), "image": _label_as_given(found.image)} for found in originals]
    return short_hash([describe(models), settings_of_former_names(), gallery])


def settings_of_former_names() -> dict[str, Any]:
    """The settings that were part of every name in version 0.1, in their order."""
    settings = caption_settings()
    return {name: settings[name] for name in SETTINGS_OF_FORMER_NAMES}


def _label_as_given(label: str) -> str:
    """The label of a gallery image in version 0.1: the dataset's path as it was typed."""
    folder = absolute_path(config.DATASET_NAME) + os.sep
    if not label.startswith(folder):
        return label
    return str(expand_home(config.DATASET_NAME) / label.removeprefix(folder))
