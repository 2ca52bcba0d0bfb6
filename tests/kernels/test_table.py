"""Every table people build means one thing, or is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from kernel_cases import SETTINGS, hugging_face, table_of, vectors
from torch import Tensor

from ropeconv.kernels import Positions, RopeTable, apply_rope, mrope_axes
from ropeconv.words.errors import UsageError
from ropeconv.words.frequencies import RopeSettings, Yarn
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED


def forms(cos: Tensor, sin: Tensor) -> dict[str, RopeTable]:
    """One table, [T, 5], in each form."""
    halves = [torch.cat([part, part], -1) for part in (cos, sin)]
    neighbours = [part.repeat_interleave(2, -1) for part in (cos, sin)]
    freqs_cis = torch.complex(cos, sin)
    batch = [part[None].expand(2, *part.shape) for part in (cos, sin)]
    return {
        "halves": RopeTable.from_duplicated(*halves, order=HALF_SPLIT),
        "neighbours": RopeTable.from_duplicated(*neighbours, order=INTERLEAVED),
        "complex": RopeTable.from_complex(freqs_cis),
        "conjugate view": RopeTable.from_complex(freqs_cis.conj().resolve_conj().conj()),
        "cache": RopeTable.from_cache(torch.cat([cos, sin], -1)),
        "gathered": RopeTable.from_pairs(*batch),
        "gathered, one for all": RopeTable.from_pairs(cos[None], sin[None]),
        "gathered complex": RopeTable.from_complex(freqs_cis[None].repeat(2, 1, 1)),
        "strides that differ": RopeTable.from_pairs(cos, sin.t().contiguous().t()),
        "columns apart": RopeTable.from_pairs(*(part.t().contiguous().t() for part in (cos, sin))),
        "inferred halves": RopeTable.infer(*halves),
        "inferred neighbours": RopeTable.infer(*neighbours),
        "inferred pairs": RopeTable.infer(cos, sin),
        "inferred complex": RopeTable.infer(freqs_cis),
    }


@pytest.mark.parametrize("form", list(forms(torch.randn(3, 5), torch.randn(3, 5))))
@pytest.mark.parametrize("layout", [INTERLEAVED, HALF_SPLIT], ids=str)
def test_forms_of_one_table_give_the_same_numbers(
    device: torch.device, form: str, layout: object
) -> None:
    q, k = vectors(device)
    plain = table_of(7, 10, device)
    assert layout in (INTERLEAVED, HALF_SPLIT)
    chosen = INTERLEAVED if layout is INTERLEAVED else HALF_SPLIT

    want = apply_rope(q, k, plain, layout=chosen)
    got = apply_rope(q, k, forms(plain.cos, plain.sin)[form], layout=chosen)

    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_gathered_tables_belong_to_their_own_sequence(device: torch.device) -> None:
    """A batch of cos and sin, read as that of the first sequence only, was a published bug."""
    q, _ = vectors(device)
    ids = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3]], device=device)
    table = table_of(12, 10, device)
    gathered = RopeTable.from_pairs(table.cos[ids], table.sin[ids])

    want, _ = apply_rope(q, None, table, layout=INTERLEAVED, positions=Positions.of(ids))
    got, _ = apply_rope(q, None, gathered, layout=INTERLEAVED)

    assert torch.equal(got, want)
    with pytest.raises(UsageError, match="positions were given too"):
        apply_rope(q, None, gathered, layout=INTERLEAVED, positions=Positions.of(ids))
    with pytest.raises(UsageError, match="a gathered table is for"):
        apply_rope(q[:, :5], None, gathered, layout=INTERLEAVED)


def test_bf16_tables_are_read_without_bf16_arithmetic(device: torch.device) -> None:
    """The interpreter multiplies the bit patterns of bf16 numbers."""
    q, _ = vectors(device)
    table = table_of(7, 10, device)
    short = RopeTable.from_pairs(table.cos.bfloat16(), table.sin.bfloat16())
    widened = RopeTable.from_pairs(short.cos.float(), short.sin.float())

    got, _ = apply_rope(q, None, short, layout=INTERLEAVED)

    assert torch.equal(got, apply_rope(q, None, widened, layout=INTERLEAVED)[0])


def test_ambiguous_tables_are_refused(device: torch.device) -> None:
    table = table_of(7, 10, device)
    halves = [torch.cat([part, part], -1) for part in (table.cos, table.sin)]
    first_row = [part[:1] for part in halves]

    with pytest.raises(UsageError, match="has no one meaning"):
        RopeTable.infer(*first_row)
    with pytest.raises(UsageError, match="has no one meaning"):
        RopeTable.infer(table.cos, table.sin, rotary_dim=5)
    with pytest.raises(UsageError, match="has no one meaning"):
        RopeTable.infer(*halves, rotary_dim=30)
    with pytest.raises(UsageError, match=r"a cos\|sin cache"):
        RopeTable.infer(table.cos)
    assert RopeTable.infer(*first_row, rotary_dim=20).rotary_dim == 20
    assert RopeTable.infer(*halves, rotary_dim=10).column_step == 1


def test_a_complex_table_that_was_cast_is_refused(device: torch.device) -> None:
    table = table_of(7, 10, device)
    freqs_cis = torch.complex(table.cos, table.sin)

    with pytest.raises(UsageError, match="expected complex64"):
        RopeTable.from_complex(freqs_cis.real.bfloat16())


@pytest.mark.parametrize(
    ("cos", "sin", "rotary_dim"),
    [
        ((7, 5), (7, 4), 10),
        ((7, 5), (6, 5), 10),
        ((5,), (5,), 10),
        ((7, 5), (7, 5), 12),
        ((7, 5), (7, 5), 9),
    ],
)
def test_impossible_tables_are_refused(
    cos: tuple[int, ...], sin: tuple[int, ...], rotary_dim: int
) -> None:
    with pytest.raises(UsageError):
        RopeTable(cos=torch.zeros(cos), sin=torch.zeros(sin), rotary_dim=rotary_dim)


def test_angles_are_built_in_float64() -> None:
    """float32 angles are off by 3e-2 at a million; bf16 ones everywhere."""
    positions = torch.tensor([0, 8191, 131071, 1_000_000])
    table = RopeTable.from_settings(SETTINGS, 128, positions, device="cpu")
    inv_freq = 10000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    angles = positions.double()[:, None] * inv_freq

    torch.testing.assert_close(table.cos.double(), angles.cos(), rtol=0, atol=2**-25 * 1.01)
    wrong = (positions.float()[:, None] * inv_freq.float()).cos()
    assert (wrong.double() - angles.cos()).abs().max() > 1e-3


def test_the_attention_factor_multiplies_both() -> None:
    settings = RopeSettings(theta=10000.0, scaling=Yarn(factor=4.0, original_max_positions=64))
    table = RopeTable.from_settings(settings, 10, torch.arange(3), device="cpu")

    size = table.cos.square() + table.sin.square()

    torch.testing.assert_close(size, torch.full((3, 5), 1.1386294361) ** 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.peer
def test_mrope_equals_the_published_code(device: torch.device, *, interleaved: bool) -> None:
    """Three axes of positions; each pair reads its own."""
    sections = (3, 3, 2)
    positions = torch.randint(0, 50, (3, 2, 7), generator=torch.Generator().manual_seed(0))
    q, _ = vectors(device, torch.float64, head_dim=16)
    axes = mrope_axes(sections, interleaved=interleaved)
    table = RopeTable.from_settings(
        SETTINGS, 16, positions, device=device, dtype=torch.float64, axis_of_pair=axes
    )
    angles = positions.double()[..., None] * 10000.0 ** (-torch.arange(8).double() / 8)
    kind, name = ("qwen3_vl", "Qwen3VLText") if interleaved else ("qwen2_vl", "Qwen2VL")
    modeling = pytest.importorskip(f"transformers.models.{kind}.modeling_{kind}")
    recompose = getattr(modeling, f"{name}RotaryEmbedding").recomposition_frequencies
    model = SimpleNamespace(mrope_section=list(sections))
    cos, sin = (recompose(model, part.clone()).to(device) for part in (angles.cos(), angles.sin()))
    want = hugging_face(q.transpose(1, 2), cos, sin).transpose(1, 2)

    apart = angles.to(device)
    rebuilt, _ = apply_rope(
        q, None, RopeTable.from_axes(apart.cos(), apart.sin(), axes), layout=HALF_SPLIT
    )
    got, _ = apply_rope(q, None, table, layout=HALF_SPLIT)

    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)
    torch.testing.assert_close(rebuilt, want, rtol=0, atol=1e-14)
