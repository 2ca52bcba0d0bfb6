"""Results as JSON objects of one line, each with the schema's version and its own type."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from ropeconv.version import __version__
from ropeconv.words.layout import RopeLayout

if TYPE_CHECKING:
    from ropeconv.kernels.selfcheck import KernelReport
    from ropeconv.proof.verdict import Verdict
    from ropeconv.story.conversion import ConversionReport
    from ropeconv.story.inspection import Inspection
    from ropeconv.words.errors import RopeconvError

SCHEMA = 1


def conversion_json(report: ConversionReport) -> str:
    """A conversion, done or planned."""
    plan = report.plan
    return _line(
        "conversion",
        {
            "done": report.done,
            "source": report.source,
            "target": report.target,
            "source_format": plan.source.format,
            "target_format": plan.target_format,
            "source_layout": plan.source_layout,
            "target_layout": plan.target_layout,
            "parts": plan.parts,
            "model": plan.model,
            "scaling_type": type(plan.model.rope.scaling).__name__.lower(),
            "files": [{"name": name, "nbytes": nbytes} for name, nbytes in report.written_files],
            "copied": report.copied_files,
            "tensors": plan.num_tensors,
            "reordered_tensors": plan.num_reordered,
            "read_nbytes": plan.read_nbytes,
            "written_nbytes": sum(nbytes for _, nbytes in report.written_files),
            "needs": report.needs,
            "shares": report.shares,
            "dropped": plan.dropped,
            "notes": plan.notes,
        },
    )


def verdict_json(verdict: Verdict) -> str:
    """A proof."""
    return _line(
        "verdict",
        {
            "outcome": verdict.outcome,
            "exit_code": int(verdict.exit_code),
            "target": verdict.target,
            "source": verdict.source,
            "exact": verdict.exact,
            "config": verdict.config,
            "scores": verdict.scores,
            "logits": verdict.logits,
            "described": verdict.described,
            "own_code": verdict.own_code,
        },
    )


def kernel_json(report: KernelReport) -> str:
    """The kernel's checks on one machine."""
    checks = [
        {**{f.name: getattr(check, f.name) for f in fields(check)}, "passed": check.passed}
        for check in report.checks
    ]
    return _line(
        "kernel",
        {
            "passed": report.passed,
            "device": report.device,
            "backend": report.backend,
            "torch": report.torch,
            "triton": report.triton,
            "checks": checks,
        },
    )


def inspection_json(inspection: Inspection) -> str:
    """What a checkpoint is."""
    return _line("inspection", {f.name: getattr(inspection, f.name) for f in fields(inspection)})


def error_json(error: RopeconvError) -> str:
    """A failure."""
    return _line(
        "error",
        {
            "code": error.code,
            "exit_code": int(error.exit_code),
            "what": error.what,
            "why": error.why,
            "fix": error.fix,
        },
    )


def _line(kind: str, values: dict[str, object]) -> str:
    head = {"schema": SCHEMA, "type": kind, "ropeconv": __version__}
    return json.dumps(head | {key: _plain(value) for key, value in values.items()}, sort_keys=False)


def _plain(value: object) -> object:
    """A record as JSON: names of its fields, values of its enums, no NaN (JSON has none)."""
    match value:
        case RopeLayout():
            return value.name
        case Enum():
            return value.value
        case Path():
            return str(value)
        case float() if not math.isfinite(value):
            return str(value)
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case _ if is_dataclass(value):
            return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        case _:
            return value
