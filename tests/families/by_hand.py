"""ChatGLM, Baichuan 7B and InternLM 1 in MindNLP, the one installable program that runs them all.

Not a test of `make test`: MindSpore takes 2.6 GB, and an older NumPy than ropeconv's. In an
environment of its own (Linux x86-64, Python 3.11):

    pip install mindspore==2.7.0 numpy==1.26.4 'pandas<2.3' 'pyarrow<18' pyarrow_hotfix \
        'dill<0.3.9' requests tqdm regex addict ml-dtypes sentencepiece filelock pyyaml jieba \
        multiprocess xxhash aiohttp fsspec
    pip install --no-deps mindnlp==0.4.1 tokenizers==0.19.1 huggingface_hub==0.23.4 \
        datasets==2.19.2 evaluate==0.4.2
    python tests/families/by_hand.py chatglm2 --ropeconv .venv/bin/ropeconv

A tiny model of the family's own code is saved and converted; its rotation is exchanged for that of
another model of MindNLP, and its logits must be those that it had before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import mindspore
import numpy as np
from mindspore import Tensor
from safetensors.numpy import load_file, save_file

TOKENS = [[3, 7, 4, 9, 5, 8, 6, 11]]
SIZES = {
    "hidden_size": 60,
    "num_attention_heads": 6,
    "intermediate_size": 22,
    "num_hidden_layers": 2,
    "vocab_size": 51,
    "max_position_embeddings": 64,
}
GLM = {
    "hidden_size": 72,
    "num_attention_heads": 6,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "kv_channels": 12,
    "num_layers": 2,
    "padded_vocab_size": 51,
    "ffn_hidden_size": 22,
    "seq_length": 64,
    "add_qkv_bias": True,
    "original_rope": True,
    "use_cache": False,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How MindNLP is asked for a family.

    Attributes:
        given: what its constructor needs beside the config.
    """

    model_type: str
    folder: str
    kind: str
    config: dict[str, Any]
    given: dict[str, Any]


CASES = {
    "baichuan": Case(
        model_type="baichuan", folder="baichuan", kind="BaiChuan", config=SIZES,
        given={"size": "7b"},
    ),
    "internlm": Case(
        model_type="internlm", folder="internlm", kind="InternLM", given={},
        config={**SIZES, "bias": True, "rotary": {"base": 10000, "type": "origin"}},
    ),
    "chatglm2": Case(
        model_type="chatglm", folder="chatglm2", kind="ChatGLM2", config=GLM,
        given={"empty_init": False},
    ),
    "chatglm4": Case(
        model_type="chatglm", folder="chatglm4", kind="ChatGLM4", config=GLM,
        given={"empty_init": False},
    ),
}  # fmt: skip


def main() -> None:
    """Measure one family; fails unless its model computes the same before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--ropeconv", required=True, help="the command")
    said = parser.parse_args()
    case = CASES[said.name]
    code, model = make(case)
    interleaved = case.model_type == "chatglm"
    there, back = ("interleaved-to-half", "half-to-interleaved")[:: 1 if interleaved else -1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(model, case, folder / "source")
        convert(said.ropeconv, there, folder / "source", folder / "moved")
        convert(said.ropeconv, back, folder / "moved", folder / "back")
        source, moved, again = (
            load_file(folder / at / "model.safetensors") for at in ("source", "moved", "back")
        )
    expected, control = run(model, source), run(model, moved)
    code.apply_rotary_pos_emb = one_by_one(code) if interleaved else both(code)
    twin = difference(expected, run(model, moved))
    wrong = difference(expected, control)
    changed = sorted(key for key in source if not np.array_equal(source[key], moved[key]))
    sys.stdout.write(f"{said.name}: differs by {twin:.1e}, unexchanged by {wrong:.1e}\n")
    sys.stdout.write(f"moved: {', '.join(changed)}\n")

    assert all(source[key].tobytes() == again[key].tobytes() for key in source)
    assert twin <= 1e-5
    assert wrong >= 2e-2


def make(case: Case) -> tuple[ModuleType, Any]:
    """The family's code in MindNLP, and a tiny model of it."""
    mend()
    code = modelling(case.folder)
    home = import_module(f"{code.__package__}.configuration_{case.folder}")
    config = getattr(home, f"{case.kind}Config")(**case.config, ms_dtype=mindspore.float32)
    ends = "ForConditionalGeneration" if case.model_type == "chatglm" else "ForCausalLM"
    model = getattr(code, case.kind + ends)(config, **case.given)
    model.set_train(False)
    return code, model


