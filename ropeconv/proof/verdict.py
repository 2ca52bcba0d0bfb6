"""The verdict of a proof, as one frozen value. Reports only render it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ropeconv.words.errors import ExitCode


class Outcome(Enum):
    """What a check found."""

    SAME = "same"
    DIFFERENT = "different"
    INCONCLUSIVE = "inconclusive"  # the check could not have noticed a difference
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong, and where."""

    tensor: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ExactCheck:
    """Every target tensor against its source after the row order, byte for byte."""

    outcome: Outcome
    num_tensors: int
    num_reordered: int
    nbytes: int  # compared
    findings: tuple[Finding, ...]
    diagnosis: tuple[str, ...] = ()  # the mistakes that reproduce the target, in sentences
    named: tuple[str, ...] = ()  # tensors that the diagnosis explains


@dataclass(frozen=True, kw_only=True)
class ConfigCheck:
    """What the configs say: frequencies in float64, and all else that changes the model."""

    outcome: Outcome
    num_frequencies: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A planted mistake, and by how much it changes a score at most."""

    name: str
    difference: float


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """One layer's attention scores in both forms.

    Attributes:
        max_difference: largest |difference| of two scores, over heads and positions.
        bound: what rounding alone may cause for these very inputs.
        worst_head: the query head of max_difference.
        groups: largest |difference| for each key head and the query heads that share it.
        shifted: largest change of a score when both positions move by a large number.
        clamped: largest |difference| with all queries at one position and all keys at zero.
        controls: wrong variants; each must exceed the bound.
        control_group: the key head whose scores the controls were measured on.
        finite: whether the source's queries and keys are numbers; NaN cannot be compared. Where
            either side's are not, `groups` and `controls` are empty.
    """

    layer: int
    max_difference: float
    bound: float
    worst_head: int
    groups: tuple[float, ...]
    shifted: float
    clamped: float
    controls: tuple[Control, ...]
    control_group: int
    finite: bool = True

    @property
    def control(self) -> float:
        """The smallest difference that a planted mistake makes."""
        differences = [control.difference for control in self.controls]
        if any(math.isnan(difference) for difference in differences):
            return math.nan  # which no margin is large enough for; a minimum might hide it
        return min(differences, default=0.0)

    @property
    def margin(self) -> float:
        """How many times the bound the weakest control is."""
        return self.control / self.bound if self.bound else 0.0


@dataclass(frozen=True, kw_only=True)
class DistancePoint:
    """Scores of queries and keys that are so many positions apart."""

    first: int  # distance, and every one up to last
    last: int
    difference: float  # largest |difference| of two scores, in float64
    control: float  # the same for the planted mistake `not reordered`


@dataclass(frozen=True, kw_only=True)
class ByDistance:
    """The worst key head of the worst layer, by distance; when all are equal, the hardest to tell.

    Attributes:
        bound: the layer's, for scores in float32.
        points: ascending; distances that no two probe positions have are left out.
    """

    layer: int
    group: int
    bound: float
    points: tuple[DistancePoint, ...]


@dataclass(frozen=True, kw_only=True)
class ScoreCheck:
    """Attention scores of both forms, each in its own layout with its own angles."""

    outcome: Outcome
    backend: str  # where the kernel ran
    device: str
    num_positions: int
    largest_position: int
    layers: tuple[LayerScores, ...]
    num_layers: int  # of the model
    why: str  # of an inconclusive or different outcome
    by_distance: ByDistance | None = None
    versions: tuple[tuple[str, str], ...] = ()  # of the libraries that computed them

    @property
    def computed(self) -> tuple[LayerScores, ...]:
        """The layers whose scores are numbers on both sides."""
        return tuple(layer for layer in self.layers if layer.groups)

    @property
    def max_difference(self) -> float:
        """Over all layers whose scores are numbers."""
        return max((layer.max_difference for layer in self.computed), default=0.0)

    @property
    def weakest_margin(self) -> float:
        """The smallest margin of a control over all layers looked at."""
        return min((layer.margin for layer in self.layers), default=0.0)


@dataclass(frozen=True, kw_only=True)
class LogitsCheck:
    """Both models run as a whole on the same tokens.

    Attributes:
        text: the file that was predicted; empty for seeded random tokens.
        source_loss: nats for each token; so is target_loss.
        mean_kl: nats for each token, summed over the vocabulary.
        rms_error: of the worse side's logits, against the source in float64.
        bound: a small multiple of the rms error of the source's own float32 pass.
    """

    outcome: Outcome
    num_tokens: int
    text: str
    source_runtime: str
    target_runtime: str
    source_loss: float
    target_loss: float
    mean_kl: float
    largest_kl: float
    argmax_agreement: float  # 0 to 1
    rms_error: float
    bound: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two checkpoints."""

    path: Path
    format: str
    layout: str
    family: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether target and source are the same model, under the layouts that they declare.

    Attributes:
        described: what the user says of the rows, of a model type that no table knows; the verdict
            holds under it.
        own_code: what is to be said of code that comes with a checkpoint: it was not read.
    """

    target: Side
    source: Side
    exact: ExactCheck
    config: ConfigCheck
    scores: ScoreCheck
    logits: LogitsCheck | None = None  # on request only
    described: tuple[str, ...] = ()
    own_code: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Different if any check says so; the same only if every check had power and agreed."""
        outcomes = {self.exact.outcome, self.config.outcome, self.scores.outcome}
        if self.logits is not None:
            outcomes.add(self.logits.outcome)
        for outcome in (Outcome.DIFFERENT, Outcome.INCONCLUSIVE, Outcome.NOT_RUN):
            if outcome in outcomes:
                return Outcome.INCONCLUSIVE if outcome is Outcome.NOT_RUN else outcome
        return Outcome.SAME

    @property
    def exit_code(self) -> ExitCode:
        """What the command exits with."""
        return {
            Outcome.SAME: ExitCode.DONE,
            Outcome.DIFFERENT: ExitCode.DIFFERENT,
        }.get(self.outcome, ExitCode.INCONCLUSIVE)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything wrong, bytes first."""
        return (*self.exact.findings, *self.config.findings)
