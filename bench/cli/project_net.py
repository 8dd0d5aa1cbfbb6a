"""`bench project --net`: a net's training step on a cluster that nobody here has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from typer import Option

from bench.cli.output import print_note
from bench.core.errors import NothingMatchedError, UsageError, one_of
from bench.core.nouns import Chip, Layout

if TYPE_CHECKING:
    from bench.analysis.projection.clusters import Cluster, ClusterStep
    from bench.cli.project import Answer
    from bench.hardware.costs.training_jobs import Software, TrainingJob
    from bench.hardware.costs.training_nets import DecoderNet

Net = Annotated[
    str | None,
    Option(help="Net to train, as llama3-8b, gpt:h=4096,layers=32,heads=32,seq=2048 or imaging."),
]
Tensor = Annotated[int | None, Option("--tp", help="With --net: ranks that share each product.")]
Stages = Annotated[int | None, Option("--pp", help="With --net: pipeline stages.")]
Replicas = Annotated[
    int | None, Option("--dp", help="With --net: replicas (default: what tp and pp leave).")
]
MicroBatch = Annotated[int | None, Option(help="With --net: sequences of one pass (default 1).")]
GlobalBatch = Annotated[
    int | None, Option(help="With --net: sequences of a step (default: 4 Mi tokens).")
]
RecomputeFlag = Annotated[
    str | None, Option("--recompute", help="With --net: none, selective or full.")
]
Schedule = Annotated[str | None, Option(help="With --net and --pp: 1f1b or interleaved-V.")]
Program = Annotated[
    str | None,
    Option("--software", help="With --net: today or 2021 (Megatron-LM), or fsdp (PyTorch)."),
]
Search = Annotated[
    bool, Option("--search", help="With --net: rank the layouts that fit in memory.")
]
GLOBAL_TOKENS = 4 * 2**20
"""Tokens of a step where nobody says: Llama 3 began with 4 million, https://arxiv.org/abs/2407.21783."""
SHOWN = 10
MOST_DEVICES = 1 << 17


class NetFlags(NamedTuple):
    """What --net goes with; None is not given."""

    net: str | None
    tensor: int | None
    stages: int | None
    replicas: int | None
    micro_batch: int | None
    global_batch: int | None
    recompute: str | None
    schedule: str | None
    software: str | None
    search: bool

    @property
    def devices(self) -> int:
        """How many the layout takes, for a line without --devices."""
        return (self.tensor or 1) * (self.stages or 1) * (self.replicas or 1)

    def check(self) -> None:
        """Refuse numbers below 1, and flags that have nothing to go with."""
        if self.net is None and any(one not in (None, False) for one in self[1:]):
            raise UsageError(
                "--tp, --pp, --dp, --micro-batch, --global-batch, --recompute, --schedule, "
                "--software and --search go with --net, such as --net llama3-8b"
            )
        names = ("--tp", "--pp", "--dp", "--micro-batch", "--global-batch")
        for name, number in zip(names, self[1:6], strict=True):
            if number is not None and not 1 <= number <= 1 << 20:
                raise UsageError(f"{name} {number} is not between 1 and {1 << 20}")
        laid_out = (self.tensor, self.stages, self.replicas, self.micro_batch, self.schedule)
        if self.search and any(one is not None for one in (*laid_out, self.recompute)):
            raise UsageError(
                "--search finds --tp, --pp, --dp, --micro-batch, --recompute and --schedule itself"
            )


