"""Charts as SVG, drawn from data: they scale, print, and say their values to pointer and keyboard.

The page's script makes each a slider, whose value is the point that is read.
"""

import json
import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

import numpy as np

from abdoseg.report.ticks import ticks

WIDTH, HEIGHT = 470, 240
"""Units; the page's style sets text of 13 units, which are 10 px where a window of 400 px leaves the chart 368."""

LEFT, RIGHT, TOP, BOTTOM = 60, 28, 12, 40

_CHARACTER = 7.2
"""Units of an average character, rather too many."""

_MOST_TITLE = 216
"""Units that titles beside box plots may take; longer ones are squeezed."""

LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind readers tell apart."""

SMOOTHED_OVER = 20
"""Parts of a curve: its smooth line is the mean over a twentieth of it."""

Curve = Sequence[tuple[float, float]]


def line_chart(curves: Mapping[str, Curve], *, label: str, of: str = "step", smooth: bool = True) -> str:
    """Return curves over steps: as measured, pale, and their running means.

    Parameters
    ----------
    curves
        Name -> points (step, value); empty ones are left out.
    label
        What the chart shows, for those who do not see it.
    of
        Name of the horizontal axis.
    smooth
        Whether there are running means; what is set and not measured needs none.
    """
    curves = {name: points for name, points in curves.items() if points}
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    across, up = _Scale.over(xs, LEFT, WIDTH - RIGHT), _Scale.over(ys, HEIGHT - BOTTOM, TOP)
    svg = _svg(HEIGHT, label)
    shown = [
        {"name": name, "colour": colour, "points": [[x, _short(y)] for x, y in points]}
        for (name, points), colour in zip(curves.items(), LINE_COLOURS * len(curves), strict=False)
    ]
    svg.set(
        "data-lines",
        json.dumps(
            {
                "left": LEFT,
                "right": WIDTH - RIGHT,
                "top": TOP,
                "bottom": HEIGHT - BOTTOM,
                "x": [across.low, across.high],
                "of": of,
                "lines": shown,
            }
        ),
    )
    _axes(svg, across, up, of)
    for line in shown:
        points = curves[str(line["name"])]
        colour = str(line["colour"])
        many = smooth and len(points) > 2 * SMOOTHED_OVER
        _path(svg, [(across(x), up(y)) for x, y in points], colour, "raw" if many else "smooth")
        if many:
            _path(svg, [(across(x), up(y)) for x, y in _smoothed(points)], colour, "smooth")
        if len(points) <= 2 * SMOOTHED_OVER:
            for x, y in points:
                _add(svg, "circle", cx=across(x), cy=up(y), r=2.5, fill=colour)
    return _text_of(svg)


def box_plots(
    groups: Mapping[str, tuple[str, Sequence[tuple[str, float]]]], *, label: str, unit: str, most: float | None = None
) -> str:
    """Return a row a group: box from quartile to quartile, median, whiskers to 1.5 boxes, and every value as a point.

    Parameters
    ----------
    groups
        Title -> (colour, values with the name of what each is of).
    label, unit
        What the chart shows; the axis's name.
    most
        End of the axis, where the values have one.
    """
    row = 24
    titles = {title: f"{title} ({len(named)})" for title, (_, named) in groups.items()}
    left = min(_MOST_TITLE, 16 + _CHARACTER * max(map(len, titles.values())))
    height = TOP + BOTTOM + row * len(groups)
    values = [v for _, named in groups.values() for _, v in named]
    ends = [0.0] if min(values) >= 0 else []
    across = _Scale.over([*values, *ends, *([] if most is None else [most])], left, WIDTH - RIGHT)
    svg = _svg(height, label)
    svg.set("data-boxes", "")
    for at in ticks(across.low, across.high):
        _add(svg, "line", x1=across(at), x2=across(at), y1=TOP, y2=height - BOTTOM, **{"class": "grid"})
        _add(svg, "text", x=across(at), y=height - BOTTOM + 17, **{"class": "tick middle"}).text = f"{at:g}"
    _add(svg, "text", x=(left + WIDTH - RIGHT) / 2, y=height - 5, **{"class": "tick middle"}).text = unit
    for i, (title, (colour, named)) in enumerate(groups.items()):
        y = TOP + row * (i + 0.5)
        _title(svg, titles[title], left - 8, y + 4)
        group = _add(svg, "g", **{"data-row": title})
        _box(group, across, y, colour, np.array([v for _, v in named]))
        for j, (name, value) in enumerate(named):
            # Spread by the golden ratio: no two neighbours at one height, and the same every time.
            off = ((j * 0.618 + 0.5) % 1 - 0.5) * row * 0.6
            point = _add(group, "circle", cx=across(value), cy=y + off, r=2.2, fill=colour, **{"class": "point"})
            _add(point, "title").text = f"{name}: {value:.1f}"
    return _text_of(svg)


def _title(svg: ET.Element, text: str, right: float, y: float) -> None:
    """Write a title that ends at ``right``, squeezed where it would not fit."""
    title = _add(svg, "text", x=right, y=y, **{"class": "tick end"})
    title.text = text
    if len(text) * _CHARACTER > _MOST_TITLE:
        title.set("textLength", str(right - 2))
        title.set("lengthAdjust", "spacingAndGlyphs")


def _box(svg: ET.Element, across: "_Scale", y: float, colour: str, values: "np.ndarray") -> None:
    low, median, high = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (high - low)
    ends = values[(values >= low - reach) & (values <= high + reach)]
    _add(svg, "line", x1=across(ends.min()), x2=across(ends.max()), y1=y, y2=y, **{"class": "whisker"})
    _add(
        svg,
        "rect",
        x=across(low),
        width=max(across(high) - across(low), 1),
        y=y - 7,
        height=14,
        fill=colour,
        **{"class": "box"},
    )
    _add(svg, "line", x1=across(median), x2=across(median), y1=y - 7, y2=y + 7, **{"class": "median"})


def _smoothed(points: Curve) -> Curve:
    n = max(1, len(points) // SMOOTHED_OVER)
    y = np.array([p[1] for p in points])
    sums = np.concatenate([[0.0], np.cumsum(y)])
    first = np.maximum(np.arange(len(y)) - n + 1, 0)
    means = (sums[np.arange(len(y)) + 1] - sums[first]) / (np.arange(len(y)) + 1 - first)
    return [(x, float(m)) for (x, _), m in zip(points, means, strict=True)]


class _Scale:
    """Values to pixels."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high, self._start, self._stop = low, high, start, stop

    @classmethod
    def over(cls, values: Sequence[float], start: float, stop: float) -> "_Scale":
        low, high = min(values), max(values)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        return cls(low, high, start, stop)

    def __call__(self, value: float) -> float:
        part = (float(value) - self.low) / (self.high - self.low)
        return round(self._start + part * (self._stop - self._start), 1)


def _svg(height: float, label: str) -> ET.Element:
    return ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": label, "class": "chart"})


def _axes(svg: ET.Element, across: _Scale, up: _Scale, of: str) -> None:
    for at in ticks(up.low, up.high):
        _add(svg, "line", x1=LEFT, x2=WIDTH - RIGHT, y1=up(at), y2=up(at), **{"class": "grid"})
        _add(svg, "text", x=LEFT - 6, y=up(at) + 4, **{"class": "tick end"}).text = f"{at:g}"
    for at in ticks(across.low, across.high):
        _add(svg, "text", x=across(at), y=HEIGHT - BOTTOM + 17, **{"class": "tick middle"}).text = f"{at:g}"
    _add(svg, "text", x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, **{"class": "tick middle"}).text = of


def _path(svg: ET.Element, points: Sequence[tuple[float, float]], colour: str, kind: str) -> None:
    _add(svg, "polyline", points=" ".join(f"{x},{y}" for x, y in points), stroke=colour, fill="none", **{"class": kind})


def _add(parent: ET.Element, tag: str, **attributes: object) -> ET.Element:
    return ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})


def _text_of(svg: ET.Element) -> str:
    return ET.tostring(svg, encoding="unicode")


def _short(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else value
