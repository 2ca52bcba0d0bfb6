"""What `ropeconv convert ...` does: calls the story, and shows what came of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from shlex import quote

from ropeconv.cli.progress import progress_of
from ropeconv.cli.speech import Speech
from ropeconv.cli.stopping import stopping
from ropeconv.cli.styles import good
from ropeconv.moving.effort import Effort
from ropeconv.reports.text import size
from ropeconv.story.conversion import ConversionReport, Handling, HfOptions, MetaOptions, convert
from ropeconv.thinking.config_map import Said
from ropeconv.words.layout import LAYOUTS, RopeLayout
from ropeconv.words.model import Note
from ropeconv.words.parts import Part

# what the commands say is made of these
__all__ = [
    "LAYOUTS",
    "Handling",
    "HfOptions",
    "MetaOptions",
    "Said",
    "convert_and_show",
    "relayout_and_show",
]


def convert_and_show(
    speech: Speech,
    source: Path,
    target: Path,
    options: HfOptions | MetaOptions,
    *,
    said: Said,
    allow_drift: bool,
    effort: Effort,
    handling: Handling,
    look: bool,
    dry_run: bool,
) -> None:
    """Between formats."""
    with progress_of(speech) as listen, stopping() as stop:
        done = convert(
            source,
            target,
            options,
            said=said,
            allow_drift=allow_drift,
            effort=effort,
            handling=handling,
            look=look,
            dry_run=dry_run,
            listen=listen,
            stop=stop,
        )
    _show(speech, done, _said_options(said))


def relayout_and_show(
    speech: Speech,
    source: Path,
    target: Path | None,
    layout: RopeLayout,
    *,
    family: Path | None,
    parts: Collection[Part],
    effort: Effort,
    handling: Handling,
    look: bool,
    dry_run: bool,
) -> None:
    """Within Hugging Face's format; without a target the source is rewritten where it lies."""
    from ropeconv.story.describing import described_family
    from ropeconv.story.relayout import relayout, relayout_in_place

    described = None if family is None else described_family(family)
    chosen = tuple(part for part in Part if part in parts)
    with progress_of(speech) as listen, stopping() as stop:
        if target is None:
            done = relayout_in_place(
                source,
                layout,
                described=described,
                parts=chosen,
                look=look,
                dry_run=dry_run,
                listen=listen,
                stop=stop,
            )
        else:
            done = relayout(
                source,
                target,
                layout,
                effort=effort,
                handling=handling,
                described=described,
                parts=chosen,
                look=look,
                dry_run=dry_run,
                listen=listen,
                stop=stop,
            )
    _show(speech, done, "" if family is None else f" --family {quote(str(family))}")


def _said_options(said: Said) -> str:
    words = (
        ("--theta", said.theta),
        ("--rope-factor", said.rope_factor),
        ("--context-length", said.context_length),
    )
    return "".join(f" {name} {value:g}" for name, value in words if value is not None)


def _show(speech: Speech, done: ConversionReport, said: str) -> None:
    plan = done.plan
    speech.machine(done)
    speech.notes(plan.notes)
    speech.notes(Note(kind="dropped", text=f"`{drop.name}`: {drop.why}") for drop in plan.dropped)
    if done.copied_files:
        names = ", ".join(f"`{name}`" for name in done.copied_files)
        text = f"{names}, unchanged, even where they describe the source's form"
        speech.notes([Note(kind="copied", text=text)])
    moved = (
        f"{plan.num_tensors} tensors, {plan.num_reordered} of them reordered"
        f" from {plan.source_layout} to {plan.target_layout} rows"
    )
    if plan.parts != (Part.TEXT,):
        moved += f" ({' and '.join(part.value for part in plan.parts)})"
    if not done.done:
        for name, nbytes in done.written_files:
            speech.result(f"{size(nbytes):>12}  {name}")
        needs = done.needs
        speech.result(
            f"would read {size(needs.read_nbytes)}, write {size(needs.written_nbytes)},"
            f" take at most {size(needs.memory_nbytes)} of memory: {moved}"
        )
        speech.result(
            f"would need {size(needs.disk_nbytes)} of disk, {size(needs.disk_free_nbytes)} are free"
        )
        return
    if done.target == done.source:
        speech.result(good("rewrote"), f" the rows of {done.source}: {moved}")
        return  # the older form is gone: there is nothing to compare with
    speech.result(
        good("converted"), f" {done.source} to {done.target}: {size(plan.target_nbytes)}, {moved}"
    )
    paths = f"{quote(str(done.target))} --against {quote(str(done.source))}"
    speech.hint(f"next: ropeconv verify checkpoint {paths}{said}")
