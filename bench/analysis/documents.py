"""What `--json` prints for a comparison: every fact of it, as plain lists and dicts."""

from __future__ import annotations

from dataclasses import asdict

from bench.analysis.comparison import Compared, Comparison


def comparison_document(comparison: Comparison, *, is_strict: bool) -> dict[str, object]:
    """One JSON document: verdicts, ratios, sides, and what could not be matched."""
    return {
        "metric": comparison.metric.name,
        "unit": comparison.metric.unit,
        "files": list(comparison.labels),
        "exit_code": int(comparison.exit_code(is_strict=is_strict)),
        "num_gated": comparison.num_gated,
        "rows": [_row(row) for row in comparison.rows],
        "geometric_means": [asdict(mean) for mean in comparison.means],
        "unmatched": [{**vars(entry), "verdict": "NOT COMPARED"} for entry in comparison.unmatched],
    }


def _row(row: Compared) -> dict[str, object]:
    return {
        **vars(row),
        "verdict": row.verdict or None,
        "a": vars(row.a),
        "b": vars(row.b),
        "throughput_ratio": row.throughput_ratio,
        "energy_ratio": row.energy_ratio,
    }
