"""Verify: discover both, exact, configs, scores with controls, verdict."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ropeconv.formats import discover
from ropeconv.moving.examine import examine
from ropeconv.moving.execute import Effort, default_jobs
from ropeconv.proof.configs import check_configs
from ropeconv.proof.exact import check_exact
from ropeconv.proof.verdict import (
    ConfigCheck,
    ExactCheck,
    Finding,
    LogitsCheck,
    Outcome,
    ScoreCheck,
    Side,
    Verdict,
)
from ropeconv.story.detection import contradicts, looking_at
from ropeconv.thinking.config_map import Said, state_model
from ropeconv.thinking.description import said_of
from ropeconv.thinking.family_model import differing_keys, state_family
from ropeconv.thinking.inventory import Inventory, take_stock
from ropeconv.thinking.own_code import KIND
from ropeconv.words.errors import UsageError
from ropeconv.words.events import CheckBegun, CheckDone, Listener, nobody
from ropeconv.words.model import Model
from ropeconv.words.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ropeconv.formats.checkpoint import Checkpoint
    from ropeconv.kernels.selfcheck import KernelReport
    from ropeconv.knowledge.family import Family


@dataclass(frozen=True, kw_only=True)
class LogitsRequest:
    """That both models shall be run as a whole, and on what."""

    text: Path | None = None  # None: seeded random tokens


@dataclass(frozen=True, kw_only=True)
class _Known:
    """One side, understood."""

    inventory: Inventory
    model: Model

    @property
    def side(self) -> Side:
        """For the verdict."""
        checkpoint = self.inventory.checkpoint
        return Side(
            path=checkpoint.root,
            format=checkpoint.format.value,
            layout=self.inventory.layout.name,
            family=self.model.family,
        )


def verify(
    target: Path,
    source: Path,
    *,
    said: Said | None = None,
    layers: Sequence[int] | None = None,
    sample: int | None = None,
    logits: LogitsRequest | None = None,
    look: bool = True,
    described: Family | None = None,
    effort: Effort | None = None,
    listen: Listener = nobody,
) -> Verdict:
    """Prove that two checkpoints are the same model, under the layouts that they declare.

    Args:
        target: the checkpoint in question.
        source: the one that it was made from, in any supported format.
        said: what no file says of a Meta side: the same as was said for the conversion.
        layers: those whose scores are compared; None for all. Bytes are always compared in full.
        sample: compare the scores of that many layers, evenly spread; for smoke runs. Not
            together with `layers`.
        logits: also run both models as a whole.
        look: let the source's weights speak before two checkpoints are called one: where they
            firmly contradict its declared layout, both may be mislabelled alike, and the answer is
            inconclusive.
        described: the table of a model type that ropeconv has none for, as the conversion had it.
        effort: threads and block size.
        listen: hears of progress.

    Raises:
        RopeconvError: one of the two cannot be read or understood.
        UsageError: the model has no such layers, or both `layers` and `sample` choose.
    """
    effort = effort or Effort(jobs=default_jobs())
    both = [discover(path) for path in (source, target)]
    # a tower that moved is stamped on one side only: the other must know its rows too
    towers = {part for checkpoint in both for part, _ in checkpoint.tower_stamps}
    ours, theirs = (_know(checkpoint, said or Said(), towers, described) for checkpoint in both)
    chosen = _chosen_layers(ours.inventory.depth, layers, sample)
    comparable = ours.model.geometry == theirs.model.geometry
    run = _runs(ours, theirs, logits) if logits is not None and comparable else None
    with _check("bytes", listen):
        exact = check_exact(ours.inventory, theirs.inventory, effort, listen)
    with _check("config", listen):
        config = _configs(ours, theirs)
    with _check("scores", listen):
        scores = _scores(ours, theirs, exact, config, chosen, listen)
    whole = None
    if run is not None:
        with _check("logits", listen):
            whole = run(listen)
    verdict = Verdict(
        target=theirs.side,
        source=ours.side,
        exact=exact,
        config=config,
        scores=scores,
        logits=whole,
        described=tuple(note.text for note in said_of(described)) if described else (),
        own_code=tuple(dict.fromkeys(_said_of_own_code(ours) + _said_of_own_code(theirs))),
    )
    if look and verdict.outcome is Outcome.SAME:
        return replace(verdict, scores=_heard(scores, ours, described))
    return verdict


def _said_of_own_code(known: _Known) -> tuple[str, ...]:
    return tuple(note.text for note in known.inventory.notes if note.kind == KIND)


def _heard(scores: ScoreCheck, ours: _Known, described: Family | None) -> ScoreCheck:
    """The scores as they count once the source's weights have said in which layout they are."""
    inventory = ours.inventory
    root, declared = inventory.checkpoint.root, inventory.layout.name
    geometry = ours.model.geometry
    with looking_at(root, geometry, wanted=True, described=described) as looking:
        if looking is None or not contradicts(declared, found := looking.result()):
            return scores
    why = f"the weights of `{root}` do not look {declared}, as it declares: {found.why}"
    return replace(scores, outcome=Outcome.INCONCLUSIVE, why=why)


