"""A workload's phase on a torch device: built once, then stepped.

Order matters in `build`: loader workers are forked before the device context exists, and the output
is checked at tiny before the real net takes its memory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import discovery
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.limited_device import Granted, apply_chip_limit
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.communication.modelled_link import ModelledLink, open_link
from bench.measure.engine.correctness import Check, check_output
from bench.measure.engine.engine import Engine, StepCount, counted, summed
from bench.measure.engine.feed import Feed, loader_feed, make_loader
from bench.measure.engine.precision import (
    autocast,
    float_tensors,
    move,
    place_net,
    set_matmul_precision,
)
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.messages import TrialRequest
from bench.parallel.laid_out import DDP_OVERLAP, HALF_TYPES, lay_out
from bench.parallel.ranks import Ranks, data_rank


class TorchEngine(Engine):
    """Steps of one phase on one device; `cold_s` has what getting there took, by stage."""

    def __init__(
        self,
        request: TrialRequest,
        *,
        on_stage: Callable[[str], None] = lambda _stage: None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config = request.config
        self._ranks = ranks
        self.layout = config.layout
        self._micro_batches = config.layout.grad_accum
        self.link: ModelledLink | None = None
        self.granted: Granted | None = None
        self._request = request
        self._on_stage = on_stage
        self._found = discovery.load_planned(config.origin, version=config.version)
        self.phase = self._found.phase(config.phase)
        self.workload = discovery.instance(self._found, size=None, overrides=dict(config.params))
        self.adapter = adapter_for(config.device)
        self.device = torch.device(config.device)
        self._half = None if self.phase.is_training else HALF_TYPES.get(config.dtype)
        self.uses_loader = self.phase.is_training and config.data != "resident"
        """Whether batches come through the loader rather than lying on the device."""
        self.cold_s: dict[str, float] = {}
        self.check: Check | None = None
        self._counts: dict[int, StepCount] = {}

    def build(self, *, is_checked: bool = True) -> None:
        """Import, build, move, check; raises what the workload or the device raises."""
        config, request = self.config, self._request
        set_matmul_precision(config.dtype)
        # Workers are forked: a pool of OpenMP threads must not exist before, or they may hang.
        torch.set_num_threads(1 if self.uses_loader and request.workers else request.threads)
        torch.manual_seed(config.seed)
        with self._stage("import"):
            for library in self.workload.libraries:
                importlib.import_module(library)
        with self._stage("build"):
            loader = self._make_loader()
            # Starts the workers, before there is a device context that a fork would break.
            feed = loader_feed(loader, move=self._move) if self.uses_loader else None
        torch.set_num_threads(request.threads)
        with self._stage("transfer"):
            self._open_context()
        if request.idle_s:
            self._on_stage("idle")
            time.sleep(request.idle_s)
        if is_checked:
            self._on_stage("check")
            self.check = self._check()
        torch.manual_seed(config.seed)
        self.adapter.reset_peak_memory()
        with self._stage("build"):
            net = self._build_net()
        self.num_parameters = sum(parameter.numel() for parameter in net.parameters())
        with self._stage("transfer"):
            net = place_net(
                net, device=self.device, half=self._half, channels_last=config.channels_last
            )
            net.train(self.phase.is_training)
            self.adapter.synchronize()
            self.adapter.empty_cache()  # of the fp32 weights of a net that is cast
        with self._stage("build"):
            self._lay_out(net)
            self._feed = feed or self._resident_feed(loader)
        self._step = self._make_step(net)
        self.optimizer_label = self._step.optimizer_label
        self.adapter.synchronize()
        gc.collect()
        gc.freeze()
        self.init_peak_bytes = self.adapter.peak_allocated_bytes()
        """The allocator's peak before the first step."""

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._on_stage(name)
        start_s = time.perf_counter()
        yield
        self.cold_s[name] = self.cold_s.get(name, 0.0) + time.perf_counter() - start_s

    def _make_loader(self) -> Any:
        config = self.config
        # Replicas of one net take different samples.
        ranks = self._ranks
        number = 0 if ranks is None else data_rank(ranks.rank, layout=self.layout)
        return make_loader(
            self.workload,
            self.phase,
            data=None if config.data in ("generated", "resident") else Path(config.data),
            seed=config.seed + number,
            workers=self._request.workers if self.uses_loader else 0,
            feeds=self.device.type if self.uses_loader else None,
        )

    def _open_context(self) -> None:
        # Compiled kernels and vendors' libraries use the current device, whatever the tensors' is.
        self.adapter.make_current()
        torch.ones(1, device=self.device).sum().item()
        if self.device.type == "cuda":
            # As nnU-Net and most training code with fixed shapes do; the environment records it.
            torch.backends.cudnn.benchmark = True
        if self.config.chip_limit:
            self.granted = apply_chip_limit(parse_chip_limit(self.config.chip_limit), self.device)

    def _check(self) -> Check | None:
        """Compare with the CPU at tiny; None for a workload without that size."""
        if "tiny" not in self._found.cls.sizes:
            return None
        tiny = discovery.instance(self._found, size="tiny", overrides={})
        check = check_output(tiny, self.phase, config=self.config, device=self.device)
        if self.config.compile:
            # Else torch takes the real net's sizes, after tiny's, for varying ones, and compiles
            # it slower, with dynamic shapes; and at tiny the first step would compile nothing.
            torch.compiler.reset()
        gc.collect()
        self.adapter.empty_cache()
        return check

    def _build_net(self) -> nn.Module:
        """Build the net on its device, where a billion random weights take milliseconds.

        A backend may lack a random operator, and a net may mix in tensors that it makes on the CPU:
        then it is built there and moved.
        """
        if self.device.type != "cpu":
            try:
                with self.device:
                    return self.workload.build_net()
            except (RuntimeError, TypeError):
                gc.collect()
                self.adapter.empty_cache()
                torch.manual_seed(self.config.seed)
        return self.workload.build_net()

    def _lay_out(self, net: nn.Module) -> None:
        config = self.config
        does = {"step": self.untraced_step, "synchronize": self.adapter.synchronize}
        self.link = open_link(config.layout, device=self.device, ranks=self._ranks, **does)
        self.laid_out = lay_out(
            net,
            workload=self.workload,
            phase=self.phase,
            layout=config.layout,
            device=self.device,
            dtype=config.dtype,
            is_compiled=config.compile,
            compile_mode=config.compile_mode,
        )
        self.period_steps, self.overlap = self.laid_out.period_steps, self.laid_out.overlap
        if self.link is not None:
            self.link.period_steps = self.period_steps
            self.link.waits_hide = self.overlap == DDP_OVERLAP
            self.link.is_smoke = self._request.limits.is_smoke

    def _move(self, batch: Any) -> Any:
        layout = self.config.channels_last
        return move(batch, device=self.device, half=self._half, channels_last=layout)

    def _make_step(self, net: nn.Module) -> TrainStep | InferStep:
        kind: Any = {"device_type": self.device.type, "dtype": self.config.dtype}
        if self.phase.is_training:
            return TrainStep(self.workload, self.laid_out, **kind)
        return InferStep(self.workload, self.phase, self.laid_out.net, **kind)

    def _resident_feed(self, loader: Any) -> Feed:
        ready = []
        for batch in itertools.islice(loader, self.workload.resident_batches(self.phase)):
            moved = self._move(batch)
            if not self.phase.is_training:
                with torch.inference_mode(), autocast(self.device.type, self.config.dtype):
                    moved = self.workload.prepare(self.phase, self.laid_out.net, moved)
            ready.append((moved, batch, 0.0))
            self._count(batch, 0.0)
        self.resident = list(self._counts.values())
        self.round_steps = len(ready) if len(set(self.resident)) > 1 else 1
        if not ready:
            raise ValueError("a feed needs at least one batch")
        return itertools.cycle(ready)

    def step(self) -> StepCount:
        """Queue one step, all its micro-batches; on a modelled link it may be traced."""
        return self.untraced_step() if self.link is None else self.link.run()

    def untraced_step(self) -> StepCount:
        """Queue one step, from the wait for its first batch on."""
        taken = list(itertools.islice(self._feed, self._micro_batches))
        batches = [batch for batch, _, _ in taken]
        if self.config.compile_mode:
            # What the step before left in the memory of a graph may be written over from here on.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self._step(*batches)
        counts = [self._count(collated, waited_s) for _, collated, waited_s in taken]
        return counts[0] if len(counts) == 1 else summed(counts)

    def begin_window(self) -> None:
        """Count memory peaks and traces from here; refuses a link that shows nothing."""
        self.adapter.reset_peak_memory()
        if self.link is not None:
            self.link.begin_window()

    def _count(self, collated: Any, waited_s: float) -> StepCount:
        """Count what a batch holds, once for each distinct batch, so that steps stay bare."""
        # Batches of a loader are alike: fixed batch size, last incomplete one dropped.
        key = 0 if self.uses_loader else id(collated)
        count = self._counts.get(key)
        if count is None:
            count = counted(self.workload, self.phase, collated, dtype=self.config.dtype)
            self._counts[key] = count
        return replace(count, data_wait_s=waited_s) if waited_s else count

    def recompiles(self) -> int | None:
        """Graphs that torch.compile made, or None when it is off."""
        if not self.config.compile:
            return None
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    def lacks_graphs(self) -> bool:
        """Whether anything ran without the CUDA graphs that the compile mode asks for."""
        if not self.config.compile_mode:
            return False
        from torch._dynamo.utils import counters

        return self.device.type != "cuda" or counters["inductor"]["cudagraph_skips"] > 0

    def losses(self) -> tuple[float | None, float | None]:
        """First and last loss; (None, None) when the phase does not train."""
        first, last = self._step.first_loss, self._step.last_loss
        return None if first is None else float(first), None if last is None else float(last)

    def output_problem(self) -> tuple[str, str] | None:
        """Reason code and words for what is wrong with the last output, or None."""
        first, last = self.losses()
        if last is not None:
            if math.isfinite(last):
                return None
            return "nonfinite", f"loss went from {first:.4g} to {last}"
        assert isinstance(self._step, InferStep), "asked before the first step"
        output = self._step.last_output
        if not all(bool(torch.isfinite(tensor).all()) for tensor in float_tensors(output)):
            return "nonfinite", "the output has values that are not finite"
        try:
            self.workload.check(self.phase, output)
        except ValueError as error:
            return "wrong_output", str(error)
        return None
