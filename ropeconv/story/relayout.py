"""Relayout: rows of a Hugging Face checkpoint move into the other layout, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from threading import Event

from ropeconv.formats import hf, only_format
from ropeconv.formats.checkpoint import Checkpoint, folder_names, read_text
from ropeconv.formats.folder import MANIFEST
from ropeconv.formats.safetensors import Header, read_header, restamped_header
from ropeconv.formats.stamps import UNFINISHED, read_held, stamp_key, with_stamps
from ropeconv.knowledge.family import Family
from ropeconv.moving.checks import check_target
from ropeconv.moving.effort import BLOCK_NBYTES, Effort, default_jobs
from ropeconv.moving.examine import examine
from ropeconv.moving.inplace import PORTION_BLOCKS, InPlace, check_in_place, sum_samples
from ropeconv.moving.resources import check_needs, needs_of, settle
from ropeconv.moving.staging import Staging
from ropeconv.story.conversion import ConversionReport, Handling, carry_out, left_out
from ropeconv.story.detection import check_declared, looking_at
from ropeconv.thinking.config_map import Said, state_model
from ropeconv.thinking.evidence import Evidence
from ropeconv.thinking.family_model import for_runtime, state_family
from ropeconv.thinking.inventory import take_stock
from ropeconv.thinking.manifest import render_manifest
from ropeconv.thinking.plan import Plan
from ropeconv.thinking.relayout import plan_relayout, stamps_of
from ropeconv.words.errors import Unsupported
from ropeconv.words.events import Listener, nobody
from ropeconv.words.layout import RopeLayout
from ropeconv.words.model import Format
from ropeconv.words.parts import Part


def plan_new_layout(
    source: Path,
    layout: RopeLayout,
    described: Family | None = None,
    parts: Sequence[Part] = (Part.TEXT,),
    *,
    in_place: bool = False,
    stamps: Mapping[str, str] | None = None,
    stop: Event | None = None,
) -> Plan:
    """Discover the source, examine what the plan depends on, and decide everything.

    Args:
        source: folder of the checkpoint.
        layout: of the target.
        described: the table of a model type that ropeconv has none for.
        parts: of the model, whose rows move.
        in_place: the target's files are the source's.
        stamps: those to believe, whatever the files say.
        stop: set it and looking at the bytes ends.

    Raises:
        AlreadyConverted: the rows are in that layout already.
    """
    if only_format(source) is Format.META:
        raise Unsupported(
            what=f"`{source}` is in Meta's format",
            why="rows alone are moved within Hugging Face's format",
            fix=f"convert both: `ropeconv convert meta-to-hf {quote(str(source))} DST`",
        )
    checkpoint = hf.discover(source, stamps)
    inventory = take_stock(checkpoint, trust_stamp=True, described=described, parts=parts)
    known = inventory.family.has_every_shape
    if known:
        evidence = examine(inventory, allow_drift=False, stop=stop)
        model, inferred = state_model(inventory, evidence, Said())
    else:
        evidence = Evidence(tied=bool(checkpoint.claims.tied), kept=(), notes=())
        model, inferred = state_family(inventory)
    headers = _headers(checkpoint)
    index = source / hf.INDEX
    plan = plan_relayout(
        inventory,
        model,
        layout,
        parts=parts,
        headers=headers,
        index=read_text(index) if index.exists() else "",
        samples=read_held(source).samples,
        notes=[*inventory.notes, *evidence.notes, *inferred, *left_out(inventory)],
        in_place=in_place,
    )
    return plan if known else for_runtime(plan, inventory.family, layout)


def _headers(checkpoint: Checkpoint) -> list[Header]:
    num_weights = len(checkpoint.files) - len(checkpoint.side_files)
    names = [file.name for file in checkpoint.files[:num_weights]]
    return [read_header(checkpoint.root, name, number) for number, name in enumerate(names)]


def relayout(
    source: Path,
    target: Path,
    layout: RopeLayout,
    *,
    effort: Effort | None = None,
    handling: Handling | None = None,
    described: Family | None = None,
    parts: Sequence[Part] = (Part.TEXT,),
    look: bool = False,
    dry_run: bool = False,
    listen: Listener = nobody,
    stop: Event | None = None,
) -> ConversionReport:
    """Move a checkpoint's rows into another layout, in a new folder.

    Where the file system can, the new files share all other blocks with the old ones.

    Args:
        source: folder of a Hugging Face checkpoint; it is only read.
        target: folder to make.
        layout: of the target; the source's is its stamp's, or that of the family.
        effort: see `convert`.
        handling: see `convert`.
        described: the table of a model type that ropeconv has none for.
        parts: of the model, whose rows move; towers stay unless they are among them.
        look: see `convert`.
        dry_run: plan and check only.
        listen: hears of progress.
        stop: set it and the run ends within a second.

    Raises:
        RopeconvError: one of its kinds; nothing that looks finished is left behind.
    """
    handling = handling or Handling()
    check_target(target, source, overwrite=handling.overwrite)
    plan = plan_new_layout(source, layout, described, parts, stop=stop)
    effort = settle(plan, effort or Effort(jobs=default_jobs()))
    return carry_out(
        plan,
        target,
        effort,
        handling=handling,
        look=look and Part.TEXT in parts,
        dry_run=dry_run,
        listen=listen,
        stop=stop,
        described=described,
    )


def relayout_in_place(
    root: Path,
    layout: RopeLayout,
    *,
    block_nbytes: int = BLOCK_NBYTES,
    described: Family | None = None,
    parts: Sequence[Part] = (Part.TEXT,),
    look: bool = False,
    dry_run: bool = False,
    listen: Listener = nobody,
    stop: Event | None = None,
) -> ConversionReport:
    """Move a checkpoint's rows into another layout where they lie.

    Only rotary rows are written, twice: their old bytes go to an undo file first. A run that was
    interrupted is gone on with; until then its files are stamped unfinished.

    Args:
        root: folder of a Hugging Face checkpoint; it is changed.
        layout: of the rows afterwards.
        block_nbytes: bytes that are moved at once, where rows allow it.
        described: the table of a model type that ropeconv has none for; to go on takes the same.
        parts: see `relayout`.
        look: refuse weights that firmly contradict their declared layout, before the first write.
        dry_run: plan and check only.
        listen: hears of progress.
        stop: set it and the run ends after the block in hand.

    Raises:
        Refused: files that others may share.
        RopeconvError: one of its other kinds; the same command goes on.
    """
    root = root.resolve()
    folder_names(root)  # nothing is made beside a folder that is not there
    staging = Staging(root)
    if dry_run:
        plan = plan_new_layout(root, layout, described, parts, in_place=True, stop=stop)
        _check_first(plan, described, look=look, stop=stop)
        report = _report(plan, block_nbytes, done=False)
        check_needs(report.needs, staging.folder)
        return report
    with staging:
        work = InPlace(root, staging.folder)
        key = _key_in_place(layout, block_nbytes, described, parts)
        before = work.resume(key)
        plan = plan_new_layout(
            root, layout, described, parts, in_place=True, stamps=before, stop=stop
        )
        if before is None:
            _check_first(plan, described, look=look, stop=stop)
        report = _report(plan, block_nbytes, done=True)
        check_needs(report.needs, staging.folder)
        work.begin(key, plan, stamps_of(plan.source), _unfinished_heads(plan))
        if not work.is_finishing:
            if plan.held is not None:
                unfinished = replace(plan.held, values=_unfinished(plan))
                staging.put_in_place(MANIFEST, render_manifest(plan, {}, unfinished))
            work.execute(plan, block_nbytes, listen, stop)
        work.finish({file.name: file.fixed[0].data for file in plan.files if file.fixed})
        held = plan.held and replace(plan.held, samples=sum_samples(root, plan.held.samples))
        staging.put_in_place(MANIFEST, render_manifest(plan, {}, held))
        staging.discard()
    return report


def _check_first(plan: Plan, described: Family | None, *, look: bool, stop: Event | None) -> None:
    """What is asked before the first write."""
    if any(file.name == hf.CONFIG and file.text != plan.source.config for file in plan.small_files):
        raise Unsupported(
            what=f"`{plan.source.root}` cannot be converted in place",
            why="its `config.json` has a switch that must change with the rows, and an interrupted"
            " run would leave the two apart",
            fix="convert into a new folder",
        )
    check_in_place(plan)
    root, wanted = plan.source.root, look and Part.TEXT in plan.parts
    geometry = plan.model.geometry
    with looking_at(root, geometry, wanted=wanted, described=described) as looking:
        if looking is not None:
            check_declared(root, plan.source_layout.name, looking.result(stop))


def _unfinished(plan: Plan) -> tuple[tuple[str, str], ...]:
    """The stamps while rows are half old and half new, which no reader takes for finished."""
    stamps = stamps_of(plan.source) | {stamp_key(part): UNFINISHED for part in plan.parts}
    return tuple(stamps.items())


def _unfinished_heads(plan: Plan) -> dict[str, bytes]:
    """First bytes of files during the work, by name: stamped so, or not at all if others are."""
    if plan.held is not None:
        return {file.name: file.fixed[0].data for file in plan.files if file.fixed}
    stamps = dict(_unfinished(plan))
    return {
        file.name: restamped_header(
            header, len(file.fixed[0].data), with_stamps(header.metadata, stamps)
        )
        for file, header in zip(plan.files, _headers(plan.source), strict=False)
    }


def _key_in_place(
    layout: RopeLayout, block_nbytes: int, described: Family | None, parts: Sequence[Part]
) -> str:
    """Names the work of a run; it depends on nothing that the run changes."""
    key = f"{layout.name} {block_nbytes} {' '.join(part.value for part in parts)}"
    if described is None:
        return key
    return f"{key} {hashlib.sha256(repr(described).encode()).hexdigest()}"


def _report(plan: Plan, block_nbytes: int, *, done: bool) -> ConversionReport:
    effort = Effort(jobs=1, block_nbytes=block_nbytes)
    root = plan.source.root
    rows = sum(
        piece.nbytes for move in plan.moves if move.order is not None for piece in move.targets
    )
    needs = needs_of(plan, effort, root, staged_nbytes=0, extra=0, shares=True)
    portion = PORTION_BLOCKS * plan.largest_block_nbytes(block_nbytes)
    needs = replace(
        needs, read_nbytes=2 * rows, written_nbytes=2 * rows, disk_nbytes=min(portion, rows)
    )
    return ConversionReport(
        plan=plan, source=root, target=root, done=done, effort=effort, needs=needs, shares=False
    )
