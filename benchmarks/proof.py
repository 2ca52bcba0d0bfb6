"""What a proof costs on a model of the shapes of Llama 3.2 1B: one run, a markdown table.

    python benchmarks/proof.py [--rounds 5] [--layers 16] [--folder DIR]

The weights are random normal numbers, made first in Hugging Face's format, converted to Meta's, and
removed last. Every step is a process of its own, so that memory is its own peak; times of checks
are taken inside, without the start of Python and torch, which have a row of their own. "cold" drops
both checkpoints from the page cache before. "a layer" is the median over the layers after the
first, without what happens once: on a GPU its context and loading the kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from convert import ROPECONV, TRUST, chill, file_system, quiet, warm_up

from ropeconv.formats import discover
from ropeconv.moving.examine import examine
from ropeconv.thinking.config_map import Said, state_model
from ropeconv.thinking.inventory import Inventory, take_stock
from ropeconv.words.model import Model

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, WIDE, VOCAB = 2048, 32, 8, 64, 8192, 128256
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "intermediate_size": WIDE,
    "vocab_size": VOCAB,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
Numbers = dict[str, float]


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--step", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        found = STEPS[options.step[0]](Path(options.step[1]), options.layers)
        print(json.dumps(found | {"peak": peak_nbytes() / 2**20}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="ropeconv-bench-") as name:
        measure(Path(name), options.layers, options.rounds)


def measure(root: Path, layers: int, rounds: int) -> None:
    """Each part of a proof, in rounds."""
    step("make", root, layers)
    quiet([*ROPECONV, "convert", "hf-to-meta", str(root / "hf"), str(root / "meta"), "-q", TRUST])
    nbytes = sum(path.stat().st_size for side in ("hf", "meta") for path in (root / side).iterdir())
    print(
        f"\n{layers} layers, {nbytes / 1e9:.2f} GB in both, {rounds} rounds,"
        f" {len(os.sched_getaffinity(0))} cores, {file_system(root)}, Linux {platform.release()},"
        f" Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the start\n"
    )
    print("| | median, s | best, s | a layer, ms | peak MiB |\n|---|---|---|---|---|")
    for cold in (False, True):
        words = "cold" if cold else "warm"
        pairs = [
            (read_both(root, cold=cold), step("bytes", root, layers, cold=cold))
            for _ in range(rounds)
        ]
        row(f"read both with `cat`, {words}", [floor for floor, _ in pairs])
        row(f"bytes, {words}", [ours for _, ours in pairs])
    row("start: import torch and Triton", [step("start", root, layers) for _ in range(rounds)])
    row("scores, warm", [step("scores", root, layers) for _ in range(rounds)])
    for name, words in (("rotary", "read q and k of both, cold"), ("scores", "scores, cold")):
        row(words, [step(name, root, layers, cold=True) for _ in range(rounds)])
    row("the whole command, warm", [command(root) for _ in range(rounds)])
    row("logits of 128 tokens", [step("logits", root, layers) for _ in range(min(rounds, 2))])


def row(name: str, found: list[Numbers]) -> None:
    """One line of the table."""
    seconds = [one["seconds"] for one in found]
    peak = f"{max(one['peak'] for one in found):.0f}" if "peak" in found[0] else ""
    layer = ""
    if "layer" in found[0]:
        layer = f"{1000 * statistics.median(one['layer'] for one in found):.0f}"
    print(
        f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {layer} | {peak} |",
        flush=True,
    )


def step(name: str, root: Path, layers: int, *, cold: bool = False) -> Numbers:
    """A step in a process of its own."""
    for side in ("hf", "meta"):
        if (root / side).exists():
            (chill if cold else warm_up)(root / side)
    words = [sys.executable, __file__, "--layers", str(layers), "--step", name, str(root)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: Numbers = json.loads(done.stdout.splitlines()[-1])
    return found


def read_both(root: Path, *, cold: bool) -> Numbers:
    """The floor of comparing bytes."""
    for side in ("hf", "meta"):
        (chill if cold else warm_up)(root / side)
    begin = time.perf_counter()
    for side in ("hf", "meta"):
        warm_up(root / side)
    return {"seconds": time.perf_counter() - begin}


def command(root: Path) -> Numbers:
    """What a user types."""
    words = ["verify", "checkpoint", str(root / "hf"), "--against", str(root / "meta")]
    begin = time.perf_counter()
    with subprocess.Popen(
        [*ROPECONV, *words, "--rope-factor", "32", "-q"], stdout=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the proof exited with {process.returncode}")
    return {"seconds": time.perf_counter() - begin, "peak": used.ru_maxrss / 1024}


def peak_nbytes() -> int:
    """Of this process, as the kernel counts it; a fork's parent is not in it."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


