"""Conversions beside `cp -r` and what users have today: one run, markdown tables.

    python benchmarks/convert.py [--gigabytes 2] [--rounds 5] [--folder DIR] [--parts main ...]
        [--torchtune PYTHON]

The data are random bytes in the shapes of a small Llama, made first and removed last. Contenders
take turns within each round, so that a slow moment hits all of them; every number is a median,
every ratio the median of the rounds' own ratios. Each contender is a process of its own: wall time
has its start-up, memory is its peak as the kernel counts it. A virtual machine gives memory that
is idle back to its host, and whoever takes it again first waits for it (up to 5 s for 2 GB were
seen). So memory is filled with page cache but for what a target takes, as it is on any machine that
has run for long, and directly before each measured run the same contender runs unmeasured.
Our modules are compiled to bytecode first, as an installer does, wherever writing it is turned off.

warm: the source is in the page cache, nothing is flushed. warm, sync: every target file is flushed
within the time. cold, sync: the source is dropped from the page cache before, the target flushed.

Parts: main (both formats, both layouts, against cp), inside (the same as calls in one process, so
without start-up, warm and cold), peers (safetensors, the steps of transformers'
script, torchtune if an interpreter with torchtune 0.6 and torchao 0.12 is named; run all this with
PYTHONPATH=. then, since that one has no ropeconv), choices (I/O, jobs, hashes), sharing (an XFS
image, as root), inplace, growth (0.25 GB to --gigabytes doubled thrice), large (checkpoints without
blocks: time and memory up to the first moved byte of hundreds of GB, and the peak of all of 24 GB).
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ropeconv
from ropeconv import INTERLEAVED, HfOptions, MetaOptions
from ropeconv.formats.new_file import NewTensor
from ropeconv.formats.safetensors import new_safetensors
from ropeconv.moving.effort import Effort, Io, default_jobs
from ropeconv.words.dtypes import DType
from ropeconv.words.errors import Interrupted
from tests.moving.cases import Shape
from tests.moving.sparse import make_sparse_hf

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDE, VOCAB = 2048, 32, 8, 64, 8192, 16000
LAYER_NBYTES = 2 * (2 * HIDDEN * HIDDEN + 2 * KV_HEADS * HEAD_DIM * HIDDEN + 3 * WIDE * HIDDEN)
POOL_NBYTES = 64 << 20  # random bytes, repeated: no file system here compresses or merges
PARTS = ("main", "inside", "peers", "choices", "sharing", "inplace", "growth", "large")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one process took."""

    wall: float  # seconds, with the flush if there is one
    processor: float  # seconds, user and system
    peak_nbytes: int


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A program that reads a folder and makes another."""

    name: str
    source: str
    command: Callable[[Path, Path], list[str]]
    target: str = "target"


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How a run begins and ends."""

    name: str
    cold: bool
    sync: bool


WARM = Mode(name="warm", cold=False, sync=False)
WARM_SYNC = Mode(name="warm, sync", cold=False, sync=True)
COLD_SYNC = Mode(name="cold, sync", cold=True, sync=True)


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["main", "peers"])
    parser.add_argument("--torchtune", type=Path, default=None, metavar="PYTHON")
    parser.add_argument("--step", nargs=3, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step[0]](Path(options.step[1]), Path(options.step[2]))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ropeconv-bench-") as name:
        bench = Bench(Path(name), options.gigabytes, options.rounds, options.torchtune)
        bench.describe()
        for part in options.parts:
            getattr(bench, part)()