def mend() -> None:
    """What MindNLP 0.4.1 asks of an older MindSpore than those that can be installed."""
    stub = ModuleType("mindspore.common._stub_tensor")
    stub.StubTensor = type("StubTensor", (), {})
    mindspore.common._stub_tensor = sys.modules[stub.__name__] = stub
    for name in {"empty", "empty_like", "empty_strided"} & set(vars(mindspore.mint)):
        delattr(mindspore.mint, name)
    parameter = import_module("mindnlp.core.nn").Parameter
    own = parameter.__init__

    def mended(self: Any, input_data: Any = None, requires_grad: object = True) -> None:
        own(self, input_data, bool(requires_grad))  # InternLM's norm gives a name there

    parameter.__init__ = mended


def modelling(folder: str) -> ModuleType:
    return import_module(f"mindnlp.transformers.models.{folder}.modeling_{folder}")


def write(model: Any, case: Case, folder: Path) -> None:
    """A checkpoint of random numbers, under the model's own names."""
    random = np.random.default_rng(1)
    tensors = {
        name: (random.standard_normal(one.shape) * 0.3 + (len(one.shape) == 1)).astype(np.float32)
        for name, one in model.named_parameters()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": case.model_type, **case.config}
    (folder / "config.json").write_text(json.dumps(config))


def convert(ropeconv: str, direction: str, source: Path, target: Path) -> None:
    subprocess.run([ropeconv, "convert", direction, source, target, "--quiet"], check=True)


def run(model: Any, tensors: dict[str, Any]) -> Any:
    """Logits of a model with those tensors."""
    parameters = dict(model.named_parameters())

    assert parameters.keys() == tensors.keys()

    for name, parameter in parameters.items():
        parameter.assign_value(Tensor(tensors[name]))
    return model(input_ids=Tensor(np.array(TOKENS, dtype=np.int64))).logits.asnumpy()


def difference(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest number."""
    return float(np.abs(one - other).max() / np.abs(one).max())


def both(code: ModuleType) -> Callable[..., Any]:
    """Command R's rotation, in the form that Baichuan and InternLM call theirs."""
    donor = modelling("cohere").apply_rotary_pos_emb

    def rotate(q: Any, k: Any, cos: Any, sin: Any, position_ids: Any) -> Any:
        return donor(q, k, *(neighbours(table, position_ids) for table in (cos, sin)))

    def neighbours(table: Any, position_ids: Any) -> Any:
        angles = table.squeeze(1).squeeze(0)[position_ids].asnumpy()
        return Tensor(np.repeat(angles[..., : angles.shape[-1] // 2], 2, axis=-1))

    assert code.apply_rotary_pos_emb is not donor

    return rotate


def one_by_one(code: ModuleType) -> Callable[..., Any]:
    """InternLM's rotation, in the form that ChatGLM calls its own."""
    donor = modelling("internlm").apply_rotary_pos_emb
    ops = import_module("mindnlp.core.ops")
    heads_first = (1, 2, 0, 3)  # ChatGLM 2: [T, batch, heads, D]
    tokens_first = (2, 0, 1, 3)
    old = code.__name__.endswith("chatglm2")

    def rotate(x: Any, cache: Any) -> Any:
        width = cache.shape[-2] * 2
        part, rest = x[..., :width], x[..., width:]
        part = part.permute(*heads_first) if old else part
        length = part.shape[2]
        table = cache.asnumpy().reshape(-1, width // 2, 2)[:length]
        cos, sin = (Tensor(np.tile(table[..., at], 2)[None, None]) for at in (0, 1))
        turned, _ = donor(part, part, cos, sin, Tensor(np.arange(length)[None]))
        return ops.cat((turned.permute(*tokens_first) if old else turned, rest), dim=-1)

    return rotate


if __name__ == "__main__":
    main()
