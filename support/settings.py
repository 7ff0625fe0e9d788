"""The table of config.py's settings: flag, type, what each allows, which of them decide a caption.

Adding a setting means one line in config.py and one in SETTINGS.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import config
from support.errors import SettingError
from support.paths import expand_home
from support.text import without_credentials

NUMBER = (int, float)
KIND_NAMES: dict[Any, str] = {
    int: "a whole number",
    str: "text",
    bool: "True or False",
    NUMBER: "a number",
}
FILE_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{,90}\.json"
FILE_NAMES = ("IMAGE_EMBEDDING_DB", "CAPTION_DB", "CAPTION_EMBEDDING_DB")


@dataclass(frozen=True)
class Setting:
    """A setting of config.py: its flag, type and what it allows."""

    name: str
    flag: str | None
    kind: type | tuple[type, ...]
    help: str = ""
    low: float | None = None
    high: float | None = None
    # Whether another value may give an image another caption. No default, so none is forgotten.
    decides_caption: bool = field(kw_only=True)
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is allowed
    empty: bool = False  # "" is allowed

    def allows(self, value: Any) -> bool:
        """Whether `value` can be used."""
        if value is None:
            return self.optional
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            return False
        if isinstance(value, str):
            chosen = not self.choices or value in self.choices
            return chosen and "\0" not in value and (self.empty or bool(value.strip()))
        assert isinstance(value, bool | int | float)
        if value != value:  # NaN
            return False
        above = self.low is None or value >= self.low
        below = self.high is None or value <= self.high
        return above and below

    def allowed(self) -> str:
        """What can be used, in words."""
        if self.choices:
            return "one of " + ", ".join(repr(choice) for choice in self.choices)
        text = KIND_NAMES[self.kind]
        if self.low is not None:
            text += f" from {self.low}"
        if self.high is not None:
            text += f" to {self.high}"
        return text + (", or None" if self.optional else "")


# fmt: off
SETTINGS = (
    Setting("DATASET_NAME", "--dataset", str,
            "Hub dataset, or a folder of images with captions.txt", decides_caption=False),
    Setting("DATASET_REVISION", None, str, optional=True, decides_caption=False),
    Setting("DATASET_SPLIT", "--split", str, "one split; default: all",
            optional=True, decides_caption=False),
    Setting("IMAGE_COLUMN", "--image-column", str, "default: recognised",
            optional=True, decides_caption=False),
    Setting("CAPTION_COLUMN", "--caption-column", str, "default: recognised",
            optional=True, decides_caption=False),
    Setting("EXPERIMENT_SAMPLES", "--experiment-samples", int, "images set aside as queries", 1,
            optional=True, decides_caption=False),
    Setting("EXPERIMENT_SPLIT", "--experiment-split", str, "the dataset's own split of queries",
            optional=True, decides_caption=False),
    Setting("GALLERY_SPLIT", "--gallery-split", str, "and of the gallery; several with commas",
            decides_caption=False),
    Setting("EXPERIMENT_IMAGE_INDEX", "--index", int, "which experiment image to caption", 0,
            decides_caption=False),
    Setting("TOTAL_SAMPLES", "--total-samples", int, "use only so many images", 2,
            optional=True, decides_caption=False),
    Setting("CLIP_MODEL_NAME", "--clip-model", str, "CLIP or SigLIP: Hub name or folder",
            decides_caption=False),  # the models decide captions too; runs record them apart
    Setting("VLM_MODEL_NAME", "--vlm-model", str, "vision-language model: Hub name or folder",
            decides_caption=False),
    Setting("VLM_SERVER", "--vlm-server", str,
            "captions by an OpenAI-compatible server: http://host:8000/v1",
            optional=True, decides_caption=False),
    Setting("CAPTION_EMBEDDING_MODEL", "--text-model", str,
            "sentence-transformers model: Hub name or folder", decides_caption=False),
    Setting("CLIP_REVISION", None, str, optional=True, decides_caption=False),
    Setting("VLM_REVISION", None, str, optional=True, decides_caption=False),
    Setting("CAPTION_EMBEDDING_REVISION", None, str, optional=True, decides_caption=False),
    Setting("CLIPSCORE_MODEL_NAME", "--clipscore-model", str,
            "CLIP for the scores of evaluate: Hub name or folder", decides_caption=False),
    Setting("CLIPSCORE_REVISION", None, str, optional=True, decides_caption=False),
    Setting("CAPTION_QUERY_PROMPT", "--query-prompt", str, "text put before a text query",
            optional=True, empty=True, decides_caption=False),
    Setting("TOP_K_SIMILAR", "--top-k", int, "how many similar images", 1, decides_caption=True),
    Setting("CAPTIONS_PER_NEIGHBOR", "--captions-per-neighbor", int,
            "captions of each similar image in the prompt", 1, decides_caption=True),
    Setting("USE_GENERATED_AS_CONTEXT", "--no-generated-context", bool,
            "do not show captions written earlier as context", decides_caption=True),
    Setting("SEARCH_WORD_WEIGHT", "--word-weight", NUMBER,
            "in a search by text, of words in common; 0 = none", 0, 1, decides_caption=False),
    Setting("MAX_CONTEXT_CAPTION_CHARS", None, int, "", 1, decides_caption=True),
    Setting("PROMPT_TEMPLATE", None, str, decides_caption=True),
    Setting("PROMPT_WITHOUT_CONTEXT", None, str, decides_caption=True),
    Setting("MAX_NEW_TOKENS", "--max-new-tokens", int, "longest caption, in tokens", 1, 4096,
            decides_caption=True),
    Setting("NUM_BEAMS", "--num-beams", int, "beams of the search for a caption; 1 = greedy", 1, 64,
            decides_caption=True),
    Setting("TEMPERATURE", "--temperature", NUMBER, "0 = greedy, above 0 samples", 0, 10,
            decides_caption=True),
    Setting("VLM_IMAGE_SPLITTING", None, bool, decides_caption=True),
    Setting("RANDOM_SEED", "--seed", int, "decides which images are set aside",
            -(2**63), 2**63 - 1, decides_caption=True),
    Setting("DTYPE", "--dtype", str, "of the models",
            choices=("auto", "float32", "bfloat16", "float16"), decides_caption=True),
    Setting("DEVICE", "--device", str, "auto, cpu, cuda, cuda:1, mps", decides_caption=False),
    Setting("IMAGE_BATCH_SIZE", "--image-batch-size", int, "images per CLIP batch", 1, 65536,
            decides_caption=False),
    Setting("VLM_BATCH_SIZE", "--vlm-batch-size", int, "images per captioning batch", 1, 65536,
            decides_caption=False),
    Setting("TEXT_BATCH_SIZE", "--text-batch-size", int, "captions per embedding batch", 1, 65536,
            decides_caption=False),
    Setting("DB_DIR", "--db-dir", str, "folder of the databases, as seen from the program's",
            decides_caption=False),
    Setting("IMAGE_EMBEDDING_DB", None, str, decides_caption=False),
    Setting("CAPTION_DB", None, str, decides_caption=False),
    Setting("CAPTION_EMBEDDING_DB", None, str, decides_caption=False),
    Setting("RESULTS_DIR", "--results-dir", str, "folder of the results, as seen from there",
            decides_caption=False),
    Setting("WRITE_PAGES", "--no-pages", bool, "write no HTML pages", decides_caption=False),
    Setting("MODE", "--mode", str, "demo when the Hub is out of reach, never, or always",
            choices=("auto", "hub", "demo"), decides_caption=False),
    Setting("SHOW_PROGRESS", None, bool, decides_caption=False),
)
# fmt: on

# What config.py had when each setting that decides a caption was new. A run over many images is
# named by the settings that differ from this, so that a new one voids no run: nothing here changes.
FIRST_DEFAULTS: dict[str, Any] = {
    "top_k_similar": 5,
    "captions_per_neighbor": 1,
    "use_generated_as_context": True,
    "max_context_caption_chars": 300,
    "prompt_template": (
        "Captions of similar images, nearest first:\n"
        "{captions}\n"
        "They may be wrong about this image. Describe this image in one sentence."
    ),
    "prompt_without_context": "Describe this image in one sentence.",
    "max_new_tokens": 60,
    "num_beams": 1,
    "temperature": 0.0,
    "vlm_image_splitting": False,
    "random_seed": 42,
    "dtype": "auto",
}


def configured_folder(folder: str) -> Path:
    """The folder that a setting names; a relative one is relative to config.py's folder."""
    return Path(config.__file__).resolve().parent / expand_home(folder)


