"""What holds an emulated link together: model, link, recorder; and what the harness asks of it."""

from bisect import bisect_left
from typing import Any

import torch
import torch.distributed as dist

from bench.core.errors import UsageError
from bench.emulate.link.host_link import HostLink
from bench.emulate.replay.recording import Recorder, StepNotes
from bench.hardware.costs.cost import CostModel

_LARGE_BYTES = 2**28
"""A message whose time is all bandwidth."""


class Emulation:
    """A running process group over a modelled link, until `close`.

    Without `is_timed` an accelerator's steps are only recorded, and the model must take no time.
    """

    def __init__(
        self, *, num_ranks: int, model: CostModel, device: torch.device, is_timed: bool = True
    ) -> None:
        self.num_ranks = num_ranks
        self.model = model
        self.device = device
        self.recorder = Recorder()
        self.link = _link_for(device, recorder=self.recorder, is_timed=is_timed)
        self._compiler_bandwidths: dict[str, Any] = {}

    def begin_step(self) -> None:
        """Record from here; on an accelerator the caller has synchronised before."""
        self.link.begin_step()
        self.recorder.begin(self.link.now())

    def end_step(self) -> StepNotes:
        """Stop recording and return the step's notes; waits for an accelerator."""
        now = self.link.now()
        return self.recorder.end(now, resolve=self.link.end_step())

    def tune_compiler(self) -> None:
        """Tell inductor the modelled bandwidths: it orders collectives by what they take."""
        from torch._inductor import config

        node_size = self._node_size()
        ends = {
            "intra_node_bw": (range(min(node_size, self.num_ranks)), 1),
            # One rank of each node; a node has the adapters of all its ranks.
            "inter_node_bw": (range(0, self.num_ranks, node_size), node_size),
        }
        for name, (ranks, num_beside) in ends.items():
            if not hasattr(config, name) or len(ranks) < 2:
                continue
            group = self.model.group_of(ranks)
            time_s = self.model.cost("all_gather", num_bytes=_LARGE_BYTES, group=group).seconds
            if time_s > 0:
                self._compiler_bandwidths[name] = getattr(config, name)
                moved_bytes = num_beside * _LARGE_BYTES * (len(ranks) - 1) / len(ranks)
                setattr(config, name, max(1, round(moved_bytes / time_s / 1e9)))

    def _node_size(self) -> int:
        """How many ranks from 0 on are on one node."""
        others = range(1, self.num_ranks)
        return 1 + bisect_left(others, 2, key=lambda rank: self.model.group_of((0, rank)).num_nodes)

    def close(self) -> None:
        """Destroy the process group, end the threads, give the compiler its settings back."""
        if self._compiler_bandwidths:
            from torch._inductor import config

            for name, value in self._compiler_bandwidths.items():
                setattr(config, name, value)
            self._compiler_bandwidths = {}
        dist.destroy_process_group()
        self.link.close()


def _link_for(device: torch.device, *, recorder: Recorder, is_timed: bool) -> Any:
    if device.type == "cpu":
        return HostLink(recorder)
    if is_timed and not (device.type == "cuda" and torch.version.cuda):
        named = "ROCm" if device.type == "cuda" else device.type
        raise UsageError(
            f"a link cannot be emulated on {named}: it takes a CPU or an NVIDIA GPU, whose clock a "
            "kernel can read; use --mode simulated"
        )
    from bench.emulate.link.device_link import DeviceLink

    return DeviceLink(device, recorder=recorder, is_timed=is_timed)