def net_answer(
    flags: NetFlags,
    *,
    files: Sequence[Path],
    chips: Sequence[Chip],
    devices: int,
    link: str | None,
    dtype: str | None,
) -> Answer:
    """Tables, lines below and document of a net on clusters of each chip."""
    assert flags.net is not None
    if not 1 <= devices <= MOST_DEVICES:
        raise UsageError(f"--devices {devices} is not between 1 and {MOST_DEVICES}")
    if flags.net in ("imaging", "imaging-train"):
        return _replicas(flags, files=files, chips=chips, devices=devices, link=link)
    from bench.hardware.costs.training_nets import parse_net

    net = parse_net(flags.net)
    batch = flags.global_batch or max(1, GLOBAL_TOKENS // net.sequence)
    notes = [f"global batch: {batch} sequences of {net.sequence} tokens; {_program(flags)[1]}"]
    factor = 1.0
    if files:
        factor, words = _measured_factor(files)
        notes.append(words)
    clusters, refused = [], []
    for chip in chips:
        try:
            cluster = _cluster(chip, devices=devices, link=link, dtype=dtype or "bf16")
        except UsageError as error:
            refused.append(error)
        else:
            clusters.append(replace(cluster, compute_factor=factor))
    if not clusters:
        raise refused[0]
    notes += [f"{one.chip.id}: {one.basis}" for one in clusters]
    notes += [f"left out: {error}" for error in refused]
    if flags.search:
        return _search(flags, net=net, batch=batch, clusters=clusters, notes=notes, link=link)
    return _steps(_job(flags, net=net, batch=batch, devices=devices), clusters, notes=notes)


def _program(flags: NetFlags) -> tuple[Software, str]:
    from bench.hardware.costs.training_jobs import SOFTWARE

    name = flags.software or "today"
    if name not in SOFTWARE:
        raise one_of("--software", name, list(SOFTWARE))
    program = "PyTorch FSDP" if name == "fsdp" else f"Megatron-LM of {name}"
    return SOFTWARE[name], f"as {program} does it"


def _cluster(chip: Chip, *, devices: int, link: str | None, dtype: str) -> Cluster:
    from bench.analysis.projection.clusters import cluster_of
    from bench.cli.project import cost_model

    model = cost_model(link, chip, devices=devices, is_training=True)
    return cluster_of(chip, devices=devices, model=model, dtype=dtype)


def _job(flags: NetFlags, *, net: DecoderNet, batch: int, devices: int) -> TrainingJob:
    from bench.analysis.projection.clusters import RECOMPUTES, check_job, passes_of
    from bench.emulate.pipeline import parse_schedule
    from bench.hardware.costs.training_jobs import TrainingJob

    tensor, stages = flags.tensor or 1, flags.stages or 1
    data, rest = divmod(devices, tensor * stages)
    if rest or data != (flags.replicas or data):
        asked = f"--tp {tensor} --pp {stages}"
        asked += f" --dp {flags.replicas}" if flags.replicas else ""
        sign = "is no multiple of" if rest else "is not the product of"
        raise UsageError(f"--devices {devices} {sign} {asked}")
    recompute = next((one for one in RECOMPUTES if one == (flags.recompute or "none")), None)
    if recompute is None:
        raise one_of("--recompute", str(flags.recompute), list(RECOMPUTES))
    kind, chunks = parse_schedule(flags.schedule or "1f1b")
    if kind == "gpipe":
        raise UsageError("--net has pipelines of --schedule 1f1b or interleaved-V")
    micro_batch = flags.micro_batch or 1
    passes = passes_of(global_batch=batch, data=data, micro_batch=micro_batch)
    layout = Layout(data=data, tensor=tensor, pipeline=stages, grad_accum=passes)
    job = TrainingJob(
        net=net, layout=layout, micro_batch=micro_batch, recompute=recompute,
        software=_program(flags)[0], chunks=chunks,
    )  # fmt: skip
    check_job(job)
    return job


def _measured_factor(files: Sequence[Path]) -> tuple[float, str]:
    from bench.analysis.projection.single_device import against_formula
    from bench.cli.project import measured

    starts, _ = measured(files, workloads=(), note=print_note)
    single = against_formula(starts)
    return single.factor, single.words


def _steps(job: TrainingJob, clusters: Sequence[Cluster], *, notes: list[str]) -> Answer:
    from bench.analysis.projection.clusters import projected_step, usable_bytes
    from bench.analysis.projection.projection_documents import cluster_document
    from bench.core.units import format_bytes
    from bench.report.tables.cluster_tables import cluster_grid

    steps = [projected_step(cluster, job) for cluster in clusters]
    for one in (one for one in steps if not one.fits):
        room = format_bytes(usable_bytes(one.cluster.chip))
        notes.append(
            f"{one.cluster.chip.id}: does not fit into {room}, so its step is of arithmetic alone; "
            "try more --devices with --search"
        )
    return [cluster_grid(steps)], notes, lambda: cluster_document(steps, notes)


def _search(
    flags: NetFlags,
    *,
    net: DecoderNet,
    batch: int,
    clusters: Sequence[Cluster],
    notes: list[str],
    link: str | None,
) -> Answer:
    from bench.analysis.projection import clusters as projection
    from bench.analysis.projection.projection_documents import cluster_document
    from bench.hardware.costs.training_jobs import TrainingJob
    from bench.report.tables.cluster_tables import layout_text, search_grid

    blank = TrainingJob(
        net=net, layout=Layout(), micro_batch=1, recompute="none", software=_program(flags)[0]
    )  # fmt: skip
    grids, documents = [], []
    for cluster in clusters:
        # On one level every device is as near as the next.
        node = (cluster.model and cluster.model.topology.node_size) or cluster.devices
        jobs = list(
            projection.candidates(blank, devices=cluster.devices, global_batch=batch, node=node)
        )
        if not jobs:
            raise UsageError(
                f"--devices {cluster.devices} cannot be laid out for {net.heads} heads, "
                f"{net.layers} layers and --global-batch {batch}; try a power of two"
            )
        order = projection.ranked(cluster, jobs)
        num_layouts = len({replace(job, chunks=1) for job in jobs})
        if not order:
            other_program = "" if blank.software.shards_weights else " or --software fsdp"
            notes.append(
                f"{cluster.chip.id}: none of {num_layouts} layouts fits in its memory; "
                f"try more --devices{other_program}"
            )
            continue
        steps = [projection.projected_step(cluster, job) for job in order[:SHOWN]]
        notes.append(f"{cluster.chip.id}: {len(order)} of {num_layouts} layouts fit")
        beside: list[tuple[ClusterStep, int]] = []
        whole = projection.uncut(cluster.chip) if cluster.devices > 1 and link is None else None
        if whole is not None:
            other = _cluster(whole, devices=cluster.devices, link=None, dtype=cluster.dtype)
            other = replace(other, compute_factor=cluster.compute_factor)
            there = projection.ranked(other, jobs)
            # It may be best in other chunks there.
            ranks = {replace(job, chunks=1): rank for rank, job in enumerate(there, start=1)}
            beside = [
                (projection.projected_step(other, one.job), ranks[replace(one.job, chunks=1)])
                for one in steps
            ]
            best = projection.projected_step(other, there[0])
            faster = steps[0].time_s.mid / best.time_s.mid
            notes.append(
                f"best on {cluster.chip.id}: {layout_text(steps[0])}; on {whole.id}, which has the "
                f"whole link: {layout_text(best)}, x{faster:.3g} as fast"
            )
        grids.append(search_grid(steps, beside=beside))
        documents += steps
    if not grids:
        raise NothingMatchedError("; ".join(notes[-len(clusters) :]))
    return grids, notes, lambda: cluster_document(documents, notes)


def _replicas(
    flags: NetFlags,
    *,
    files: Sequence[Path],
    chips: Sequence[Chip],
    devices: int,
    link: str | None,
) -> Answer:
    """A net of images under ddp, from a row of one device: no formula knows its kernels."""
    from bench.analysis.projection import projected as projection
    from bench.analysis.projection.projection_documents import projection_document
    from bench.analysis.projection.roofs import Unknown
    from bench.cli.project import cost_model, measured
    from bench.report.tables.cluster_tables import replicas_grid
    from bench.report.tables.project_tables import refusal_lines

    given = [one for one in flags[1:] if one not in (None, False)]
    if given and given != [flags.replicas]:
        raise UsageError(f"--net {flags.net} runs under ddp: of the layout it takes --dp alone")
    if flags.replicas not in (None, devices):
        raise UsageError(f"--devices {devices} is not --dp {flags.replicas}")
    if not files:
        raise UsageError(
            f"--net {flags.net} needs a result file with its training measured on one device: "
            "what its kernels reach is in no catalogue"
        )
    found, left_out = measured(files, workloads=["imaging:train"], note=print_note)
    answers = [
        projection.project(
            one, chip, devices=devices,
            link=cost_model(link, chip, devices=devices, is_training=True),
        )
        for one in found for chip in chips
    ]  # fmt: skip
    reported = [one for one in answers if isinstance(one, projection.Projected)]
    refused = [one for one in answers if isinstance(one, Unknown)]
    return (
        [replicas_grid(reported)] if reported else [],
        refusal_lines(refused, left_out),
        lambda: projection_document(reported, refused, left_out),
    )
