"""What a link costs by formula: slowdowns, what mitigations win back, shares, far regions.

Transformers by their sizes, other nets by a published rate or the operators of a shipped workload.
Compute runs at a stated share of the chip's bf16 peak, because nothing is measured here. Time only:
what a mitigation does to learning is measured elsewhere, on real ranks.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Literal

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, ClaimTest, Factors, span_of
from bench.analysis.projection.exchange import GRADIENT_BYTES
from bench.analysis.projection.projected import TRAINED_BYTES, USABLE_FRACTION
from bench.analysis.projection.roofs import Estimate
from bench.core.errors import BenchError
from bench.core.nouns import Chip, Layout
from bench.hardware.costs.collectives import Cost, Group, Op
from bench.hardware.costs.cost import CostModel, data_parallel_step
from bench.hardware.costs.training_jobs import SOFTWARE, ChipSpeed, TrainingJob, TrainingTime
from bench.hardware.costs.training_nets import DecoderNet, bare_decoder
from bench.hardware.costs.training_step import VALUE_BYTES, training_step
from bench.hardware.links.topology import parse_topology
from bench.hardware.loader import AboveZero, Count, Declared, Number, Text
from bench.hardware.operators import load_mixes, total

Step = partial[TrainingTime]
"""One step that only lacks `model`, the link."""
_FigureHow = tuple[Factors, Estimate, str]
COMPUTE_FRACTION = 0.5
"""Share of its peak at which a chip is assumed to compute."""
SEQUENCE_LENGTH = 4096
NUM_LAYERS = 32
"""Communication and compute both grow with it, so that the share hardly depends on it."""
WIDTH_OF_LAYER = 128
"""Layers grow with width: one for each 128, as in GPT-3's family (https://arxiv.org/abs/2005.14165)."""
LEAST_SLOWDOWN = 0.01
"""Below this a layout has nothing that a mitigation could win back."""
SITES = 2


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


def _transformer(hidden: int, *, num_layers: int = NUM_LAYERS) -> DecoderNet:
    return bare_decoder(hidden=hidden, layers=num_layers, sequence=SEQUENCE_LENGTH)


def _split_step(net: DecoderNet, split: str, ranks: int, *, flops_per_s: float) -> Step:
    """Step of one sequence, split by tensors or by data, without overlap."""
    layout = Layout(strategy="tp", tensor=ranks) if split == "tensor" else Layout(data=ranks)
    job = TrainingJob(
        net=net, layout=layout, micro_batch=1, recompute="none", software=SOFTWARE["2021"]
    )
    return partial(training_step, job, chip=ChipSpeed.flat(flops_per_s))


class _Net(Declared, frozen=True, kw_only=True):
    name: Text
    parameters: Number
    batch: Number
    """Of all devices together."""
    items_per_s: AboveZero
    """As published."""


