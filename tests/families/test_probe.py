"""Every family of the table against transformers' own code, by the Jacobian of its rotation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ropeconv.knowledge import registry
from ropeconv.knowledge.families.alone import ALONE
from ropeconv.knowledge.families.composite import COMPOSITE
from ropeconv.knowledge.families.towers import TOWERS
from ropeconv.knowledge.family import Family, Peer
from ropeconv.proof.family_probe import lacking, probe
from ropeconv.proof.rotating_types import rotating_types
from ropeconv.words.errors import Unsupported
from ropeconv.words.layout import HALF_SPLIT
from tests.families.cases import LACKING, RUNNABLE, VARIANTS

pytestmark = pytest.mark.peer


def test_list_of_families_when_one_is_in_the_table_then_it_is_tested() -> None:
    others = {family.name for family in (*ALONE, *COMPOSITE, *TOWERS)}
    here = {
        name
        for name, family in registry.FAMILIES.items()
        if family.measured_by is Peer.TRANSFORMERS
    }

    assert here - others == set(RUNNABLE)


@pytest.mark.parametrize("name", RUNNABLE)
def test_family_when_measured_then_table_is_right(name: str) -> None:
    report = probe(name)

    assert report.differences == ()
    assert report.agrees


@pytest.mark.parametrize(("name", "changed"), VARIANTS)
def test_variant_when_measured_then_table_is_right(name: str, changed: dict[str, Any]) -> None:
    report = probe(name, **changed)

    assert report.differences == ()
    assert report.agrees


def _with(monkeypatch: pytest.MonkeyPatch, family: Family) -> None:
    monkeypatch.setitem(registry.FAMILIES, family.name, family)


def _rows_changed(family: Family, old: str, new: str) -> Family:
    rules = tuple(replace(rule, rows=rule.rows.replace(old, new)) for rule in family.rules)

    assert rules != family.rules

    return replace(family, rules=rules)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("phi", "Rope(r), Keep(D - r)", "Keep(D - r), Rope(r)"),  # tail instead of head start
        ("gpt_neox", "Rope(r), Keep(D - r), Rope(r), Keep(D - r), Keep(D)",
         "Rope(r), Keep(D - r), Keep(D), Rope(r), Keep(D - r)"),  # order q, v, k
        ("phi3", "Repeat(K, Rope(r), Keep(D - r))", "Repeat(K, Keep(D))"),  # keys forgotten
        ("deepseek_v3", "Keep(R), Rope(r)", "Rope(r), Keep(R)"),  # key at the wrong end
        # one stack of two forgotten
        ("t5gemma", "Repeat(Kencoder, Rope(Dencoder))", "Repeat(Kencoder, Keep(Dencoder))"),
        ("csm", "Repeat(Hdepth, Rope(Ddepth))", "Repeat(Hdepth, Keep(Ddepth))"),
        ("qwen3_next", "Keep(D - r), Keep(D)", "Keep(D), Keep(D - r)"),
    ],
)  # fmt: skip
def test_table_when_rows_are_wrong_then_probe_sees_it(
    monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str
) -> None:
    """The last case is the control of the controls: equal sums of kept rows are the same rows."""
    _with(monkeypatch, _rows_changed(registry.FAMILIES[name], old, new))

    assert probe(name).agrees == (name == "qwen3_next")


def test_table_when_layout_of_indexer_is_wrong_then_probe_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DeepSeek V3.2's indexer is half-split, whatever its main attention is."""
    family = registry.FAMILIES["deepseek_v32"]
    rules = tuple(replace(rule, aside=None) for rule in family.rules)
    _with(monkeypatch, replace(family, rules=rules))
    report = probe("deepseek_v32")

    assert {one.name.rpartition(".")[2] for one in report.differences} == {"wq_b", "wk"}


@pytest.mark.parametrize("name", ["cohere", "glm", "deepseek_v2"])
def test_table_when_layout_is_wrong_then_probe_sees_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _with(monkeypatch, replace(registry.FAMILIES[name], layout=HALF_SPLIT))

    assert not probe(name).agrees


def test_table_when_layers_without_rotation_are_forgotten_then_probe_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = registry.FAMILIES["smollm3"]
    rules = tuple(replace(rule, layers="") for rule in family.rules)
    _with(monkeypatch, replace(family, rules=rules))

    assert not probe("smollm3").agrees


def test_table_when_spans_of_kinds_of_layers_are_forgotten_then_probe_sees_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NeoMME rotates whole heads in layers with a window, and a quarter of each in the others."""
    _with(monkeypatch, replace(registry.FAMILIES["neomme"], layer_sizes=()))

    assert len(probe("neomme").differences) == 4


def test_unlisted_type_when_probed_then_its_layout_is_told() -> None:
    """NanoChat is refused because it turns the other way: the probe finds exactly that."""
    report = probe("nanochat")

    assert not report.is_known
    assert {one.layout for one in report.measured} == {"turns the other way"}


def test_types_that_no_table_knows_when_listed_then_none_is_new() -> None:
    """A new release of transformers changes this: each new name is a family to add, or refuse."""
    assert lacking() == LACKING
    assert not set(LACKING) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_types_that_rotate_when_sought_then_found_by_their_code() -> None:
    """By any name that their code has for it; a part is found as its whole."""
    found = rotating_types()

    assert {"gptj", "roformer", "qwen3", "modernbert-decoder", "wav2vec2-bert", "vjepa2"} <= found
    assert not {"mimi_encoder", "qwen3_vl_text", "bert", "whisper", "t5", "gpt2"} & found


def test_type_when_a_tiny_one_cannot_be_run_then_refused_with_a_way_on() -> None:
    """Its heads do not suit odd sizes: a contributor's next step, not a bug."""
    with pytest.raises(Unsupported, match="cannot run a tiny model") as raised:
        probe("qwen3", num_attention_heads=7)

    assert "tiny_models.py" in raised.value.fix


@pytest.mark.parametrize(
    ("name", "changed", "why"),
    [
        ("t5gemma2_text", {}, "no class of its code reads text by that config alone"),
        ("cosmos3_edge_text", {"hidden_size": 61}, "not a multiple"),
    ],
)
def test_type_when_transformers_cannot_even_make_a_tiny_one_then_refused(
    name: str, changed: dict[str, Any], why: str
) -> None:
    """No class that a name leads to, and a config's own kind of error."""
    with pytest.raises(Unsupported, match="cannot run a tiny model") as raised:
        probe(name, **changed)

    assert why in raised.value.why


@pytest.mark.parametrize("name", ["llava", "vibevoice_asr", "pi0", "qwen2_5_omni"])
def test_type_when_it_has_parts_then_not_made_in_full_size(name: str) -> None:
    """A default LLaVA takes 28 GB. Some have no table, or their language model lies deeper."""
    with pytest.raises(Unsupported, match="several parts") as raised:
        probe(name)

    assert "--probe" in raised.value.fix


def test_type_without_code_when_probed_then_refused() -> None:
    with pytest.raises(Unsupported, match="no model type `no_such_model`"):
        probe("no_such_model")


def test_type_when_another_program_measures_it_then_refusal_names_it() -> None:
    with pytest.raises(Unsupported, match="no model type `internlm2`") as raised:
        probe("internlm2")

    assert "mlx-lm" in raised.value.why
