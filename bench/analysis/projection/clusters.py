"""A decoder's training step on a cluster that nobody here has: interval, memory, ranked layouts.

Rates are what the catalogue says a chip reaches; the step is `bench.hardware.costs`' formula. Each
end of each rate is tried by itself, and the changes are put together as if they were independent.
What formulas of this kind leave out widens the interval, by what others' were found to be off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, log, sqrt
from typing import Literal, get_args

from bench.analysis.projection.projected import USABLE_FRACTION
from bench.analysis.projection.roofs import (
    SERVER_SPREAD,
    Estimate,
    RateSpan,
    Unknown,
    band,
    catalogue_roofs,
    fact,
)
from bench.core.errors import UsageError
from bench.core.nouns import Chip, Layout
from bench.hardware.chips import load_chips
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.training_jobs import ChipSpeed, Recompute, TrainingJob, TrainingTime
from bench.hardware.costs.training_memory import training_memory_bytes
from bench.hardware.costs.training_step import Bound, training_step

FORMULA_SPREAD = 1.15
"""How far formulas of steps were found to be off: vTrain 8.4 % in one node and 14.7 % over several
(https://arxiv.org/abs/2312.12391); theirs starts from operators timed on the chip."""
MEMORY_SPREAD = 1.2
"""What allocator, communication buffers and driver may add to the tensors counted; judgement."""
ATTENTION = band(0.50, 0.73, basis="FlashAttention-2 on A100, https://arxiv.org/abs/2307.08691")
ATTENTION_HOPPER = band(
    0.34, 0.62, basis="FlashAttention-2 and -3, causal, H100, https://arxiv.org/abs/2407.08608"
)
"""Fraction of the peak in 16 bits that a fused kernel reaches forward, heads 128 wide."""
BACKWARD_ATTENTION = 0.63 / 0.73
"""Backward over forward, at best of each on A100: https://arxiv.org/abs/2307.08691."""
HOPPER = ("GH100",)
Ends = Literal["low", "mid", "high"]
RECOMPUTES: tuple[Recompute, ...] = get_args(Recompute)
MICRO_BATCHES = (1, 2, 4, 8)
"""What a search tries."""
AS_GOOD = 1.01
"""A pipeline of more chunks has to win more than this."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices of one chip with their link, and what is known of their rates."""

    chip: Chip
    model: CostModel | None
    """None: one device."""
    devices: int
    dtype: str
    matrix: RateSpan
    memory: RateSpan
    attention: RateSpan
    """FLOP/s forward of a fused kernel."""
    compute_factor: float = 1.0
    """Measured over predicted time on one device; 1 where nothing was measured."""
    basis: str = ""

    def speed(
        self, *, matrix: Ends = "mid", memory: Ends = "mid", attention: Ends = "mid"
    ) -> ChipSpeed:
        """Rates with some of them at one end."""
        return ChipSpeed(
            matrix_flops_per_s=getattr(self.matrix, matrix),
            memory_bytes_per_s=getattr(self.memory, memory),
            attention_flops_per_s=getattr(self.attention, attention),
            attention_backward_flops_per_s=BACKWARD_ATTENTION * getattr(self.attention, attention),
            compute_units=int(fact(self.chip, "compute_units")) or None,
        )

    def step(self, job: TrainingJob, *, speed: ChipSpeed, bound: Bound = "seconds") -> TrainingTime:
        """One step in parts; what the device itself does is scaled by what was measured."""
        time = training_step(job, chip=speed, model=self.model, bound=bound)
        factor = self.compute_factor
        return replace(
            time,
            products_s=factor * time.products_s,
            attention_s=factor * time.attention_s,
            elementwise_s=factor * time.elementwise_s,
            bubble_s=factor * time.bubble_s,
            optimizer_s=factor * time.optimizer_s,
        )


@dataclass(frozen=True, kw_only=True)
class ClusterStep:
    """One layout on one cluster."""

    cluster: Cluster
    job: TrainingJob
    parts: TrainingTime
    time_s: Estimate
    memory_bytes: Estimate

    @property
    def tokens_per_s(self) -> Estimate:
        """Of all devices."""
        return self.time_s.inverse(self.job.step_tokens)

    @property
    def mfu(self) -> Estimate | None:
        """Model FLOPs over the peak of the dtype; None where that is not known."""
        peak = self.cluster.chip.peak_per_s.get(self.cluster.dtype)
        if peak is None:
            return None
        flops = self.job.step_tokens * self.job.net.flops_per_token
        return self.time_s.inverse(flops / (peak * self.cluster.devices))

    @property
    def fits(self) -> bool:
        """Whether what was counted is less than what programs get of the chip's memory."""
        return self.memory_bytes.mid <= usable_bytes(self.cluster.chip)


def usable_bytes(chip: Chip) -> float:
    """What programs get of a chip's memory; all that is asked for where it is not known."""
    return USABLE_FRACTION * chip.memory_bytes if chip.memory_bytes else float("inf")


def cluster_of(chip: Chip, *, devices: int, model: CostModel | None, dtype: str) -> Cluster:
    """Take a chip's rates out of the catalogue; `UsageError` where they are not known."""
    roofs = catalogue_roofs(chip, dtype=dtype)
    if isinstance(roofs, Unknown):
        raise UsageError(f"{chip.id}: {roofs.reason}: nothing can be projected to it")
    if roofs.dtype != dtype or dtype not in ("bf16", "fp16"):
        other = "fp16" if dtype == "bf16" else "bf16"
        instead = catalogue_roofs(chip, dtype=other)
        is_other = not isinstance(instead, Unknown) and instead.dtype == other
        raise UsageError(
            f"{chip.id} has no known peak in {dtype}"
            + (f"; try --dtype {other}" if is_other else "")
            if dtype in ("bf16", "fp16")
            else f"--net is projected in bf16 or fp16, not in {dtype}"
        )
    fraction = ATTENTION_HOPPER if chip.facts.get("silicon") in HOPPER else ATTENTION
    return Cluster(
        chip=chip, model=model, devices=devices, dtype=dtype,
        matrix=roofs.matrix, memory=roofs.memory,
        attention=fraction.times(chip.peak_per_s[dtype], what=f"{dtype} peak"),
        basis=f"products {roofs.matrix.basis}; memory {roofs.memory.basis}; fused attention "
        f"{fraction.basis}{'' if chip.vendor == 'nvidia' else ', taken over for this chip'}",
    )  # fmt: skip


def projected_step(cluster: Cluster, job: TrainingJob) -> ClusterStep:
    """Time with its interval, and memory, of one layout."""
    parts = cluster.step(job, speed=cluster.speed())
    variances = {"low": 0.0, "high": 0.0}
    # A high rate makes a step short, a high price of the link makes it long.
    ends: tuple[Ends, ...] = ("low", "high")
    for end in ends:
        bound: Bound = "low_s" if end == "high" else "high_s"
        tried = [
            cluster.step(job, speed=cluster.speed(matrix=end)),
            cluster.step(job, speed=cluster.speed(memory=end)),
            cluster.step(job, speed=cluster.speed(attention=end)),
            cluster.step(job, speed=cluster.speed(), bound=bound),
        ]
        side = "high" if end == "low" else "low"
        variances[side] = sum(log(one.seconds / parts.seconds) ** 2 for one in tried)
    known = log(FORMULA_SPREAD) ** 2 + log(SERVER_SPREAD) ** 2
    seconds = parts.seconds
    # Whatever rates and formula are off by, no chip passes its peak, or what was measured above it.
    peak_per_s = max(cluster.chip.peak_per_s[cluster.dtype], cluster.matrix.high) * cluster.devices
    least_s = min(seconds, job.step_tokens * job.net.computed_flops_per_token / peak_per_s)
    counted = training_memory_bytes(job)
    return ClusterStep(
        cluster=cluster,
        job=job,
        parts=parts,
        time_s=Estimate(
            low=max(least_s, seconds * exp(-sqrt(variances["low"] + known))),
            mid=seconds,
            high=seconds * exp(sqrt(variances["high"] + known)),
        ),
        memory_bytes=Estimate(low=counted, mid=counted, high=counted * MEMORY_SPREAD),
    )


def check_job(job: TrainingJob) -> None:
    """Raise `UsageError` in one line when a layout cannot run this net."""
    net, layout = job.net, job.layout
    tensor, stages = layout.tensor, layout.pipeline
    if job.software.shards_weights and stages > 1:
        raise UsageError(f"--software fsdp has no pipeline here: leave out --pp {stages}")
    if net.heads % tensor or net.ffn % tensor:
        raise UsageError(f"--tp {tensor} does not divide {net.heads} heads and {net.ffn} of --net")
    if net.layers % (stages * job.chunks):
        parts = f"--pp {stages}" + (f" times {job.chunks} chunks" if job.chunks > 1 else "")
        raise UsageError(f"{parts} does not divide the {net.layers} layers of --net")
    if job.chunks > 1 and (stages < 2 or layout.grad_accum % stages):
        raise UsageError(
            f"an interleaved pipeline needs --pp over 1 and micro-batches in multiples of it, "
            f"not --pp {stages} with {layout.grad_accum} micro-batches"
        )


def passes_of(*, global_batch: int, data: int, micro_batch: int) -> int:
    """Micro-batches of a step on one device; `UsageError` where they do not come out even."""
    passes, rest = divmod(global_batch, data * micro_batch)
    if rest or not passes:
        raise UsageError(
            f"--global-batch {global_batch} is no multiple of --dp {data} times "
            f"--micro-batch {micro_batch}"
        )
    return passes


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]


