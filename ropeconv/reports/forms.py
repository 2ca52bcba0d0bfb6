"""The forms of each result, by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

# A result's forms take that result only; the type checker cannot say so for a table of tables.
Forms = Mapping[str, Callable[[Any], str]]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A renderer that is imported when the first result asks for it."""

    module: str  # of this package
    name: str

    def __call__(self, result: object) -> str:
        """The result in this form."""
        return str(getattr(import_module(f"ropeconv.reports.{self.module}"), self.name)(result))


CONVERSION: Forms = {
    ".json": Form(module="json_report", name="conversion_json"),
    ".md": Form(module="markdown_report", name="conversion_markdown"),
}
INSPECTION: Forms = {
    ".json": Form(module="json_report", name="inspection_json"),
    ".md": Form(module="markdown_report", name="inspection_markdown"),
}
VERDICT: Forms = {
    ".json": Form(module="json_report", name="verdict_json"),
    ".xml": Form(module="junit_report", name="verdict_junit"),
    ".md": Form(module="markdown_report", name="verdict_markdown"),
    ".html": Form(module="html_report", name="verdict_html"),
}
KERNEL: Forms = {
    ".json": Form(module="json_report", name="kernel_json"),
    ".xml": Form(module="junit_report", name="kernel_junit"),
    ".md": Form(module="markdown_report", name="kernel_markdown"),
}
ERROR: Forms = {".json": Form(module="json_report", name="error_json")}
