"""What the plan must know of a checkpoint's bytes: ties, copies in ranks, frequencies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress

from ropeconv.formats.checkpoint import Checkpoint, KeptTensor
from ropeconv.knowledge.family import Split
from ropeconv.moving.effort import default_jobs
from ropeconv.moving.engine import interrupted, run_blocks
from ropeconv.moving.files import read_ahead, read_into, read_span
from ropeconv.thinking.evidence import Evidence, to_floats
from ropeconv.thinking.inventory import Inventory
from ropeconv.thinking.whole import Piece, WholeTensor
from ropeconv.words.errors import Contradiction, IncompleteSource, Unsupported
from ropeconv.words.events import nobody
from ropeconv.words.model import Note

CHUNK_NBYTES = 1 << 20
MAX_KEPT_NBYTES = 1 << 16  # a table of frequencies has at most a few hundred bytes
MAX_DRIFT = 2e-2  # largest seen between ranks of a released model: 1e-2, norms of Llama 3 70B


def examine(
    inventory: Inventory, *, allow_drift: bool, stop: threading.Event | None = None
) -> Evidence:
    """The facts that only bytes can tell.

    Raises:
        Interrupted: stop was set while bytes were compared.
        Contradiction: copies that must be equal are not, or a tie that is claimed and not there.
        IncompleteSource: there is no output, and nothing says that it is tied.
    """
    return Evidence(
        tied=_is_tied(inventory, stop),
        kept=_kept(inventory),
        notes=_compare_copies(inventory, stop, allow_drift=allow_drift),
    )


def _is_tied(inventory: Inventory, stop: threading.Event | None) -> bool:
    checkpoint = inventory.checkpoint
    claimed = checkpoint.claims.tied
    output = inventory.find("lm_head.weight")
    if output is None:
        if claimed:
            return True
        raise IncompleteSource(
            what=f"`{checkpoint.root}` has no output weight",
            why=f"`{checkpoint.claims.origin}` does not say that it shares the embedding's tensor",
            fix="download the missing files",
        )
    if claimed is False:
        return False  # equal bytes would change nothing, and comparing may take a whole embedding
    embedding = inventory.tensors[0]
    equal = embedding.dtype == output.dtype and _same_bytes(checkpoint, embedding, output, stop)
    if claimed and not equal:
        raise Contradiction(
            what="the output differs from the embedding",
            why=f"`{checkpoint.claims.origin}` says that they are tied;"
            " transformers would ignore the output",
            fix="correct the config, or remove the tensor that the model does not use",
        )
    return equal


def _same_bytes(
    checkpoint: Checkpoint, one: WholeTensor, other: WholeTensor, stop: threading.Event | None
) -> bool:
    """Whether two equal-shaped tensors hold the same bytes; stops soon after a difference.

    In threads: models that tie a large embedding store a gigabyte and more twice.
    """
    if one.shape != other.shape:
        return False
    step = max(1, CHUNK_NBYTES // one.row_nbytes)
    differs = threading.Event()
    run_blocks(
        ((first, min(first + step, one.num_rows)) for first in range(0, one.num_rows, step)),
        lambda: _Comparer(checkpoint, one, other, step * one.row_nbytes, differs),
        jobs=default_jobs(),
        listen=nobody,
        stop=stop,
    )
    return not differs.is_set()


class _Comparer:
    """Compares rows of two tensors through two buffers."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        one: WholeTensor,
        other: WholeTensor,
        nbytes: int,
        differs: threading.Event,
    ) -> None:
        self._checkpoint = checkpoint
        self._tensors = (one, other)
        self._buffers = (bytearray(nbytes), bytearray(nbytes))
        self._differs = differs

    def run(self, rows: tuple[int, int], /) -> int:
        """Compare some rows, unless a difference is known."""
        if self._differs.is_set():
            return 0
        nbytes = (rows[1] - rows[0]) * self._tensors[0].row_nbytes
        for buffer, tensor in zip(self._buffers, self._tensors, strict=True):
            _fill(memoryview(buffer)[:nbytes], self._checkpoint, tensor, *rows)
        one, other = self._buffers
        # bytearrays compare at once, memoryviews byte by byte
        if one[:nbytes] != other[:nbytes] if nbytes < len(one) else one != other:
            self._differs.set()
        return 0

    def close(self) -> None:
        """Nothing is held."""


