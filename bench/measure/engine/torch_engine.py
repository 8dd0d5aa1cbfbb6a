"""A workload's phase on a torch device: built once, then stepped.

Order matters in `build`: loader workers are forked before the device context exists, and the output
is checked at tiny before the real net takes its memory.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import discovery
from bench.core.nouns import DTYPES
from bench.devices.torch.adapter import DeviceEvent
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.limited_device import Granted, apply_chip_limit
from bench.hardware.chip_limit import parse_chip_limit
from bench.measure.communication.modelled_link import ModelledLink, open_link
from bench.measure.engine import feed as feeds
from bench.measure.engine.correctness import Check, check_output, to_channels_last
from bench.measure.engine.engine import Engine, StepCount, counted, summed
from bench.measure.engine.placing import place_net
from bench.measure.engine.precision import (
    autocast,
    cast_net,
    float_tensors,
    half_type,
    move,
    set_matmul_precision,
)
from bench.measure.engine.steps import InferStep, TrainStep
from bench.measure.messages import TrialRequest
from bench.parallel.laid_out import DDP_OVERLAP, LaidOut
from bench.parallel.strategies import lay_out

if TYPE_CHECKING:
    from torch import nn

    from bench.parallel.ranks import Ranks


class TorchEngine(Engine):
    """Steps of one phase on one device; `cold_s` has what getting there took, by stage."""

    def __init__(
        self,
        request: TrialRequest,
        *,
        on_stage: Callable[[str], None],
        data_seed: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """`data_seed` gives replicas of one net different samples; by default it is the seed."""
        import torch

        config = request.config
        self._ranks = ranks
        self.layout = config.layout
        self.link: ModelledLink | None = None
        self.granted: Granted | None = None
        self._data_seed = config.seed if data_seed is None else data_seed
        self._request = request
        self._on_stage = on_stage
        self._found = discovery.load_planned(config.origin, version=config.version)
        self.phase = self._found.phase(config.phase)
        self.workload = discovery.instance(self._found, size=None, overrides=dict(config.params))
        self.adapter = adapter_for(config.device)
        self.device = torch.device(config.device)
        self.is_asynchronous = self.adapter.is_asynchronous
        self.cold_s: dict[str, float] = {}
        self.check: Check | None = None
        self.net: nn.Module | None = None
        self._counts: dict[int, StepCount] = {}
        assert config.dtype in DTYPES

    # Building ------------------------------------------------------------------------------------

    def build(self) -> None:
        """Import, build, move, check; raises what the workload or the device raises."""
        import torch

        config, request = self._request.config, self._request
        set_matmul_precision(config.dtype)
        # Workers are forked: a pool of OpenMP threads must not exist before, or they may hang.
        torch.set_num_threads(1 if self.uses_loader and request.workers else request.threads)
        self._set_seed()
        for library in self.workload.libraries:
            self._stage("import", importlib.import_module, library)
        loader = self._stage("build", self._make_loader)
        self._loader_feed: feeds.LoaderFeed | None = None
        if self.uses_loader:
            # Starts the workers, before there is a device context that a fork would break.
            self._loader_feed = self._stage(
                "build", lambda: feeds.LoaderFeed(loader, move=self._move)
            )
            torch.set_num_threads(request.threads)
        self._stage("transfer", self._open_context)
        if request.idle_s:
            self._on_stage("idle")
            time.sleep(request.idle_s)
        self._on_stage("check")
        self.check = self._check()
        self._set_seed()
        self.adapter.reset_peak_memory()
        net = self._stage("build", self._build_net)
        self.num_parameters = sum(parameter.numel() for parameter in net.parameters())
        self.net = self._stage("transfer", self._place, net)
        self.link = self._stage("build", self._open_link)
        self.laid_out = self._stage("build", self._lay_out, self.net)
        if self.link is not None:
            self.link.period_steps = self.laid_out.period_steps
            self.link.waits_hide = self.laid_out.overlap == DDP_OVERLAP
        self._step = self._make_step(self.net)
        self._feed = self._loader_feed or self._stage("build", self._resident_feed, loader)
        self.synchronize()
        gc.collect()
        gc.freeze()

    def _stage(self, name: str, work: Callable[..., Any], *args: Any) -> Any:
        self._on_stage(name)
        start_s = time.perf_counter()
        result = work(*args)
        self.cold_s[name] = self.cold_s.get(name, 0.0) + time.perf_counter() - start_s
        return result

    def _set_seed(self) -> None:
        import torch

        torch.manual_seed(self._request.config.seed)

    @property
    def uses_loader(self) -> bool:
        """Whether batches come through the loader rather than lying on the device."""
        return self.phase.is_training and self._request.config.data != "resident"

    def _make_loader(self) -> Any:
        data = self._request.config.data
        return feeds.make_loader(
            self.workload,
            self.phase,
            data=None if data in ("generated", "resident") else Path(data),
            seed=self._data_seed,
            workers=self._request.workers if self.uses_loader else 0,
            pin_memory=self.uses_loader and feeds.can_pin(self.device.type),
            start_method=None if self.device.type in feeds.FORK_SAFE else "spawn",
        )

    def _open_context(self) -> None:
        import torch

        # Compiled kernels and vendors' libraries use the current device, whatever the tensors' is.
        self.adapter.make_current()
        torch.ones(1, device=self.device).sum().item()
        if self.device.type == "cuda":
            # As nnU-Net and most training code with fixed shapes do; the environment records it.
            torch.backends.cudnn.benchmark = True
        if self._request.config.chip_limit:
            limit = parse_chip_limit(self._request.config.chip_limit)
            self.granted = apply_chip_limit(limit, self.device)

    def _check(self) -> Check | None:
        """Compare with the CPU at tiny; None for a workload without that size."""
        import torch

        if "tiny" not in self._found.cls.sizes:
            return None
        config = self._request.config
        tiny = discovery.instance(self._found, size="tiny", overrides={})
        check = check_output(
            tiny,
            self.phase,
            device=self.device,
            dtype=config.dtype,
            is_compiled=config.compile,
            compile_mode=config.compile_mode,
            channels_last=config.channels_last,
            seed=config.seed,
        )
        if config.compile:
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
                self._set_seed()
        return self.workload.build_net()

    def _place(self, net: nn.Module) -> nn.Module:
        config = self._request.config
        net = cast_net(net, dtype=config.dtype, is_training=self.phase.is_training)
        net = place_net(net, device=self.device)
        net.train(self.phase.is_training)
        if config.channels_last:
            net = to_channels_last(net)
        self.synchronize()
        self.adapter.empty_cache()  # of the fp32 weights of a net that is cast
        return net

    def _open_link(self) -> ModelledLink | None:
        return open_link(self._request.config, device=self.device, ranks=self._ranks)

    def _lay_out(self, net: nn.Module) -> LaidOut:
        """Lay the net over its ranks, compiled where that is asked for."""
        config = self._request.config
        return lay_out(
            net,
            workload=self.workload,
            phase=self.phase,
            layout=config.layout,
            device=self.device,
            dtype=config.dtype,
            is_compiled=config.compile,
            compile_mode=config.compile_mode,
        )

    def _move(self, batch: Any) -> Any:
        config = self._request.config
        half = None if self.phase.is_training else half_type(config.dtype)
        return move(batch, device=self.device, half=half, channels_last=config.channels_last)

    def _make_step(self, net: nn.Module) -> TrainStep | InferStep:
        kind: Any = {"device_type": self.device.type, "dtype": self._request.config.dtype}
        if self.phase.is_training:
            return TrainStep(self.workload, self.laid_out, **kind)
        return InferStep(self.workload, self.phase, self.laid_out.net, **kind)

    def _resident_feed(self, loader: Any) -> feeds.ResidentFeed:
        import torch

        ready = []
        for batch in itertools.islice(loader, feeds.RESIDENT_BATCHES):
            moved = self._move(batch)
            if not self.phase.is_training:
                dtype = self._request.config.dtype
                with torch.inference_mode(), autocast(self.device.type, dtype):
                    moved = self.workload.prepare(self.phase, self.laid_out.net, moved)
            ready.append((moved, batch))
        return feeds.ResidentFeed(ready)

    # Stepping ------------------------------------------------------------------------------------

    def step(self) -> StepCount:
        """Queue one step, all its micro-batches."""
        import torch

        taken = [self._feed.next() for _ in range(self._micro_batches)]
        batches = [batch for batch, _, _ in taken]
        if self._request.config.compile_mode:
            # What the step before left in the memory of a graph may be written over from here on.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if self.link is None:
            self._step(*batches)
        else:
            self.link.run(lambda: self._step(*batches))
        counts = [self._count(collated, waited_s) for _, collated, waited_s in taken]
        return counts[0] if len(counts) == 1 else summed(counts)

    def untraced_step(self) -> None:
        """Queue one step that counts for nothing."""
        self._step(*[self._feed.next()[0] for _ in range(self._micro_batches)])

    @property
    def _micro_batches(self) -> int:
        """Batches in one step."""
        return self.layout.grad_accum

    def begin_window(self) -> None:
        """Count memory peaks and traces from here; refuses a link that shows nothing."""
        self.adapter.reset_peak_memory()
        if self.link is not None:
            self.link.begin_window()

    def _count(self, collated: Any, waited_s: float) -> StepCount:
        """Count what a batch holds, once for each distinct batch, so that steps stay bare."""
        # Batches of a loader are alike: fixed batch size, last incomplete one dropped.
        key = id(collated) if isinstance(self._feed, feeds.ResidentFeed) else 0
        if key not in self._counts:
            self._counts[key] = counted(self.workload, self.phase, collated)
        count = self._counts[key]
        return replace(count, data_wait_s=waited_s) if waited_s else count

    def synchronize(self) -> None:
        """Wait for the device."""
        self.adapter.synchronize()

    def make_event(self) -> DeviceEvent | None:
        """Return a timing event or None."""
        return self.adapter.make_event()

    def reserved_bytes(self) -> int | None:
        """What torch's allocator holds."""
        return self.adapter.reserved_bytes()

    def compute_clock_hz(self) -> float | None:
        """Compute clock now, or None where torch does not know."""
        return self.adapter.compute_clock_hz()

    def recompiles(self) -> int | None:
        """Graphs that torch.compile made, or None when it is off."""
        if not self._request.config.compile:
            return None
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    def lacks_graphs(self) -> bool:
        """Whether anything ran without the CUDA graphs that the compile mode asks for."""
        if not self._request.config.compile_mode:
            return False
        from torch._dynamo.utils import counters

        return self.device.type != "cuda" or counters["inductor"]["cudagraph_skips"] > 0

    # Afterwards ----------------------------------------------------------------------------------

    @property
    def optimizer_label(self) -> str | None:
        """Optimizer, and whether its update is fused; None when the phase does not train."""
        return self._step.optimizer_label if isinstance(self._step, TrainStep) else None

    def losses(self) -> tuple[float | None, float | None]:
        """First and last loss; (None, None) when the phase does not train."""
        if not isinstance(self._step, TrainStep) or self._step.last_loss is None:
            return None, None
        first, last = self._step.first_loss, self._step.last_loss
        assert first is not None
        return float(first), float(last)

    def output_problem(self) -> tuple[str, str] | None:
        """Reason code and words for what is wrong with the last output, or None."""
        import torch

        first, last = self.losses()
        if last is not None:
            if math.isfinite(last):
                return None
            return "nonfinite", f"loss went from {first:.4g} to {last}"
        output = self._step.last_output if isinstance(self._step, InferStep) else None
        if not all(bool(torch.isfinite(tensor).all()) for tensor in float_tensors(output)):
            return "nonfinite", "the output has values that are not finite"
        try:
            self.workload.check(self.phase, output)
        except ValueError as error:
            return "wrong_output", str(error)
        return None
