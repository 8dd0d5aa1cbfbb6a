"""Emulated and throttled steps against two real ranks over a link of known width.

Takes a quarter of an hour and needs root, tc and a quiet machine: `pytest -m slow tests/netns -s`.
With --write-document the tables go to results/validation/real-link.md.
"""

from __future__ import annotations

import datetime
import math
import platform
import statistics
from pathlib import Path

import pytest
import torch

from tests.netns.experiment import (
    BURST_BYTES,
    Experiment,
    Found,
    Point,
    fit_line,
    median_error,
    missing,
    rank_processes,
    shaped_pair,
)
from tests.netns.wrapped_scripts import ScriptPoint, measure_scripts

SCRIPT_ROUNDS = 3
DOCUMENT = Path(__file__).resolve().parents[2] / "results" / "validation" / "real-link.md"
COMMAND = "python -m pytest -m slow tests/netns -s --write-document"
MODES = ("emulated", "throttled")


def table(points: list[Point]) -> str:
    """One row a point, times in milliseconds, errors against the real step."""
    lines = [
        "| link Gb/s | workload | bucket KiB | real ms | alone ms | emulated "
        "| throttled | communication |",
        "|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for point in points:
        errors = [f"{point.error(mode):+.1%}" for mode in MODES]
        lines.append(
            f"| {point.bits_per_s / 1e9:g} | {point.workload}-train tiny "
            f"| {point.bucket_bytes // 1024} "
            f"| {point.step_s('real') * 1e3:.1f} | {point.step_s('alone') * 1e3:.1f} "
            f"| {' | '.join(errors)} | {'dominates' if point.is_dominated else 'minor'} |"
        )
    return "\n".join(lines)


def by_share(found: Found) -> dict[str, list[Point]]:
    """Points, by whether communication takes longer than compute."""
    return {
        "communication dominates": [point for point in found.points if point.is_dominated],
        "elsewhere": [point for point in found.points if not point.is_dominated],
    }


def summary(found: Found) -> list[str]:
    """Median errors, where communication dominates and elsewhere."""
    lines = ["| where | points | mode | median absolute error |", "|---|---:|---|---:|"]
    for name, chosen in by_share(found).items():
        for mode in MODES:
            error = median_error(chosen, mode=mode)
            value = "no such point" if error is None else f"{error:.1%}"
            lines.append(f"| {name} | {len(chosen)} | {mode} | {value} |")
    return lines


def script_table(points: list[ScriptPoint]) -> list[str]:
    """One row a program and rate, times in milliseconds."""
    lines = [
        "| program | link Gb/s | real ms | emulated ms | error | link ms | communication |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for point in points:
        lines.append(
            f"| {point.script} | {point.bits_per_s / 1e9:g} | {point.step_s('real') * 1e3:.1f} "
            f"| {point.step_s('emulated') * 1e3:.1f} | {point.error:+.1%} "
            f"| {point.communication_s * 1e3:.1f} "
            f"| {'dominates' if point.is_dominated else 'minor'} |"
        )
    return lines


def errors_of_scripts(points: list[ScriptPoint]) -> dict[str, float]:
    """Median absolute error, where communication dominates and elsewhere."""
    found: dict[str, float] = {}
    for name, is_dominated in (("communication dominates", True), ("elsewhere", False)):
        errors = [abs(one.error) for one in points if one.is_dominated == is_dominated]
        if errors:
            found[name] = statistics.median(errors)
    return found


def document(found: Found, scripts: list[ScriptPoint], *, date: str) -> str:
    """Return the whole document in Markdown."""
    links = [
        f"- {rate / 1e9:g} Gb/s shaped: alpha {alpha_s * 1e6:.0f} us, "
        f"{bytes_per_s * 8 / 1e9:.3f} Gb/s reached"
        for rate, (alpha_s, bytes_per_s) in found.links.items()
    ]
    wrapped = errors_of_scripts(scripts)
    return "\n".join(
        [
            "# Emulation against a real link",
            "",
            "Two real gloo ranks in two network namespaces over a veth pair shaped with tc's",
            "token bucket filter, one core each, against the same training steps emulated (one",
            "real rank, one virtual, on both cores at once, so that the machine carries the same",
            "load) and throttled (real ranks over the unshaped pair, held to the modelled time).",
            "DDP, fp32, tiny sizes. Each link's alpha and beta are fitted on all-reduces alone,",
            "before any step; nothing else is fitted. "
            f"The shaper's bucket holds {BURST_BYTES} bytes.",
            "gloo's threads go before a rank's others at its processor: else one waits for the end",
            "of another's turn, and an all-reduce takes 3 ms more by chance.",
            "",
            f"Made with `{COMMAND}` on {date}: {platform.processor() or platform.machine()}, "
            f"Linux {platform.release()}, torch {torch.__version__}, TCP congestion control "
            f"{found.congestion_control}. Latency is not shaped.",
            "",
            *links,
            "",
            *summary(found),
            "",
            table(found.points),
            "",
            "'alone' is the step without any group while the other core does the same;",
            "communication 'dominates' where the link alone takes longer than that for the",
            "gradients. A step is that of the slower rank, as real ranks wait for each other in",
            "every step and emulated ones do not. A mode's error is against the real step of the",
            "same round, each a median of its steps; reported is the median over the rounds.",
            "",
            "## Unmodified programs under `bench wrap`",
            "",
            "The programs of `tests/netns/programs`, each as two real ranks in the namespaces and",
            "as one real rank of two emulated, a second one beside it for its load. Both steps are",
            "those that `bench wrap` measures, in turns within each round; the link is the fitted",
            "one. 'link' is the modelled time of a step's collectives.",
            "",
            *[f"- {name}: median absolute error {error:.1%}" for name, error in wrapped.items()],
            "",
            *script_table(scripts),
            "",
        ]
    )


def test_a_line_is_fitted_from_collectives_alone() -> None:
    times_s = {size: 2 * 3e-4 + size / 25e6 for size in (16_384, 65_536, 262_144, 1_048_576)}
    alpha_s, bytes_per_s = fit_line(times_s)
    assert math.isclose(alpha_s, 3e-4, rel_tol=1e-6)
    assert math.isclose(bytes_per_s, 25e6, rel_tol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_emulated_steps_take_as_long_as_real_ones(request: pytest.FixtureRequest) -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with shaped_pair() as pair, rank_processes(pair) as order:
        found = Experiment(pair=pair, order=order, rounds=4, steps=8).measure()
        scripts = measure_scripts(pair, links=found.links, rounds=SCRIPT_ROUNDS)
    text = document(found, scripts, date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"))
    print("\n" + text)
    if request.config.getoption("write_document", default=False):
        DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
        DOCUMENT.write_text(text, encoding="utf-8")
    for points, most in zip(by_share(found).values(), (0.05, 0.10), strict=True):
        error = median_error(points, mode="emulated")
        assert error is not None
        assert error <= most, f"{most:.0%} at most"
    limits = {"communication dominates": 0.05, "elsewhere": 0.10}
    errors = errors_of_scripts(scripts)
    assert errors.keys() == limits.keys()
    for name, most in limits.items():
        assert errors[name] <= most, f"programs: {most:.0%} at most where {name}"