def read_rows(checkpoint: Checkpoint, tensor: WholeTensor, first: int, last: int) -> bytearray:
    """Rows of a tensor, joined from wherever they lie."""
    result = bytearray((last - first) * tensor.row_nbytes)
    _fill(memoryview(result), checkpoint, tensor, first, last)
    return result


def read_tensor_ahead(checkpoint: Checkpoint, tensor: WholeTensor) -> None:
    """Have the system fetch a tensor's bytes while something else is computed, where it can."""
    for piece in tensor.pieces:
        with (
            suppress(OSError),  # a hint: whoever reads afterwards says what is wrong
            checkpoint.path(piece.file).open("rb", buffering=0) as file,
        ):
            read_ahead(file.fileno(), piece.offset, piece.nbytes)


def _fill(
    view: memoryview, checkpoint: Checkpoint, tensor: WholeTensor, first: int, last: int
) -> None:
    for piece in tensor.pieces:
        begin, end = max(first, piece.first_row), min(last, piece.last_row)
        if begin >= end:
            continue
        width = piece.row_nbytes
        path = checkpoint.path(piece.file)
        offset = piece.offset + (begin - piece.first_row) * width
        if width == tensor.row_nbytes:
            read_into(path, view[(begin - first) * width : (end - first) * width], offset)
            continue
        data = read_span(path, offset, (end - begin) * width)
        for row in range(begin, end):
            place = (row - first) * tensor.row_nbytes + piece.first_byte
            view[place : place + width] = data[(row - begin) * width : (row - begin + 1) * width]


def _kept(inventory: Inventory) -> tuple[KeptTensor, ...]:
    kept = []
    for tensor in inventory.dropped:
        if tensor.rank:
            continue
        if tensor.nbytes > MAX_KEPT_NBYTES:
            raise Unsupported(
                what=f"`{tensor.name}` has {tensor.nbytes} bytes, too many for a table"
            )
        data = bytes(
            read_span(inventory.checkpoint.path(tensor.file), tensor.offset, tensor.nbytes)
        )
        kept.append(KeptTensor(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, data=data))
    return tuple(kept)


def _compare_copies(
    inventory: Inventory, stop: threading.Event | None, *, allow_drift: bool
) -> tuple[Note, ...]:
    worst, where = 0.0, ""
    for tensor in inventory.tensors:
        for copy in tensor.copies:
            original = next(p for p in tensor.pieces if p.first_row == copy.first_row)
            if _equal_pieces(inventory.checkpoint, original, copy, stop):
                continue
            if tensor.rule.split is not Split.REPLICATED:
                raise Contradiction(
                    what=f"the copies of `{tensor.name}` on several ranks differ",
                    why="more ranks than key/value heads share them, so their bytes must be equal",
                    fix="a rank's file is damaged or belongs to another model; download it again",
                )
            drift = _drift(inventory.checkpoint, tensor, original, copy)
            if not drift <= MAX_DRIFT and not allow_drift:
                raise Contradiction(
                    what=f"`{tensor.name}` differs between ranks by up to {drift:.3g}",
                    why=f"replicas of a released model differ by at most {MAX_DRIFT:g}",
                    fix="check that the ranks belong together; `allow_drift=True` takes rank 0's",
                )
            if not where or drift > worst:
                worst, where = drift, tensor.name
    if not where:
        return ()
    text = f"norms differ between ranks by up to {worst:.3g} (`{where}`); rank 0's are taken"
    return (Note(kind="drift", text=text),)


def _equal_pieces(
    checkpoint: Checkpoint, one: Piece, other: Piece, stop: threading.Event | None
) -> bool:
    for begin in range(0, one.nbytes, CHUNK_NBYTES):
        if stop is not None and stop.is_set():
            raise interrupted()
        nbytes = min(CHUNK_NBYTES, one.nbytes - begin)
        chunks = [
            read_span(checkpoint.path(piece.file), piece.offset + begin, nbytes)
            for piece in (one, other)
        ]
        if chunks[0] != chunks[1]:
            return False
    return True


def _drift(checkpoint: Checkpoint, tensor: WholeTensor, one: Piece, other: Piece) -> float:
    """The largest absolute difference; NaN where one side has NaN, which no bound admits."""
    values: Sequence[tuple[float, ...]] = [
        to_floats(tensor.dtype, read_span(checkpoint.path(piece.file), piece.offset, piece.nbytes))
        for piece in (one, other)
    ]
    differences = [abs(a - b) for a, b in zip(*values, strict=True)]
    return float("nan") if any(d != d for d in differences) else max(differences)  # noqa: PLR0124 - NaN
