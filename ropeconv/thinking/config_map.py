"""From claims to a fully stated model: what no file says is inferred and said, or asked for.

Facts of released models that the inferences rest on:
    theta            1e4 Llama 1 and 2, 1e6 CodeLlama, 5e5 from Llama 3 on;
                     Mistral 1e4 with a window, else 1e6
    llama3 factor    8 for 3.1 and 3.3, 32 for 3.2 1B and 3B; params.json states only that
                     there is one
    positions        2048 Llama 1, 4096 Llama 2, 16384 CodeLlama, 8192 Llama 3,
                     131072 from 3.1 on
    token ids        1 / 2 with 32000 or 32016 tokens, 128000 / 128001 with 128256
"""

from __future__ import annotations

from dataclasses import dataclass

from ropeconv.formats.hf import read_claims as read_hf_claims
from ropeconv.formats.meta import expressible, feed_forward_width
from ropeconv.thinking.evidence import Evidence, StoredFreqs
from ropeconv.thinking.inventory import Inventory
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import Contradiction, NotSaid, Unsupported, UsageError
from ropeconv.words.frequencies import Default, Llama3, RopeSettings, Scaling, frequencies
from ropeconv.words.model import Claims, Format, Model, Note, TokenIds

LLAMA_3_VOCAB = 128_000
FACTOR_OF_SHAPE = {  # (hidden size, layers) of released models with scaled RoPE
    (2048, 16): 32.0,
    (3072, 28): 32.0,
    (4096, 32): 8.0,
    (8192, 80): 8.0,
    (16384, 126): 8.0,
}
MOST_SAID = 1e12  # far above any model's
THETAS = (1e4, 1e6, 5e5)
META_FACTOR = 8.0  # fixed in Meta's reference code


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the user says of the model where no file does."""

    theta: float | None = None
    rope_factor: float | None = None  # of the llama3 scaling
    context_length: int | None = None


def state_model(
    inventory: Inventory, evidence: Evidence, said: Said
) -> tuple[Model, tuple[Note, ...]]:
    """The model, and a note for everything that no file states.

    Args:
        inventory: the checkpoint by its shapes.
        evidence: what bytes say: ties, and stored tables of frequencies, which must agree with
            theta.
        said: options of the user.

    Raises:
        NotSaid: a quantity that must not be guessed.
        Contradiction: two claims that cannot both be true.
    """
    claims = inventory.checkpoint.claims
    notes: list[Note] = []
    freqs = evidence.freqs
    carried = _carried(inventory)
    _check_said(said)
    rope = _rope(inventory, carried, said, freqs, notes)
    _check_freqs(freqs, rope, inventory.geometry.head_dim)
    if claims.norm_eps is not None and not 0 < claims.norm_eps < 1:
        raise Contradiction(
            what=f"`{claims.origin}` says the epsilon of the norms is {claims.norm_eps:g}",
            why="it keeps a division from failing; 1e-5 and 1e-6 are in use",
            fix="mend it in the config",
        )
    if claims.norm_eps is None:
        raise NotSaid(
            what=f"`{claims.origin}` does not state the epsilon of the norms",
            why="1e-5 and 1e-6 are both in use",
            fix="add it to the config",
        )
    if claims.width_rule is not None:
        width = feed_forward_width(inventory.geometry.hidden_size, *claims.width_rule)
        if width != inventory.geometry.intermediate_size:
            text = (
                f"the intermediate size is {inventory.geometry.intermediate_size} by shape;"
                f" the formula of `{claims.origin}` gives {width}"
            )
            notes.append(Note(kind="repaired", text=text))
    q_proj = next(tensor for tensor in inventory.tensors if tensor.name.endswith("q_proj.weight"))
    model = Model(
        family=inventory.family.name,
        geometry=inventory.geometry,
        rope=rope,
        norm_eps=claims.norm_eps,
        max_positions=_positions(inventory, carried, said, rope, notes),
        sliding_window=claims.sliding_window,
        tied=evidence.tied,
        dtype=q_proj.dtype,
        tokens=_tokens(inventory, carried, notes),
    )
    return model, tuple(notes)


def _check_said(said: Said) -> None:
    for name, value, least in (("theta", said.theta, 1), ("rope_factor", said.rope_factor, 0)):
        if value is not None and not least < value <= MOST_SAID:
            raise UsageError(
                what=f"`Said({name}={value:g})` cannot be, expected more than {least}, at most"
                f" {MOST_SAID:g}",
                fix="say what the model was trained with",
            )


def check_expressible(model: Model) -> tuple[Note, ...]:
    """Whether params.json can state this model.

    Raises:
        Unsupported: it cannot; the text names the setting.
    """
    geometry, scaling = model.geometry, model.rope.scaling
    if model.family == "llama" and geometry.head_dim * geometry.num_heads != geometry.hidden_size:
        raise Unsupported(
            what=f"head_dim is {geometry.head_dim}, not hidden size / heads ="
            f" {geometry.hidden_size}/{geometry.num_heads}",
            why="Meta's Llama code has no setting for it",
        )
    if not expressible(scaling) or (model.family == "mistral" and scaling != Default()):
        raise Unsupported(
            what=f"params.json cannot state the RoPE scaling {scaling}",
            why="it has one flag, which means llama3 with 1, 4, 8192 and a factor fixed in code",
        )
    if model.family == "llama" and model.sliding_window is not None:
        raise Unsupported(what="params.json of a Llama cannot state a sliding window")
    if isinstance(scaling, Llama3) and scaling.factor != META_FACTOR:
        text = (
            f"the scaling factor is {scaling.factor:g}; params.json cannot state it, and Meta's"
            " reference code uses 8"
        )
        return (Note(kind="dropped", text=text),)
    return ()


def _carried(inventory: Inventory) -> Claims | None:
    text = inventory.checkpoint.carried.config
    if not text or inventory.checkpoint.format is not Format.META:
        return None
    return read_hf_claims(text, "ropeconv.json")


def _rope(
    inventory: Inventory,
    carried: Claims | None,
    said: Said,
    freqs: tuple[StoredFreqs, ...],
    notes: list[Note],
) -> RopeSettings:
    claims = inventory.checkpoint.claims
    stated = claims.theta
    if stated is not None and said.theta is not None and stated != said.theta:
        raise Contradiction(
            what=f"`{claims.origin}` says theta is {stated:g}, not `Said(theta={said.theta:g})`",
            fix="correct the config, or say no theta",
        )
    theta = stated if stated is not None else said.theta
    if theta is None:
        theta, why = _infer_theta(inventory, freqs)
        notes.append(Note(kind="inferred", text=f"theta is {theta:g}: {why}"))
    if claims.rope is not None:
        return claims.rope
    scaling: Scaling = Default()
    if claims.scaled_rope:
        scaling = Llama3(
            factor=_factor(inventory, carried, said, notes),
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_positions=8192,
        )
    elif said.rope_factor is not None:
        raise Contradiction(
            what=f"`{claims.origin}` has no scaled RoPE, so there is nothing for"
            f" `Said(rope_factor={said.rope_factor:g})`",
            fix="say no factor",
        )
    return RopeSettings(theta=theta, scaling=scaling)


def _infer_theta(inventory: Inventory, freqs: tuple[StoredFreqs, ...]) -> tuple[float, str]:
    claims = inventory.checkpoint.claims
    if inventory.checkpoint.format is Format.HF:
        return 1e4, f"`{claims.origin}` states none, and 10000 is what transformers takes then"
    for table in freqs:
        for theta in THETAS:
            if agrees(table, RopeSettings(theta=theta), inventory.geometry.head_dim):
                return theta, f"`{table.name}` was made with it"
    if inventory.family.name == "mistral":
        if claims.sliding_window is not None:
            return 1e4, "the first Mistral, which has a sliding window, used it"
        return 1e6, "Mistral from v0.2 on, without a sliding window, uses it"
    if inventory.geometry.vocab_size >= LLAMA_3_VOCAB:
        return 5e5, f"a vocabulary of {inventory.geometry.vocab_size} is Llama 3's"
    return 1e4, f"a vocabulary of {inventory.geometry.vocab_size} is older than Llama 3"


def _factor(inventory: Inventory, carried: Claims | None, said: Said, notes: list[Note]) -> float:
    claims = inventory.checkpoint.claims
    if said.rope_factor is not None:
        return said.rope_factor
    if carried and carried.rope and isinstance(carried.rope.scaling, Llama3):
        factor = carried.rope.scaling.factor
        notes.append(Note(kind="kept", text=f"the RoPE factor {factor:g}, from ropeconv.json"))
        return factor
    geometry = inventory.geometry
    shape = (geometry.hidden_size, geometry.num_layers)
    if geometry.vocab_size >= LLAMA_3_VOCAB and shape in FACTOR_OF_SHAPE:
        factor = FACTOR_OF_SHAPE[shape]
        text = (
            f"the RoPE factor is {factor:g}: that of the released model with {shape[1]} layers of"
        )
        notes.append(
            Note(kind="inferred", text=f"{text} {shape[0]}; `{claims.origin}` states none")
        )
        return factor
    raise NotSaid(
        what=f"`{claims.origin}` says that RoPE is scaled, not by which factor",
        why="8 (Llama 3.1, 3.3) and 32 (3.2 1B and 3B) differ in the slow half of the"
        " frequencies, which no"
        " short test shows",
        fix="pass `Said(rope_factor=8)` or `Said(rope_factor=32)`",
    )


def _check_freqs(freqs: tuple[StoredFreqs, ...], rope: RopeSettings, head_dim: int) -> None:
    for table in freqs:
        if not agrees(table, rope, head_dim) and not agrees(
            table, RopeSettings(theta=rope.theta), head_dim
        ):
            raise Contradiction(
                what=f"`{table.name}` was not made with theta {rope.theta:g}",
                why=f"it has {_few(table.values)}, expected"
                f" {_few(frequencies(rope, head_dim).inv_freq)}",
                fix="one of the two is wrong: find out which theta the model was trained with",
            )


def _few(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:2])
    return f"{len(values)} values, {shown}" + (", ..." if len(values) > 2 else "")  # noqa: PLR2004


def agrees(table: StoredFreqs, rope: RopeSettings, head_dim: int) -> bool:
    """Equal within one rounding to the table's dtype and a few roundings of float32."""
    mantissa = {DType.BF16: 8, DType.F16: 11}.get(table.dtype, 24)
    relative = 2.0**-mantissa + 2.0**-20
    smallest = 2.0**-24 if table.dtype is DType.F16 else 0.0  # float16 is coarse below 6e-5
    expected = frequencies(rope, head_dim).inv_freq
    return len(expected) == len(table.values) and all(
        abs(found - value) <= relative * value + smallest
        for found, value in zip(table.values, expected, strict=True)
    )