@contextmanager
def _check(name: str, listen: Listener) -> Iterator[None]:
    listen(CheckBegun(name=name))
    yield
    listen(CheckDone(name=name))


def _configs(ours: _Known, theirs: _Known) -> ConfigCheck:
    stated = theirs.inventory.checkpoint.claims.dtype
    config = check_configs(ours.model, theirs.model, stated_dtype=stated)
    if ours.inventory.family.has_every_shape:
        return config
    return _whole_configs(ours, theirs, config)


def _whole_configs(ours: _Known, theirs: _Known, config: ConfigCheck) -> ConfigCheck:
    """Families whose settings only their own code understands: every key must be equal."""
    source, target = (side.inventory.checkpoint for side in (ours, theirs))
    differing = differing_keys(source.config, target.config, ours.inventory.family.switch)
    if not differing:
        return config
    findings = tuple(
        Finding(tensor=key, text=f"{found}, source says {expected}")
        for key, expected, found in differing
    )
    return replace(config, outcome=Outcome.DIFFERENT, findings=(*config.findings, *findings))


def _chosen_layers(depth: int, layers: Sequence[int] | None, sample: int | None) -> tuple[int, ...]:
    if layers is not None:
        if sample is not None:
            raise UsageError(
                what="both a list of layers and a number of layers are given",
                why="each alone chooses the layers whose scores are compared",
                fix="give the list, or the number",
            )
        if any(not 0 <= layer < depth for layer in layers):
            raise UsageError(
                what=f"the model has layers 0 to {depth - 1}", fix="name layers among them"
            )
        return tuple(sorted(set(layers)))
    if sample is None or sample >= depth:
        return tuple(range(depth))
    return tuple(sorted({round(i * (depth - 1) / max(sample - 1, 1)) for i in range(sample)}))


def _runs(
    ours: _Known, theirs: _Known, request: LogitsRequest
) -> Callable[[Listener], LogitsCheck]:
    """What runs both sides as a whole; all that can be refused is refused here, at the start.

    Raises:
        Unsupported: nothing can run one of them.
        UsageError: the text cannot be turned into tokens.
    """
    from ropeconv.proof.logits import (  # noqa: PLC0415 - torch only when needed
        check_logits,
        choose_tokens,
    )
    from ropeconv.proof.runtimes import Runner, check_runnable  # noqa: PLC0415

    source, target = (Runner(inventory=side.inventory, model=side.model) for side in (ours, theirs))
    check_runnable(source)
    check_runnable(target)
    tokens = choose_tokens(source, target, request.text)
    return lambda listen: check_logits(source, target, tokens, listen, text=request.text)


def check_this_machine() -> KernelReport:
    """Prove the kernel on this machine's device.

    Raises:
        Unsupported: there is no Triton here.
    """
    from ropeconv.kernels import check_kernel  # noqa: PLC0415 - torch only when needed

    return check_kernel()


def _know(
    checkpoint: Checkpoint, said: Said, towers: Iterable[Part], described: Family | None
) -> _Known:
    inventory = take_stock(checkpoint, trust_stamp=True, described=described, parts=towers)
    if not inventory.family.has_every_shape:
        model, _ = state_family(inventory)
        return _Known(inventory=inventory, model=model)
    evidence = examine(inventory, allow_drift=True)
    applicable = said if inventory.checkpoint.claims.rope is None else Said()
    model, _ = state_model(inventory, evidence, applicable)
    return _Known(inventory=inventory, model=model)


def _scores(
    ours: _Known,
    theirs: _Known,
    exact: ExactCheck,
    config: ConfigCheck,
    layers: Sequence[int],
    listen: Listener,
) -> ScoreCheck:
    comparable = ours.model.geometry == theirs.model.geometry
    if not comparable:
        outcome = exact.outcome if exact.outcome is Outcome.DIFFERENT else config.outcome
        return ScoreCheck(
            outcome=Outcome.NOT_RUN if outcome is Outcome.DIFFERENT else outcome,
            backend="",
            device="",
            num_positions=0,
            largest_position=0,
            layers=(),
            num_layers=ours.model.geometry.num_layers,
            why="the two have different geometries, so their heads cannot be compared",
        )
    from ropeconv.proof.family_scores import check_family_scores  # noqa: PLC0415 - as below
    from ropeconv.proof.scores import Form, check_scores  # noqa: PLC0415 - torch only when needed

    check = check_scores if ours.inventory.family.has_every_shape else check_family_scores
    return check(
        Form(inventory=ours.inventory, model=ours.model),
        Form(inventory=theirs.inventory, model=theirs.model),
        layers=layers,
        listen=listen,
    )
