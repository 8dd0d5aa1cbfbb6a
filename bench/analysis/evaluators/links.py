"""What a narrower link costs by formula: the slowdown of a step, layout by layout.

Transformers by their sizes, other nets by a published rate or the operators of a shipped workload.
Compute runs at a stated share of the chip's peak, because nothing is measured here; the interval is
the error band of the narrower link alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from bench.analysis.claims import Bounds, Case, Evaluate, Outcome, Span
from bench.analysis.claims_facts import Facts
from bench.core.nouns import Layout
from bench.hardware.collectives import Cost, Group, Op
from bench.hardware.cost import CostModel
from bench.hardware.layouts import StepTime, Transformer, data_parallel_step, transformer_step
from bench.hardware.loader import Row
from bench.hardware.operator_mixes import load_mixes
from bench.hardware.operators import total
from bench.hardware.topology import parse_topology

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


def link_slowdown(row: Row, bounds: Bounds, unit: str) -> Evaluate:
    """Time over `narrow` against `wide`, minus 1, for every layout that the block spans.

    `tensor` and `hidden` span transformers; `data_tokens` data parallelism of `ranks` devices;
    `nets` and `mixes` other nets. `chip` computes at `compute_fraction` of its `dtype` peak.
    """
    plan = read_plan(row)

    def evaluate(facts: Facts) -> Outcome:
        ends = {end: EndModel(plan.narrow, end=end) for end in ("low_s", "seconds", "high_s")}
        base = EndModel(plan.wide)

        def cases(one: Spanned) -> Iterator[Case]:
            step, before = one.step, one.step(base)
            low, mid, high = (step(model).seconds / before.seconds - 1 for model in ends.values())
            how = (
                f"step {before.seconds * 1e3:.3g} ms on {plan.wide}, of which "
                f"{before.communication_fraction:.1%} waits for the link, and "
                f"{step(ends['seconds']).seconds * 1e3:.3g} ms on {plan.narrow}"
            )
            value = Span(low=low, mid=mid, high=high)
            yield plan.case(one.factors, value, how=how, bounds=bounds, unit=unit)

        return plan.outcome(facts, cases)

    return evaluate


@dataclass(frozen=True, kw_only=True)
class Spanned:
    """One layout: its circumstances, its step, and the net where gradients are what is sent."""

    factors: Factors
    step: Step
    net: Net | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The two links that a block sets against each other, the layouts it spans, and the chip."""

    wide: str
    narrow: str
    chip: str
    dtype: str
    compute_fraction: float
    hidden: tuple[int, ...]
    tensor: tuple[int, ...]
    data_tokens: tuple[int, ...]
    ranks: int
    overlaps: tuple[str, ...]
    nets: tuple[Net, ...]
    mixes: tuple[str, ...]

    def outcome(self, facts: Facts, cases: Callable[[Spanned], Iterator[Case]]) -> Outcome:
        """Cases of every layout; none, and what is missing, where the peak is unknown."""
        peak = facts.chips[self.chip].peak_per_s.get(self.dtype)
        if peak is None:
            return Outcome(cases=(), missing=(f"peak of {self.chip} is not known",))
        spanned = self._steps(peak * self.compute_fraction)
        return Outcome(cases=tuple(case for one in spanned for case in cases(one)))

    def case(self, factors: Factors, value: Span, *, how: str, bounds: Bounds, unit: str) -> Case:
        """One modelled case, with what compute was assumed to reach as its source."""
        return Case(
            factors=factors,
            holds=bounds.holds(value),
            value=value,
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
            for overlap in self.overlaps:
                hidden = self.hidden[len(self.hidden) // 2]
                net = _transformer(hidden)
                one = Net(
                    name="transformer",
                    gradient_bytes=net.num_parameters * net.value_bytes,
                    compute_s=net.step_flops(tokens) / flops_per_s,
                )
                factors: Factors = {"hidden size": hidden, "tokens per device": tokens}
                yield _data_step(one, factors, ranks=self.ranks, overlap=overlap)
        for other in (*self.nets, *_mix_nets(self.mixes, flops_per_s=flops_per_s)):
            for overlap in self.overlaps:
                yield _data_step(other, {}, ranks=self.ranks, overlap=overlap)


def read_plan(row: Row) -> Plan:
    """Read the links and the keys that span layouts; `UsageError` for an unknown link."""
    wide, narrow = row.need_text("wide"), row.need_text("narrow")
    for name in (wide, narrow):
        parse_topology(name)
    nets = tuple(_read_net(net) for net in row.mappings("nets"))
    return Plan(
        wide=wide,
        narrow=narrow,
        chip=row.need_text("chip"),
        dtype=row.text("dtype") or "bf16",
        compute_fraction=row.number("compute_fraction") or 0.5,
        hidden=tuple(map(int, row.numbers("hidden"))),
        tensor=tuple(map(int, row.numbers("tensor"))),
        data_tokens=tuple(map(int, row.numbers("data_tokens"))),
        ranks=row.count("ranks") or 8,
        overlaps=row.texts("overlap") or ("no", "yes"),
        nets=nets,
        mixes=row.texts("mixes"),
    )


def _read_net(row: Row) -> Net:
    """Read a net by parameters, global batch and published rate; gradients go in 16 bits."""
    parameters, batch = row.number("parameters", required=True), row.number("batch", required=True)
    rate = row.number("items_per_s", required=True)
    assert parameters is not None and batch is not None and rate is not None
    net = Net(
        name=row.need_text("name"), gradient_bytes=int(2 * parameters), compute_s=batch / rate
    )
    row.finish()
    return net


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