def _positions(
    inventory: Inventory, carried: Claims | None, said: Said, rope: RopeSettings, notes: list[Note]
) -> int:
    claims = inventory.checkpoint.claims
    stated = said.context_length or claims.max_positions
    if stated is not None:
        return stated
    if carried is not None and carried.max_positions is not None:
        text = f"the context length {carried.max_positions}, from ropeconv.json"
        notes.append(Note(kind="kept", text=text))
        return carried.max_positions
    if inventory.family.name == "mistral":
        positions, why = 32768, "that of Mistral 7B (Nemo has 131072)"
    elif isinstance(rope.scaling, Llama3):
        positions, why = 131072, "that of Llama 3.1 and later"
    elif rope.theta == 5e5:  # noqa: PLR2004 - Llama 3's theta
        positions, why = 8192, "that of Llama 3"
    elif rope.theta == 1e6:  # noqa: PLR2004 - CodeLlama's theta
        positions, why = 16384, "that of CodeLlama"
    elif claims.norm_eps == 1e-6:  # noqa: PLR2004 - Llama 1's epsilon
        positions, why = 2048, "that of Llama 1, by the norms' epsilon"
    else:
        positions, why = 4096, "that of Llama 2"
    text = f"the context length is {positions}: {why}; no file states it"
    notes.append(Note(kind="inferred", text=text))
    return positions


def _tokens(inventory: Inventory, carried: Claims | None, notes: list[Note]) -> TokenIds:
    claims = inventory.checkpoint.claims
    if claims.tokens is not None:
        return claims.tokens
    if carried is not None and carried.tokens is not None:
        return carried.tokens
    vocab_size = inventory.geometry.vocab_size
    if vocab_size in (32000, 32016, 32768):
        tokens = TokenIds(bos=1, eos=2)
    elif vocab_size == 128256:  # noqa: PLR2004 - Llama 3's vocabulary
        tokens = TokenIds(bos=128000, eos=128001)
    else:
        notes.append(
            Note(kind="inferred", text="no token ids: the vocabulary is of no released model")
        )
        return TokenIds()
    text = f"bos {tokens.bos} and eos {tokens.eos}, by the vocabulary of {vocab_size}"
    notes.append(Note(kind="inferred", text=text))
    return tokens