class Bench:
    """The data, and what is measured on them."""

    def __init__(self, root: Path, gigabytes: float, rounds: int, torchtune: Path | None) -> None:
        self.root = root
        self.gigabytes = gigabytes
        self.rounds = rounds
        self.torchtune = torchtune
        self.filler = Filler(root / "filler")
        compileall.compile_dir(Path(ropeconv.__file__).parent, quiet=1)
        make(root / "hf", gigabytes)
        for ranks in (1, 2):
            command = convert("hf-to-meta", "--mp", str(ranks))
            quiet(command(root / "hf", root / f"meta-{ranks}"))

    def describe(self) -> None:
        """What the numbers belong to."""
        nbytes = sum(path.stat().st_size for path in (self.root / "hf").iterdir())
        print(
            f"\n{nbytes / 1e9:.2f} GB, {self.rounds} rounds, {len(os.sched_getaffinity(0))} cores,"
            f" {file_system(self.root)}, Linux {platform.release()}, Python"
            f" {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start\n"
        )

    def main(self) -> None:
        """Both formats and both layouts, against `cp -r` of the same source."""
        copies = [
            Contender(name=f"cp -r {source}", source=source, command=copy)
            for source in ("hf", "meta-1", "meta-2")
        ]
        ours = [
            Contender(name="HF to Meta, 1 rank", source="hf", command=convert("hf-to-meta")),
            Contender(
                name="HF to Meta, 2 ranks", source="hf", command=convert("hf-to-meta", "--mp", "2")
            ),
            Contender(name="Meta, 1 rank, to HF", source="meta-1", command=convert("meta-to-hf")),
            Contender(name="Meta, 2 ranks, to HF", source="meta-2", command=convert("meta-to-hf")),
            Contender(name="HF, layout only", source="hf", command=convert("half-to-interleaved")),
        ]
        for mode in (WARM, WARM_SYNC, COLD_SYNC):
            self.table(mode, copies, ours)

    def inside(self) -> None:
        """Calls in one process, against `cp -r`: the move alone, and what the disk allows."""
        for mode in (WARM, COLD_SYNC):
            bases: dict[str, list[Run]] = {source: [] for source, _ in CALLS.values()}
            runs: dict[str, list[Run]] = {name: [] for name in CALLS}
            for _ in range(self.rounds):
                for source, found in bases.items():
                    found.extend(self._inside(source, mode, partial(copy_flushed, mode)))
                for name, (source, call) in CALLS.items():
                    runs[name].extend(self._inside(source, mode, partial(call, mode)))
            print(f"### inside one process, {mode.name}\n\n{HEAD}")
            for source, found in bases.items():
                print_row(f"cp -r {source}", found, found)
            for name, (source, _) in CALLS.items():
                print_row(name, runs[name], bases[source])
            print(flush=True)

    def _inside(
        self, source: str, mode: Mode, call: Callable[[Path, Path], None]
    ) -> tuple[Run, Run]:
        """Two measured calls after one that is not."""
        target = self.root / "target"
        runs = []
        warm_up(self.root / source)
        self.filler.leave_room_for(self.root / source)
        for _ in range(3):
            if mode.cold:
                chill(self.root / source)
            begin, before = time.perf_counter(), times()
            call(self.root / source, target)
            wall = time.perf_counter() - begin
            runs.append(Run(wall=wall, processor=times() - before, peak_nbytes=0))
            shutil.rmtree(target)
        return runs[1], runs[2]

    def peers(self) -> None:
        """What users have today, warm, in at most two rounds: they are slow."""
        copies = [
            Contender(name=f"cp -r {source}", source=source, command=copy)
            for source in ("hf", "meta-1")
        ]
        others = [
            Contender(name="ropeconv, Meta to HF", source="meta-1", command=convert("meta-to-hf")),
            Contender(name="safetensors load, save", source="hf", command=step("safetensors")),
            Contender(
                name="the transformers script's steps", source="meta-1", command=step("script")
            ),
        ]
        if self.torchtune:
            python = str(self.torchtune)
            command = step("torchtune", python)
            others.append(Contender(name="torchtune, Meta to HF", source="meta-1", command=command))
        self.table(WARM, copies, others, rounds=min(2, self.rounds))

    def choices(self) -> None:
        """I/O, jobs and hashes."""
        copies = [Contender(name="cp -r meta-1", source="meta-1", command=copy)]

        def ours(*more: str) -> Contender:
            command = convert("meta-to-hf", *more)
            return Contender(name=" ".join(more), source="meta-1", command=command)

        kinds = [ours("--io", io) for io in ("buffered", "direct")]
        for mode in (WARM_SYNC, COLD_SYNC):
            self.table(mode, copies, [*kinds, ours("--hash"), ours("--no-hash")])
        looking = Contender(
            name="looking at the weights too",
            source="meta-1",
            command=lambda a, b: [word for word in convert("meta-to-hf")(a, b) if word != TRUST],
        )
        jobs = [ours("--jobs", str(jobs)) for jobs in (1, 2, 4, 8)]
        self.table(WARM, copies, [*jobs, looking])

    def sharing(self) -> None:
        """Layout only, on a file system with reflinks."""
        if os.geteuid() or not shutil.which("mkfs.xfs"):
            print("sharing: skipped, needs root and mkfs.xfs\n")
            return
        image, mounted = self.root / "image", self.root / "xfs"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(int(self.gigabytes * 4e9) + (1 << 30))
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
        if subprocess.run(["mount", "-o", "loop", image, mounted], check=False).returncode:
            print("sharing: skipped, this machine does not mount images\n")
            return
        try:
            shutil.copytree(self.root / "hf", mounted / "hf")
            copies = [
                Contender(
                    name="cp -r --reflink=never",
                    source="xfs/hf",
                    target="xfs/target",
                    command=lambda a, b: ["cp", "-r", "--reflink=never", str(a), str(b)],
                )
            ]
            ours = [
                Contender(
                    name="HF, layout only, shared",
                    source="xfs/hf",
                    target="xfs/target",
                    command=convert("half-to-interleaved"),
                )
            ]
            for mode in (WARM, WARM_SYNC):
                self.table(mode, copies, ours)
        finally:
            subprocess.run(["umount", mounted], check=True)
            image.unlink()

    def inplace(self) -> None:
        """Layout only, where the files lie, there and back."""
        own = self.root / "own"
        quiet(convert("meta-to-hf")(self.root / "meta-1", own))
        directions = ["half-to-interleaved", "interleaved-to-half"]
        runs = []
        for number in range(self.rounds):
            copying = Contender(name="cp", source="own", command=copy)
            base = measure(self.root, copying, WARM_SYNC, self.filler)
            command = [
                *ROPECONV,
                "convert",
                directions[number % 2],
                str(own),
                "--in-place",
                "-q",
                TRUST,
            ]
            runs.append((base, timed(command, None)))
        if self.rounds % 2:
            quiet([*ROPECONV, "convert", directions[1], str(own), "--in-place", "-q", TRUST])
        shutil.rmtree(own)
        print("### in place, warm, sync\n\n" + HEAD)
        print_row("HF, layout only, in place", [run for _, run in runs], [b for b, _ in runs])
        print()

    def growth(self) -> None:
        """Time and memory against size."""
        print("### growth, Meta to HF, warm, sync\n")
        print("| GB | cp -r, s | ropeconv, s | s/GB | peak MiB |\n|---|---|---|---|---|")
        size = 0.25
        while size <= self.gigabytes * 8:
            root = self.root / f"size-{size}"
            make(root / "hf", size)
            quiet(convert("hf-to-meta")(root / "hf", root / "meta"))
            shutil.rmtree(root / "hf")
            copying = Contender(name="cp", source="meta", command=copy)
            ours = Contender(name="", source="meta", command=convert("meta-to-hf"))
            base, run = (measure(root, each, WARM_SYNC, self.filler) for each in (copying, ours))
            shutil.rmtree(root)
            print(
                f"| {size:g} | {base.wall:.2f} | {run.wall:.2f} | {run.wall / size:.2f}"
                f" | {run.peak_nbytes / 2**20:.0f} |",
                flush=True,
            )
            size *= 2
        print()

    def large(self) -> None:
        """Time and memory up to the first moved byte, and the peak of a whole conversion."""
        print("### large, sparse, to 8 ranks\n\n| GB | shards | first byte, s | peak MiB |")
        print("|---|---|---|---|")
        for layers, hidden, shards in ((126, 16384, 1137), (230, 8192, 2000)):
            source = self.root / f"sparse-{shards}"
            nbytes = make_sparse(source, layers, hidden, shards)
            runs = [timed(step("first")(source, self.root / "t"), None) for _ in range(3)]
            walls = sorted(run.wall for run in runs)
            peak = max(run.peak_nbytes for run in runs) / 2**20
            print(f"| {nbytes / 1e9:.0f} | {shards} | {walls[1]:.2f} | {peak:.0f} |", flush=True)
            shutil.rmtree(source)
        source = self.root / "sparse"
        nbytes = make_sparse(source, 56, 6144, 6)
        run = timed(convert("hf-to-meta", "--mp", "2")(source, self.root / "t"), None)
        shutil.rmtree(source)
        shutil.rmtree(self.root / "t")
        print(
            f"\nall of {nbytes / 1e9:.1f} GB, to 2 ranks: {run.wall:.1f} s,"
            f" {run.peak_nbytes / 2**20:.0f} MiB\n",
            flush=True,
        )

    def table(
        self,
        mode: Mode,
        copies: Iterable[Contender],
        contenders: Iterable[Contender],
        rounds: int | None = None,
    ) -> None:
        """Rounds in which everyone takes a turn, and their medians."""
        copies, contenders = list(copies), list(contenders)
        bases: dict[str, list[Run]] = {copy.source: [] for copy in copies}
        runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds or self.rounds):
            for contender in copies:
                bases[contender.source].append(measure(self.root, contender, mode, self.filler))
            for contender in contenders:
                runs[contender.name].append(measure(self.root, contender, mode, self.filler))
        print(f"### {mode.name}\n\n{HEAD}")
        for contender in copies:
            base = bases[contender.source]
            print_row(contender.name, base, base)
        for contender in contenders:
            print_row(contender.name, runs[contender.name], bases[contender.source])
        print(flush=True)


