"""The plan of a conversion to Meta's format, in any number of model-parallel ranks."""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from dataclasses import replace

from ropeconv.formats.checkpoint import KeptTensor, parse_object
from ropeconv.formats.meta import PARAMS, rank_name, render_params
from ropeconv.formats.new_file import NewFile, NewTensor
from ropeconv.formats.safetensors import new_safetensors
from ropeconv.formats.stamps import STAMP_KEY
from ropeconv.formats.torch_zip_writer import new_torch_zip
from ropeconv.knowledge.family import Split
from ropeconv.thinking.config_map import agrees
from ropeconv.thinking.evidence import Evidence, stored_freqs
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.joining import expected_tensors
from ropeconv.thinking.moves import Move, make_move
from ropeconv.thinking.plan import Plan, SmallFile, TargetFile, dropped_tables, place_fixed
from ropeconv.thinking.side_files import side_files
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import Unsupported
from ropeconv.words.frequencies import RopeSettings, frequencies
from ropeconv.words.layout import INTERLEAVED
from ropeconv.words.model import Format, Model, Note, WeightsFile

FIRST_GENERATIONS_VOCAB = 32_768  # Llama 1, 2 and CodeLlama have 32000 or 32016 tokens


SETTINGS = (
    ("hidden_act", "silu"),
    ("attention_bias", False),
    ("mlp_bias", False),
    ("partial_rotary_factor", 1.0),
)


def plan_meta(
    inventory: Inventory,
    evidence: Evidence,
    model: Model,
    *,
    num_ranks: int,
    weights: WeightsFile,
    rope_freqs: bool | None,
    notes: Sequence[Note],
) -> Plan:
    """Everything that writing this model in Meta's format takes.

    Args:
        inventory: the source.
        evidence: what its bytes say.
        model: what it is.
        num_ranks: model-parallel ranks to write.
        weights: the kind of file; safetensors has one rank only.
        rope_freqs: whether to write the table `rope.freqs`; None for "if the generation has it".
        notes: what was inferred so far.

    Raises:
        Unsupported: the sizes cannot be divided among that many ranks.
    """
    said = list(notes)
    _check_settings(inventory)
    split = _embedding_split(inventory, model, num_ranks, said)
    tensors = _restore_output(inventory, said)
    constants = _constants(inventory, evidence, model, rope_freqs, said)
    pieces = {tensor.name: _divide(tensor, num_ranks, split, model) for tensor in tensors}
    names = {
        tensor.name: tensor.rule.meta.replace("{layer}", str(tensor.layer)) for tensor in tensors
    }
    files: list[TargetFile] = []
    offsets: list[NewFile] = []
    for rank in range(num_ranks):
        new = [
            NewTensor(
                name=names[tensor.name],
                dtype=tensor.dtype,
                shape=_shape(tensor, pieces[tensor.name][rank]),
            )
            for tensor in tensors
        ]
        new += [NewTensor(name=c.name, dtype=c.dtype, shape=c.shape) for c in constants]
        name = rank_name(rank) if weights is WeightsFile.PTH else "consolidated.safetensors"
        file = place_fixed(_frame(name, new, weights), constants)
        offsets.append(file)
        files.append(
            TargetFile(name=name, nbytes=file.nbytes, fixed=file.fixed, checksums=file.checksums)
        )
    moves: list[Move] = []
    for tensor in tensors:
        targets = tuple(
            replace(piece, file=rank, offset=offsets[rank].offsets[names[tensor.name]])
            for rank, piece in enumerate(pieces[tensor.name])
        )
        moves.append(make_move(tensor, inventory.layout, INTERLEAVED, targets))
    copied, copies = side_files(inventory.checkpoint, len(files))
    return Plan(
        source=inventory.checkpoint,
        source_layout=inventory.layout,
        target_format=Format.META,
        target_layout=INTERLEAVED,
        model=model,
        files=(*files, *copied),
        small_files=(SmallFile(name=PARAMS, text=render_params(model, _carried(inventory))),),
        moves=(*moves, *copies),
        num_tensors=len(tensors),
        num_reordered=sum(move.order is not None for move in moves),
        dropped=dropped_tables(inventory),
        kept=evidence.kept,
        embedding_split=split.value if num_ranks > 1 else "",
        notes=tuple(said),
    )


def _check_settings(inventory: Inventory) -> None:
    """Refuse settings of config.json that Meta's code has no switch for; they change the model."""
    checkpoint = inventory.checkpoint
    if checkpoint.format is Format.META:
        return
    config = parse_object(checkpoint.config, checkpoint.claims.origin)
    for key, usual in SETTINGS:
        if config.get(key, usual) not in (usual, None):
            raise Unsupported(
                what=f"`{checkpoint.claims.origin}` has `{key}` = {str(config[key])[:60]}",
                why=f"params.json cannot state it; Meta's code always has {usual}",
            )


def _carried(inventory: Inventory) -> str:
    checkpoint = inventory.checkpoint
    return checkpoint.config if checkpoint.format is Format.META else checkpoint.carried.config


def _frame(name: str, tensors: Sequence[NewTensor], weights: WeightsFile) -> NewFile:
    if weights is WeightsFile.SAFETENSORS:
        return new_safetensors(tensors, {"format": "pt", STAMP_KEY: INTERLEAVED.name})
    stamp = {STAMP_KEY: INTERLEAVED.name.encode()}
    return new_torch_zip(name.removesuffix(".pth"), tensors, stamp)


