"""Drawings for the HTML page, as inline SVG: a chart on a logarithmic scale, and a heat map.

Colours come from the page's style sheet by class, so that they follow light and dark. Every meaning
is carried by a shape or by words too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ropeconv.reports.text import number, short

SMALLEST_POWER = -18  # below it nothing can be told from zero
MOST_Y_LABELS = 7
LEFT, RIGHT, TOP, HEIGHT = 50, 10, 12, 250  # pixels round and of the plotting area
ZERO_ROW, BELOW = 30, 46  # the row of exact zeros, and the words below it
CROWDED = 9  # pixels between two points where marks become smaller

CELL_WIDTH, CELL_HEIGHT, GUTTER = 36, 24, 34
BLOCK_LAYERS = 8  # layers in one block: 8 * 36 + 34 pixels fit the narrowest phone


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values along the x axis; None where there is none."""

    name: str
    mark: str  # dot, triangle or line: drawn by that shape, coloured by that class
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn, and what a screen reader says of it."""

    key: str  # unique in the page
    title: str
    text: str
    x_title: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class HeatCells:
    """One layer's row of the heat map: the difference of each key head, and the bound."""

    layer: int
    values: tuple[float, ...]
    bound: float

    def kind(self, value: float) -> str:
        """The class of a cell."""
        return heat_class(value, self.bound)


class _Scale:
    """Places of one chart."""

    def __init__(self, chart: Chart, width: int) -> None:
        self.width = width
        self.right = width - RIGHT
        self.bottom = TOP + HEIGHT
        values = [v for series in chart.series for v in series.values if v is not None]
        powers = [math.log10(v) for v in values if 0 < v < math.inf]
        self.low = max(SMALLEST_POWER, math.floor(min(powers, default=-6)))
        self.high = max(self.low + 2, math.ceil(max(powers, default=0)))
        self.step = (self.right - LEFT) / max(len(chart.labels), 1)

    def x(self, index: int) -> float:
        """The middle of a place on the x axis."""
        return LEFT + (index + 0.5) * self.step

    def y(self, value: float) -> float:
        """A value's height; exact zero has a row of its own."""
        if value <= 0:
            return self.bottom + ZERO_ROW / 2
        power = min(max(math.log10(value), self.low), self.high)
        return TOP + (self.high - power) / (self.high - self.low) * HEIGHT


def draw_chart(chart: Chart, width: int) -> str:
    """A chart of that many pixels."""
    scale = _Scale(chart, width)
    key = f"{chart.key}-{width}"
    height = scale.bottom + ZERO_ROW + BELOW
    drawn = [
        (
            f'<svg class="chart" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            f' role="img" aria-labelledby="{key}-t {key}-d">'
        ),
        f'<title id="{key}-t">{escape(chart.title)}</title>',
        f'<desc id="{key}-d">{escape(chart.text)}</desc>',
        *_y_axis(scale),
        *_x_axis(chart, scale),
    ]
    for series in chart.series:
        drawn += _line(series, scale) if series.mark == "line" else _marks(chart, series, scale)
    return "\n".join([*drawn, "</svg>"])


def _y_axis(scale: _Scale) -> list[str]:
    every = max(1, math.ceil((scale.high - scale.low) / MOST_Y_LABELS))
    drawn = [
        (
            f'<rect class="zero-row" x="{LEFT}" y="{scale.bottom}" width="{scale.right - LEFT}"'
            f' height="{ZERO_ROW}"/>'
        ),
        (
            f'<text class="tick" x="{LEFT - 6}" y="{scale.bottom + 13}" text-anchor="end">exactly'
            f'<tspan x="{LEFT - 6}" dy="12">zero</tspan></text>'
        ),
    ]
    for power in range(scale.high, scale.low, -every):
        y = scale.y(10.0**power)
        drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{scale.right}"/>')
        label = (
            f"{10.0**power:g}"
            if power in (0, 1, 2)
            else f'10<tspan class="power" dy="-5">{"&minus;" if power < 0 else ""}{abs(power)}'
            "</tspan>"
        )
        drawn.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    return drawn


def _x_axis(chart: Chart, scale: _Scale) -> list[str]:
    widest = max((len(label) for label in chart.labels), default=1)
    every = max(1, math.ceil((widest * 7 + 8) / scale.step))
    y = scale.bottom + ZERO_ROW + 16
    drawn = [
        f'<text class="tick" x="{scale.x(index):.1f}" y="{y}" text-anchor="middle">'
        f"{escape(label)}</text>"
        for index, label in enumerate(chart.labels)
        if index % every == 0
    ]
    middle = (LEFT + scale.right) / 2
    drawn.append(
        f'<text class="axis" x="{middle:.1f}" y="{y + 22}" text-anchor="middle">'
        f"{escape(chart.x_title)}</text>"
    )
    return drawn


def _line(series: Series, scale: _Scale) -> list[str]:
    """A level for each place, without slopes between them."""
    path = [
        f"M{scale.x(index) - scale.step / 2:.1f} {scale.y(value):.1f}h{scale.step:.1f}"
        for index, value in enumerate(series.values)
        if value is not None and value > 0
    ]
    return [f'<path class="line" d="{"".join(path)}"/>'] if path else []


