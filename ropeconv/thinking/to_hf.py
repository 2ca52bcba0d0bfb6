"""The plan of a conversion to Hugging Face's format."""

from __future__ import annotations

from collections.abc import Sequence

from ropeconv.formats.hf import CONFIG, INDEX, SINGLE, render_config, render_index
from ropeconv.formats.new_file import NewTensor
from ropeconv.formats.safetensors import new_safetensors
from ropeconv.formats.stamps import STAMP_KEY
from ropeconv.thinking.evidence import Evidence
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.moves import make_move
from ropeconv.thinking.plan import Dropped, Plan, SmallFile, TargetFile, dropped_tables, whole_piece
from ropeconv.thinking.side_files import side_files
from ropeconv.thinking.whole import WholeTensor
from ropeconv.words.model import Format, Model, Note


def plan_hf(
    inventory: Inventory,
    evidence: Evidence,
    model: Model,
    *,
    max_shard_nbytes: int,
    notes: Sequence[Note],
) -> Plan:
    """Everything that writing this model as safetensors takes.

    A tied output is left out: config.json says that it is the embedding.
    """
    layout = inventory.family.layout
    dropped = list(dropped_tables(inventory))
    tensors = list(inventory.tensors)
    output = inventory.find("lm_head.weight")
    if model.tied and output is not None:
        tensors.remove(output)
        dropped.append(Dropped(name=output.name, why="its bytes are the embedding's"))
    shards = _shards(tensors, max_shard_nbytes)
    files: list[TargetFile] = []
    moves = []
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards):
        name = (
            SINGLE
            if len(shards) == 1
            else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        )
        new = new_safetensors(
            [NewTensor(name=t.name, dtype=t.dtype, shape=t.shape) for t in shard],
            {"format": "pt", STAMP_KEY: layout.name},
        )
        files.append(
            TargetFile(name=name, nbytes=new.nbytes, fixed=new.fixed, checksums=new.checksums)
        )
        weight_map |= {tensor.name: name for tensor in shard}
        for tensor in sorted(shard, key=lambda tensor: new.offsets[tensor.name]):
            target = whole_piece(tensor, file=number, offset=new.offsets[tensor.name])
            moves.append(make_move(tensor, inventory.layout, layout, (target,)))
    num_reordered = sum(move.order is not None for move in moves)
    small = [SmallFile(name=CONFIG, text=render_config(model, _carried(inventory)))]
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in tensors)
        small.insert(0, SmallFile(name=INDEX, text=render_index(weight_map, total)))
    copied, copies = side_files(inventory.checkpoint, len(files))
    return Plan(
        source=inventory.checkpoint,
        source_layout=inventory.layout,
        target_format=Format.HF,
        target_layout=layout,
        model=model,
        files=(*files, *copied),
        small_files=tuple(small),
        moves=(*moves, *copies),
        num_tensors=len(tensors),
        num_reordered=num_reordered,
        dropped=tuple(dropped),
        kept=evidence.kept,
        embedding_split=inventory.embedding_split,
        notes=tuple(notes),
    )


def _carried(inventory: Inventory) -> str:
    checkpoint = inventory.checkpoint
    return checkpoint.config if checkpoint.format is Format.HF else checkpoint.carried.config


def _shards(tensors: Sequence[WholeTensor], limit: int) -> list[list[WholeTensor]]:
    """Tensors in the model's order, as many in a shard as fit; one that is larger stands alone."""
    shards: list[list[WholeTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    return shards
