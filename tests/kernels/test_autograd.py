"""Gradients: the conjugate rotation, wherever torch may call it."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import BOTH, SETTINGS, exact, table_of, vectors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ropeconv.kernels import Positions, RopeTable, apply_rope
from ropeconv.kernels.reference import rope_reference
from ropeconv.kernels.rope import rotate_operator
from ropeconv.words.errors import UsageError
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout


def leaves(device: torch.device, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    q, k = vectors(device, dtype, batch=1, tokens=3, heads=3, kv_heads=1, head_dim=8)
    return q.requires_grad_(), k.requires_grad_()


@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_gradients_equal_finite_differences(device: torch.device, layout: RopeLayout) -> None:
    table = exact(9, 6, device)
    ids = torch.tensor([4, 0, 8], device=device)

    def turn(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return apply_rope(
            q,
            k,
            table,
            layout=layout,
            rotary_start=2,
            positions=Positions.of(ids),
            k_positions=Positions.at(1),
        )

    q, k = leaves(device)
    assert torch.autograd.gradcheck(turn, (q, k), fast_mode=True)
    assert torch.autograd.gradgradcheck(turn, (q, k), fast_mode=True)


@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_gradients_of_q_alone_and_of_expanded_gradients(
    device: torch.device, layout: RopeLayout
) -> None:
    """`sum` hands back a gradient that is one number expanded: strides of 0."""
    table = exact(7, 10, device)
    q, k = vectors(device, torch.float64)
    q.requires_grad_()

    q_out, _ = apply_rope(q, k, table, layout=layout)
    (gradient,) = torch.autograd.grad(q_out.sum(), q)

    want = rope_reference(torch.ones_like(q), table, layout=layout, conjugate=True)
    torch.testing.assert_close(gradient, want, rtol=0, atol=1e-14)


def test_double_use_and_checkpointing_change_nothing(device: torch.device) -> None:
    """Rotating in place broke both: the saved input was overwritten by the first use."""
    table = exact(7, 6, device)
    gradients = []
    for wrap in (False, True):
        q, k = leaves(device)

        def attend(q: Tensor, k: Tensor) -> Tensor:
            once, keys = apply_rope(q, k, table, layout=INTERLEAVED)
            twice, _ = apply_rope(once * q, None, table, layout=HALF_SPLIT)
            return (twice * q).sum() + (keys * k * q[..., :1, :]).sum()

        loss = checkpoint(attend, q, k, use_reentrant=False) if wrap else attend(q, k)
        gradients.append(torch.autograd.grad(loss, (q, k)))

    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)
    q, k = leaves(device)

    def oracle(q: Tensor, k: Tensor) -> Tensor:
        once = rope_reference(q, table, layout=INTERLEAVED)
        twice = rope_reference(once * q, table, layout=HALF_SPLIT)
        keys = rope_reference(k, table, layout=INTERLEAVED)
        return (twice * q).sum() + (keys * k * q[..., :1, :]).sum()

    want = torch.autograd.grad(oracle(q, k), (q, k))
    for got, right in zip(gradients[0], want, strict=True):
        torch.testing.assert_close(got, right, rtol=0, atol=1e-12)


def test_in_place_is_refused_while_a_gradient_is_recorded(device: torch.device) -> None:
    q, k = leaves(device)
    table = exact(7, 6, device)

    with pytest.raises(UsageError, match="cannot be rotated in place"):
        apply_rope(q, k, table, layout=INTERLEAVED, in_place=True)
    with torch.no_grad():
        apply_rope(q, k, table, layout=INTERLEAVED, in_place=True)


@pytest.mark.parametrize("with_k", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracing
def test_compiled_graphs_hold_one_operator(device: torch.device, *, with_k: bool) -> None:
    """fullgraph: nothing falls back to Python; two lengths: no shape is burnt in."""
    torch._dynamo.reset()
    targets: list[str] = []

    def look(module: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        targets.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    def turn(q: Tensor, k: Tensor | None, table: RopeTable) -> tuple[Tensor, Tensor | None]:
        return apply_rope(q, k, table, layout=INTERLEAVED, positions=Positions.at(2))

    with torch.no_grad():
        compiled = torch.compile(turn, backend=look, fullgraph=True)
        for tokens in (7, 5):
            q, k = vectors(device, tokens=tokens)
            table = table_of(12, 10, device)
            want = turn(q, k if with_k else None, table)
            got = compiled(q, k if with_k else None, table)
            assert torch.equal(got[0], want[0])
            if want[1] is None:
                assert got[1] is None
            else:
                assert got[1] is not None
                assert torch.equal(got[1], want[1])

    assert sum("ropeconv.rotate" in target for target in targets) >= 1


@pytest.mark.parametrize("with_k", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracing
def test_compiled_graphs_rotate_in_place(device: torch.device, *, with_k: bool) -> None:
    torch._dynamo.reset()
    table = table_of(7, 10, device)

    def turn(q: Tensor, k: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return apply_rope(q, k, table, layout=INTERLEAVED, in_place=True)

    q, k = vectors(device)
    keys = k if with_k else None
    want = apply_rope(q, keys, table, layout=INTERLEAVED)
    with torch.no_grad():
        got = torch.compile(turn, backend="aot_eager", fullgraph=True)(q, keys)

    assert torch.equal(q, want[0])
    assert got[0].data_ptr() == q.data_ptr()
    if want[1] is None:
        assert got[1] is None
    else:
        assert torch.equal(k, want[1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracing
def test_compiled_gradients_equal_eager_ones(device: torch.device) -> None:
    torch._dynamo.reset()
    table = exact(7, 6, device)

    def loss(q: Tensor, k: Tensor) -> Tensor:
        q_out, k_out = apply_rope(q * 2, k, table, layout=HALF_SPLIT)
        return (q_out * q).sum() + (k_out * k).sum()

    q, k = leaves(device)
    want = torch.autograd.grad(loss(q, k), (q, k))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(q, k), (q, k))

    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_the_operator_keeps_torchs_rules(device: torch.device) -> None:
    q, k = vectors(device, batch=1)
    table = RopeTable.from_settings(SETTINGS, 10, torch.arange(7), device=device)
    rotation = [1, 5, 10, 0, 1, 0, 1, 1, 1, 0, 0]
    for keys, turned in ((k, q), (q.new_empty(0), q.transpose(1, 2).contiguous().transpose(1, 2))):
        torch.library.opcheck(
            rotate_operator,
            (turned, keys, table.cos, table.sin, None, None, rotation, [0, 0]),
            test_utils=("test_schema", "test_faketensor"),
        )
