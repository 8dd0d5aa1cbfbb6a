"""The engine that serves: requests lie in the host's memory, and each is brought to the device.

A request is one step of the phase. What it takes is what a server does with it: samples that are
served together are put together, copied, prepared by the workload, run, and waited for.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from bench.measure.engine.engine import StepCount
from bench.measure.engine.feed import Feed
from bench.measure.engine.precision import (
    autocast,
    move,
    place_net,
    set_matmul_precision,
    tensors,
)
from bench.measure.engine.torch_engine import TorchEngine
from bench.serve.arrivals import equal_issue


class ServingEngine(TorchEngine):
    """Steps whose data comes from the host, one request after the other or several together."""

    _requests: list[list[Any]]
    """Samples of each distinct request."""
    _collated: list[Any]
    """The same, each put together for being served alone."""

    def _resident_feed(self, loader: Any) -> Feed:
        size = int(loader.batch_size)
        num = min(len(loader.dataset) // size, self.workload.resident_batches(self.phase))
        self._requests = [
            [loader.dataset[place] for place in range(first * size, (first + 1) * size)]
            for first in range(num)
        ]
        if not self._requests:
            raise ValueError("a server needs at least one request")
        self._put_together = self.workload.collate(self.phase) or default_collate
        self._collated = [self._put_together(samples) for samples in self._requests]
        for collated in self._collated:
            self._count(collated, 0.0)
        self.resident = list(self._counts.values())
        self.round_steps = num if len(set(self.resident)) > 1 else 1
        return self._brought()

    def _brought(self) -> Feed:
        """Each request in turn, brought to the device when it is asked for."""
        for place in itertools.chain.from_iterable(self._rounds()):
            yield self._bring(self._collated[place]), self._collated[place], 0.0

    def _rounds(self) -> Iterator[list[int]]:
        num = len(self._requests)
        return (equal_issue(num, num=num, seed=one) for one in itertools.count(self.config.seed))

    def _bring(self, collated: Any) -> Any:
        moved = self._move(collated)
        with torch.inference_mode(), autocast(self.device.type, self.config.dtype):
            return self.workload.prepare(self.phase, self.laid_out.net, moved)

    def step(self) -> StepCount:
        """Serve one request, as when nobody waits."""
        count = super().step()
        self.adapter.synchronize()
        return count

    @property
    def num_distinct(self) -> int:
        """Distinct requests."""
        return len(self._requests)

    def shape_of(self, request: int) -> Hashable:
        """Return what is equal for requests that can be served together."""
        return tuple(tuple(one.shape) for one in tensors(self._collated[request]))

    def serve(self, requests: Sequence[int]) -> Any:
        """Serve these distinct requests together; return their output, all on the device."""
        if len(requests) == 1:
            collated = self._collated[requests[0]]
        else:
            samples = [sample for one in requests for sample in self._requests[one]]
            collated = self._put_together(samples)
        if self.config.compile_mode:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self._step(self._bring(collated))
        self.adapter.synchronize()
        return self._step.last_output  # type: ignore[union-attr]

    def plain_outputs(self, requests: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Yield what these requests get one at a time from the same weights in eager fp32.

        The last use of the engine: the device computes in fp32 from there on.
        """
        self.adapter.empty_cache()
        set_matmul_precision("fp32")
        torch.manual_seed(self.config.seed)
        net = place_net(self._build_net(), device=self.device).eval()
        for place in requests:
            batch = move(self._collated[place], device=self.device, half=None, channels_last=False)
            with torch.inference_mode():
                ready = self.workload.prepare(self.phase, net, batch)
                output = getattr(self.workload, self.phase.name)(net, ready)
            yield place, output

    def stop_bringing(self) -> None:
        """Take steps from here on with one request that is there: what it does can be counted."""
        self._feed = itertools.cycle([next(self._feed)])

    def warm_batches(self, most: int) -> None:
        """Serve each number of requests of each shape once, so that no user is the first."""
        alike: dict[Hashable, list[int]] = {}
        for one in range(self.num_distinct):
            alike.setdefault(self.shape_of(one), []).append(one)
        for places in alike.values():
            for num in range(2, most + 1):
                self.serve([places[place % len(places)] for place in range(num)])
