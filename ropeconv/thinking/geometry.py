"""The model's sizes, from its tensors' shapes. Config files are claims to be checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ropeconv.knowledge.family import Family, Rule
from ropeconv.words.errors import Contradiction, IncompleteSource, NotSaid, Unsupported
from ropeconv.words.model import Format, Geometry, Note

if TYPE_CHECKING:
    from ropeconv.formats.checkpoint import Checkpoint, StoredTensor

Groups = Mapping[tuple[Rule, int | None], "tuple[StoredTensor, ...]"]


def find_geometry(
    checkpoint: Checkpoint, groups: Groups, family: Family
) -> tuple[Geometry, tuple[Note, ...]]:
    """Sizes that agree with every shape looked at, and what had to be repaired in the claims.

    Raises:
        Contradiction: a usable claim that shapes deny.
        NotSaid: the number of heads, which no shape tells.
    """
    claims = checkpoint.claims
    notes: list[Note] = []

    def rows(ending: str) -> int:
        """Rows in all ranks together, of layer 0 or of the one tensor."""
        stored = _stored(groups, ending)
        return sum(tensor.shape[0] for tensor in stored)

    def agree(what: str, claimed: int | None, found: int) -> int:
        if claimed is None:
            return found
        if claimed <= 0:
            notes.append(
                Note(
                    kind="repaired",
                    text=f"{what} is {found} by shape; `{claims.origin}` says {claimed}",
                )
            )
        elif claimed != found:
            raise Contradiction(
                what=f"`{claims.origin}` says {what} is {claimed}, the tensors say {found}",
                why="shapes are the truth; the config belongs to another model, or a file does",
                fix="find the right config or the right files",
            )
        return found

    for (rule, _), stored in groups.items():
        dims = 2 if rule.columns else 1
        if any(len(tensor.shape) != dims for tensor in stored):
            raise Contradiction(
                what=f"`{stored[0].name}` has {len(stored[0].shape)} axes, expected {dims}"
            )
    hidden_size = agree(
        "the hidden size", claims.hidden_size, _stored(groups, "model.norm.weight")[0].shape[0]
    )
    depth = 1 + max(layer for _, layer in groups if layer is not None)
    num_layers = agree("the number of layers", claims.num_layers, depth)
    q_rows, k_rows = rows("q_proj.weight"), rows("k_proj.weight")
    num_heads, head_dim = _heads(checkpoint, q_rows, hidden_size, notes)
    num_kv_heads = _kv_heads(checkpoint, k_rows, num_heads, head_dim, notes)
    intermediate_size = agree(
        "the intermediate size", claims.intermediate_size, rows("gate_proj.weight")
    )
    embedding = _stored(groups, "embed_tokens.weight")
    by_rows = embedding[0].shape[1] == hidden_size
    vocab_size = rows("embed_tokens.weight") if by_rows else embedding[0].shape[0]
    if claims.vocab_size is None and checkpoint.format is Format.HF:
        notes.append(Note(kind="inferred", text=f"the vocabulary has {vocab_size} rows, by shape"))
    vocab_size = agree("the vocabulary", claims.vocab_size, vocab_size)
    geometry = Geometry(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        vocab_size=vocab_size,
    )
    _check(geometry, checkpoint, family)
    return geometry, tuple(notes)


def _stored(groups: Groups, ending: str) -> tuple[StoredTensor, ...]:
    return next(
        stored
        for (rule, layer), stored in groups.items()
        if rule.name.endswith(ending) and layer in (0, None)
    )


def _heads(
    checkpoint: Checkpoint, q_rows: int, hidden_size: int, notes: list[Note]
) -> tuple[int, int]:
    claims = checkpoint.claims
    num_heads = claims.num_heads if (claims.num_heads or 0) > 0 else None
    head_dim = claims.head_dim if (claims.head_dim or 0) > 0 else None
    if num_heads is None and head_dim is None:
        raise NotSaid(
            what=f"`{claims.origin}` states neither the number of heads nor head_dim",
            why=f"{q_rows} query rows can be cut into heads in many ways, and only one is right",
            fix="add the number of heads to the config",
        )
    stated = head_dim is not None or claims.family == "llama"
    if num_heads is not None and stated and checkpoint.format is Format.META:
        _check_ranks(checkpoint, q_rows, num_heads * head_dim if head_dim else hidden_size)
    if num_heads is None and head_dim is not None:
        num_heads = q_rows // head_dim
        notes.append(
            Note(kind="repaired", text=f"{num_heads} query heads, from {q_rows} rows of {head_dim}")
        )
    elif head_dim is None and num_heads is not None:
        head_dim = q_rows // num_heads
        if head_dim * num_heads != hidden_size:
            notes.append(
                Note(
                    kind="inferred",
                    text=f"head_dim {head_dim}, from {q_rows} rows of {num_heads} heads",
                )
            )
    assert num_heads is not None
    assert head_dim is not None
    if num_heads * head_dim != q_rows:
        raise Contradiction(
            what=f"the query projection has {q_rows} rows, expected {num_heads} heads x {head_dim}",
            why=f"the head counts stand in `{claims.origin}`",
            fix="find the right config; a wrong head count gives a silently wrong model",
        )
    return num_heads, head_dim


def _check_ranks(checkpoint: Checkpoint, q_rows: int, expected: int) -> None:
    """Whether the ranks found make up the whole query projection.

    The files of ranks 0 to N - 1 look complete in themselves when the last ones are missing, and
    every shape is smaller by the same factor. Meta's own Llama code has no head_dim but dim /
    n_heads, and Mistral     states it.

    Raises:
        IncompleteSource: whole ranks are missing.
        Contradiction: the rows fit no number of ranks.
    """
    if q_rows == expected:
        return
    found = checkpoint.num_ranks
    in_all, rest = divmod(expected * found, q_rows)
    if not rest and in_all > found:
        raise IncompleteSource(
            what=f"`{checkpoint.root}` has {found} of {in_all} ranks",
            why=f"they hold {q_rows} query rows, `{checkpoint.claims.origin}` makes it {expected}",
            fix="download the missing consolidated.NN.pth files",
        )
    raise Contradiction(
        what=f"the query projection has {q_rows} rows, expected {expected}",
        why=f"the sizes stand in `{checkpoint.claims.origin}`",
        fix="find the right config; a wrong head count gives a silently wrong model",
    )


def _kv_heads(
    checkpoint: Checkpoint, k_rows: int, num_heads: int, head_dim: int, notes: list[Note]
) -> int:
    claims = checkpoint.claims
    stored, rest = divmod(k_rows, head_dim)
    if rest or stored == 0:
        raise Contradiction(
            what=f"the key projection has {k_rows} rows, which are no whole heads of {head_dim}",
            fix="find the right config; a wrong head count gives a silently wrong model",
        )
    claimed = claims.num_kv_heads if (claims.num_kv_heads or 0) > 0 else None
    if claimed is None:
        if stored != num_heads or claims.num_kv_heads is not None:
            text = f"{stored} key/value heads, by shape; `{claims.origin}` states none"
            notes.append(Note(kind="repaired", text=text))
        return stored
    repeats, rest = divmod(checkpoint.num_ranks, claimed)
    if stored == claimed:
        return stored
    if repeats > 1 and not rest and stored == claimed * repeats:
        text = f"each key/value head is stored on {repeats} ranks and kept once"
        notes.append(Note(kind="inferred", text=text))
        return claimed
    raise Contradiction(
        what=f"`{claims.origin}` says {claimed} key/value heads, the tensors say {stored}",
        why=f"the key projection has {k_rows} rows in heads of {head_dim}",
        fix="find the right config; a wrong head count gives a silently wrong model",
    )


def _check(geometry: Geometry, checkpoint: Checkpoint, family: Family) -> None:
    if geometry.head_dim % 2:
        raise Unsupported(what=f"head_dim is {geometry.head_dim}, rotary pairs need an even number")
    if geometry.num_heads % geometry.num_kv_heads:
        raise Contradiction(
            what=f"{geometry.num_heads} query heads cannot share {geometry.num_kv_heads} key"
            " heads evenly",
            why=f"`{checkpoint.root}` is read as {family.title}",
        )
