"""The forms of each result, by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ropeconv.reports.html_report import verdict_html
from ropeconv.reports.json_report import (
    conversion_json,
    inspection_json,
    kernel_json,
    verdict_json,
)
from ropeconv.reports.junit_report import kernel_junit, verdict_junit
from ropeconv.reports.markdown_report import (
    conversion_markdown,
    inspection_markdown,
    kernel_markdown,
    verdict_markdown,
)

# A result's forms take that result only; the type checker cannot say so for a table of tables.
Forms = Mapping[str, Callable[[Any], str]]

CONVERSION: Forms = {".json": conversion_json, ".md": conversion_markdown}
INSPECTION: Forms = {".json": inspection_json, ".md": inspection_markdown}
VERDICT: Forms = {
    ".json": verdict_json,
    ".xml": verdict_junit,
    ".md": verdict_markdown,
    ".html": verdict_html,
}
KERNEL: Forms = {".json": kernel_json, ".xml": kernel_junit, ".md": kernel_markdown}