class _LinkPlan(ClaimTest, frozen=True, kw_only=True):
    """The two links that a block sets against each other, the layouts it spans, and the chip.

    `tensor` and `hidden` span transformers; `data_tokens` data parallelism of `ranks` devices;
    `nets` and `mixes` other nets.
    """

    wide: Text
    narrow: Text
    chip: Text
    hidden: tuple[Count, ...] = ()
    tensor: tuple[Count, ...] = ()
    data_tokens: tuple[Count, ...] = ()
    ranks: Count = 8
    overlap: tuple[Text, ...] = ("no", "yes")
    nets: tuple[_Net, ...] = ()
    mixes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        check_links(self.wide, self.narrow)

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        peak = facts.chips[self.chip].peak_per_s.get("bf16")
        if peak is None:
            yield f"peak of {self.chip} is not known"
            return
        source = (
            f"cost model of {self.wide} and {self.narrow}; compute at {COMPUTE_FRACTION:.0%} of "
            f"the bf16 peak of {self.chip}"
        )
        for factors, step in self._steps(peak * COMPUTE_FRACTION):
            for more, value, how in self._figures(factors, step):
                named = {**more, **factors}
                yield ClaimCase(
                    factors=named, value=value, how=how, basis="modelled", source=source
                )

    def _figures(self, factors: Factors, step: Step) -> Iterator[_FigureHow]:
        """Of one layout: further circumstances, the figure, and how it came about."""
        raise NotImplementedError

    def _steps(self, flops_per_s: float) -> Iterator[tuple[Factors, Step]]:
        for hidden, ranks in product(self.hidden, self.tensor):
            step = _split_step(_transformer(hidden), "tensor", ranks, flops_per_s=flops_per_s)
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
            net, more = _transformer(hidden), {"hidden size": hidden, "tokens per device": tokens}
            size_bytes = net.num_parameters * VALUE_BYTES
            yield "transformer", more, size_bytes, tokens * net.flops_per_token / flops_per_s
        for one in self.nets:  # gradients go in 16 bits
            yield one.name, {}, int(2 * one.parameters), one.batch / one.items_per_s
        mixes = {mix.id: mix for mix in load_mixes()}
        for mix in (mixes[name] for name in self.mixes):
            compute_s = total(mix.operators, "flops") / flops_per_s
            yield mix.workload, {}, GRADIENT_BYTES * mix.parameters, compute_s


class LinkSlowdown(_LinkPlan, tag="link-slowdown", frozen=True, kw_only=True):
    """Time over `narrow` against `wide`, minus 1, for every layout that the block spans.

    The interval is the error band of the narrower link alone.
    """

    def _figures(self, factors: Factors, step: Step) -> Iterator[_FigureHow]:
        ends = ("seconds", "low_s", "high_s")
        slow, *others = (step(model=EndModel(self.narrow, end=end)) for end in ends)
        before = step(model=EndModel(self.wide))
        how = (
            f"step {before.seconds * 1e3:.3g} ms on {self.wide}, of which "
            f"{before.communication_fraction:.1%} waits for the link, and "
            f"{slow.seconds * 1e3:.3g} ms on {self.narrow}"
        )
        yield {}, span_of(*(one.seconds / before.seconds - 1 for one in (slow, *others))), how


class _Method(Declared, frozen=True, kw_only=True):
    """What a mitigation does to the exchange of gradients."""

    steps: AboveZero = 1.0
    """Steps of compute for one exchange."""
    bytes_fraction: AboveZero = 1.0
    overlap: bool = False


class MitigationShare(_LinkPlan, tag="mitigation", frozen=True, kw_only=True):
    """Share of the slowdown from `wide` to `narrow` that each of `methods` takes away.

    `methods: {name: {steps: 4, bytes_fraction: 0.5, overlap: yes}}`. Tensor parallelism sends
    activations inside every layer, which none of these touches.
    """

    methods: dict[str, _Method]

    def _figures(self, factors: Factors, step: Step) -> Iterator[_FigureHow]:
        narrow = EndModel(self.narrow)
        fast_s, slow_s = step(model=EndModel(self.wide)).seconds, step(model=narrow).seconds
        if slow_s - fast_s < LEAST_SLOWDOWN * fast_s:
            return
        for name, method in self.methods.items():
            if factors["split"] == "tensor":
                mitigated_s, why = slow_s, "it does not touch activations"
            else:
                size_bytes = int(step.keywords["gradient_bytes"] * method.bytes_fraction)
                overlaps = method.overlap or step.keywords["is_overlapped"]
                step_time = step(model=narrow, gradient_bytes=size_bytes, is_overlapped=overlaps)
                mitigated_s = step_time.products_s + step_time.data_s / method.steps
                why = f"{method.steps:g} steps an exchange, {method.bytes_fraction:g} of the bytes"
            how = (
                f"step {fast_s * 1e3:.3g} ms on {self.wide}, {slow_s * 1e3:.3g} on "
                f"{self.narrow}, {mitigated_s * 1e3:.3g} with {name} ({why})"
            )
            yield {"method": name}, span_of((slow_s - mitigated_s) / (slow_s - fast_s)), how


