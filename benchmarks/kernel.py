"""The rotation kernel beside its peers on this machine's GPU: one run, one markdown table.

    python benchmarks/kernel.py [--shape 1x8192x32/8x128 ...] [--dtype bf16 fp32]

Every number is a median. "time" has the host's share removed: the call is captured in a CUDA graph
and its replay is timed, with the L2 cache cleared before each. "call" is the same call as a user
makes it, host and all. "GB/s" counts q and k read once and written once. "of copy" is the time of
one device-to-device copy of the same bytes over the contender's. "error" is the relative error of q
against float64. Liger rotates in place; everything else allocates its result. "backward" is the
backward pass alone, through autograd for ours, by the kernel's own function for peers.

Last come the host's costs: the median time until a call returns, for one token, so that the device
has next to nothing to do; and beside it what no Triton kernel with two results can do without.

Peers are used where they are installed: liger-kernel and flash-attn.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
import triton
from triton.testing import do_bench

from ropeconv.kernels import RopeTable, apply_rope
from ropeconv.kernels.reference import rope_reference
from ropeconv.words.frequencies import RopeSettings
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
SHAPES = (
    "1x8192x32/8x128",
    "4x4096x64/8x128",
    "1x131072x32/8x128",
    "8x2048x32/32x64",
    "8x4096x24/8x80",
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """B sequences of T tokens; H query and K key heads of D rows."""

    text: str
    sequences: int
    tokens: int
    q_heads: int
    k_heads: int
    head_dim: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        sequences, tokens, heads, head_dim = text.split("x")
        q_heads, k_heads = heads.split("/")
        return cls(
            text=text,
            sequences=int(sequences),
            tokens=int(tokens),
            q_heads=int(q_heads),
            k_heads=int(k_heads),
            head_dim=int(head_dim),
        )


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A way to rotate: run() does it, result() gives the rotated q, if there is one to compare."""

    name: str
    run: Callable[[], Any]
    result: Callable[[Any], Tensor] | None = None
    layout: RopeLayout = HALF_SPLIT
    passes: int = 1  # 2: forward and backward, which move the bytes twice
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    options = parser.parse_args()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}\n"
    )
    for text in options.shape:
        for dtype in options.dtype:
            compare(Shape.parse(text), DTYPES[dtype], dtype)
    print_host_costs()


def compare(shape: Shape, dtype: torch.dtype, dtype_name: str) -> None:
    """Print the table of one shape."""
    torch.manual_seed(0)
    size = shape.sequences, shape.tokens
    q = torch.randn(*size, shape.q_heads, shape.head_dim, device="cuda").to(dtype)
    k = torch.randn(*size, shape.k_heads, shape.head_dim, device="cuda").to(dtype)
    nbytes = 2 * (q.nbytes + k.nbytes)
    source = torch.randn((q.numel() + k.numel()), device="cuda").to(dtype)
    target = torch.empty_like(source)
    copy_ms = median_ms(graphed(partial(target.copy_, source)))
    del source, target
    print(
        f"\n### {shape.text} {dtype_name}, {nbytes / 1e6:.0f} MB, "
        f"copy {nbytes / copy_ms / 1e6:.0f} GB/s\n"
    )
    print("| | time us | GB/s | of copy | call us | error | |\n|---|---|---|---|---|---|---|")
    truth = {layout: oracle(q, layout) for layout in (HALF_SPLIT, INTERLEAVED)}
    for contender in contenders(q, k):
        torch.cuda.empty_cache()  # or graphs of the largest shapes find none left
        try:
            value = contender.run()
            error = (
                ""
                if contender.result is None
                else relative(contender.result(value), truth[contender.layout])
            )
            del value
            alone_ms = median_ms(graphed(contender.run))
            call_ms = median_ms(contender.run)
        except (RuntimeError, ValueError, TypeError, triton.CompilationError) as problem:
            print(
                f"| {contender.name} | failed: {type(problem).__name__} "
                f"{str(problem)[:60]!r} | | | | | |"
            )
            continue
        print(
            f"| {contender.name} | {alone_ms * 1e3:.1f} "
            f"| {contender.passes * nbytes / alone_ms / 1e6:.0f} "
            f"| {contender.passes * copy_ms / alone_ms:.3f} | {call_ms * 1e3:.1f} "
            f"| {error} | {contender.note} |",
            flush=True,
        )


def graphed(run: Callable[[], Any]) -> Callable[[], None]:
    """The call as a CUDA graph: what is left is the device's work."""
    stream = side_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run()
    return graph.replay


