"""Between which bounds others' training over inference lies, for a net and a work like ours.

Their inference computes in narrower numbers than their training, which ours does not: in one
precision the ratio lies between the published one over the ratio of the peaks, and the published
one. It is a bracket and no target: sizes, chips and software are other ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.log_estimate import Ends, LogEstimate
from bench.core.nouns import Chip
from bench.hardware.published import Published


@dataclass(frozen=True, kw_only=True)
class PublishedBracket:
    """Published gaps of one net, and their bounds."""

    net: str
    size: str
    """Size of our workload whose net is nearest to it."""
    unit: str
    chips: tuple[str, ...]
    dtypes: tuple[str, str]
    """Of training and of inference."""
    published: Ends
    in_one_precision: Ends
    sources: tuple[str, ...]

    def place_of(self, ratio: LogEstimate) -> str:
        """Where a measured ratio lies: inside, above, below, or across an end of it."""
        low, high = ratio.interval or (ratio.value, ratio.value)
        least, most = self.in_one_precision
        if high < least or low > most:
            return "below" if high < least else "above"
        return "inside" if low >= least and high <= most else "across an end of"


def bracket(
    workload: str, *, unit: str | None, published: Published, chips: Mapping[str, Chip]
) -> PublishedBracket | None:
    """Return the bounds for an inference phase, such as imaging-infer; None without a like."""
    found = [
        (gap, ends)
        for gap in published.gaps
        if workload in gap.same_as and gap.unit == unit and (ends := gap.in_one_precision(chips))
    ]
    if not found:
        return None
    (first, _), times = found[0], [gap.time for gap, _ in found]
    return PublishedBracket(
        net=first.net,
        size=first.same_as[workload],
        unit=first.unit,
        chips=tuple(dict.fromkeys(gap.chip for gap, _ in found)),
        dtypes=(first.train.dtype, first.infer.dtype),
        published=(min(times), max(times)),
        in_one_precision=(min(low for _, (low, _) in found), max(high for _, (_, high) in found)),
        sources=tuple(dict.fromkeys(source for gap, _ in found for source in gap.sources)),
    )
