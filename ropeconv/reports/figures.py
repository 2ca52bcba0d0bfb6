"""The page's three figures: error by layer and key head, beside bound and controls, by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ropeconv.proof.judgement import judge_layer
from ropeconv.reports.charts import (
    Chart,
    HeatCells,
    Series,
    draw_chart,
    draw_heat,
    heat_swatch,
    legend_mark,
)
from ropeconv.reports.markup import details, figure_number, table, text
from ropeconv.reports.text import number

if TYPE_CHECKING:
    from ropeconv.proof.verdict import ByDistance, DistancePoint, LayerScores, ScoreCheck

NARROW, WIDE = 326, 736  # pixels of a phone and of everything else; style sheets show one of both
BOUND = "what rounding may cause"
HEAT_LEGEND = (
    ("zero", "exactly zero"),
    ("within", "within rounding"),
    ("beyond-1", "beyond rounding, up to 100 times"),
    ("beyond-2", "more than 100 times the bound"),
    ("beyond-3", "more than 100,000 times the bound"),
    ("none", "no number"),
)


def figures(scores: ScoreCheck) -> tuple[str, ...]:
    """Those for which there are numbers."""
    if not scores.layers:
        return ()
    found = [_heat_figure(scores.layers)]
    if scores.computed:
        found.append(_layer_figure(scores.layers))
    if scores.by_distance is not None:
        found.append(_distance_figure(scores.by_distance))
    return tuple(found)


def _heat_figure(layers: tuple[LayerScores, ...]) -> str:
    rows = [HeatCells(layer=one.layer, values=one.groups, bound=one.bound) for one in layers]
    heads = max(len(row.values) for row in rows)
    kinds = {row.kind(value) for row in rows for value in row.values or (float("inf"),)}
    legend = "".join(
        f"<li>{heat_swatch(kind)}{text(words)}</li>" for kind, words in HEAT_LEGEND if kind in kinds
    )
    cells = [
        [str(row.layer), *(map(figure_number, row.values) if row.values else ["&ndash;"] * heads)]
        for row in rows
    ]
    columns = ["layer", *(f"key head {at}" for at in range(heads))]
    return (
        "<h2>Error by layer and key head</h2><figure><figcaption>The largest difference between an"
        " attention score of the target and the same score of the source. Columns are layers, rows"
        " are key heads with the query heads that share them.</figcaption>"
        f'<ul class="legend">{legend}</ul>'
        f'<div class="blocks">{"".join(draw_heat(rows))}</div></figure>'
        + details("The same as a table", table("Error by layer and key head", columns, cells))
    )


def _layer_figure(layers: tuple[LayerScores, ...]) -> str:
    known = [layer if layer.groups else None for layer in layers]
    chart = Chart(
        key="layers",
        title="Error of each layer beside its bound and its weakest control",
        text=_layer_text([layer for layer in known if layer]),
        x_title="layer",
        labels=tuple(str(layer.layer) for layer in layers),
        series=(
            Series(
                name=BOUND, mark="line", values=tuple(one.bound if one else None for one in known)
            ),
            Series(
                name="weakest control",
                mark="triangle",
                values=tuple(one.control if one else None for one in known),
            ),
            Series(
                name="largest difference",
                mark="dot",
                values=tuple(one.max_difference if one else None for one in known),
            ),
        ),
    )
    rows = [_layer_row(layer) for layer in layers]
    title = "All numbers of each layer"
    measured = ("largest difference", "bound", "weakest control", "all shifted", "at one place")
    head = ("layer", *measured, "outcome")
    return (
        "<h2>Error against bound and controls</h2><figure><figcaption>A right conversion lies"
        " below the dashed line, mostly at exactly zero. The weakest planted mistake must lie far"
        " above it: otherwise the check could not have seen a mistake.</figcaption>"
        f"{_both(chart)}</figure>" + details(title, table(title, head, rows, words=(6,)))
    )


def _layer_row(layer: LayerScores) -> list[str]:
    outcome, _ = judge_layer(layer)
    found = (layer.max_difference, layer.bound, layer.control, layer.shifted, layer.clamped)
    cells = [figure_number(value) if layer.groups else "&ndash;" for value in found]
    return [str(layer.layer), *cells, text(outcome.value)]


def _layer_text(layers: list[LayerScores]) -> str:
    worst = max(layers, key=lambda layer: layer.max_difference)
    largest = "exactly zero" if worst.max_difference == 0 else number(worst.max_difference)
    return (
        f"The largest difference of {len(layers)} layers is {largest}, in layer {worst.layer}."
        f" Rounding may cause {number(min(layer.bound for layer in layers))} to"
        f" {number(max(layer.bound for layer in layers))}. The weakest control is"
        f" {number(min(layer.control for layer in layers))}."
    )


def _distance_figure(found: ByDistance) -> str:
    labels = tuple(_range(point) for point in found.points)
    chart = Chart(
        key="distance",
        title=f"Error by distance, layer {found.layer}, key head {found.group}",
        text="The control is near zero at distance 0 and far above the bound elsewhere. The largest"
        f" difference is {number(max(point.difference for point in found.points))}.",
        x_title="tokens apart, at least",
        labels=tuple(f"{point.first:,}" for point in found.points),
        series=(
            Series(name=BOUND, mark="line", values=(found.bound,) * len(found.points)),
            Series(
                name="control: not reordered",
                mark="triangle",
                values=tuple(point.control for point in found.points),
            ),
            Series(
                name="largest difference",
                mark="dot",
                values=tuple(point.difference for point in found.points),
            ),
        ),
    )
    rows = [
        [label, figure_number(point.difference), figure_number(point.control)]
        for label, point in zip(labels, found.points, strict=True)
    ]
    head = ("distance", "largest difference", "control: not reordered")
    return (
        f"<h2>Error by distance, in layer {found.layer}</h2><figure><figcaption>At distance 0 every"
        " layout gives the right score, so a check that looks at near tokens only lets wrong models"
        f" pass. {_which(found)}, computed in float64.</figcaption>{_both(chart)}</figure>"
        + details("The same as a table", table("Error by distance", head, rows, words=(0,)))
    )


def _which(found: ByDistance) -> str:
    exact = all(point.difference == 0 for point in found.points)
    words = "the hardest to tell apart" if exact else "the one that differs most"
    return f"Shown is key head {found.group} of layer {found.layer}, {words}"


def _range(point: DistancePoint) -> str:
    same = point.first == point.last
    return f"{point.first:,}" if same else f"{point.first:,} to {point.last:,}"


def _both(chart: Chart) -> str:
    legend = "".join(
        f"<li>{legend_mark(series.mark)}{text(series.name)}</li>" for series in chart.series
    )
    return (
        f'<ul class="legend">{legend}</ul>'
        f'<div class="narrow">{draw_chart(chart, NARROW)}</div>'
        f'<div class="wide">{draw_chart(chart, WIDE)}</div>'
    )
