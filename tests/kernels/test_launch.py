"""The bound launch does what Triton's own does, for any stream and hook, and only where it may."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from kernel_cases import BOTH, table_of, vectors

from ropeconv.kernels import Positions, RopeTable, apply_rope, direct
from ropeconv.kernels import launch as launching
from ropeconv.kernels.plan import Plan, make_plan
from ropeconv.kernels.reference import rope_reference
from ropeconv.words.layout import HALF_SPLIT, INTERLEAVED, RopeLayout

Calls = list[tuple[Any, ...]]


class Chain:
    """Triton's chain of hooks: never None, called in vain while it is empty."""

    def __init__(self) -> None:
        self.calls: list[Any] = []


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Triton with hooks and a current stream to set."""
    state = SimpleNamespace(stream=7, launch_enter_hook=Chain(), launch_exit_hook=Chain())
    active = SimpleNamespace(get_current_stream=lambda device: (state.stream, device))
    fake = SimpleNamespace(
        knobs=SimpleNamespace(runtime=state),
        runtime=SimpleNamespace(driver=SimpleNamespace(active=active)),
    )
    monkeypatch.setattr(direct, "triton", fake)
    return state


class Launcher:
    """Python around a function, as Triton's are: it adds something of its own in the middle."""

    def __init__(self, function: Any, form: str) -> None:
        self.launch, self.form, self.entered = function, form, 0

    def __call__(self, *arguments: object) -> None:
        self.entered += 1
        own, rest = (*arguments[:5], "cooperative", None), arguments[5:]
        if self.form == "last ones last":
            self.launch(*own, *rest)
        elif self.form == "in a tuple":
            self.launch(*own, rest)
        else:
            self.launch(*own, *rest, "more")


class Compiled:
    """A compiled kernel that notes how it was launched."""

    function, packed_metadata = "function", "metadata"

    def __init__(self, form: str = "last ones last", scratch: int = 0) -> None:
        self.direct: Calls = []
        self.through_triton: Calls = []
        self.run = Launcher(lambda *arguments: self.direct.append(arguments), form)
        self.metadata = SimpleNamespace(global_scratch_size=0, profile_scratch_size=scratch)

    def __getitem__(self, grid: tuple[int, int, int]) -> Any:
        return lambda *arguments: self.through_triton.append((grid, *arguments))


def test_a_bound_launch_hands_over_all_that_triton_would(runtime: SimpleNamespace) -> None:
    compiled = Compiled()
    run = direct.bind(compiled, (5, 2, 1), 3, ("planned",))

    run(10, 20)
    run(30, 40)
    runtime.stream = 8
    run(50, 60)

    rest = ("function", "cooperative", None, "metadata", None, None, None, "planned")
    assert compiled.direct == [
        (5, 2, 1, (7, 3), *rest, 10, 20),
        (5, 2, 1, (7, 3), *rest, 30, 40),
        (5, 2, 1, (8, 3), *rest, 50, 60),
    ]
    assert compiled.through_triton == []


@pytest.mark.parametrize(
    ("form", "scratch", "skipped"),
    [
        ("last ones last", 0, True),
        ("last ones last", 16, False),
        ("in a tuple", 0, True),
        ("in a tuple", 16, False),
        ("something behind", 0, False),
    ],
)
def test_a_launcher_is_skipped_only_where_it_adds_nothing_that_changes(
    runtime: SimpleNamespace, form: str, scratch: int, *, skipped: bool
) -> None:
    """Scratch memory is allocated for each launch; the tuple came with Triton 3.7."""
    compiled, plain = Compiled(form, scratch), Compiled(form, scratch)
    run = direct.bind(compiled, (5, 2, 1), 0, ("planned",))
    leading = 5, 2, 1, (runtime.stream, 0), "function", "metadata", None, None, None, "planned"

    for last in ((10, 20), (30, 40)):
        run(*last)
        plain.run(*leading, *last)

    assert compiled.direct == plain.direct
    assert compiled.run.entered == (0 if skipped else 2)


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
@pytest.mark.parametrize("kind", ["added", "assigned", "assigned before", "none before"])
def test_a_launch_that_somebody_listens_to_is_tritons(
    runtime: SimpleNamespace, hook: str, kind: str
) -> None:
    """Hooks come as chains, and in older versions as None or a function; and they come and go."""
    compiled = Compiled()
    if kind == "assigned before":
        setattr(runtime, hook, print)
    if kind == "none before":
        setattr(runtime, hook, None)
    run = direct.bind(compiled, (5, 2, 1), 0, ("planned",))
    if kind == "added":
        getattr(runtime, hook).calls.append(print)
    elif kind != "assigned before":
        setattr(runtime, hook, print)

    run(10)

    assert compiled.direct == []
    assert compiled.through_triton == [((5, 2, 1), "planned", 10)]
    if kind == "added":
        getattr(runtime, hook).calls.clear()
        run(20)
        assert len(compiled.direct) == 1


