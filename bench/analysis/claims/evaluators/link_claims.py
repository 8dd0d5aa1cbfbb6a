"""What a narrower link costs by formula: the slowdown of a step, layout by layout.

Transformers by their sizes, other nets by a published rate or the operators of a shipped workload.
Compute runs at a stated share of the chip's peak, because nothing is measured here; the interval is
the error band of the narrower link alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from bench.analysis.claims.claim_cases import ClaimCase, ClaimTest, Factors, Span, span_of
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.core.errors import BenchError
from bench.core.nouns import Layout
from bench.hardware.costs.collectives import Cost, Group, Op
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.layouts import StepTime, Transformer, data_parallel_step, transformer_step
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text
from bench.hardware.operators import load_mixes, total

Step = partial[StepTime]
"""One step that only lacks `model`, the link."""
SEQUENCE_LENGTH = 4096
NUM_LAYERS = 32
"""Communication and compute both grow with it, so that the share hardly depends on it."""


class EndModel(CostModel):
    """A cost model whose every answer is one end of its error band."""

    def __init__(self, topology: str, *, end: str = "seconds") -> None:
        super().__init__(parse_topology(topology))
        self._end = end

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        """Return the cost with this end in place of the middle."""
        cost = super().cost(op, num_bytes=num_bytes, group=group)
        return replace(cost, seconds=getattr(cost, self._end))


def check_links(*names: str) -> None:
    """Refuse a link that nobody knows."""
    for name in names:
        try:
            parse_topology(name)
        except BenchError as error:
            raise ValueError(str(error)) from None


def transformer(hidden: int, *, num_layers: int = NUM_LAYERS) -> Transformer:
    """Return a transformer of one width."""
    return Transformer(hidden=hidden, num_layers=num_layers, sequence_length=SEQUENCE_LENGTH)


def split_step(net: Transformer, split: str, ranks: int, *, flops_per_s: float) -> Step:
    """Step of one sequence, split by tensors or by data, without overlap."""
    layout = Layout(strategy="tp", tensor=ranks) if split == "tensor" else Layout(data=ranks)
    return partial(
        transformer_step,
        net,
        layout=layout,
        num_tokens=SEQUENCE_LENGTH,
        flops_per_s=flops_per_s,
    )


class _Net(Declared, frozen=True, kw_only=True):
    name: Text
    parameters: Number
    batch: Number
    """Of all devices together."""
    items_per_s: AboveZero
    """As published."""


class LinkPlan(ClaimTest, frozen=True, kw_only=True):
    """The two links that a block sets against each other, the layouts it spans, and the chip.

    `tensor` and `hidden` span transformers; `data_tokens` data parallelism of `ranks` devices;
    `nets` and `mixes` other nets. `chip` computes at `compute_fraction` of its `dtype` peak.
    """

    wide: Text
    narrow: Text
    chip: Text
    dtype: Text = "bf16"
    compute_fraction: Number = 0.5
    hidden: tuple[Count, ...] = ()
    tensor: tuple[Count, ...] = ()
    data_tokens: tuple[Count, ...] = ()
    ranks: Count = 8
    overlap: tuple[Text, ...] = ("no", "yes")
    nets: tuple[_Net, ...] = ()
    mixes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        check_links(self.wide, self.narrow)

    def cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        """Figures of every layout; what is missing where the peak is unknown."""
        peak = facts.chips[self.chip].peak_per_s.get(self.dtype)
        if peak is None:
            yield f"peak of {self.chip} is not known"
            return
        for factors, step in self._steps(peak * self.compute_fraction):
            for more, value, how in self.figures(factors, step):
                yield ClaimCase(
                    factors={**more, **factors},
                    value=value,
                    how=how,
                    basis="modelled",
                    source=f"cost model of {self.wide} and {self.narrow}; compute at "
                    f"{self.compute_fraction:.0%} of the {self.dtype} peak of {self.chip}",
                )

    def figures(self, factors: Factors, step: Step) -> Iterator[tuple[Factors, Span, str]]:
        """Of one layout: further circumstances, the figure, and how it came about."""
        raise NotImplementedError

    def _steps(self, flops_per_s: float) -> Iterator[tuple[Factors, Step]]:
        for hidden, ranks in ((h, t) for h in self.hidden for t in self.tensor):
            step = split_step(transformer(hidden), "tensor", ranks, flops_per_s=flops_per_s)
            factors: Factors = {"net": "transformer", "split": "tensor", "ranks": ranks}
            yield {**factors, "hidden size": hidden, "overlap": "no"}, step
        for net, more, gradient_bytes, compute_s in self._nets(flops_per_s):
            for overlap in self.overlap:
                factors = {"net": net, "split": "data", "ranks": self.ranks}
                yield {**factors, **more, "overlap": overlap}, partial(
                    data_parallel_step, compute_s, gradient_bytes=gradient_bytes,
                    num_devices=self.ranks, is_overlapped=overlap == "yes",
                )  # fmt: skip

    def _nets(self, flops_per_s: float) -> Iterator[tuple[str, Factors, int, float]]:
        """Nets under data parallelism: name, circumstances, bytes of gradients, compute in s."""
        for tokens in self.data_tokens:
            hidden = self.hidden[len(self.hidden) // 2]
            net, more = transformer(hidden), {"hidden size": hidden, "tokens per device": tokens}
            size_bytes = net.num_parameters * net.value_bytes
            yield "transformer", more, size_bytes, net.step_flops(tokens) / flops_per_s
        for one in self.nets:  # gradients go in 16 bits
            yield one.name, {}, int(2 * one.parameters), one.batch / one.items_per_s
        mixes = {mix.id: mix for mix in load_mixes()}
        for mix in (mixes[name] for name in self.mixes):
            compute_s = total(mix.operators, "flops") / flops_per_s
            yield mix.workload, {}, 4 * mix.parameters, compute_s


class LinkSlowdown(LinkPlan, tag="link-slowdown", frozen=True, kw_only=True):
    """Time over `narrow` against `wide`, minus 1, for every layout that the block spans."""

    def figures(self, factors: Factors, step: Step) -> Iterator[tuple[Factors, Span, str]]:
        """One figure."""
        ends = ("seconds", "low_s", "high_s")
        slow, *others = (step(model=EndModel(self.narrow, end=end)) for end in ends)
        before = step(model=EndModel(self.wide))
        how = (
            f"step {before.seconds * 1e3:.3g} ms on {self.wide}, of which "
            f"{before.communication_fraction:.1%} waits for the link, and "
            f"{slow.seconds * 1e3:.3g} ms on {self.narrow}"
        )
        yield {}, span_of(*(one.seconds / before.seconds - 1 for one in (slow, *others))), how
