"""Training over applying a net, item for item: by published rates, by formula, by measured rows.

Over 1 training asks more, under 1 applying the net does. Formulas give model FLOPs of every shipped
workload that trains; rows and published rates give time. Where both phases do not count the same
items, they are compared per element (a voxel).
"""

from collections.abc import Iterator, Mapping
from itertools import permutations

from bench.analysis.claims.claim_cases import ClaimCase, ClaimFacts, ClaimTest, PhaseWork, span_of
from bench.analysis.claims.evaluators.measured_claims import row_ids
from bench.analysis.gap.demand import shared_unit
from bench.analysis.gap.gap_result import measure_gap
from bench.hardware.loader import Text
from bench.hardware.published import PublishedGap

UNCOUNTED_FRAC = 0.05
"""Work beside matrix products and convolutions, which a ratio of FLOPs is unsure by."""


class PublishedGapTest(ClaimTest, tag="published-gap", frozen=True, kw_only=True):
    """Take the published gaps, each by itself."""

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        for gap in facts.published.gaps:
            yield ClaimCase(
                value=span_of(gap.time),
                factors={"net": gap.net, "part": gap.chip, "figure": "published time"},
                how=f"training over inference per {gap.unit}, {_precision(gap)}"
                + (f"; {gap.note}" if gap.note else ""),
                basis="published",
                source=f"{gap.id}: {'; '.join(gap.sources)}",
            )


def _precision(gap: PublishedGap) -> str:
    return f"trained in {gap.train.dtype}, inferred in {gap.infer.dtype}"


class WideningGap(ClaimTest, tag="widening-gap", frozen=True, kw_only=True):
    """Gap on a lesser part over that on a greater one, of one net, in one round.

    A part is lesser where the catalogue has a lower dense 16-bit peak of it. Where the precisions
    differ between the two, the pair is shown without a say.
    """

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        peaks = {id: chip.peak_per_s.get("bf16", 0.0) for id, chip in facts.chips.items()}
        found = facts.published.gaps
        pairs = [
            (lesser, greater)
            for lesser, greater in permutations(found, 2)
            if (lesser.net, lesser.unit, lesser.round) == (greater.net, greater.unit, greater.round)
            and 0.0 < peaks[lesser.chip] < peaks[greater.chip]
        ]
        if not pairs:
            yield "published training and inference of one net on two parts"
        for lesser, greater in pairs:
            alike = _precision(lesser) == _precision(greater)
            said = _precision(lesser) if alike else f"{_precision(lesser)} or {_precision(greater)}"
            yield ClaimCase(
                value=span_of(lesser.time / greater.time),
                factors={"net": lesser.net, "parts": f"{lesser.chip} over {greater.chip}"},
                how=f"{lesser.time:.3g} over {greater.time:.3g} per {lesser.unit}, {said}",
                basis="published",
                source=f"{lesser.id} and {greater.id}: {'; '.join(lesser.sources)}",
                counts=alike,
            )


class FormulaGap(ClaimTest, tag="formula-gap", frozen=True, kw_only=True):
    """FLOPs of training over those of each other phase, by the workloads' own formulas.

    Of every shipped workload at `size`; with `settings` (field: value) of `workload` alone.
    """

    size: Text
    workload: Text | None = None
    settings: dict[Text, Text] = {}

    def __post_init__(self) -> None:
        if self.settings and self.workload is None:
            raise ValueError("settings: needs the workload that they are of")

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        works = facts.work_of(self.size, self.workload, self.settings)
        pairs = [
            (train, other)
            for train, other in permutations(works, 2)
            if train.net == other.net and train.is_training and not other.is_training
        ]
        found = [self._case(*pair) for pair in pairs]
        yield from [one for one in found if one] or (
            f"FLOPs of {self.workload or 'workloads'} at {self.size} by formula",
        )

    def _case(self, train: PhaseWork, other: PhaseWork) -> ClaimCase | None:
        unit, is_per_element = shared_unit(train, other)
        trained, applied = (
            (one.flops_per_item or 0.0) / (one.elements_per_item or 1.0 if is_per_element else 1.0)
            for one in (train, other)
        )
        if unit is None or not trained or not applied:
            return None
        ratio = trained / applied
        ends = (ratio * (1.0 - UNCOUNTED_FRAC), ratio * (1.0 + UNCOUNTED_FRAC))
        settings = " ".join(f"{name}={value}" for name, value in self.settings.items())
        return ClaimCase(
            value=span_of(ratio, *ends),
            factors={
                "domain": train.domain,
                "workload": " ".join(filter(None, (f"{other.net}-{other.phase}", settings))),
                "figure": "FLOPs",
            },
            how=f"{trained:.3g} FLOP to train over {applied:.3g} per {unit}, size {self.size}; all "
            f"but matrix products and convolutions is taken as {UNCOUNTED_FRAC * 100:.0f} %",
            basis="modelled",
            source=f"formulas of workloads/{train.net}.py",
        )


class MeasuredGap(ClaimTest, tag="measured-gap", frozen=True, kw_only=True):
    """Time of training over that of each other phase, in rows of one real device."""

    otherwise: Text

    def _cases(self, facts: ClaimFacts) -> Iterator[ClaimCase | str]:
        rows = [
            row
            for one in facts.configurations
            if one.mode == "real" and not one.is_wide and one.text("device_type") != "fake"
            for row in one.used
        ]
        gaps = [gap for gap in measure_gap(rows).gaps if gap.time]
        if not gaps:
            yield self.otherwise
        for gap in gaps:
            assert gap.time is not None
            trials = gap.infer.trials
            factors: Mapping[str, str] = {
                "workload": gap.infer.name,
                "size": trials.text("size"),
                "device": gap.infer.device,
                "figure": "measured time",
            }
            yield ClaimCase(
                value=span_of(gap.time.value, *(gap.time.interval or ())),
                factors=factors,
                how=f"time of {gap.train.name} over {gap.infer.name} per {gap.unit} in "
                f"{trials.text('dtype')}",
                basis="measured",
                source=row_ids(gap.train.trials, trials),
            )
