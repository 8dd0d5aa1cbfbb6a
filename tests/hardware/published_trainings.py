"""Published training steps of decoders on clusters, to set the projection against.

Nothing in the formula is fitted to them. FlagPerf's rows were seen while its structure was written.
"""

from dataclasses import dataclass, replace

from bench.analysis.projection.clusters import Cluster, ClusterStep, cluster_of, projected_step
from bench.core.nouns import Layout
from bench.hardware.chips import chip
from bench.hardware.costs.cost import model_of
from bench.hardware.costs.training_jobs import SOFTWARE, TrainingJob
from bench.hardware.costs.training_nets import NETS, parse_net


@dataclass(frozen=True, kw_only=True)
class Published:
    """One run: what was projected for it, and the figure that was published."""

    name: str
    layout: str
    step: ClusterStep
    measured: float
    unit: str
    memory_gib: float | None = None
    """As published, of 80."""

    @property
    def per_second(self) -> float:
        """Work of a step in the unit of the figure, for one device."""
        job = self.step.job
        if self.unit == "token/s":
            return job.step_tokens / job.layout.devices
        # Equation 3 of the paper counts the recomputation that it ran with.
        net = job.net
        inner = 1 + net.sequence / (6 * net.hidden) + net.vocab / (16 * net.layers * net.hidden)
        flops = 96.0 * job.step_tokens * net.layers * net.hidden**2 * inner
        return flops / job.layout.devices / 1e12

    @property
    def projected(self) -> float:
        """In the unit of the figure."""
        return self.per_second / self.step.time_s.mid

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds the figure."""
        measured_s = self.per_second / self.measured
        return self.step.time_s.low <= measured_s <= self.step.time_s.high


def _cluster(name: str, link: str, devices: int) -> Cluster:
    one = chip(name)
    dtype = "fp16" if name.startswith("a100") else "bf16"
    return cluster_of(one, devices=devices, model=model_of(link), dtype=dtype)


def megatron() -> list[Published]:
    """Ten models on Selene: arXiv 2104.04473, table 1; micro-batches and chunks of layers:
    https://github.com/NVIDIA/Megatron-LM/blob/79a3bb6bf2c85b748c46749dd0695e23310d4e16/examples/sc21/run_table_1.sh
    """  # noqa: E501
    rows = (  # hidden, layers, heads, tp, pp, devices, micro, global, chunks, teraFLOP/s
        (2304, 24, 24, 1, 1, 32, 16, 512, 1, 137),
        (3072, 30, 32, 2, 1, 64, 16, 512, 1, 138),
        (4096, 36, 32, 4, 1, 128, 16, 512, 1, 142),
        (6144, 40, 48, 8, 1, 256, 8, 1024, 1, 135),
        (8192, 48, 64, 8, 2, 512, 4, 1536, 1, 138),
        (10240, 60, 80, 8, 4, 1024, 2, 1792, 3, 140),
        (12288, 80, 96, 8, 8, 1536, 2, 2304, 2, 148),
        (16384, 96, 128, 8, 16, 1920, 1, 2160, 2, 155),
        (20480, 105, 128, 8, 35, 2520, 1, 2520, 3, 163),
        (25600, 128, 160, 8, 64, 3072, 1, 3072, 1, 163),
    )
    found = []
    for hidden, layers, heads, tensor, stages, devices, micro, batch, chunks, measured in rows:
        sizes = f"h={hidden},layers={layers},heads={heads},seq=2048"
        data = devices // (tensor * stages)
        job = TrainingJob(
            net=parse_net(f"gpt:{sizes},attention=unfused"),
            layout=Layout(
                tensor=tensor, pipeline=stages, data=data, grad_accum=batch // (data * micro)
            ),
            micro_batch=micro,
            recompute="full",
            software=SOFTWARE["2021"],
            chunks=chunks,
        )
        step = projected_step(_cluster("a100-sxm-80g", "a100-nvlink*8/hdr", devices), job)
        found.append(
            Published(
                name=f"GPT {job.net.num_parameters / 1e9:.1f}B, {devices} x A100",
                layout=f"tp {tensor} pp {stages} dp {data}",
                step=step,
                measured=measured,
                unit="TFLOP/s",
            )
        )
    return found


def flagperf(name: str = "a800-sxm-80g") -> list[Published]:
    """Llama3-8B: https://github.com/FlagOpen/FlagPerf/tree/main/training/nvidia/llama3_8B-megatron

    Embedding and logits are one matrix, as its script does not untie them.
    """
    rows = {
        "a800-sxm-80g": (  # pp, dp, tp, tokens/s/device, GiB
            (2, 4, 1, 3698.7, 76),
            (2, 2, 2, 3409.2, 51),
            (4, 2, 1, 3306.5, 59),
            (4, 1, 2, 3042.7, 45),
            (2, 1, 4, 3006.1, 35),
            (8, 1, 1, 2690.3, 55),
            (1, 1, 8, 2451.2, 30),
        ),
        "h100-sxm-80g": ((1, 4, 2, 8103.0, 71), (1, 8, 2, 7914.0, 62)),
    }[name]
    found = []
    for stages, data, tensor, measured, memory_gib in rows:
        layout = Layout(tensor=tensor, pipeline=stages, data=data, grad_accum=512 // data)
        job = TrainingJob(
            net=replace(NETS["llama3-8b"], is_tied=True), layout=layout, micro_batch=1,
            recompute="selective", software=SOFTWARE["today"],
        )  # fmt: skip
        link = "a800-nvlink*8/hdr" if name.startswith("a800") else "h100-nvlink*8/ndr"
        step = projected_step(_cluster(name, link, layout.devices), job)
        short = name.partition("-")[0].upper()
        found.append(
            Published(
                name=f"Llama3-8B, {layout.devices} x {short}",
                layout=f"tp {tensor} pp {stages} dp {data}",
                step=step,
                measured=measured,
                unit="token/s",
                memory_gib=memory_gib,
            )
        )
    return found


def foundry() -> list[Published]:
    """MPT under PyTorch's FSDP at 2,048 tokens, from 7b on, where the link is known: all on A100 of
    80 GB, those on most A100 of 40 GB (1600 Gbit/s a node), those on eight H100.

    https://github.com/mosaicml/llm-foundry/blob/061f2c7ce64e655100286584a7629e2a09f827ba/scripts/train/benchmarking/README.md
    Sizes are in scripts/train/yamls/mpt. PURE sums gradients in bf16. Micro-batches that differ in
    size are taken as alike.
    """  # noqa: E501
    sizes = {
        "7b": (4096, 32, 32),
        "13b": (5120, 40, 40),
        "30b": (7168, 48, 56),
        "70b": (8192, 80, 64),
    }
    rows = (  # chip, size, devices, micro, passes, recomputes, bytes of a gradient, tokens/s/device
        ("a100-sxm-80g", "70b", 64, 8, 4, True, 2, 410),
        ("a100-sxm-80g", "70b", 32, 2, 16, True, 2, 373),
        ("a100-sxm-80g", "30b", 8, 3, 21, True, 4, 916),
        ("a100-sxm-80g", "13b", 8, 2, 3, False, 4, 2262),
        ("a100-sxm-80g", "7b", 8, 6, 2, False, 4, 4641),
        ("a100-sxm-40g", "70b", 128, 4, 1, True, 2, 376),
        ("a100-sxm-40g", "30b", 128, 6, 1, True, 2, 865),
        ("a100-sxm-40g", "13b", 128, 16, 1, True, 2, 1972),
        ("a100-sxm-40g", "7b", 128, 18, 1, True, 2, 3623),
        ("h100-sxm-80g", "30b", 8, 3, 21, True, 4, 2002),
        ("h100-sxm-80g", "13b", 8, 2, 1, False, 4, 4792),
        ("h100-sxm-80g", "7b", 8, 6, 1, False, 4, 10643),
    )
    found = []
    for name, size, devices, micro, passes, recomputes, gradient_bytes, measured in rows:
        hidden, layers, heads = sizes[size]
        job = TrainingJob(
            net=parse_net(f"gpt:h={hidden},layers={layers},heads={heads},seq=2048,vocab=50368"),
            layout=Layout(data=devices, grad_accum=passes),
            micro_batch=micro,
            recompute="full" if recomputes else "none",
            software=replace(SOFTWARE["fsdp"], gradient_bytes=gradient_bytes),
        )
        link = "a100-nvlink*8/hdr" if name.startswith("a100") else "h100-nvlink*8/ndr"
        step = projected_step(
            cluster_of(chip(name), devices=devices, model=model_of(link), dtype="bf16"), job
        )
        memory_gb = name.rpartition("-")[2].removesuffix("g")
        short = f"{name.partition('-')[0].upper()} {memory_gb} GB"
        found.append(
            Published(
                name=f"MPT {size}, {devices} x {short}",
                layout=f"fsdp, dp {devices}{', full' if recomputes else ''}",
                step=step,
                measured=float(measured),
                unit="token/s",
            )
        )
    return found


def table_line(one: Published) -> str:
    """A line of the table in docs/chips.md."""
    off = 100 * (one.projected / one.measured - 1)
    inside = "yes" if one.is_inside else "no"
    return (
        f"| {one.name} | {one.layout} | {one.measured:,.5g} {one.unit} | "
        f"{one.projected:,{'.0f' if one.unit == 'token/s' else '.3g'}} | {off:+.0f} % | {inside} |"
    )
