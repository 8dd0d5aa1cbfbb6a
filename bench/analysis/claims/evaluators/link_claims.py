"""What a narrower link costs by formula: the slowdown of a step, layout by layout.

Transformers by their sizes, other nets by a published rate or the operators of a shipped workload.
Compute runs at a stated share of the chip's peak, because nothing is measured here; the interval is
the error band of the narrower link alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.analysis.claims.claim import Bounds, Case, ClaimCases, ClaimTest, Span
from bench.analysis.claims.claims_facts import ClaimFacts
from bench.core.errors import BenchError
from bench.core.nouns import Layout
from bench.hardware.costs.collectives import Cost, Group, Op
from bench.hardware.costs.cost import CostModel
from bench.hardware.costs.layouts import StepTime, Transformer, data_parallel_step, transformer_step
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text
from bench.hardware.operator_mixes import load_mixes
from bench.hardware.operators import total

Factors = dict[str, str | float]
Step = Callable[[CostModel], StepTime]
"""One step as a function of the link."""
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


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net whose step was timed by others, or follows from FLOPs and a rate."""

    name: str
    gradient_bytes: int
    compute_s: float


@dataclass(frozen=True, kw_only=True)
class Spanned:
    """One layout: its circumstances, its step, and the net where gradients are what is sent."""

    factors: Factors
    step: Step
    net: Net | None = None


def check_links(*names: str) -> None:
    """Refuse a link that nobody knows."""
    for name in names:
        try:
            parse_topology(name)
        except BenchError as error:
            raise ValueError(str(error)) from None


class _Net(Declared, frozen=True, kw_only=True):
    name: Text
    parameters: Number
    batch: Number
    """Of all devices together."""
    items_per_s: AboveZero
    """As published."""


class LinkPlan(ClaimTest, frozen=True, kw_only=True):
    """The two links that a block sets against each other, the layouts it spans, and the chip."""

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

    def spanned(self, facts: ClaimFacts, cases: Callable[[Spanned], Iterator[Case]]) -> ClaimCases:
        """Cases of every layout; none, and what is missing, where the peak is unknown."""
        peak = facts.chips[self.chip].peak_per_s.get(self.dtype)
        if peak is None:
            return ClaimCases(cases=(), missing=(f"peak of {self.chip} is not known",))
        spanned = self._steps(peak * self.compute_fraction)
        return ClaimCases(cases=tuple(case for one in spanned for case in cases(one)))

    def case(self, factors: Factors, value: Span, *, how: str, bounds: Bounds, unit: str) -> Case:
        """One modelled case, with what compute was assumed to reach as its source."""
        return bounds.case(
            value,
            factors=factors,
            unit=unit,
            how=f"{how}; asked {bounds.words}",
            basis="modelled",
            source=f"cost model of {self.wide} and {self.narrow}; compute at "
            f"{self.compute_fraction:.0%} of the {self.dtype} peak of {self.chip}",
        )

    def _steps(self, flops_per_s: float) -> Iterator[Spanned]:
        """Every layout that the block spans."""
        for hidden in self.hidden:
            for tensor in self.tensor:
                yield _tensor_step(hidden, tensor, flops_per_s=flops_per_s)
        for tokens in self.data_tokens:
            for overlap in self.overlap:
                hidden = self.hidden[len(self.hidden) // 2]
                net = _transformer(hidden)
                one = Net(
                    name="transformer",
                    gradient_bytes=net.num_parameters * net.value_bytes,
                    compute_s=net.step_flops(tokens) / flops_per_s,
                )
                factors: Factors = {"hidden size": hidden, "tokens per device": tokens}
                yield _data_step(one, factors, ranks=self.ranks, overlap=overlap)
        for other in (*map(_published, self.nets), *_mix_nets(self.mixes, flops_per_s=flops_per_s)):
            for overlap in self.overlap:
                yield _data_step(other, {}, ranks=self.ranks, overlap=overlap)


class LinkSlowdown(LinkPlan, tag="link-slowdown", frozen=True, kw_only=True):
    """Time over `narrow` against `wide`, minus 1, for every layout that the block spans.

    `tensor` and `hidden` span transformers; `data_tokens` data parallelism of `ranks` devices;
    `nets` and `mixes` other nets. `chip` computes at `compute_fraction` of its `dtype` peak.
    """

    def outcome(self, facts: ClaimFacts, *, bounds: Bounds, unit: str) -> ClaimCases:
        """Compute the cases."""
        ends = {end: EndModel(self.narrow, end=end) for end in ("low_s", "seconds", "high_s")}
        base = EndModel(self.wide)

        def cases(one: Spanned) -> Iterator[Case]:
            step, before = one.step, one.step(base)
            low, mid, high = (step(model).seconds / before.seconds - 1 for model in ends.values())
            how = (
                f"step {before.seconds * 1e3:.3g} ms on {self.wide}, of which "
                f"{before.communication_fraction:.1%} waits for the link, and "
                f"{step(ends['seconds']).seconds * 1e3:.3g} ms on {self.narrow}"
            )
            value = Span(low=low, mid=mid, high=high)
            yield self.case(one.factors, value, how=how, bounds=bounds, unit=unit)

        return self.spanned(facts, cases)


def _published(net: _Net) -> Net:
    """Gradients go in 16 bits."""
    size_bytes = int(2 * net.parameters)
    return Net(name=net.name, gradient_bytes=size_bytes, compute_s=net.batch / net.items_per_s)


def _mix_nets(names: tuple[str, ...], *, flops_per_s: float) -> list[Net]:
    mixes = {mix.id: mix for mix in load_mixes()}
    return [
        Net(
            name=mixes[name].workload,
            gradient_bytes=4 * mixes[name].parameters,
            compute_s=total(mixes[name].operators, "flops") / flops_per_s,
        )
        for name in names
    ]


def _transformer(hidden: int) -> Transformer:
    return Transformer(hidden=hidden, num_layers=NUM_LAYERS, sequence_length=SEQUENCE_LENGTH)


def _tensor_step(hidden: int, ranks: int, *, flops_per_s: float) -> Spanned:
    def step(model: CostModel) -> StepTime:
        return transformer_step(
            _transformer(hidden),
            layout=Layout(strategy="tp", tensor=ranks),
            tokens_per_micro_batch=SEQUENCE_LENGTH,
            num_micro_batches=1,
            flops_per_s=flops_per_s,
            model=model,
        )

    factors: Factors = {"net": "transformer", "split": "tensor", "ranks": ranks}
    return Spanned(factors=factors | {"hidden size": hidden, "overlap": "no"}, step=step)


def _data_step(net: Net, more: Factors, *, ranks: int, overlap: str) -> Spanned:
    def step(model: CostModel) -> StepTime:
        return data_parallel_step(
            net.compute_s,
            gradient_bytes=net.gradient_bytes,
            num_devices=ranks,
            model=model,
            is_overlapped=overlap == "yes",
        )

    factors: Factors = {"net": net.name, "split": "data", "ranks": ranks}
    return Spanned(factors=factors | more | {"overlap": overlap}, step=step, net=net)