def caption_settings() -> dict[str, Any]:
    """The settings that decide a caption, as results record them: lower-case name -> value."""
    deciding = [setting.name for setting in SETTINGS if setting.decides_caption]
    return {name.lower(): getattr(config, name) for name in deciding}


def changed_settings() -> dict[str, Any]:
    """Those settings that decide a caption and differ from their first default, by name."""
    changed = {}
    for name, value in sorted(caption_settings().items()):
        if value != FIRST_DEFAULTS[name]:
            # 1 and 1.0 are one temperature, but not the same JSON.
            changed[name] = float(value) if isinstance(FIRST_DEFAULTS[name], float) else value
    return changed


def check_settings() -> None:
    """Raises SettingError, naming setting, value and what is allowed, for the first bad setting."""
    for setting in SETTINGS:
        _check_value(setting)
    _check_file_names()
    if config.VLM_SERVER is not None:
        _check_server(config.VLM_SERVER)
    if "{captions}" not in config.PROMPT_TEMPLATE:
        raise SettingError(
            "PROMPT_TEMPLATE must contain {captions}, where the captions of similar images go."
        )
    if config.EXPERIMENT_SAMPLES is None:
        if config.EXPERIMENT_SPLIT is None:
            raise SettingError(
                "EXPERIMENT_SAMPLES is None, for all images of a split, but EXPERIMENT_SPLIT is "
                "None too. Set it to the dataset's split of queries, or EXPERIMENT_SAMPLES to a "
                "number."
            )
    elif config.EXPERIMENT_SAMPLES <= config.EXPERIMENT_IMAGE_INDEX:
        raise SettingError(
            f"EXPERIMENT_IMAGE_INDEX (--index) is {config.EXPERIMENT_IMAGE_INDEX}; it must be 0 to "
            f"{config.EXPERIMENT_SAMPLES - 1} (EXPERIMENT_SAMPLES is {config.EXPERIMENT_SAMPLES})."
        )