class CommunicationShare(ClaimTest, tag="communication-share", frozen=True, kw_only=True):
    """Compare the share that waits for the link at each of `values` with that at the one before.

    `vary` is ranks, width or 'width, ranks as memory needs', which gives each width the fewest
    ranks that hold its training state; `hidden` and `ranks` hold what is not varied.
    """

    link: Text
    split: Literal["tensor", "data"]
    vary: Literal["ranks", "width", "width, ranks as memory needs"]
    values: tuple[Count, ...]
    chip: Text
    hidden: Count = 0
    ranks: Count = 0

    def __post_init__(self) -> None:
        check_links(self.link)

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        model, device = EndModel(self.link), facts.chips[self.chip]
        peak = device.peak_per_s.get("bf16")
        if peak is None:
            yield f"bf16 peak of {self.chip} is not known"
            return
        shares = []
        for value in self.values:
            hidden = self.hidden if self.vary == "ranks" else value
            net = _transformer(hidden, num_layers=max(1, hidden // WIDTH_OF_LAYER))
            ranks = value if self.vary == "ranks" else self.ranks
            if self.vary == "width, ranks as memory needs":
                ranks = _ranks_for(TRAINED_BYTES * net.num_parameters, device)
            step = _split_step(net, self.split, ranks, flops_per_s=peak * COMPUTE_FRACTION)
            shares.append((value, ranks, step(model=model).communication_fraction))
        what = "ranks" if self.vary == "ranks" else "width"
        for one, two in pairwise(shares):
            yield ClaimCase(
                value=span_of(two[2] / one[2]),
                factors={"varied": self.vary, "split": self.split, what: f"{one[0]} to {two[0]}"},
                how=f"share {one[2]:.1%} at {what} {one[0]} ({one[1]} ranks), {two[2]:.1%} at "
                f"{two[0]} ({two[1]} ranks); second over first",
                basis="modelled",
                source=f"cost model of {self.link}; transformer by formula, without overlap",
            )


def _ranks_for(state_bytes: float, chip: Chip) -> int:
    """Fewest devices, a power of two and two at least, whose memory holds the training state."""
    ranks = 2
    while state_bytes > ranks * USABLE_FRACTION * (chip.memory_bytes or 0.0) and ranks < 2**16:
        ranks *= 2
    return ranks


class Region(ClaimTest, tag="region", frozen=True, kw_only=True):
    """Time that two far sites add to a step of one training, over the step.

    For `links` x `parameters` x `steps_per_exchange`: the sites exchange fp32 gradients once in so
    many steps of `step_s`; nothing overlaps. Rates and delays are the link presets' assumptions.
    """

    links: tuple[Text, ...]
    parameters: tuple[Number, ...]
    steps_per_exchange: tuple[Number, ...]
    step_s: Number

    def __post_init__(self) -> None:
        check_links(*self.links)

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for link, size, every in product(self.links, self.parameters, self.steps_per_exchange):
            model, size_bytes = EndModel(link), int(GRADIENT_BYTES * size)
            group = model.group_of(range(SITES))
            cost = model.cost("all_reduce", num_bytes=size_bytes, group=group)
            ends = (cost.seconds, cost.low_s, cost.high_s)
            yield ClaimCase(
                value=span_of(*(end / (every * self.step_s) for end in ends)),
                factors={"work": "one training over both sites", "link": link,
                         "parameters": size, "steps per exchange": every},
                how=f"{cost.seconds:.3g} s to exchange over {SITES} sites, every {every:g} steps "
                f"of {self.step_s:g} s",
                basis="modelled",
                source=f"link preset {link}, an assumption; nothing official is published",
            )  # fmt: skip
