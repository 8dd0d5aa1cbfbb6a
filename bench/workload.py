"""What the author of a workload writes; everything else is the harness's.

A workload is one file with one class called `Workload`, a frozen keyword-only dataclass whose
fields are its parameters. File `workloads/imaging.py` gives `imaging-train` and `imaging-infer`,
one for each of its `phases`; `bench run --workload ./mine.py` runs a file from anywhere,
`./mine.py:train` one phase of it. Phases of one object share the net, the precision and the batch,
so that their ratio compares like with like.

The author never times, prints, synchronises or moves anything: seeds, device transfer, autocast,
gradient scaling, optimizer steps, compilation, timing, memory, energy and validity belong to the
harness. Importing this module, and the shipped workload modules, does not import torch: bring heavy
libraries in inside the methods, so that `bench list` stays fast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.core.errors import UsageError
from bench.core.nouns import Dtype

if TYPE_CHECKING:
    import torch
    from torch import nn


RESIDENT_BATCHES = 4
"""Batches that lie on the device and are used in turn: no values of one stay in a cache between
its uses, and they fit."""
NUM_READ_WHOLE = 100
"""Files of --data that a check reads to their end; a broken one behind them is named when it is
loaded."""
DOMAINS = ("medical", "language", "vision", "video", "driving", "selftest", "own")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One thing to measure about a workload: a training step or one way of using the net.

    A training phase runs `loss`, backward and one optimizer step. Any other phase calls the method
    of the workload that has the phase's name, as `method(net, batch)`, under inference mode. Where
    that needs a gradient (forces of an energy), it opens `torch.inference_mode(False)` and
    `torch.enable_grad()` itself, and `prepare` leaves the batch as it is.
    """

    name: str
    item: str
    """What throughput counts, in the singular: 'patch', 'volume', 'token', 'sample'."""
    element: str | None = None
    """A finer count of the same work, in the singular, such as 'voxel'."""
    is_training: bool = False
    latency: str | None = None
    """'ttft' when a step's time is the time to first token, 'tpot' when a step makes tokens one
    after the other."""
    is_served: bool = False
    """Whether it is measured by --arrivals alone: an engine batches requests of tokens as they
    come, and the phase's method, which answers one batch, is what its answers are held to."""


TRAIN = Phase(name="train", item="sample", is_training=True)
INFER = Phase(name="infer", item="sample")


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """How tensor parallelism cuts the net's matrices; no torch in it, so it is checked early."""

    styles: Mapping[str, str] | None
    """Style by path of a module, `*` for any one part of it: 'layers.*.mlp.up_proj'. Styles:
    colwise and rowwise (a linear layer's outputs, or inputs, are cut), colwise_gather_output
    (and joined again), colwise_logits (stay cut: cross_entropy takes them so, in training),
    embedding_rowwise (the vocabulary is cut), shared_input (a parent of colwise layers that read
    the same input: its gradient is summed once). None: the plan that the transformers library has
    for the net."""
    divides: Mapping[str, int]
    """What the number of devices must divide, by name: {'heads': 32, 'kv_heads': 8}."""


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """How an engine serves a language model of the transformers library; torch-free."""

    max_batch_tokens: int
    """Tokens of all requests that one pass through the net takes at most."""
    max_requests: int
    """Requests that are served at the same time at most; further ones wait."""
    use_cuda_graph: bool


@dataclass(frozen=True, kw_only=True)
class UsedData:
    """What of --data a phase uses."""

    words: str = ""
    """Said in the plan, '' where it is all."""
    num_samples: int | None = None
    """Those that do not fill a batch are refused before anything starts; None: any number."""


