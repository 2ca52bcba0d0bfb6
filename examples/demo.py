"""The main job on a really trained model: convert it, prove it, run it, and show a wrong one fail.

The model is fixtures/kjv-llama: 2.7 million parameters in Meta's format, trained on the King James
Bible.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path("fixtures/kjv-llama")
BUILD = Path("build/demo")
RIGHT, WRONG = BUILD / "hf", BUILD / "unconverted"
PROMPT = b"And the LORD said unto Moses, "
NEW_BYTES = 40


def main() -> None:
    """Run the demo from the project's root; exits non-zero if anything is not as it should be."""
    shutil.rmtree(ROOT / BUILD, ignore_errors=True)
    run("convert", "meta-to-hf", str(SOURCE), str(RIGHT), "--context-length", "512")
    run("verify", "checkpoint", str(RIGHT), "--against", str(SOURCE), "--quiet")
    make_unconverted(ROOT / RIGHT, ROOT / WRONG)
    print("\nthe same weights under Hugging Face names, with the rows left as they were:")
    run("verify", "checkpoint", str(WRONG), "--against", str(SOURCE), "--quiet", expected=1)
    compare_models()


def run(*arguments: str, expected: int = 0) -> None:
    """Show a command and run it."""
    print("$ ropeconv " + " ".join(arguments), flush=True)
    done = subprocess.run([sys.executable, "-m", "ropeconv", *arguments], cwd=ROOT, check=False)
    if done.returncode != expected:
        sys.exit(f"exit code {done.returncode}, expected {expected}")


def make_unconverted(right: Path, wrong: Path) -> None:
    """What a script that forgets the rows writes: everything right but the order of q and k."""
    from safetensors.torch import load_file, save_file

    import ropeconv

    config = json.loads((right / "config.json").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    tensors = load_file(right / "model.safetensors")
    for name, tensor in tensors.items():
        projection = name.split(".")[-2]
        if projection in heads:
            rows = ropeconv.Repeat(heads[projection], ropeconv.Rope(config["head_dim"]))
            tensors[name] = ropeconv.reorder_rows(
                tensor, rows, source=ropeconv.HALF_SPLIT, target=ropeconv.INTERLEAVED
            )
    wrong.mkdir(parents=True)
    save_file(tensors, wrong / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(right / "config.json", wrong)


def compare_models() -> None:
    """Loss and greedy text of the Meta form, of the converted model and of the unconverted one."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    sys.path.insert(0, str(ROOT))
    from fixtures.meta_folder import architecture_of, read_joined, read_params
    from ropeconv.proof.forward import forward, greedy, next_token_loss

    logging.disable_progress_bar()
    weights = read_joined(ROOT / SOURCE)
    architecture = architecture_of(read_params(ROOT / SOURCE))
    text = (ROOT / SOURCE / "heldout.txt").read_bytes()[:2048]
    tokens = torch.tensor(list(text)).view(-1, 512)
    prompt = torch.tensor(list(PROMPT))
    oracle = forward(weights, architecture, tokens)
    rows = [
        (
            "Meta form, plain PyTorch",
            float(next_token_loss(oracle, tokens)),
            0.0,
            bytes(greedy(weights, architecture, prompt, NEW_BYTES).tolist()[-NEW_BYTES:]),
        )
    ]
    for title, path in (("converted, transformers", RIGHT), ("unconverted, transformers", WRONG)):
        model = LlamaForCausalLM.from_pretrained(ROOT / path, dtype=torch.float32)
        with torch.no_grad():
            logits = model(tokens).logits
            written = model.generate(
                prompt[None],
                attention_mask=torch.ones_like(prompt)[None],
                max_new_tokens=NEW_BYTES,
                do_sample=False,
                pad_token_id=0,
            )
        rows.append(
            (
                title,
                float(next_token_loss(logits, tokens)),
                float((logits - oracle).abs().max()),
                bytes(written[0, len(PROMPT) :].tolist()),
            )
        )
    print(f"\n2048 held-out bytes, and what follows {PROMPT.decode()!r}:")
    print(f"{'':27}{'nats/byte':>9}  {'logits off by':>13}  greedy text")
    for title, loss, difference, written in rows:
        shown = written.decode("ascii", "replace").replace("\n", " ")
        print(f"{title:27}{loss:9.4f}  {difference:13.1e}  {shown}")
    (_, loss, _, expected), (_, right, close, same), (_, wrong, _, other) = rows
    if abs(loss - right) > 1e-4 or close > 1e-3 or same != expected:
        sys.exit("the converted model is not the Meta form's")
    if wrong < loss + 1 or other == expected:
        sys.exit("the unconverted model should have been worse")


if __name__ == "__main__":
    main()
