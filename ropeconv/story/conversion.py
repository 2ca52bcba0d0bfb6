"""Convert: discover, plan, execute, seal, report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from threading import Event

from ropeconv.formats import hf, meta, only_format
from ropeconv.formats.checkpoint import Checkpoint
from ropeconv.formats.folder import MANIFEST
from ropeconv.knowledge.family import Family
from ropeconv.moving.checks import check_target
from ropeconv.moving.effort import Effort, default_jobs
from ropeconv.moving.examine import examine
from ropeconv.moving.execute import execute
from ropeconv.moving.resources import Needs, check_needs, nearest_folder, needs_of, settle
from ropeconv.moving.sharing import can_share, share_all
from ropeconv.moving.staging import Staging
from ropeconv.story.detection import Looking, check_declared, looking_at
from ropeconv.thinking.config_map import Said, check_expressible, state_model
from ropeconv.thinking.inventory import Inventory, take_stock
from ropeconv.thinking.manifest import render_manifest
from ropeconv.thinking.plan import Plan
from ropeconv.thinking.to_hf import plan_hf
from ropeconv.thinking.to_meta import plan_meta
from ropeconv.words.errors import AlreadyConverted, Contradiction
from ropeconv.words.events import Listener, nobody
from ropeconv.words.model import Format, Note, WeightsFile

MAX_SHARD_NBYTES = 5 * 10**9


@dataclass(frozen=True, kw_only=True)
class HfOptions:
    """What may be chosen of a Hugging Face target."""

    max_shard_nbytes: int = MAX_SHARD_NBYTES


@dataclass(frozen=True, kw_only=True)
class MetaOptions:
    """What may be chosen of a target in Meta's format."""

    num_ranks: int = 1
    weights: WeightsFile | None = None  # None: as the family's own releases
    rope_freqs: bool | None = None  # None: as the generation's own releases


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What is done with a target that is there, and how much is recorded of a new one.

    Attributes:
        overwrite: replace a checkpoint at the target's path, when the new one is complete.
        restart: throw an interrupted run's work away, and begin afresh.
        hashes: put each file's SHA-256 into the manifest.
    """

    overwrite: bool = False
    restart: bool = False
    hashes: bool = False


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did, or would do."""

    plan: Plan
    source: Path
    target: Path
    done: bool  # False: planned only
    effort: Effort
    needs: Needs
    shares: bool = False  # blocks that stay the same are shared with the source
    hashed: bool = False  # the manifest holds the SHA-256 of each file

    @property
    def copied_files(self) -> tuple[str, ...]:
        """Names of the side files that go along as they are."""
        if self.target == self.source:
            return ()
        return tuple(self.plan.source.files[number].name for number in self.plan.source.side_files)

    @property
    def written_files(self) -> tuple[tuple[str, int], ...]:
        """Name and bytes of each file that is written; in place, of its stamp and its rows only."""
        manifest = (MANIFEST, manifest_nbytes(self.plan, hashed=self.hashed))
        if self.target != self.source:
            small = ((file.name, len(file.text.encode())) for file in self.plan.small_files)
            return (*((file.name, file.nbytes) for file in self.plan.files), *small, manifest)
        nbytes = {
            number: sum(len(part.data) for part in file.fixed)
            for number, file in enumerate(self.plan.files)
            if file.fixed
        }
        for move in self.plan.moves:
            for piece in move.targets if move.order is not None else ():
                nbytes[piece.file] = nbytes.get(piece.file, 0) + piece.nbytes
        names = self.plan.files
        return (*((names[number].name, count) for number, count in nbytes.items()), manifest)


def manifest_nbytes(plan: Plan, *, hashed: bool) -> int:
    """The manifest's size in bytes, known before there is anything to hash."""
    hashes = {file.name: "0" * 64 for file in plan.files} if hashed else {}
    return len(render_manifest(plan, hashes).encode())


def plan_conversion(
    source: Path,
    options: HfOptions | MetaOptions,
    *,
    said: Said | None = None,
    allow_drift: bool = False,
    stop: Event | None = None,
) -> Plan:
    """Discover the source, examine what the plan depends on, and decide everything.

    The source is in the other format than the options'.
    """
    checkpoint = _discover(source, options)
    inventory = take_stock(checkpoint)
    evidence = examine(inventory, allow_drift=allow_drift, stop=stop)
    model, inferred = state_model(inventory, evidence, said or Said())
    notes = [*inventory.notes, *evidence.notes, *inferred, *left_out(inventory)]
    if isinstance(options, HfOptions):
        return plan_hf(
            inventory, evidence, model, max_shard_nbytes=options.max_shard_nbytes, notes=notes
        )
    notes += check_expressible(model)
    usual = WeightsFile.SAFETENSORS if model.family == "mistral" else WeightsFile.PTH
    if options.num_ranks > 1:
        usual = WeightsFile.PTH
    return plan_meta(
        inventory,
        evidence,
        model,
        num_ranks=options.num_ranks,
        weights=options.weights or usual,
        rope_freqs=options.rope_freqs,
        notes=notes,
    )


