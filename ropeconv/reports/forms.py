"""The forms of each result, by the ending of a file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

# A result's forms take that result only; the type checker cannot say so for a table of tables.
Forms = Mapping[str, Callable[..., str]]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A renderer that is imported when the first result asks for it."""

    module: str  # of this package
    name: str

    def __call__(self, result: object, *about: object) -> str:
        """The result in this form; `about` is what else a form wants to know."""
        render = getattr(import_module(f"ropeconv.reports.{self.module}"), self.name)
        return str(render(result, *about))


def timed(forms: Forms, seconds: Mapping[str, float]) -> Forms:
    """The same forms, where JUnit says how long each part took; the others have no clock."""
    junit = forms[".xml"]
    return {**forms, ".xml": lambda result: junit(result, seconds)}


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
