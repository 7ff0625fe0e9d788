"""`evaluate --sweep`: the same images captioned at each of several values of a setting."""

import csv
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from experiments.arms import SETTINGS_OF_PROMPTS, Arm, arms_named
from support.errors import SettingError
from support.settings import SETTINGS, Setting

MOST_SETTINGS = 2  # of a sweep: more cannot be drawn
MOST_POINTS = 100
TOP_K = "TOP_K_SIMILAR"
BOOLEANS = {"true": True, "false": False}
# These decide captions, but a sweep over them would show nothing.
NOT_SWEPT = {
    "RANDOM_SEED": "it decides which images are captioned, and points must have the same",
    "USE_GENERATED_AS_CONTEXT": "an evaluation shows original captions only",
}
# Without retrieval, these change nothing.
ONLY_WITH_CONTEXT = {name.upper() for name in SETTINGS_OF_PROMPTS} - {"PROMPT_WITHOUT_CONTEXT"}
Values = dict[str, list[Any]]  # setting -> its values


class Plan(NamedTuple):
    """What an evaluation compares."""

    arms: list[Arm]
    # Of a sweep, as results record it: settings with their values, and points with their arms.
    sweep: dict[str, Any] | None = None


def planned(
    arms: Sequence[str] | None, sweep: Sequence[str] | Mapping[str, Sequence[Any]] | None
) -> Plan:
    """The arms of these names, by default all; or those of a sweep, as text or as values.

    Raises SettingError for what cannot be compared.
    """
    if not sweep:
        return Plan(arms_named(arms))
    if arms:
        raise SettingError("A sweep compares its points: leave out --arms, or --sweep.")
    values = check_sweep(sweep) if isinstance(sweep, Mapping) else parse_sweep(sweep)
    points = [{"settings": one, "arm": arm_of_point(one)} for one in points_of(values)]
    return Plan(arms_of_sweep(values), {"settings": values, "points": points})


def parse_sweep(texts: Sequence[str]) -> Values:
    """The settings and values of "TOP_K_SIMILAR=0,1,3" and the like.

    A text in double quotes may hold commas. Raises SettingError, saying what is allowed.
    """
    values: Values = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        setting = _setting_named(name.strip(), text)
        if not equals or not listed.strip():
            raise SettingError(f"--sweep '{text}' names no values. Write {name}=VALUE,VALUE,…")
        if setting.name in values:
            raise SettingError(f"--sweep names {setting.name} twice. Put all values into one.")
        parts = next(csv.reader([listed], skipinitialspace=True))
        found = [_value(part, setting) for part in parts]
        values[setting.name] = list(dict.fromkeys(found))
    return check_sweep(values)


def check_sweep(values: Mapping[str, Sequence[Any]]) -> Values:
    """`values` if they can be swept over. Raises SettingError."""
    if not 1 <= len(values) <= MOST_SETTINGS:
        raise SettingError(f"A sweep is over 1 or {MOST_SETTINGS} settings, not {len(values)}.")
    checked: Values = {}
    for name, some in values.items():
        setting = _setting_named(name, name)
        wrong = next((value for value in some if not _allows(setting, value)), None)
        if wrong is not None or not some:
            raise SettingError(_not_allowed(setting, wrong))
        checked[name] = list(some)
    if (count := math.prod(map(len, checked.values()))) > MOST_POINTS:
        raise SettingError(f"The sweep has {count} points; at most {MOST_POINTS} are allowed.")
    return checked


def arms_of_sweep(values: Values) -> list[Arm]:
    """The arms of all combinations of `values`, each after the one without retrieval.

    What retrieval does not touch is the same at many points, and one arm.
    """
    arms: dict[str, Arm] = {}
    for settings in points_of(values):
        without = _without_retrieval(settings)
        arms.setdefault(without.name, without)
        if settings.get(TOP_K) != 0:
            name = point_name(settings)
            arms[name] = Arm(name, "retrieved", settings, {"none": without.name})
    return list(arms.values())


def points_of(values: Values) -> list[dict[str, Any]]:
    """All combinations of the values, each as setting -> value."""
    return [dict(zip(values, some, strict=True)) for some in product(*values.values())]


def point_name(settings: Mapping[str, Any]) -> str:
    """What an arm with these settings is called."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def arm_of_point(settings: Mapping[str, Any]) -> str:
    """The name of the arm that stands at a point of a sweep."""
    if settings.get(TOP_K) == 0:
        return _without_retrieval(settings).name
    return point_name(settings)


def _without_retrieval(settings: Mapping[str, Any]) -> Arm:
    felt = {name: v for name, v in settings.items() if name not in ONLY_WITH_CONTEXT}
    name = ", ".join(["none", *([point_name(felt)] if felt else [])])
    return Arm(name, "none", felt)


def _setting_named(name: str, text: str) -> Setting:
    swept = [s for s in SETTINGS if s.decides_caption and s.name not in NOT_SWEPT]
    found = next((setting for setting in swept if setting.name == name.upper()), None)
    if found is None:
        why = NOT_SWEPT.get(name.upper())
        known = any(setting.name == name.upper() for setting in SETTINGS)
        why = why or ("it decides no caption" if known else None)
        reason = f"{name} cannot be swept over: {why}" if why else f"'{name}' is no setting"
        raise SettingError(
            f"--sweep '{text}': {reason}. Allowed, because they decide captions: "
            f"{', '.join(setting.name for setting in swept)}."
        )
    return found


def _value(text: str, setting: Setting) -> Any:
    """The value of a setting that a text gives. Raises SettingError."""
    value: Any = text.strip()
    if setting.kind is bool:
        value = BOOLEANS.get(value.lower(), value)
    elif setting.kind is not str:
        for number in (int, float) if isinstance(setting.kind, tuple) else (int,):
            try:
                value = number(text)
                break
            except ValueError:
                continue
    if not _allows(setting, value):
        raise SettingError(_not_allowed(setting, value))
    return value


def _allows(setting: Setting, value: Any) -> bool:
    if setting.name == TOP_K and value == 0 and isinstance(value, int):
        return value is not False
    if setting.name == "PROMPT_TEMPLATE" and "{captions}" not in str(value):
        return False
    return setting.allows(value)


def _not_allowed(setting: Setting, value: Any) -> str:
    allowed = setting.allowed()
    if setting.name == TOP_K:
        allowed += ", or 0: without retrieval"
    if setting.name == "PROMPT_TEMPLATE":
        allowed += " with {captions} in it"
    shown = "no value" if value is None else f"'{value}'"
    return f"--sweep: {setting.name} cannot be {shown}. Allowed: {allowed}."