@dataclass(frozen=True, kw_only=True)
class Workload(ABC):
    """One net on one kind of data. Subclass it as a frozen keyword-only dataclass."""

    declared_version: ClassVar[int] = 1
    """Raise it when what is measured changes; the source's hash is appended by the harness."""
    summary: ClassVar[str] = ""
    """One line for `bench list`."""
    phases: ClassVar[tuple[Phase, ...]] = (TRAIN, INFER)
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Field values of the named sizes: some of tiny, small, base, large."""
    is_selftest: ClassVar[bool] = False
    """True for a probe of one claim or of the harness, no net that anybody uses."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Modules that the net and the data need; importing them is timed by itself."""
    max_grad_norm: ClassVar[float | None] = None
    """Gradients are clipped to this norm before the optimizer step; None: they are not."""
    accepts_data: ClassVar[str | None] = None
    """What `--data` may be, in words ('a text file'); None: nothing."""
    domain: ClassVar[str] = "own"
    """Field of use, by which `--workload` and `bench list` take shipped ones: one of `DOMAINS`."""
    dtypes: ClassVar[tuple[Dtype, ...] | None] = None
    """Precisions in which it computes right; None: all. The device's own choice, or the first of
    these that it computes right, is the default; others are refused."""
    extras: ClassVar[Mapping[str, str]] = {}
    """Extra of gapbench that installs a module, where the base installation leaves it out:
    {'diffusers': 'video'}. Without the module no trial is begun, and the row says so."""

    batch: int = 1

    @abstractmethod
    def build_net(self) -> nn.Module:
        """Return the net in fp32 on torch's default device; the harness has seeded torch."""

    @abstractmethod
    def dataset(self, phase: Phase, *, data: Path | None, seed: int) -> Sequence[Any]:
        """Return samples for `phase`: tensors, or dicts or tuples of them, deterministic in seed.

        They carry every random draw (noise, time steps, masks): a generator differs from device to
        device, and a loss that draws could not be held against the CPU's.

        Map style (`__len__`, `__getitem__`), picklable, so that a torch DataLoader can collate them
        in worker processes. `data` is what the user gave with --data, None for generated data.
        """

    def loss(self, net: nn.Module, batch: Any) -> torch.Tensor:
        """Return the scalar training loss; runs under autocast."""
        raise NotImplementedError

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of the training phase; AdamW unless overridden."""
        import torch

        return torch.optim.AdamW(net.parameters(), lr=1e-3)

    def schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return a learning-rate scheduler stepped after every optimizer step, or None."""
        return None

    def prepare(self, phase: Phase, net: nn.Module, batch: Any) -> Any:
        """Turn a device-resident batch into what the step consumes; untimed, inference phases only.

        Called once for each resident batch before warm-up, under the same autocast and inference
        mode as the step (a decode phase fills its key/value cache here).
        """
        return batch

    def collate(self, phase: Phase) -> Any:
        """Return a collate function for the DataLoader, or None for torch's default."""
        return None

    def serving_plan(self) -> ServingPlan | None:
        """Return how an engine serves the net in a phase that `is_served`, else None.

        The phase's method takes a batch of token ids, (B, P), and returns a dict whose `ids` are
        the answers, (B, N).
        """
        return None

    # How it may be spread over devices -----------------------------------------------------------
    # ddp and fsdp need nothing from the author, as long as `loss` and the phases' methods only
    # call the net they are given, `net(...)`: the object may be torch's wrapper of the built net.
    # ddp waits for a gradient of each parameter: one that `loss` gives none has to go, or to be set
    # requires_grad False (known: mask_token of Dinov2, contact_head of ESM).

    def tensor_parallel_plan(self, phase: Phase) -> TensorPlan | None:
        """Return how to cut the net for --parallel tp, or None: it cannot be cut."""
        return None

    def shard_units(self, net: nn.Module) -> Sequence[nn.Module]:
        """Return the parts that --parallel fsdp gathers one at a time, the rest is the last one.

        Empty: the members of the net's ModuleLists, or without any its direct children.
        """
        return ()

    def refused(self, phase: Phase) -> Mapping[str, str]:
        """Return what cannot be asked of a phase, and why: 'ddp', 'fsdp', 'tp', 'pp', 'compile'."""
        return {}

    def check_stages(self, num_stages: int) -> None:
        """Raise `UsageError` unless `pipeline_stages` can cut the net into so many; torch-free."""
        raise UsageError("this net cannot be cut into pipeline stages: it has no check_stages")

    def pipeline_stages(self, net: nn.Module, *, num_stages: int) -> Sequence[nn.Module]:
        """Return the net in stages that share its parameters, for a training phase.

        Each is called as `stage(value, batch)`: value is None for the first, else the one tensor
        that the stage before returned; the last returns the scalar that `loss` would. The harness
        times each by itself, and asks `check_stages` before.
        """
        raise NotImplementedError

    def batch_size(self, phase: Phase) -> int:
        """Samples of `dataset` in one step's batch."""
        return self.batch

    @abstractmethod
    def items(self, phase: Phase, batch: Any) -> int:
        """Items (`phase.item`) that one step on this collated batch processes; None: generated."""

    def elements(self, phase: Phase, batch: Any) -> int | None:
        """Elements (`phase.element`) that one step processes; `batch` as for `items`."""
        return None

    @abstractmethod
    def num_parameters(self) -> int:
        """Parameters of the net, by formula; each trial checks them against the net."""

    @abstractmethod
    def flops_per_item(self, phase: Phase, batch: Any = None) -> float | None:
        """Model FLOPs of one item by formula (a multiply-add is 2); each trial counts a step's.

        `batch` is the collated batch where an item's cost depends on it (volumes of a --data
        folder); None asks for the generated data's cost, without torch.
        """

    def sized_as(self, phase: Phase, batch: Any) -> Workload:
        """Return this workload with generated data of the collated batch's size.

        Override it where that depends on --data: bytes and memory are asked of what is returned.
        """
        return self

    def sized_for(self, phase: Phase, data: Path) -> Workload:
        """Return this workload with generated data as large as the largest of --data; torch-free.

        What is returned is asked for the memory by which a size is chosen.
        """
        return self

    def resident_batches(self, phase: Phase) -> int:
        """Different batches that may lie on the device at most, to be used in turn.

        `memory_bytes` counts them: of inference, and of training with --data resident.
        """
        return RESIDENT_BATCHES

    def bytes_per_item(self, phase: Phase, *, dtype_bytes: int) -> float | None:
        """Least memory traffic of one item (weights, caches, activations once), or None."""
        return None

    @abstractmethod
    def memory_bytes(self, phase: Phase, *, dtype: Dtype) -> int:
        """Estimate of the peak device memory; decides which size fits."""

    def simulated_step_s(self, phase: Phase) -> float:
        """Step time on the fake device, where time is simulated; by default 1 TFLOP/s + 2 ms."""
        flops = self.flops_per_item(phase) or 0.0
        return 2e-3 + flops * self.items(phase, None) / 1e12

    def check_data(self, data: Path) -> None:
        """Raise `bench.core.errors.DataError` naming the file --data cannot use; torch-free."""

    def data_used(self, phase: Phase, data: Path) -> UsedData:
        """Return what `dataset` takes of --data; torch-free."""
        return UsedData()

    def comparable(self, phase: Phase, output: Any) -> Any:
        """Return the part of a step's output that must agree between devices up to rounding.

        The harness compares its floating-point tensors with those of an fp32 CPU reference; leave
        out what rounding may flip (a greedy token and all that follows it).
        """
        return output

    def mask(self, phase: Phase, output: Any) -> torch.Tensor | None:
        """Return the class of each voxel or pixel of an output that segments, (B, ...) integers.

        0 is the background. Where that is served, the harness holds it against eager fp32 by Dice.
        """
        return None

    def check(self, phase: Phase, output: Any) -> None:
        """Raise ValueError if the output of one step (or the loss) cannot be right."""


def number_of(answer: Any, *, method: str, least: int = 0) -> float:
    """Return the number that a method of the author's answers.

    Raises:
        UsageError: it is something else, not finite, or below `least`.
    """
    try:
        number = float(answer + 0)  # a text is no number, whatever float() reads in it
        shown = f"{number:g}"
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number, shown = math.nan, type(answer).__name__
    if not math.isfinite(number) or number < least:
        allowed = f"a finite number of {least} or more"
        raise UsageError(f"the workload's {method}() answers {shown}; it must be {allowed}")
    return number


def memory_bytes_of(workload: Workload, phase: Phase, *, dtype: Dtype) -> int:
    """Return the author's estimate in whole bytes; UsageError as in `number_of`."""
    return int(number_of(workload.memory_bytes(phase, dtype=dtype), method="memory_bytes"))
