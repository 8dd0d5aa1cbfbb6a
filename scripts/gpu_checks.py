"""What must hold of the figures that one step of the acceptance printed.

Each check takes the step's document (the JSON that its command printed) and returns what is wrong
with it, as one sentence, or None. A figure that is missing is wrong: nothing passes unmeasured.
Bounds are those of the acceptance, not of a machine: see `scripts/gpu_acceptance.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
Check = Callable[[Document], str | None]

HARMLESS = frozenset({"smoke", "input_bound", "foreign_gpu", "foreign_cpu", "drift", "not_steady",
                      "noisy", "steal", "host_bound"})  # fmt: skip
"""Reasons that spoil a measurement and not an acceptance."""
MATH_ATTENTION = "aten::_scaled_dot_product_attention_math"


def rows_are_usable(document: Document) -> str | None:
    """Every row ran to its end, and only for harmless reasons with a warning."""
    rows = document["rows"]
    if not rows:
        return "there is no row"
    for row in rows:
        reasons = set(filter(None, (row.get("reasons") or "").split(";")))
        if row["status"] not in ("OK", "WARN") or not reasons <= HARMLESS:
            return f"{_name(row)}: {row['status']} {row.get('reasons')} {row.get('detail') or ''}"
    return None


def phases_are(expected: Sequence[str]) -> Check:
    """The rows are those of these phases."""

    def check(document: Document) -> str | None:
        found = {row["workload"] for row in document["rows"]}
        return None if found == set(expected) else f"phases are {sorted(found)}"

    return check


def column_is(column: str, expected: object) -> Check:
    """A column has this value in every row."""

    def check(document: Document) -> str | None:
        return _first(
            document,
            lambda row: row.get(column) != expected,
            lambda row: f"{column} is {row.get(column)}, not {expected}",
        )

    return check


def column_within(column: str, low: float, high: float) -> Check:
    """A column lies in [low, high] in every row."""

    def check(document: Document) -> str | None:
        return _first(
            document,
            lambda row: not _is_within(row.get(column), low, high),
            lambda row: f"{column} is {row.get(column)}, not {low:g} to {high:g}",
        )

    return check


def ratio_within(over: str, under: str, low: float, high: float) -> Check:
    """One column over another lies in [low, high] in every row."""

    def ratio(row: Document) -> float | None:
        above, below = row.get(over), row.get(under)
        return None if above is None or not below else float(above) / float(below)

    def check(document: Document) -> str | None:
        return _first(
            document,
            lambda row: not _is_within(ratio(row), low, high),
            lambda row: f"{over} over {under} is {ratio(row)}, not {low:g} to {high:g}",
        )

    return check


def output_agrees(document: Document) -> str | None:
    """The output at tiny is within its tolerance of the fp32 reference."""
    for row in document["rows"]:
        error, tolerance = row.get("check_error_frac"), row.get("check_tolerance_frac")
        if error is None or tolerance is None or not error <= tolerance:
            return f"{_name(row)}: the output is {error} off, {tolerance} is allowed"
    return None


def links_are_in_order(links: Sequence[str], *, slack: float = 0.02) -> Check:
    """A slower link never makes a faster step, and the slowest costs time, in every layout."""

    def check(document: Document) -> str | None:
        steps: dict[str, dict[str, float]] = {}
        for row in document["rows"]:
            if row.get("step_mean_ms") is not None:
                steps.setdefault(row["parallel"], {})[row["link"]] = row["step_mean_ms"]
        if not steps:
            return "no row has a step"
        for layout, by_link in steps.items():
            if set(by_link) != set(links):
                return f"{layout}: steps for {sorted(by_link)} only"
            reported = [by_link[link] for link in links]
            if any(
                slower < (1 - slack) * faster
                for faster, slower in zip(reported, reported[1:], strict=False)
            ):
                return f"{layout}: steps of {reported} ms over {', '.join(links)}"
            if reported[-1] <= 1.1 * reported[0]:
                return f"{layout}: {links[-1]} costs nothing, steps of {reported} ms"
        return None

    return check


def profiles_cover(least_frac: float) -> Check:
    """Operators account for more than this share of every profiled step."""

    def check(document: Document) -> str | None:
        profiles = document.get("profiles") or []
        if len(profiles) < len({row["config_hash"] for row in document["rows"]}):
            return f"{len(profiles)} operator profiles for {len(document['rows'])} rows"
        covered = [profile["covered_frac"] for profile in profiles]
        return None if min(covered) > least_frac else f"operators cover {covered} of the step"

    return check


def roof_is_reached(document: Document) -> str | None:
    """The roof is within 3 % of an own product at its side, and is the best rate tried.

    Another side may be faster: on an H100 16384 is 4 % above 8192.
    """
    side, own = document["side"], document["product_flops_per_s"]
    tried = dict(document["roof_tried_flops_per_s"])
    same_side = [rate for shape, rate in tried.items() if shape.split()[0] == str(side)]
    if not same_side:
        return f"the roof tried no side of {side}: {', '.join(tried)}"
    ratio = max(same_side) / own
    if not 0.97 <= ratio <= 1.03:
        return f"at side {side} the roof is {ratio:.3f} of an own product"
    best, kept = max(tried.values()), document["roof_flops_per_s"]
    return None if kept >= best else f"the roof is {kept:g} FLOP/s, the best tried {best:g}"


def roof_is_there(document: Document) -> str | None:
    """Both rates were measured."""
    rates = document["roof_flops_per_s"], document["product_flops_per_s"]
    return None if all(rate and rate > 0 for rate in rates) else f"rates are {rates}"


def attention_is_fused(document: Document) -> str | None:
    """Attention never ran in the kernel that writes the whole matrix."""
    names = sorted(document["attention"])
    return f"the math kernel ran: {', '.join(names)}" if MATH_ATTENTION in names else None


def attention_is_seen(document: Document) -> str | None:
    """Some operator of attention was seen at all."""
    return None if document["attention"] else "no attention operator was seen"


def delays_are_kept(document: Document) -> str | None:
    """A held stream is never early, at most 5 % + 30 us late, beside products 2 ms more."""
    if not document["delays"]:
        return "nothing was held"
    for one in document["delays"]:
        asked_s, held_s = one["asked_s"], one["held_s"]
        slack_s = 30e-6 + 0.05 * asked_s + (2e-3 if one["beside"] == "product" else 0.0)
        if not asked_s - 3e-6 <= held_s <= asked_s + slack_s:
            return f"{asked_s:g} s asked, {held_s:g} s held ({one['beside']})"
    return None


def device_is_described(document: Document) -> str | None:
    """Some device is not the CPU, with its name, memory and dtypes that compute right."""
    found = [one for one in document["devices"] if one["type"] != "cpu"] or document["devices"]
    for one in found:
        if not one["name"] or not one["memory_bytes"] or one["dtypes"].get("fp32") != "ok":
            return f"{one['label']}: {one['name']}, {one['memory_bytes']} B, {one['dtypes']}"
    return None if found else "no device"


def chip_is_known(document: Document) -> str | None:
    """An accelerator is exactly one row of the catalogue, and its telemetry has power."""
    for one in document["devices"]:
        if one["type"] == "cpu":
            continue
        if len(one["chips"]) != 1:
            return f"{one['name']} is {one['chips']} in the catalogue"
        if "power" not in one["telemetry"]:
            return f"{one['name']}: telemetry is {one['telemetry']}"
    return None


def findings_are_listed(document: Document) -> str | None:
    """The doctor answered."""
    return None if isinstance(document.get("findings"), list) else "no list of findings"


def tests_passed(document: Document) -> str | None:
    """Some tests passed, and none failed."""
    if document["failed"]:
        return f"{document['failed']} tests failed"
    return None if document["passed"] else "no test passed"


def _first(
    document: Document, is_wrong: Callable[[Document], bool], text: Callable[[Document], str]
) -> str | None:
    if not document["rows"]:
        return "there is no row"
    for row in document["rows"]:
        if is_wrong(row):
            return f"{_name(row)}: {text(row)}"
    return None


def _is_within(value: float | None, low: float, high: float) -> bool:
    return value is not None and low <= value <= high


def _name(row: Document) -> str:
    parts = (row.get("workload"), row.get("size"), row.get("dtype"), row.get("parallel"),
             row.get("link"))  # fmt: skip
    return " ".join(str(part) for part in parts if part)