def _marks(chart: Chart, series: Series, scale: _Scale) -> list[str]:
    known = [(at, value) for at, value in enumerate(series.values) if value is not None]
    radius = 3 if scale.step < CROWDED else 5
    points = " ".join(f"{scale.x(at):.1f},{scale.y(value):.1f}" for at, value in known)
    drawn = [f'<polyline class="{series.mark} path" points="{points}"/>'] if known else []
    for at, value in known:
        said = f"{chart.x_title} {chart.labels[at]}: {series.name} {_in_words(value)}"
        shape = mark_shape(series.mark, scale.x(at), scale.y(value), radius)
        drawn.append(f"<g><title>{escape(said)}</title>{shape}</g>")
    return drawn


def mark_shape(mark: str, x: float, y: float, radius: float) -> str:
    """One point: a filled dot, or a hollow triangle."""
    if mark == "dot":
        return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'
    side = radius * 1.2
    return (
        f'<path class="triangle" d="M{x:.1f} {y - side:.1f}l{side:.1f} {2 * side:.1f}'
        f'h{-2 * side:.1f}z"/>'
    )


def legend_mark(mark: str) -> str:
    """The shape of a series beside its name."""
    inner = (
        '<path class="line" d="M0 8h28"/>' if mark == "line" else mark_shape(mark, 14.0, 8.0, 5.0)
    )
    return f'<svg width="28" height="16" viewBox="0 0 28 16" aria-hidden="true">{inner}</svg>'


def draw_heat(rows: Sequence[HeatCells]) -> list[str]:
    """Blocks of a few layers each, which the page lets flow: columns are layers, rows key heads."""
    heads = max((len(row.values) for row in rows), default=0) or 1
    return [
        _block(rows[first : first + BLOCK_LAYERS], heads)
        for first in range(0, len(rows), BLOCK_LAYERS)
    ]


def _block(rows: Sequence[HeatCells], heads: int) -> str:
    width, height = GUTTER + CELL_WIDTH * len(rows), 20 + CELL_HEIGHT * heads
    key, title = f"heat-{rows[0].layer}", _block_title(rows)
    drawn = [
        (
            f'<svg class="heat" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            f' role="img" aria-labelledby="{key}-t {key}-d">'
        ),
        f'<title id="{key}-t">{title}</title>',
        f'<desc id="{key}-d">{_block_text(rows)}</desc>',
    ]
    for head in range(heads):
        y = 20 + head * CELL_HEIGHT + CELL_HEIGHT / 2 + 4
        drawn.append(
            f'<text class="tick" x="{GUTTER - 6}" y="{y}" text-anchor="end">k{head}</text>'
        )
    for column, row in enumerate(rows):
        x = GUTTER + column * CELL_WIDTH
        drawn.append(
            f'<text class="tick" x="{x + CELL_WIDTH / 2}" y="14" text-anchor="middle">'
            f"{row.layer}</text>"
        )
        values = row.values or (math.inf,) * heads
        for head, value in enumerate(values):
            drawn.append(_cell(row, head, value, x))
    return "\n".join([*drawn, "</svg>"])


def _block_title(rows: Sequence[HeatCells]) -> str:
    return f"Largest score difference, layers {rows[0].layer} to {rows[-1].layer}, by key head"


def _block_text(rows: Sequence[HeatCells]) -> str:
    worst = max(rows, key=lambda row: max(row.values, default=math.inf))
    largest = max(worst.values, default=math.inf)
    if largest == 0:
        return "Every cell is exactly zero."
    return f"The largest is {_in_words(largest)}, in layer {worst.layer}."


def _cell(row: HeatCells, head: int, value: float, x: float) -> str:
    y = 20 + head * CELL_HEIGHT
    kind = row.kind(value)
    said = f"layer {row.layer}, key head {head}: {_in_words(value)}"
    if row.bound and math.isfinite(value):
        said += f", rounding may cause {number(row.bound)}"
    corner = _corner(kind, x + CELL_WIDTH - 11, y + 2)
    return (
        f'<g class="{kind}"><title>{said}</title>'
        f'<rect x="{x + 1}" y="{y + 1}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}"'
        f' rx="2"/>{corner}<text x="{x + CELL_WIDTH / 2}" y="{y + CELL_HEIGHT / 2 + 4}"'
        f' text-anchor="middle">{short(value)}</text></g>'
    )


def _corner(kind: str, x: float, y: float) -> str:
    """The mark of a cell beyond the bound, for eyes that do not see the colour."""
    beyond = kind.startswith("beyond")
    return f'<path class="corner" d="M{x} {y}h9v9z"/>' if beyond else ""


def heat_swatch(kind: str) -> str:
    """A cell beside the name of its class."""
    return (
        '<svg class="heat" width="28" height="16" viewBox="0 0 28 16" aria-hidden="true">'
        f'<g class="{kind}"><rect x="1" y="1" width="26" height="14" rx="2"/>'
        f"{_corner(kind, 17, 2)}</g></svg>"
    )


def heat_class(value: float, bound: float) -> str:
    """How bad a cell is: zero, within the bound, beyond it in three steps, or no number.

    >>> [heat_class(v, 1e-5) for v in (0.0, 5e-6, 2e-5, 0.1, 3.0)]
    ['zero', 'within', 'beyond-1', 'beyond-2', 'beyond-3']
    """
    if not math.isfinite(value):
        return "none"
    if value == 0:
        return "zero"
    if value <= bound:
        return "within"
    power = math.log10(value / bound) if bound else math.inf
    return "beyond-1" if power <= 2 else "beyond-2" if power <= 5 else "beyond-3"  # noqa: PLR2004


def _in_words(value: float) -> str:
    return "exactly zero" if value == 0 else number(value)