def _embedding_split(
    inventory: Inventory, model: Model, num_ranks: int, notes: list[Note]
) -> Split:
    if num_ranks == 1:
        return Split.ROWS
    carried = inventory.checkpoint.carried.embedding_split or inventory.embedding_split
    if carried:
        return Split(carried)
    old = model.geometry.vocab_size < FIRST_GENERATIONS_VOCAB and model.family == "llama"
    split = Split.COLUMNS if old else Split.ROWS
    text = (
        f"the embedding is split by {split.value}, as in Llama"
        f" {'1 and 2' if old else '3 and later'},"
        f" by the vocabulary of {model.geometry.vocab_size}"
    )
    notes.append(Note(kind="inferred", text=text))
    return split


def _restore_output(inventory: Inventory, notes: list[Note]) -> list[WholeTensor]:
    """Every tensor of the model in its order; a tied output gets the embedding's bytes."""
    found = {(tensor.rule, tensor.layer): tensor for tensor in inventory.tensors}
    embedding = inventory.tensors[0]
    tensors = []
    for rule, layer in expected_tensors(inventory.family, inventory.geometry):
        tensor = found.get((rule, layer))
        if tensor is None:
            tensor = replace(embedding, name=rule.name, rule=rule)
            text = "`output.weight` is written from the embedding, to which it is tied"
            notes.append(Note(kind="inferred", text=text))
        tensors.append(tensor)
    return tensors


def _constants(
    inventory: Inventory,
    evidence: Evidence,
    model: Model,
    rope_freqs: bool | None,  # noqa: FBT001 - None is a third answer
    notes: list[Note],
) -> tuple[KeptTensor, ...]:
    """`rope.freqs`: as an earlier conversion kept it, else computed where the generation has it."""
    if rope_freqs is False:
        return ()
    kept = inventory.checkpoint.carried.dropped or evidence.kept
    tables = tuple(
        tensor
        for tensor in kept
        if tensor.name.endswith("rope.freqs")
        and agrees(stored_freqs(tensor), model.rope, model.geometry.head_dim)
    )
    if tables:
        return tables
    old = model.geometry.vocab_size < FIRST_GENERATIONS_VOCAB and model.family == "llama"
    if not (old if rope_freqs is None else rope_freqs):
        return ()
    if inventory.checkpoint.carried.config and not kept and rope_freqs is None:
        return ()  # the original had none
    plain = RopeSettings(theta=model.rope.theta)
    values = array.array("f", frequencies(plain, model.geometry.head_dim).inv_freq)
    if sys.byteorder == "big":
        values.byteswap()
    text = "`rope.freqs` is written from theta, as Llama 1 and 2 have it"
    notes.append(Note(kind="inferred", text=text))
    return (
        KeptTensor(name="rope.freqs", dtype=DType.F32, shape=(len(values),), data=values.tobytes()),
    )


def _divide(
    tensor: WholeTensor, num_ranks: int, embedding: Split, model: Model
) -> tuple[Piece, ...]:
    """Each rank's piece of a tensor; file and offset are filled in later."""
    split = embedding if tensor.rule.split is Split.EMBEDDING else tensor.rule.split
    geometry = model.geometry
    rows, row_nbytes = tensor.num_rows, tensor.row_nbytes
    unit = 1
    if tensor.rule.name.endswith("q_proj.weight") or split is Split.KV_ROWS:
        unit = geometry.head_dim
    pieces = []
    for rank in range(num_ranks):
        first, last, left, right = 0, rows, 0, row_nbytes
        match split:
            case Split.ROWS:
                first, last = _share(tensor, rows, unit, rank, num_ranks)
            case Split.KV_ROWS if num_ranks > geometry.num_kv_heads:
                repeats, rest = divmod(num_ranks, geometry.num_kv_heads)
                if rest:
                    raise _cannot(tensor, f"{geometry.num_kv_heads} heads", num_ranks)
                first = (
                    rank // repeats * unit
                )  # consecutive ranks share a head: 0 0 1 1, not 0 1 0 1
                last = first + unit
            case Split.KV_ROWS:
                first, last = _share(tensor, rows, unit, rank, num_ranks)
            case Split.COLUMNS:
                left, right = _share(tensor, row_nbytes, tensor.dtype.nbytes, rank, num_ranks)
            case Split.EMBEDDING | Split.REPLICATED:
                pass
        pieces.append(
            Piece(
                file=rank,
                offset=0,
                first_row=first,
                last_row=last,
                first_byte=left,
                last_byte=right,
            )
        )
    return tuple(pieces)


def _share(
    tensor: WholeTensor, total: int, unit: int, rank: int, num_ranks: int
) -> tuple[int, int]:
    each, rest = divmod(total // unit, num_ranks)
    if rest:
        raise _cannot(tensor, f"{total // unit} units of {unit}", num_ranks)
    return rank * each * unit, (rank + 1) * each * unit


def _cannot(tensor: WholeTensor, amount: str, num_ranks: int) -> Unsupported:
    return Unsupported(
        what=f"`{tensor.name}` cannot be divided among {num_ranks} ranks",
        why=f"it has {amount}, and ranks hold equal shares",
        fix="choose another `MetaOptions(num_ranks=...)`",
    )


def _shape(tensor: WholeTensor, piece: Piece) -> tuple[int, ...]:
    rows = piece.last_row - piece.first_row
    if len(tensor.shape) == 1:
        return (rows,)
    return (rows, piece.row_nbytes // tensor.dtype.nbytes)