@cache
def side_stream() -> torch.cuda.Stream:
    """One for all graphs: each stream keeps memory of its own."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def median_ms(run: Callable[[], Any]) -> float:
    return float(do_bench(run, warmup=10, rep=60, return_mode="median"))


@triton.jit
def nothing(_ptr) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001 - Triton gives the type
    """A kernel that does nothing: what a launch costs."""


def print_host_costs() -> None:
    """Print the median time until a call returns; in turns, since a machine's pace changes."""
    q = torch.randn(1, 1, 32, 128, device="cuda", dtype=torch.bfloat16)
    k = torch.randn(1, 1, 8, 128, device="cuda", dtype=torch.bfloat16)
    q_leaf = q.detach().requires_grad_()
    table = make_table(1, 128)
    complex_table = RopeTable.from_complex(torch.complex(table.cos, table.sin))
    peers = {
        contender.name: contender.run
        for contender in contenders(q, k)
        if not contender.name.startswith("ours") and "backward" not in contender.name
    }
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: apply_rope(q, k, table, layout=HALF_SPLIT),
        "ours, complex table": lambda: apply_rope(q, k, complex_table, layout=INTERLEAVED),
        "ours, q alone": lambda: apply_rope(q, None, table, layout=HALF_SPLIT),
        "ours, gradient recorded": lambda: apply_rope(q_leaf, k, table, layout=HALF_SPLIT),
        "two allocations": lambda: (torch.empty_like(q), torch.empty_like(k)),
        "launch of an empty Triton kernel": lambda: nothing[(1,)](q),
        "both": lambda: (torch.empty_like(q), torch.empty_like(k), nothing[(1,)](q)),
        **peers,
    }
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(11):
        for name, call in calls.items():
            median = host_microseconds(call)
            if turn:  # the first one compiles
                rounds[name].append(median)
    print("\n### host cost, one token of 32/8 x 128, bf16\n")
    print("| | us | fastest round | slowest round |\n|---|---|---|---|")
    for name, each in rounds.items():
        print(f"| {name} | {statistics.median(each):.1f} | {min(each):.1f} | {max(each):.1f} |")


def host_microseconds(call: Callable[[], Any]) -> float:
    times = []
    for turn in range(300):
        if turn % 100 == 0:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def make_table(tokens: int, rotary_dim: int) -> RopeTable:
    settings = RopeSettings(theta=500000.0)
    return RopeTable.from_settings(settings, rotary_dim, torch.arange(tokens), device="cuda")


def oracle(q: Tensor, layout: RopeLayout) -> Tensor:
    """The first sequence's first 512 tokens in float64."""
    part = q[:1, :512].cpu().double()
    settings = RopeSettings(theta=500000.0)
    table = RopeTable.from_settings(
        settings, q.shape[-1], torch.arange(part.shape[1]), device="cpu", dtype=torch.float64
    )
    return rope_reference(part, table, layout=layout)


def relative(got: Tensor, truth: Tensor) -> str:
    got = got[:1, :512].cpu().double()
    return f"{float((got - truth).norm() / truth.norm()):.1e}"


def contenders(q: Tensor, k: Tensor) -> list[Contender]:
    """Ours in both layouts, forward and backward, and everybody else."""
    table = make_table(q.shape[1], q.shape[-1])
    cos, sin = table.cos, table.sin
    freqs_cis = torch.complex(cos, sin)
    complex_table = RopeTable.from_complex(freqs_cis)
    cos_hf = torch.cat([cos, cos], -1)[None].to(q.dtype)
    sin_hf = torch.cat([sin, sin], -1)[None].to(q.dtype)

    # Hugging Face and Liger see [B, H, T, D] views of [B, T, H, D] memory, as models make them.
    q_hf, k_hf = q.transpose(1, 2), k.transpose(1, 2)
    torch.compiler.reset()  # or the second shape would be compiled for any shape, and slower
    hf_compiled, meta_compiled = (torch.compile(f, dynamic=False) for f in (hf_rope, meta_rope))
    found = [
        *ours("ours half-split", q, k, table, HALF_SPLIT),
        *ours("ours interleaved", q, k, table, INTERLEAVED),
        *ours("ours interleaved, complex table", q, k, complex_table, INTERLEAVED)[:1],
        Contender(
            name="HF eager",
            run=lambda: hf_rope(q_hf, k_hf, cos_hf, sin_hf),
            result=lambda out: out[0].transpose(1, 2),
        ),
        Contender(
            name="HF compiled",
            run=lambda: hf_compiled(q_hf, k_hf, cos_hf, sin_hf),
            result=lambda out: out[0].transpose(1, 2),
        ),
        Contender(
            name="Meta eager",
            run=lambda: meta_rope(q, k, freqs_cis),
            result=lambda out: out[0],
            layout=INTERLEAVED,
        ),
        Contender(
            name="Meta compiled",
            run=lambda: meta_compiled(q, k, freqs_cis),
            result=lambda out: out[0],
            layout=INTERLEAVED,
        ),
    ]
    return found + liger(q, k, cos_hf, sin_hf, freqs_cis) + flash(q, k, cos, sin)