def test_the_installed_triton_ends_its_launch_with_that_call() -> None:
    """If a later version moves an argument, this fails before a GPU does."""
    source = "".join(inspect.getsource(triton.JITFunction.run).split())

    assert direct.is_known(triton.__version__)
    assert (
        "kernel.run(grid_0,grid_1,grid_2,stream,kernel.function,kernel.packed_metadata,"
        "launch_metadata,knobs.runtime.launch_enter_hook,knobs.runtime.launch_exit_hook,"
        "*bound_args.values())"
    ) in source


def test_unknown_versions_launch_through_triton() -> None:
    known = ["3.2.0", "3.3.1", "3.4.0", "3.9.0", "3.9.0+git1", "3.10.0", "4.0.0"]

    assert [direct.is_known(version) for version in known] == [
        False, False, True, True, True, False, False,
    ]  # fmt: skip


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that are launched from here on, made anew."""
    made: list[Plan] = []

    def spy(*places: Any) -> Plan | None:
        plan = make_plan(*places)
        assert plan is not None
        made.append(plan)
        return plan

    make_plan.cache_clear()
    monkeypatch.setattr(launching, "make_plan", spy)
    return made


@pytest.mark.parametrize("form", ["complex", "neighbours", "a gap"])
def test_only_sines_right_behind_their_cosines_are_read_with_them(
    device: torch.device, plans: list[Plan], form: str
) -> None:
    """A sine may follow its cosine, and the next cosine still not follow the sine."""
    q, k = vectors(device)
    plain = table_of(7, 10, device)
    if form == "complex":
        table = RopeTable.from_complex(torch.complex(plain.cos, plain.sin))
    elif form == "neighbours":
        apart = [part.repeat_interleave(2, -1) for part in (plain.cos, plain.sin)]
        table = RopeTable.from_duplicated(*apart, order=INTERLEAVED)
    else:
        memory = torch.stack([plain.cos, plain.sin, plain.cos], -1).flatten(-2)
        table = RopeTable(cos=memory[..., ::3], sin=memory[..., 1::3], rotary_dim=10)

    got = apply_rope(q, k, table, layout=INTERLEAVED)

    assert [plan.constants["TOGETHER"] for plan in plans] == [form == "complex"]
    assert torch.equal(got[0], apply_rope(q, k, plain, layout=INTERLEAVED)[0])


@pytest.mark.parametrize("layout", BOTH, ids=str)
def test_addresses_that_16_does_not_divide_are_rotated_too(
    device: torch.device, layout: RopeLayout
) -> None:
    """What was compiled for divisible addresses must not be launched on others."""
    q, _ = vectors(device, torch.bfloat16, head_dim=16)
    table = table_of(7, 16, device)
    shifted = torch.empty(q.numel() + 1, dtype=q.dtype, device=device)[1:].view(q.shape).copy_(q)
    assert shifted.data_ptr() % 16

    want, *rest = (
        apply_rope(x, None, table, layout=layout)[0] for x in (q, shifted, q, shifted, q)
    )

    for got in rest:
        assert torch.equal(got, want)


@pytest.mark.gpu
@pytest.mark.parametrize("bound", [True, False], ids=["direct", "through triton"])
def test_both_ways_to_launch_give_the_same_numbers(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, plans: list[Plan], *, bound: bool
) -> None:
    monkeypatch.setattr(launching, "DIRECT", bound)
    q, k = vectors(device, head_dim=128)
    table = table_of(99, 128, device)

    first, again, later = (
        apply_rope(q, k, table, layout=INTERLEAVED, positions=Positions.at(offset))
        for offset in (3, 3, 4)
    )

    assert [plan.run is not None for plan in plans] == [bound] * 3
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    for rotated, offset in ((again, 3), (later, 4)):
        rows = torch.arange(7, device=device) + offset
        want = rope_reference(q, table, layout=INTERLEAVED, rows=rows)
        torch.testing.assert_close(rotated[0], want, rtol=0, atol=2e-6)


@pytest.mark.gpu
def test_a_bound_launch_follows_the_current_stream(device: torch.device) -> None:
    """On another stream the input is late: a launch on the first one would read what was there."""
    q, _ = vectors(device, torch.bfloat16, head_dim=128)
    table = table_of(7, 128, device)
    late = torch.zeros_like(q)
    for _ in range(2):
        want, _ = apply_rope(q, None, table, layout=HALF_SPLIT)
    torch.cuda.synchronize()

    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(20_000_000)
        late.copy_(q)
        got, _ = apply_rope(late, None, table, layout=HALF_SPLIT)
        torch.cuda.synchronize()

    assert torch.equal(got, want)


@pytest.mark.gpu
def test_a_real_hook_hears_bound_launches(device: torch.device) -> None:
    q, _ = vectors(device, head_dim=128)
    table = table_of(7, 128, device)
    heard: list[str] = []

    def hook(metadata: Any) -> None:
        heard.append(metadata.get()["name"])

    hooks = triton.knobs.runtime.launch_enter_hook
    for listens in (False, False, True, False):
        if listens:
            hooks.add(hook)
        apply_rope(q, None, table, layout=HALF_SPLIT)
        if listens:
            hooks.remove(hook)

    assert heard == ["rope_kernel"]