def _check_value(setting: Setting) -> None:
    if not hasattr(config, setting.name):
        raise SettingError(
            f"config.py has no {setting.name} any more. It must be {setting.allowed()}."
        )
    value = getattr(config, setting.name)
    if not setting.allows(value):
        takes_value = setting.flag is not None and setting.kind is not bool
        flag = f" ({setting.flag})" if takes_value else ""
        raise SettingError(
            f"{setting.name}{flag} is {value!r}; it must be {setting.allowed()}. Change it in "
            f"config.py{' or with the flag' if flag else ''}."
        )


def _check_server(address: str) -> None:
    if not _is_address(address):
        raise SettingError(
            f"VLM_SERVER (--vlm-server) is '{without_credentials(address)}'; it must be "
            "an address such as http://host:8000/v1, or None. A key goes into the environment "
            "variable VLM_SERVER_KEY."
        )
    if config.NUM_BEAMS > 1:
        raise SettingError(
            f"NUM_BEAMS (--num-beams) is {config.NUM_BEAMS}, but a VLM server (VLM_SERVER) takes "
            "no number of beams. Set it to 1, or VLM_SERVER to None."
        )


def _is_address(text: str) -> bool:
    """Whether `text` is the http(s) URL of a host, without a query."""
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:  # a port that is no number, or half a pair of brackets
        return False
    plain = text.isprintable() and not re.search("[ ?#]", text)
    return url.scheme in ("http", "https") and has_host and plain


def _check_file_names() -> None:
    names = [getattr(config, name) for name in FILE_NAMES]
    if not all(re.fullmatch(FILE_NAME, name) for name in names) or len(set(names)) < len(names):
        raise SettingError(
            f"{', '.join(FILE_NAMES)} are {names}; they must be three different file names without "
            "folders, of letters, digits, '-', '_' and '.', that end in .json."
        )