HEAD = (
    "| | wall, s | of cp | best, s | of cp's best | processor, s | peak MiB |\n|---"
    + "|---" * 6
    + "|"
)
# Random bytes have no layout to look for; "looking" in the part choices is a row of its own.
TRUST = "--trust-declared-layout"
ROPECONV = [sys.executable, "-m", "ropeconv"]


class Filler:
    """Fills memory with page cache: a file without blocks, read as far as needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        with path.open("wb") as file:
            file.truncate(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))

    def leave_room_for(self, source: Path) -> None:
        """Leave free what a target takes: of twice as much, some runs got pages of the host's."""
        nbytes = int(1.15 * sum(path.stat().st_size for path in source.iterdir()))
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._position)
            while free_nbytes() > nbytes and file.read(1 << 20):
                self._position = file.tell()
            if free_nbytes() > nbytes:
                self._position = 0  # the kernel has dropped some: from the beginning, next time


def free_nbytes() -> int:
    """Memory that holds nothing."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("MemFree")).split()[1]) * 1024


def measure(root: Path, contender: Contender, mode: Mode, filler: Filler) -> Run:
    """One run of one contender after another that is not measured; its target is removed."""
    source, target = root / contender.source, root / contender.target
    command = contender.command(source, target)
    own = command[: len(ROPECONV)] == ROPECONV
    if own and not mode.sync:
        command.append("--no-sync")
    flushed = target if mode.sync and not own else None
    os.sync()
    warm_up(source)
    filler.leave_room_for(source)
    timed(command, flushed)
    if mode.cold:
        chill(source)
    shutil.rmtree(target)
    run = timed(command, flushed)
    shutil.rmtree(target)
    return run


def print_row(name: str, runs: list[Run], bases: list[Run]) -> None:
    """One line of a table: medians, the median of the rounds' ratios, the best against the best."""
    ratio = statistics.median(run.wall / base.wall for run, base in zip(runs, bases, strict=True))
    best, best_base = (min(run.wall for run in all_runs) for all_runs in (runs, bases))
    peak = max(run.peak_nbytes for run in runs)
    print(
        f"| {name} | {statistics.median(run.wall for run in runs):.2f} | {ratio:.2f}"
        f" | {best:.2f} | {best / best_base:.2f}"
        f" | {statistics.median(run.processor for run in runs):.2f}"
        f" | {f'{peak / 2**20:.0f}' if peak else ''} |"
    )