def make(root: Path, layers: int) -> Numbers:
    """A checkpoint in Hugging Face's format."""
    import torch  # noqa: PLC0415 - a step's own process
    from safetensors.torch import save_file  # noqa: PLC0415

    folder = root / "hf"
    folder.mkdir()
    torch.manual_seed(0)
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{at}.self_attn.o_proj.weight": (HIDDEN, HEADS * HEAD_DIM),
            f"{at}.mlp.gate_proj.weight": (WIDE, HIDDEN),
            f"{at}.mlp.up_proj.weight": (WIDE, HIDDEN),
            f"{at}.mlp.down_proj.weight": (HIDDEN, WIDE),
        }
    tensors = {
        name: torch.empty(shape, dtype=torch.bfloat16).normal_(std=0.02)
        for name, shape in shapes.items()
    }
    norms = ["model.norm"]
    for layer in range(layers):
        at = f"model.layers.{layer}"
        norms += [f"{at}.input_layernorm", f"{at}.post_attention_layernorm"]
    tensors |= {f"{name}.weight": torch.ones(HIDDEN, dtype=torch.bfloat16) for name in norms}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = CONFIG | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    return {}


def compare_bytes(root: Path, layers: int) -> Numbers:
    """The exact check of both."""
    del layers
    from ropeconv.moving.effort import Effort, default_jobs  # noqa: PLC0415 - a step's own process
    from ropeconv.proof.exact import check_exact  # noqa: PLC0415
    from ropeconv.words.events import nobody  # noqa: PLC0415

    ours, theirs = (inventory_of(root / side) for side in ("meta", "hf"))
    begin = time.perf_counter()
    found = check_exact(ours, theirs, Effort(jobs=default_jobs()), nobody)
    assert not found.findings
    return {"seconds": time.perf_counter() - begin}


def start(root: Path, layers: int) -> Numbers:
    """What every proof waits for before its scores."""
    del root, layers
    begin = time.perf_counter()
    import ropeconv.proof.scores  # noqa: F401, PLC0415 - this is measured

    return {"seconds": time.perf_counter() - begin}


def read_rotary(root: Path, layers: int) -> Numbers:
    """The floor of comparing scores: every byte of the projections, in the order of the layers."""
    from ropeconv.moving.examine import read_rows  # noqa: PLC0415 - a step's own process

    inventories = [inventory_of(root / side) for side in ("meta", "hf")]
    begin = time.perf_counter()
    for layer in range(layers):
        for inventory in inventories:
            for name in ("q", "k"):
                tensor = inventory.find(f"model.layers.{layer}.self_attn.{name}_proj.weight")
                assert tensor is not None
                read_rows(inventory.checkpoint, tensor, 0, tensor.num_rows)
    return {"seconds": time.perf_counter() - begin}


def compare_scores(root: Path, layers: int) -> Numbers:
    """The score check of both, with its controls, in Triton's interpreter or on a GPU."""
    from ropeconv.proof.scores import Form, check_scores  # noqa: PLC0415 - a step's own process
    from ropeconv.words.events import LayerDone  # noqa: PLC0415

    forms = [Form(inventory=inventory_of(root / at), model=model_of(root)) for at in ("meta", "hf")]
    ends = [time.perf_counter()]

    def listen(event: object) -> None:
        if isinstance(event, LayerDone):
            ends.append(time.perf_counter())

    found = check_scores(*forms, layers=range(layers), listen=listen)
    assert (found.outcome.value, found.max_difference) == ("same", 0.0)
    rest = [end - begin for begin, end in pairwise(ends[1:])]
    return {"seconds": time.perf_counter() - ends[0], "layer": statistics.median(rest or [0])}


def compare_logits(root: Path, layers: int) -> Numbers:
    """The logits check of both: the Hugging Face side in transformers, three passes in all."""
    del layers
    from ropeconv.proof.logits import check_logits, choose_tokens  # noqa: PLC0415 - a step's own process
    from ropeconv.proof.runtimes import Runner  # noqa: PLC0415
    from ropeconv.words.events import nobody  # noqa: PLC0415

    import_module("transformers.models.llama.modeling_llama")  # its start is not measured
    source, target = (
        Runner(inventory=inventory_of(root / side), model=model_of(root)) for side in ("meta", "hf")
    )
    begin = time.perf_counter()
    tokens = choose_tokens(source, target, None)
    found = check_logits(source, target, tokens, nobody)
    assert found.outcome.value == "same"
    return {"seconds": time.perf_counter() - begin}


def inventory_of(folder: Path) -> Inventory:
    """A checkpoint's tensors."""
    return take_stock(discover(folder), trust_stamp=True)


def model_of(root: Path) -> Model:
    """What the Hugging Face side's config says."""
    inventory = inventory_of(root / "hf")
    model, _ = state_model(inventory, examine(inventory, allow_drift=False), Said())
    return model


STEPS: dict[str, Callable[[Path, int], Numbers]] = {
    "make": make,
    "bytes": compare_bytes,
    "start": start,
    "rotary": read_rotary,
    "scores": compare_scores,
    "logits": compare_logits,
}

if __name__ == "__main__":
    main()
