"""Each operation of an emulated group: what it leaves, what it costs, and that none is free."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from bench.emulate.group import Emulation, group_class
from bench.emulate.operations import FEW_BYTES, OPERATIONS
from bench.hardware.costs.collectives import Group
from tests.emulate.fixed_model import FixedModel, emulated

NUM_RANKS = 4
WHENS = ("pre", "post", "abort")
"""Around a collective, and before a group is given up."""


@pytest.fixture
def model() -> FixedModel:
    return FixedModel(0.0, node_size=2)


@pytest.fixture(autouse=True)
def emulation(model: FixedModel) -> Iterator[Emulation]:
    with emulated(model, num_ranks=NUM_RANKS) as started:
        model.asked.clear()
        yield started


LOCAL = torch.arange(8.0)
ALL = Group(NUM_RANKS, 2)
FUNCTIONAL = torch.ops._c10d_functional
SUMMED = NUM_RANKS * LOCAL
REPEATED = LOCAL.repeat(NUM_RANKS, 1)


def world() -> Any:
    return dist.group.WORLD


def name() -> str:
    return world().group_name  # type: ignore[no-any-return]


def parts(tensor: Tensor) -> list[Tensor]:
    return list(tensor.chunk(NUM_RANKS))


def left(output: Tensor, result: Tensor) -> None:
    output.copy_(FUNCTIONAL.wait_tensor(result).view(output.shape))


IN_PLACE: list[tuple[str, Tensor, Group, Callable[[Tensor], Any]]] = [
    ("all_reduce", SUMMED, ALL, dist.all_reduce),
    ("all_reduce", LOCAL, ALL, lambda t: dist.all_reduce(t, op=dist.ReduceOp.MAX)),
    ("broadcast", LOCAL, ALL, lambda t: dist.broadcast(t, src=2)),
    ("reduce", SUMMED, ALL, lambda t: dist.reduce(t, dst=1)),
    ("send", LOCAL, Group(2, 2), lambda t: dist.send(t, dst=3)),
    ("send", torch.zeros(8), Group(2, 1), lambda t: dist.recv(t, 1)),
]
"""What each leaves in a tensor that holds the local values."""
FULL, PART, SAME = (NUM_RANKS, 8), (2,), (8,)
LEFT = {FULL: REPEATED, PART: LOCAL[:2], SAME: LOCAL}
"""What an operation leaves in an output of that shape."""
INTO: list[tuple[str, tuple[int, ...], Callable[[Tensor], Any]]] = [
    ("all_gather", FULL, lambda out: dist.all_gather(list(out), LOCAL)),
    ("all_gather", FULL, lambda out: world()._allgather_base(out.view(-1), LOCAL)),
    ("gather", FULL, lambda out: dist.gather(LOCAL, list(out))),
    ("gather", FULL, lambda out: world().gather_single(out, LOCAL)),  # torch's from 2.15 on
    ("scatter", PART, lambda out: dist.scatter(out, parts(LOCAL), src=0)),
    ("reduce_scatter", PART, lambda out: dist.reduce_scatter(out, parts(LOCAL))),
    ("reduce_scatter", PART, lambda out: world()._reduce_scatter_base(out, LOCAL)),
    ("all_to_all", SAME, lambda out: dist.all_to_all_single(out, LOCAL)),
    ("all_to_all", SAME, lambda out: dist.all_to_all(parts(out), parts(LOCAL))),
    ("all_reduce", SAME, lambda out: left(out, FUNCTIONAL.all_reduce(LOCAL, "max", name()))),
    ("all_gather", FULL,
     lambda out: left(out, FUNCTIONAL.all_gather_into_tensor(LOCAL, NUM_RANKS, name()))),
    ("reduce_scatter", PART,
     lambda out: left(out, FUNCTIONAL.reduce_scatter_tensor(LOCAL, "sum", NUM_RANKS, name()))),
    ("all_to_all", SAME,
     lambda out: left(out, FUNCTIONAL.all_to_all_single(LOCAL, [2] * 4, [2] * 4, name()))),
]  # fmt: skip


def test_each_operation_leaves_local_data_and_is_charged_for_the_full_tensor(
    model: FixedModel,
) -> None:
    for op, left, group, call in IN_PLACE:
        tensor = LOCAL.clone()
        call(tensor)
        assert torch.equal(tensor, left), op
        assert model.asked == [(op, 32, group)]
        model.asked.clear()
    for op, shape, call in INTO:
        output = torch.full(shape, float("nan"))
        work = call(output)
        if work is not None:
            work.wait()
        assert torch.equal(output, LEFT[shape]), op
        assert model.asked == [(op, 128 if shape == FULL else 32, ALL)]
        model.asked.clear()
    gathered = torch.zeros(NUM_RANKS, 8)  # an input that is part of it is repeated too
    gathered[0] = LOCAL
    world()._allgather_base(gathered.view(-1), gathered[0]).wait()
    assert torch.equal(gathered, REPEATED)
    gradients = torch.ones(FEW_BYTES)
    dist.all_reduce(gradients)
    assert gradients.unique().item() == 1, "nothing is done to many numbers"


def test_a_group_is_charged_by_where_its_ranks_are_though_nothing_is_left_here(
    model: FixedModel,
) -> None:
    dist.barrier()
    world().gather_single(torch.empty(0), LOCAL).wait()  # not the root
    assert model.asked == [("barrier", 0, ALL), ("gather", 128, ALL)]
    model.asked.clear()
    dist.all_reduce(LOCAL.clone(), group=dist.new_group([0]))
    assert model.asked == [], "a group of one rank costs nothing"
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model.asked.clear()
    inside, across = dist.new_group([0, 1]), dist.new_group([0, 2])
    for group in (inside, across, mesh.get_group("tp"), mesh.get_group("dp")):
        dist.all_reduce(LOCAL.clone(), group=group)
    assert [asked[2] for asked in model.asked] == [Group(2, 1), Group(2, 2)] * 2


def test_unequal_parts_leave_nothing_undefined_and_objects_are_gathered() -> None:
    output = torch.full((12,), float("nan"))
    dist.all_to_all_single(output, LOCAL, [3, 3, 3, 3], [2, 2, 2, 2])
    assert output.tolist() == [*LOCAL.tolist(), 0, 0, 0, 0]
    gathered: list[object] = [None] * NUM_RANKS
    dist.all_gather_object(gathered, {"step": 3})
    assert gathered == [{"step": 3}] * NUM_RANKS
    listed = [{"a": 1}]
    dist.broadcast_object_list(listed, src=0)
    assert listed == [{"a": 1}]


def test_coalesced_operations_are_one_collective_of_all_their_bytes(model: FixedModel) -> None:
    first, second = LOCAL.clone(), torch.ones(4)
    with dist._coalescing_manager():
        dist.all_reduce(first)
        dist.all_reduce(second)
    assert model.asked == [("all_reduce", 48, ALL)]
    with dist._coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
        dist.broadcast(first, src=0)
    manager.wait()
    assert model.asked[1:] == [("broadcast", 32, ALL)]


def test_an_operation_of_the_base_class_is_never_free(model: FixedModel) -> None:
    # Up to torch 2.13 the C++ method does not see the Python group, from 2.14 on it asks it.
    world, output = dist.group.WORLD, torch.empty(32)
    try:
        dist.ProcessGroup._allgather_base(world, output, LOCAL)
    except RuntimeError as error:
        assert "error_on_collective" in str(error)
        assert model.asked == []
    else:
        assert model.asked == [("all_gather", 128, ALL)]
    with pytest.raises(RuntimeError, match="error_on_collective"):  # this one is not modelled
        dist.ProcessGroup.allgather_coalesced(world, [[LOCAL.clone()]], [LOCAL])


def test_every_operation_of_a_torch_group_is_modelled() -> None:
    administration = {
        "abort", "bound_device_id", "boxed", "get_backend", "get_group_store", "group_desc",
        "group_name", "merge_remote_group", "name", "rank", "set_timeout", "shutdown", "size",
        "split_group", "unbox", "use_pg_for_symm_mem_rendezvous",
    }  # fmt: skip
    # From 2.15 on; what moves data raises, since no backend inside supports it.
    unsupported = {"get_reconfigure_handle", "new_window", "reconfigure"}
    hooks = {f"{verb}_{when}_hook" for verb in ("register", "unregister") for when in WHENS} | {
        name for name in vars(dist.ProcessGroup) if name.startswith("supports_")
    }
    methods = {
        name for name in vars(dist.ProcessGroup) if name[0] not in "_ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    }
    assert methods - administration - unsupported - hooks <= set(OPERATIONS)
    assert {"_allgather_base", "_reduce_scatter_base"} <= set(OPERATIONS)
    assert set(OPERATIONS) <= set(vars(group_class()))
