"""What `bench project --net` shows: steps on clusters that nobody here has, always "projected"."""

from collections.abc import Callable, Sequence
from dataclasses import fields

from bench.analysis.projection.clusters import ClusterStep
from bench.analysis.projection.projected import Projected
from bench.core.units import format_bytes
from bench.report.tables import cells
from bench.report.tables.cells import AnyCell
from bench.report.tables.grid import Grid
from bench.report.tables.project_tables import MEANT, interval

_SHARES = (
    "time rests on: shares of the step; tensor, pipeline, data: waiting for the link; bubble: for "
    "other stages"
)
_SECONDS = cells.plain_unit("s")
"""Steps of a column are set against each other, so that all are in one unit."""
_MFU = "MFU: model FLOPs (attention in full, nothing twice) over the peak"
_OVER = ", more than all of it where fused attention skips the masked half"
_MEMORY = "memory: of each device, the tensors counted"
_LAYOUT = (
    "layout: --tp, --pp and --dp; then --micro-batch, --recompute and --schedule where they are "
    "not 1, none and 1f1b"
)


def layout_text(one: ClusterStep) -> str:
    """'tp 2 pp 4 dp 8 micro 2 full interleaved-2': what a command line needs, but for defaults."""
    job, layout = one.job, one.job.layout
    words = [f"tp {layout.tensor} pp {layout.pipeline} dp {layout.data}"]
    words += [f"micro {job.micro_batch}"] if job.micro_batch > 1 else []
    words += [job.recompute] if job.recompute != "none" else []
    words += [job.schedule] if job.chunks > 1 else []
    return " ".join(words)


def _memory(one: ClusterStep) -> str:
    return format_bytes(one.memory_bytes.mid) + ("" if one.fits else " (too much)")


def _notes(found: Sequence[ClusterStep], *others: str) -> tuple[str, ...]:
    is_over = any(one.mfu is not None and one.mfu.high > 1 for one in found)
    return (MEANT, _MFU + (_OVER if is_over else ""), _MEMORY, _LAYOUT, _SHARES, *others)


def cluster_grid(found: Sequence[ClusterStep]) -> Grid:
    """One layout, one line a chip."""
    columns: dict[str, Callable[[ClusterStep], AnyCell]] = {
        "net": lambda one: one.job.net.name,
        "projected to": lambda one: f"{one.cluster.devices} x {one.cluster.chip.id}",
        "layout": layout_text,
        "step": lambda one: interval(one.time_s, _SECONDS),
        "token/s": lambda one: interval(one.tokens_per_s, cells.of("")),
        "MFU": lambda one: one.mfu and interval(one.mfu, cells.percent) or "",
        "memory": _memory,
        "time rests on": shares_text,
    }
    return Grid.of(
        found, columns, title="Projected", notes=_notes(found),
        names=("net", "layout", "projected to"), spare=("time rests on", "MFU", "memory"),
    )  # fmt: skip


def search_grid(
    found: Sequence[ClusterStep], *, beside: Sequence[tuple[ClusterStep, int]] = ()
) -> Grid:
    """Layouts of one net on one cluster, the fastest first; beside it the chip with the whole link.

    Only the step has its interval: that of tokens and MFU is as wide.
    """
    ranks = {id(one): number for number, one in enumerate(found, start=1)}
    whole = {id(one): other for one, other in zip(found, beside, strict=False)}
    other_name = beside[0][0].cluster.chip.id.partition("-")[0] if beside else "it"

    def uncut_step(one: ClusterStep) -> AnyCell:
        return cells.quantity(whole[id(one)][0].time_s.mid, _SECONDS) if beside else ""

    def uncut_rank(one: ClusterStep) -> AnyCell:
        return cells.quantity(whole[id(one)][1]) if beside else ""

    def narrower(one: ClusterStep) -> AnyCell:
        return cells.change(one.time_s.mid / whole[id(one)][0].time_s.mid) if beside else ""

    columns: dict[str, Callable[[ClusterStep], AnyCell]] = {
        "rank": lambda one: cells.quantity(ranks[id(one)]),
        "layout": layout_text,
        "step": lambda one: interval(one.time_s, _SECONDS),
        "token/s": lambda one: cells.quantity(one.tokens_per_s.mid, cells.of("")),
        "memory": _memory,
        "MFU": lambda one: one.mfu and cells.quantity(one.mfu.mid, cells.percent) or "",
        f"on {other_name}": uncut_step,
        "slower by": narrower,
        "rank there": uncut_rank,
        "time rests on": shares_text,
    }
    one = found[0]
    title = f"Projected: {one.job.net.name} on {one.cluster.devices} x {one.cluster.chip.id}"
    there = f"on {other_name}: the same layout with the whole link, its rank among all there"
    return Grid.of(
        found, columns, title=title, notes=_notes(found, *([there] if beside else [])),
        spare=("time rests on", "rank there", "slower by", f"on {other_name}", "MFU", "rank"),
    )  # fmt: skip


def shares_text(one: ClusterStep) -> str:
    """'products 66 %, attention 20 %', largest first, from 2 % on."""
    parts = {
        part.name.removesuffix("_s"): getattr(one.parts, part.name) for part in fields(one.parts)
    }
    shares = sorted(parts.items(), key=lambda item: -item[1])
    whole = one.parts.seconds
    return ", ".join(f"{n} {100 * s / whole:.0f} %" for n, s in shares if s >= 0.02 * whole)


def replicas_grid(found: Sequence[Projected]) -> Grid:
    """Nets that were measured on one device, under ddp: one line a configuration and chip."""

    def mfu(one: Projected) -> AnyCell:
        peak = one.chip.peak_per_s.get(one.dtype)
        flops = sum(operators.flops for operators in one.measured.operators)
        if peak is None or not flops:
            return ""
        per_item = flops / one.measured.items_per_step
        rate = one.throughput_per_s
        ends = [end * per_item / (peak * one.devices) for end in (rate.low, rate.mid, rate.high)]
        return cells.quantity(ends[1], cells.percent, ends=(ends[0], ends[2]))

    columns: dict[str, Callable[[Projected], AnyCell]] = {
        "net": lambda one: f"{one.measured.workload} {one.measured.size}".strip(),
        "from": lambda one: one.measured.device,
        "projected to": lambda one: f"{one.devices} x {one.chip.id}",
        "link": lambda one: one.link or "",
        "layout": lambda one: f"dp {one.devices}",
        "batch": lambda one: cells.quantity(one.batch),
        "step": lambda one: interval(one.time_s, cells.seconds),
        "speed": lambda one: interval(
            one.throughput_per_s, cells.of(f"{one.measured.items_unit}/s")
        ),
        "MFU": mfu,
        "memory": lambda one: (
            format_bytes(one.measured.memory_bytes) if one.measured.memory_bytes else ""
        ),
    }
    notes = (
        MEANT,
        "batch: of each device, as measured on one",
        "memory: of each device, as measured on one",
    )
    return Grid.of(
        found, columns, title="Projected", notes=notes,
        names=("from", "link", "batch"), spare=("MFU", "batch", "memory"),
    )  # fmt: skip
