"""What `--json` prints for a comparison: every fact of it, as plain lists and dicts."""

from __future__ import annotations

from dataclasses import asdict

from bench.analysis.comparison.comparison import Compared, Comparison, Side
from bench.analysis.trials.identity import LAYOUT
from bench.results.schema import BY_NAME

_SHOWN = ("workload", "workload_version", "config_hash", "size", "dtype", "batch", *LAYOUT)
_FOUND = (
    "is_cross_hardware",
    "source",
    "ratio",
    "low",
    "high",
    "threshold_frac",
    "reason",
    "more_trials",
    "confounders",
)
_SIDE = (
    "file",
    "device",
    "num",
    "num_usable",
    "num_lost",
    "lost_reasons",
    "value",
    "throughput_per_s",
    "energy_per_item_j",
    "roof_frac",
)


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
    trials = row.a.trials
    return {
        **{
            name: trials.first.get(name) if BY_NAME[name].kind == "int" else trials.text(name)
            for name in _SHOWN
        },
        "a": _side(row.a),
        "b": _side(row.b),
        **{name: getattr(row, name) for name in _FOUND},
        "verdict": row.verdict or None,
        "throughput_ratio": row.throughput_ratio,
        "energy_ratio": row.energy_ratio,
    }


def _side(side: Side) -> dict[str, object]:
    return {name: getattr(side, name) for name in _SIDE}