def _discover(source: Path, options: HfOptions | MetaOptions) -> Checkpoint:
    target = Format.HF if isinstance(options, HfOptions) else Format.META
    if only_format(source) is target:
        title, back = {
            Format.HF: ("Hugging Face's", "hf-to-meta"),
            Format.META: ("Meta's", "meta-to-hf"),
        }[target]
        raise AlreadyConverted(
            what=f"`{source}` is in {title} format already",
            why="by the names of its files",
            fix="use it as it is; the other way is"
            f" `ropeconv convert {back} {quote(str(source))} DST`",
        )
    return meta.discover(source) if target is Format.HF else hf.discover(source)


def convert(
    source: Path,
    target: Path,
    options: HfOptions | MetaOptions,
    *,
    said: Said | None = None,
    allow_drift: bool = False,
    effort: Effort | None = None,
    handling: Handling | None = None,
    look: bool = False,
    dry_run: bool = False,
    listen: Listener = nobody,
    stop: Event | None = None,
) -> ConversionReport:
    """Convert a checkpoint into a new folder. A run that was interrupted is gone on with.

    Args:
        source: folder of the checkpoint; it is only read.
        target: folder to make; it appears when everything is in it.
        options: the target's format and what may be chosen of it.
        said: what no file says of the model.
        allow_drift: take rank 0's norms although others differ by more than released models do.
        effort: threads, block size, kind of I/O; the bytes that come out do not depend on it.
        handling: of an older target, of an interrupted run, and of hashes.
        look: let a child process look at the weights meanwhile, and refuse a source whose weights
            firmly contradict its layout.
        dry_run: plan and check only.
        listen: hears of progress.
        stop: set it, in a signal handler for instance, and the run ends within a second.

    Raises:
        RopeconvError: one of its kinds; nothing that looks finished is left behind.
    """
    source, target = Path(source), Path(target)
    handling = handling or Handling()
    check_target(target, source, overwrite=handling.overwrite)
    plan = plan_conversion(source, options, said=said, allow_drift=allow_drift, stop=stop)
    effort = settle(plan, effort or Effort(jobs=default_jobs()))
    return carry_out(
        plan,
        target,
        effort,
        handling=handling,
        look=look,
        dry_run=dry_run,
        listen=listen,
        stop=stop,
    )


def carry_out(
    plan: Plan,
    target: Path,
    effort: Effort,
    *,
    handling: Handling,
    look: bool,
    dry_run: bool,
    listen: Listener,
    stop: Event | None,
    described: Family | None = None,
) -> ConversionReport:
    """Check that a plan can be carried out, and do it, while a child may look at the weights."""
    root, geometry = plan.source.root, plan.model.geometry
    with looking_at(root, geometry, wanted=look, described=described) as looking:
        return _carry_out(
            plan,
            target,
            effort,
            handling=handling,
            looking=looking,
            dry_run=dry_run,
            listen=listen,
            stop=stop,
        )


def _carry_out(
    plan: Plan,
    target: Path,
    effort: Effort,
    *,
    handling: Handling,
    looking: Looking | None,
    dry_run: bool,
    listen: Listener,
    stop: Event | None,
) -> ConversionReport:
    """Execute, seal, report."""
    staging = Staging(target)
    shares = can_share(plan, nearest_folder(target))
    work = plan.without_shared() if shares else plan
    key, sizes = work.journal_key(), [(file.name, file.nbytes) for file in plan.files]
    effort = staging.foresee(key, sizes, effort, restart=handling.restart)
    needs = needs_of(
        work,
        effort,
        target,
        staged_nbytes=staging.staged_nbytes(),
        extra=manifest_nbytes(plan, hashed=handling.hashes),
        shares=shares,
    )
    check_needs(needs, target)
    if not dry_run:
        with staging:
            effort = staging.begin(
                key,
                sizes,
                effort,
                restart=handling.restart,
                prepare=lambda: share_all(plan, staging) if shares else None,
            )
            hashes = execute(work, staging, effort, listen, hashed=handling.hashes, stop=stop)
            _check_look(looking, plan, staging, stop)
            texts = [(file.name, file.text) for file in plan.small_files]
            staging.seal([*texts, (MANIFEST, render_manifest(plan, hashes))], sync=effort.sync)
    else:
        _check_look(looking, plan, staging, stop)
    return ConversionReport(
        plan=plan,
        source=plan.source.root,
        target=target,
        done=not dry_run,
        effort=effort,
        needs=needs,
        shares=shares,
        hashed=handling.hashes,
    )


def _check_look(looking: Looking | None, plan: Plan, staging: Staging, stop: Event | None) -> None:
    """Before the seal: if the weights contradict the declared layout, nothing is left behind."""
    if looking is None:
        return
    try:
        check_declared(plan.source.root, plan.source_layout.name, looking.result(stop))
    except Contradiction:
        staging.discard()
        raise


def left_out(inventory: Inventory) -> list[Note]:
    checkpoint = inventory.checkpoint
    notes = [Note(kind="not-copied", text=f"`{name}`: {why}") for name, why in checkpoint.left_out]
    tokenizer = {"tokenizer.model", "tekken.json"}
    if checkpoint.format is Format.META and any(
        checkpoint.files[number].name in tokenizer for number in checkpoint.side_files
    ):
        text = "the tokenizer is copied as it is; transformers may want it as tokenizer.json"
        notes.append(Note(kind="not-converted", text=text))
    return notes
