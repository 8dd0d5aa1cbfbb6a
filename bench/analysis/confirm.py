"""A second look at regressions: measured again in reversed order, do they show again?

Which rows to measure again, and what is left of the first verdicts afterwards. Measuring itself is
left to the caller.
"""

from __future__ import annotations

from dataclasses import replace

from bench.analysis.comparison import Compared, Comparison


def to_confirm(comparison: Comparison) -> tuple[Compared, ...]:
    """Rows whose regression should be looked at again before anyone is woken up."""
    return tuple(row for row in comparison.rows if row.verdict == "REGRESSION")


def confirm(comparison: Comparison, *, again: Comparison) -> Comparison:
    """Keep only regressions that a second, independent measurement shows as well.

    The second look has to find B slower than A at all (its whole interval over 1); it need not pass
    the threshold a second time, which would throw away half of the changes that lie near it.
    """
    second = {(row.workload, row.config_hash, row.b.file, row.b.device): row for row in again.rows}
    rows = []
    for row in comparison.rows:
        if row.verdict == "REGRESSION":
            look = second.get((row.workload, row.config_hash, row.b.file, row.b.device))
            row = _confirmed(row, look=look)
        rows.append(row)
    return replace(comparison, rows=tuple(rows))


def _confirmed(row: Compared, *, look: Compared | None) -> Compared:
    if look is None or look.low is None:
        return replace(row, verdict="INCONCLUSIVE", reason="the second look gave no interval")
    if look.low > 1.0:
        return replace(row, reason=f"confirmed by a second look: x{look.ratio:.3f}")
    return replace(
        row, verdict="INCONCLUSIVE", reason=f"a second look did not show it: x{look.ratio:.3f}"
    )
