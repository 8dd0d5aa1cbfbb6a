"""From --devices, --parallel, --link and their like to layouts: every combination, checked.

What is here is arithmetic of flags. Whether a workload can be spread so is asked of
`bench.parallel.support` when its parameters are known, and the mode of all of `modes`.
"""

from __future__ import annotations

import itertools

from bench.core.errors import UsageError
from bench.core.nouns import Layout, Mode, Strategy
from bench.hardware.links.topology import Topology, parse_topology
from bench.run.planning.request import FLAGS, LAYOUT, MIB, RunRequest, is_given

LAYOUT_FLAGS = [
    name for name, flag in FLAGS.items() if flag.group == LAYOUT and name != "grad_accum"
]
"""Each of them asks for more than one device; micro-batches alone do not."""


def make_layouts(request: RunRequest) -> tuple[Layout, ...]:
    """Return every layout that the flags mean, each once; `UsageError` on what cannot be meant.

    A link without --mode is emulated, until `choose_mode` has seen the whole sweep.
    """
    if not any(is_given(request, name) for name in LAYOUT_FLAGS):
        return (Layout(grad_accum=request.grad_accum),)
    layouts = [
        _layout(request, devices=devices, strategy=strategy, topology=topology, mitigate=mitigate)
        for devices, strategy, topology, mitigate in itertools.product(
            request.devices or (None,),
            request.parallel or (None,),
            [parse_topology(link) for link in request.links] or (None,),
            ["" if name == "none" else name for name in request.mitigate] or ("",),
        )
    ]
    return tuple(dict.fromkeys(layouts))


def _layout(
    request: RunRequest,
    *,
    devices: int | None,
    strategy: Strategy | None,
    topology: Topology | None,
    mitigate: str,
) -> Layout:
    data, tensor, pipeline = _ranks(request, devices=devices, strategy=strategy)
    if data * tensor * pipeline == 1 and (topology is None or devices == 1):
        return Layout(grad_accum=request.grad_accum)
    chosen = _strategy(strategy, tensor=tensor, pipeline=pipeline)
    if topology:
        topology.check_devices(data * tensor * pipeline)
    return Layout(
        mode=_mode(request.mode, strategy=chosen, topology=topology),
        strategy=chosen,
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        link=topology.name if topology else "",
        bucket_bytes=int((request.bucket_mib or 25) * MIB),
        grad_accum=request.grad_accum,
        schedule=request.schedule,
        mitigate=mitigate,
        contention=request.contention if topology else "none",
    )


def _ranks(
    request: RunRequest, *, devices: int | None, strategy: Strategy | None
) -> tuple[int, int, int]:
    """Return data, tensor and pipeline ranks; what is not given takes what is left of devices."""
    data, tensor, pipeline = request.dp, request.tp, request.pp
    if devices is None:
        if (data, tensor, pipeline) == (None, None, None):
            raise UsageError(
                "flags of a layout (--link, --parallel, --mitigate, ...) need --devices, such as"
                " --devices 8, or --tp, --dp, --pp"
            )
        return data or 1, tensor or 1, pipeline or 1
    if strategy == "tp" and tensor is None:
        tensor = devices // ((data or 1) * (pipeline or 1))
    elif strategy == "pp" and pipeline is None:
        pipeline = devices // ((data or 1) * (tensor or 1))
    tensor, pipeline = tensor or 1, pipeline or 1
    if data is None:
        data = max(1, devices // (tensor * pipeline))
    if data * tensor * pipeline != devices:
        raise UsageError(
            f"--devices {devices} is not dp {data} x tp {tensor} x pp {pipeline}; "
            "leave --devices out or make the product equal"
        )
    return data, tensor, pipeline


def _strategy(asked: Strategy | None, *, tensor: int, pipeline: int) -> Strategy:
    implied: Strategy = "pp" if pipeline > 1 else "tp" if tensor > 1 else "ddp"
    if asked is None or (asked, implied) == ("ddp", "tp"):  # tensor-parallel replicas
        return implied
    if implied == "pp" and asked != "pp":
        raise UsageError(f"--parallel {asked} does not go with --pp; leave one out")
    return asked


def _mode(asked: Mode | None, *, strategy: Strategy, topology: Topology | None) -> Mode:
    if strategy != "pp":
        return asked or ("real" if topology is None else "emulated")
    if asked not in (None, "simulated"):
        raise UsageError(
            f"--parallel pp is simulated from measured stages, not {asked}; "
            "use --mode simulated with a --link"
        )
    if topology is None:
        raise UsageError("--parallel pp is simulated and needs a --link, such as pcie4")
    return "simulated"
