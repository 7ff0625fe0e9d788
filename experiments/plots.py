"""Plots of an evaluation: each arm's difference from no retrieval, or a curve over a setting."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

COLORS = ("#3b6ea5", "#b5532f", "#4f8a4c", "#7a5195", "#8a7a2f", "#4a8f8f")
ZERO = {"difference": 0.0, "low": 0.0, "high": 0.0}
MOST_TICK = 16  # characters of a value below the axis


def plot_arms(
    scores: Mapping[str, Any], titles: Mapping[str, str], metrics: Mapping[str, str]
) -> bytes:
    """Each arm's metrics minus those of no retrieval, with 95 % intervals, as a PNG.

    `titles` name the arms, `metrics` the metrics that are drawn, each in a plot of its own.
    """
    figure, plots = _figure(metrics, 5.2, 0.5 * len(scores) + 1.3)
    for axes, (metric, heading) in zip(plots, metrics.items(), strict=True):
        for place, row in enumerate(scores.values()):
            change = row[metric].get("minus_none") or ZERO  # no retrieval, or without that arm
            axes.plot([change["low"], change["high"]], [place] * 2, color=COLORS[0], linewidth=2)
            axes.plot(change["difference"], place, "o", color=COLORS[0])
            at = {"xycoords": ("axes fraction", "data"), "va": "center"}
            axes.annotate(f"{row[metric]['value']:.2f}", (1.02, place), **at)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_yticks(range(len(scores)), [titles[arm] for arm in scores])
        axes.invert_yaxis()
        axes.set_xlabel(f"{heading}: difference from no retrieval")
    return _png(figure)


def plot_sweep(
    scores: Mapping[str, Any], sweep: Mapping[str, Any], metrics: Mapping[str, str]
) -> bytes:
    """Metrics minus those of no retrieval over a setting, with 95 % intervals, as a PNG.

    Of two settings the second gives the lines.
    """
    (across, values), *second = sweep["settings"].items()
    lines = second[0][1] if second else [None]
    figure, plots = _figure(metrics, 5.6, 4.2)
    for axes, (metric, heading) in zip(plots, metrics.items(), strict=True):
        for number, line in enumerate(lines):
            points = [
                p for p in sweep["points"] if not second or p["settings"][second[0][0]] == line
            ]
            changes = [scores[p["arm"]][metric].get("minus_none") or ZERO for p in points]
            label = f"{second[0][0]} = {_tick(line)}" if second else None
            _curve(axes, changes, COLORS[number % len(COLORS)], label, number, len(lines))
        axes.axhline(0, color="#888888", linewidth=1)
        axes.set_xticks(range(len(values)), [_tick(value) for value in values])
        axes.set_xlabel(across)
        axes.set_ylabel(f"{heading}: difference from no retrieval")
        if second:
            axes.legend(frameon=False)
    return _png(figure)


def _curve(
    axes: Any,
    changes: Sequence[Mapping[str, float]],
    color: str,
    label: str | None,
    number: int,
    count: int,
) -> None:
    """One of `count` lines, moved aside a little so that intervals do not hide each other."""
    places = [place + 0.08 * (number - (count - 1) / 2) for place in range(len(changes))]
    middle = [change["difference"] for change in changes]
    below = [change["difference"] - change["low"] for change in changes]
    above = [change["high"] - change["difference"] for change in changes]
    look = {"fmt": "o-", "color": color, "capsize": 3, "linewidth": 1.5}
    # An interval of percentiles need not hold the difference itself.
    errors = [[max(0.0, length) for length in lengths] for lengths in (below, above)]
    axes.errorbar(places, middle, yerr=errors, label=label, **look)


def _tick(value: Any) -> str:
    text = str(value).replace("\n", " ")
    return text if len(text) <= MOST_TICK else text[:MOST_TICK] + "…"


def _figure(metrics: Mapping[str, str], width: float, height: float) -> tuple[Any, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * len(metrics), height), layout="constrained")
    return figure, figure.subplots(1, len(metrics), squeeze=False)[0]


def _png(figure: Any) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, dpi=130, format="png")
    return image.getvalue()