def times() -> float:
    """Seconds of processor that this process and its ended children have taken."""
    return sum(os.times()[:4])


def copy_flushed(mode: Mode, source: Path, target: Path) -> None:
    """`cp -r`, and a flush of every file where one is wanted."""
    quiet(copy(source, target))
    if mode.sync:
        flush_all(target)


def flush_all(folder: Path) -> None:
    """Bring every file to the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def call_convert(options: HfOptions | MetaOptions, mode: Mode, source: Path, target: Path) -> None:
    """A conversion between formats, in this process."""
    ropeconv.convert(source, target, options, effort=Effort(jobs=default_jobs(), sync=mode.sync))


def call_relayout(mode: Mode, source: Path, target: Path) -> None:
    """A conversion of the layout only, in this process."""
    effort = Effort(jobs=default_jobs(), sync=mode.sync)
    ropeconv.relayout(source, target, INTERLEAVED, effort=effort)


# the source and the call of each conversion
CALLS: dict[str, tuple[str, Callable[[Mode, Path, Path], None]]] = {
    "HF to Meta, 1 rank": ("hf", partial(call_convert, MetaOptions(num_ranks=1))),
    "HF to Meta, 2 ranks": ("hf", partial(call_convert, MetaOptions(num_ranks=2))),
    "Meta, 1 rank, to HF": ("meta-1", partial(call_convert, HfOptions())),
    "Meta, 2 ranks, to HF": ("meta-2", partial(call_convert, HfOptions())),
    "HF, layout only": ("hf", call_relayout),
}


def quiet(command: list[str]) -> None:
    """Run a program whose output nobody wants."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def timed(command: list[str], flushed: Path | None) -> Run:
    """Run a program to its end, flush what it made if asked to, and say what it took."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = process.stderr.read().decode() if process.stderr else ""
    if process.returncode:
        raise SystemExit(f"{command} failed: {said}")
    if flushed:
        flush_all(flushed)
    return Run(
        wall=time.perf_counter() - begin,
        processor=used.ru_utime + used.ru_stime,
        peak_nbytes=used.ru_maxrss * 1024,
    )


def convert(direction: str, *more: str) -> Callable[[Path, Path], list[str]]:
    """The command line of a conversion."""
    return lambda source, target: [
        *ROPECONV, "convert", direction, str(source), str(target), "-q", TRUST, *more
    ]  # fmt: skip


def copy(source: Path, target: Path) -> list[str]:
    """The floor."""
    return ["cp", "-r", str(source), str(target)]


def step(name: str, python: str = sys.executable) -> Callable[[Path, Path], list[str]]:
    """A peer, as a process of its own."""
    return lambda source, target: [python, __file__, "--step", name, str(source), str(target)]


def make(folder: Path, gigabytes: float) -> None:
    """Make the data in another process: a child's peak counts its parent's pages, so stay small."""
    subprocess.run(
        [sys.executable, __file__, "--step", "make", str(folder), str(gigabytes)], check=True
    )


def warm_up(folder: Path) -> None:
    """Bring a folder into the page cache."""
    subprocess.run(f"cat {folder}/* > /dev/null", shell=True, check=True)


def chill(folder: Path) -> None:
    """Drop a folder's files from the page cache, and nothing else: programs stay there."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    found = subprocess.run(
        ["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown file system"


def make_hf(folder: Path, gigabytes: float, num_shards: int) -> None:
    """A Llama folder of about that size, in Hugging Face's format."""
    folder.mkdir(parents=True)
    fixed = 2 * 2 * VOCAB * HIDDEN
    layers = max(1, round((gigabytes * 1e9 - fixed) / LAYER_NBYTES))
    config = {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "intermediate_size": WIDE,
        "vocab_size": VOCAB,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = [
        NewTensor(name=name, dtype=DType.BF16, shape=shape)
        for name, shape in shapes(layers).items()
    ]
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        pool = os.urandom(POOL_NBYTES)  # another for each file: equal tensors would be tied
        name = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        share = -(-len(tensors) // num_shards)
        mine = tensors[number * share : (number + 1) * share]
        new = new_safetensors(mine, {"format": "pt"})
        with (folder / name).open("wb") as file:
            file.write(new.fixed[0].data)
            while left := new.nbytes - file.tell():
                file.write(pool[:left])
        weight_map |= {tensor.name: name for tensor in mine}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def make_sparse(folder: Path, layers: int, hidden: int, num_shards: int) -> int:
    """A Llama folder whose weights are holes; returns their bytes."""
    heads = hidden // 128
    shape = Shape(
        layers=layers, hidden=hidden, heads=heads, kv_heads=8, head_dim=128,
        intermediate=3 * hidden, vocab=32000,
    )  # fmt: skip
    make_sparse_hf(folder, shape, num_shards=num_shards)
    return sum(path.stat().st_size for path in folder.iterdir())


def first_byte(source: Path, target: Path) -> None:
    """Convert up to the first moved block, on a disk that is taken to be large enough."""
    from ropeconv.moving import resources  # noqa: PLC0415 - a step's own process
    from ropeconv.words.events import BytesDone  # noqa: PLC0415

    stop = threading.Event()

    def listen(event: object) -> None:
        if isinstance(event, BytesDone):
            stop.set()

    del os.posix_fallocate  # the target's holes take no room
    resources.shutil.disk_usage = lambda _: types.SimpleNamespace(free=1 << 50)
    effort = Effort(jobs=default_jobs(), io=Io.BUFFERED, sync=False)
    try:
        ropeconv.convert(
            source, target, MetaOptions(num_ranks=8), effort=effort, listen=listen, stop=stop
        )
    except Interrupted:
        shutil.rmtree(target.with_name(f".{target.name}.ropeconv-partial"))


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (HIDDEN,),
            f"{at}.self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            f"{at}.post_attention_layernorm.weight": (HIDDEN,),
            f"{at}.mlp.gate_proj.weight": (WIDE, HIDDEN),
            f"{at}.mlp.up_proj.weight": (WIDE, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, WIDE),
        }
    return found | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def load_and_save(source: Path, target: Path) -> None:
    """The stock library, file by file: no reorder, no names, no config."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - a peer's own process

    target.mkdir()
    for path in source.glob("*.safetensors"):
        save_file(load_file(path), target / path.name, metadata={"format": "pt"})


def script_steps(source: Path, target: Path) -> None:
    """What transformers' Llama convert script does with the weights of one rank.

    Load all, reorder, save each layer as a pickle, load them all again, save as safetensors.

    Source:
        https://github.com/huggingface/transformers/blob/v4.51.0/src/transformers/models/llama/convert_llama_weights_to_hf.py
    """
    import torch  # noqa: PLC0415 - a peer's own process
    from safetensors.torch import save_file  # noqa: PLC0415

    def reorder(weight: torch.Tensor, heads: int) -> torch.Tensor:
        rows, columns = weight.shape
        pairs = weight.view(heads, rows // heads // 2, 2, columns)
        return pairs.transpose(1, 2).reshape(rows, columns)

    loaded = torch.load(source / "consolidated.00.pth", map_location="cpu", weights_only=True)
    params = json.loads((source / "params.json").read_text())
    temporary = target / "tmp"
    temporary.mkdir(parents=True)
    layers = params["n_layers"]
    for layer in range(layers + 1):
        prefix = f"layers.{layer}."
        mine = {name: t for name, t in loaded.items() if name.startswith(prefix)}
        if layer == layers:
            mine = {name: t for name, t in loaded.items() if not name.startswith("layers.")}
        for name, heads in (("wq", params["n_heads"]), ("wk", params["n_kv_heads"])):
            key = f"{prefix}attention.{name}.weight"
            if key in mine:
                mine[key] = reorder(mine[key], heads)
        torch.save(mine, temporary / f"{layer}.bin")
        mine.clear()
    del loaded
    again: dict[str, torch.Tensor] = {}
    for layer in range(layers + 1):
        again |= torch.load(temporary / f"{layer}.bin", map_location="cpu", weights_only=True)
    save_file({name: t.contiguous() for name, t in again.items()}, target / "model.safetensors")
    shutil.rmtree(temporary)


def torchtune_steps(source: Path, target: Path) -> None:
    """The checkpointer of torchtune for Meta's format, its conversion to HF's names and rows."""

    def nothing(name: str) -> None:
        del name

    # a kernel that the checkpointer does not use, and that PyTorch 2.13 cannot import
    unused = types.ModuleType("int8_sdpa_lowering")
    unused.__getattr__ = nothing  # type: ignore[method-assign]
    sys.modules["torchao.prototype.inductor.int8_sdpa_lowering"] = unused
    from safetensors.torch import save_file  # noqa: PLC0415
    from torchtune.models.convert_weights import tune_to_hf  # noqa: PLC0415
    from torchtune.training import FullModelMetaCheckpointer  # noqa: PLC0415

    target.mkdir()
    checkpointer = FullModelMetaCheckpointer(
        checkpoint_dir=source,
        checkpoint_files=["consolidated.00.pth"],
        model_type="LLAMA3",
        output_dir=target / "output",
    )
    params = json.loads((source / "params.json").read_text())
    state = tune_to_hf(
        checkpointer.load_checkpoint()["model"],
        num_heads=params["n_heads"],
        num_kv_heads=params["n_kv_heads"],
        dim=params["dim"],
    )
    save_file({name: t.contiguous() for name, t in state.items()}, target / "model.safetensors")


STEPS: dict[str, Callable[[Path, Path], None]] = {
    "safetensors": load_and_save,
    "script": script_steps,
    "torchtune": torchtune_steps,
    "first": first_byte,
    "make": lambda folder, size: make_hf(folder, float(str(size)), num_shards=3),
}

if __name__ == "__main__":
    main()