def candidates(
    job: TrainingJob, *, devices: int, global_batch: int, node: int
) -> Iterator[TrainingJob]:
    """Layouts that can run: tensor ranks inside a node, stages, replicas, passes, what is computed
    again, and chunks of an interleaved pipeline.

    The job's own layout is left out of account; its net and its software are kept.
    """
    net = job.net
    for tensor in _divisors(min(devices, node)):
        if devices % tensor or net.heads % tensor or net.ffn % tensor:
            continue
        for stages in _divisors(devices // tensor):
            data = devices // (tensor * stages)
            if net.layers % stages or (stages > 1 and job.software.shards_weights):
                continue
            for micro_batch in MICRO_BATCHES:
                if global_batch % (data * micro_batch):
                    continue
                passes = global_batch // (data * micro_batch)
                layout = Layout(tensor=tensor, pipeline=stages, data=data, grad_accum=passes)
                interleaves = stages > 1 and passes % stages == 0
                chunks = _divisors(net.layers // stages) if interleaves else [1]
                for recompute, each in product(RECOMPUTES, chunks):
                    if not (recompute == "selective" and net.is_fused):  # it would save nothing
                        yield replace(
                            job, layout=layout, micro_batch=micro_batch, recompute=recompute,
                            chunks=each,
                        )  # fmt: skip


def ranked(cluster: Cluster, jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Those that fit in memory, the fastest first, each layout once.

    Its pipeline has the fewest chunks that are as good as any: what each costs in launches is in no
    formula.
    """
    room, speed = usable_bytes(cluster.chip), cluster.speed()
    found: dict[TrainingJob, list[tuple[int, float]]] = {}
    for job in jobs:
        if training_memory_bytes(job) <= room:
            seconds = cluster.step(job, speed=speed).seconds
            found.setdefault(replace(job, chunks=1), []).append((job.chunks, seconds))
    best = []
    for job, tried in found.items():
        enough_s = AS_GOOD * min(seconds for _, seconds in tried)
        chunks, seconds = next(one for one in sorted(tried) if one[1] <= enough_s)
        best.append((seconds, replace(job, chunks=chunks)))
    return [job for _, job in sorted(best, key=lambda one: one[0])]


def uncut(chip: Chip) -> Chip | None:
    """The chip that this one is, but for a narrower link; None where there is none."""
    alike = ("silicon", "form_factor", "compute_units")
    own = fact(chip, "link_bytes_per_s")
    return next(
        (
            one
            for one in load_chips()
            if one.vendor == chip.vendor
            and own
            and fact(one, "link_bytes_per_s") > own
            and one.memory_bytes == chip.memory_bytes
            and one.peak16_per_s == chip.peak16_per_s
            and all(one.facts.get(name) == chip.facts.get(name) for name in alike)
        ),
        None,
    )
