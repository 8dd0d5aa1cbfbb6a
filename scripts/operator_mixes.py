"""Makes `bench/hardware/operator_mixes.yaml`: the operators of this harness's own workloads.

`python -m scripts.operator_mixes > bench/hardware/operator_mixes.yaml` counts one step of every
phase of imaging and llm at base and large, in bf16, on fake tensors: nothing is computed, so a
laptop counts what only an accelerator could run. Shapes do not depend on the device, except where
torch picks another attention kernel; those have the same operands.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import yaml
from msgspec.structs import asdict
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from bench import discovery
from bench.core.nouns import Dtype
from bench.hardware.operators import Operators
from bench.measure.engine.precision import HALF_TYPES, autocast, move
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.operator_count import OperatorCounter
from bench.workload import Phase, Workload

COUNTED = ("imaging", "llm")
SIZES = ("base", "large")
DTYPE: Dtype = "bf16"
_HEAD = """# Operators of one step of the shipped workloads, counted from shapes on fake tensors.
# Made by `python -m scripts.operator_mixes`; not to be edited. See bench/hardware/operators.py.
"""


def count_phase(workload: Workload, phase: Phase, *, dtype: Dtype = DTYPE) -> list[Operators]:
    """Operators of one step of a phase on generated data, without computing anything."""
    from torch.utils.data import DataLoader

    dataset = workload.dataset(phase, data=None, seed=0)
    size = min(workload.batch_size(phase), len(dataset))
    loader: Any = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=size,
        collate_fn=workload.collate(phase),
    )
    batch = next(iter(loader))
    half = None if phase.is_training else HALF_TYPES.get(dtype)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        net = workload.build_net()
        if half is not None:
            _cast(net, half)
        net.train(phase.is_training)
        moved = move(batch, device=torch.device("cpu"), half=half, channels_last=False)
        moved = _faked(moved, mode)
        step: TrainStep | InferStep
        if phase.is_training:
            step = TrainStep(workload, net, device_type="cpu", dtype=dtype)
        else:
            with torch.inference_mode(), autocast("cpu", dtype):
                moved = workload.prepare(phase, net, moved)
            step = InferStep(workload, phase, net, device_type="cpu", dtype=dtype)
        if phase.is_training:
            with _ReadBack(), OperatorCounter():
                step(moved)  # the first one makes the optimizer's moments
        counter = OperatorCounter()
        with _ReadBack(), counter.counting_optimizer(), counter:
            step(moved)
    return counter.operators


def _cast(net: torch.nn.Module, dtype: torch.dtype) -> None:
    """Do what `Module.to` does, which cannot swap fake parameters; shared ones stay shared."""
    made: dict[torch.Tensor, torch.nn.Parameter] = {}
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in made:
                made[parameter] = torch.nn.Parameter(parameter.detach().to(dtype))
            setattr(module, name, made[parameter])


class _ReadBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers what programs read back from tensors, which fake ones cannot.

    Index ranges are real, because losses take dimension numbers from them; any other number, such
    as the least weight of a blending window, is one, which no shape here depends on.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func._overloadpacket is torch.ops.aten.arange:
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        if func._overloadpacket is torch.ops.aten._local_scalar_dense:
            return 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def _faked(value: Any, mode: FakeTensorMode) -> Any:
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    if isinstance(value, dict):
        return {key: _faked(item, mode) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_faked(item, mode) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def count_all() -> list[dict[str, Any]]:
    """Count every phase of `COUNTED` at every size of `SIZES`."""
    rows = []
    for name in COUNTED:
        found = discovery.load(name)
        for size in SIZES:
            workload = discovery.instance(found, size=size, overrides={})
            for phase in found.cls.phases:
                print(f"{name}-{phase.name} {size}", file=sys.stderr)
                rows.append(
                    {
                        "id": f"{name}-{phase.name}-{size}",
                        "workload": name,
                        "phase": phase.name,
                        "size": size,
                        "version": found.version,
                        "batch": workload.batch_size(phase),
                        "parameters": workload.num_parameters(),
                        "operators": [
                            {name: value for name, value in asdict(one).items() if name != "time_s"}
                            for one in count_phase(workload, phase)
                        ],
                    }
                )
    return rows


def main() -> None:
    """Print the file."""
    document = {"torch": str(torch.__version__), "dtype": DTYPE, "mixes": count_all()}
    print(_HEAD + yaml.safe_dump(document, sort_keys=False, width=100), end="")


if __name__ == "__main__":
    main()