def ours(name: str, q: Tensor, k: Tensor, table: RopeTable, layout: RopeLayout) -> list[Contender]:
    def turn() -> tuple[list[Tensor], tuple[Tensor, ...]]:
        leaves = [x.detach().requires_grad_() for x in (q, k)]
        return leaves, apply_rope(*leaves, table, layout=layout)

    def there_and_back() -> tuple[Tensor, ...]:
        leaves, rotated = turn()
        return torch.autograd.grad(rotated, leaves, (q, k))

    def back() -> tuple[Tensor, ...]:
        # Autograd goes back on the stream that it came on: a way there for each stream.
        stream = torch.cuda.current_stream().cuda_stream
        if stream not in turned:
            turned[stream] = turn()
        leaves, rotated = turned[stream]
        return torch.autograd.grad(rotated, leaves, (q, k), retain_graph=True)

    turned: dict[int, tuple[list[Tensor], tuple[Tensor, ...]]] = {}

    return [
        Contender(
            name=name,
            run=lambda: apply_rope(q, k, table, layout=layout),
            result=lambda rotated: rotated[0],
            layout=layout,
        ),
        Contender(name=f"{name}, backward", run=back),
        Contender(name=f"{name}, forward and backward", run=there_and_back, passes=2),
    ]


def liger(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, freqs_cis: Tensor) -> list[Contender]:
    try:
        rope = importlib.import_module("liger_kernel.ops.rope")
        llama4 = importlib.import_module("liger_kernel.ops.llama4_rope").llama4_rope_forward
    except ImportError:
        return []
    # They rotate in place, again and again: on copies, so that the others' inputs stay.
    q_own, k_own = q.clone(), k.clone()
    q_hf, k_hf = q_own.transpose(1, 2), k_own.transpose(1, 2)
    return [
        Contender(
            name="Liger rope", run=lambda: rope.rope_forward(q_hf, k_hf, cos, sin), note="in place"
        ),
        Contender(
            name="Liger rope, backward",
            run=lambda: rope.rope_backward(q_hf, k_hf, cos, sin),
            note="in place",
        ),
        Contender(
            name="Liger llama4 rope", run=lambda: llama4(q_own, k_own, freqs_cis), note="in place"
        ),
        Contender(
            name="Liger llama4 rope, backward",
            run=lambda: llama4(q_own, k_own, freqs_cis, imag_sign=-1.0),
            note="in place",
        ),
    ]


def flash(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> list[Contender]:
    try:
        rotary = importlib.import_module("flash_attn.ops.triton.rotary").apply_rotary
    except ImportError:
        return []

    def both(layout: RopeLayout, *, conjugate: bool) -> Callable[[], Any]:
        interleaved = layout is INTERLEAVED
        return lambda: [
            rotary(x, cos, sin, interleaved=interleaved, conjugate=conjugate) for x in (q, k)
        ]

    return [
        Contender(
            name=f"flash-attn rotary {layout}{', backward' * conjugate}",
            run=both(layout, conjugate=conjugate),
            result=None if conjugate else lambda out: out[0],
            layout=layout,
            note="two launches",
        )
        for layout in (HALF_SPLIT, INTERLEAVED)
        for conjugate in (False, True)
    ]


def hf_rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """As in transformers' modeling_llama.py."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)

    def rotate_half(x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return torch.cat((-x[..., half:], x[..., :half]), dim=-1)

    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


def meta_rope(q: Tensor, k: Tensor, freqs_cis: Tensor) -> tuple[Tensor, Tensor]:
    """As in llama-models' model.py."""
    q_complex = torch.view_as_complex(q.float().view(*q.shape[:-1], -1, 2))
    k_complex = torch.view_as_complex(k.float().view(*k.shape[:-1], -1, 2))
    freqs = freqs_cis[:, None]
    q_out = torch.view_as_real(q_complex * freqs).flatten(3)
    k_out = torch.view_as_real(k_complex * freqs).flatten(3)
    return q_out.type_as(q), k_out.type_as(k)


if __name__ == "__main__":
    main()
