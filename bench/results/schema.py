"""The columns of a result file, one row a trial, and the reasons that a row may give.

`schema_version` is the first column: a new minor version adds columns, a new major one changes what
a column means. Names end in their unit. A blank cell means "not measured", never zero. This table is
the single source of the reader, the writer and `results/README.md`.

History: 1.0 first version; 1.1 layout over several devices and its communication; 1.2 sustained roof,
optimizer, host-bound steps, compile mode, memory traffic of contention; 1.3 rise of the steps over the
window with its interval, in place of drift_frac; 1.4 number of different items, and sizes that differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SCHEMA_VERSION = "1.4"

Kind = Literal["str", "int", "float", "bool", "json", "utc"]
Value = str | int | float | bool | None
Row = dict[str, Value]
"""One trial; keys are column names; a missing key and None are both "not measured"."""


@dataclass(frozen=True)
class Column:
    """Name, kind and meaning of one column."""

    name: str
    kind: Kind
    group: str
    meaning: str


_UNITS = ("_s", "_ms", "_frac", "_w", "_j", "_c", "_hz", "_per_item")
"""A name that ends in one of them has a figure that need not be whole; bytes are whole."""
_KINDS: Mapping[str, Kind] = {
    "started_utc": "utc",
    "params_json": "json",
    **dict.fromkeys(("compile", "channels_last", "warmup_converged"), "bool"),
    **dict.fromkeys(("ess", "loss_first", "loss_last", "check_value"), "float"),
    **dict.fromkeys(("trial", "attempt", "seed", "grad_accum", "batch", "device_count"), "int"),
    **dict.fromkeys(("cpu_cores_usable", "threads", "workers", "items", "steps", "lat_n"), "int"),
    "distinct_items": "int",
    **dict.fromkeys(("comm_ops", "contention_units", "warmup_steps", "recompiles"), "int"),
    **dict.fromkeys(("num_parameters", "ecc_uncorrected"), "int"),
}
"""Where the name has no unit that says it; all others are text."""


def _columns(group: str, **meanings: str) -> list[Column]:
    return [
        Column(name, _KINDS.get(name) or _kind_by_unit(name), group, meaning)
        for name, meaning in meanings.items()
    ]


def _kind_by_unit(name: str) -> Kind:
    if name.endswith("_bytes"):
        return "int"
    return "float" if name.endswith(_UNITS) else "str"


COLUMNS: tuple[Column, ...] = (
    *_columns(
        "identity",
        schema_version="Version of this table, major.minor",
        run_id="Identifier of the run; one file holds one run",
        trial="Number of the trial within its configuration, from 0; a trial is one fresh process",
        attempt="1, or 2 for the one automatic retry of a failed or invalid trial; more after --resume",
        status="OK, WARN (usable, with a reservation), INVALID (measured, must not be used), FAILED, SKIPPED",
        reasons="Reason codes, separated by semicolons; see the table of reasons",
        detail="One line in words: the error's message, or what the reasons refer to",
        started_utc="When the trial's process was started, ISO 8601, Z",
    ),
    *_columns(
        "what ran",
        workload="Workload and phase, such as imaging-train",
        workload_version="Declared version, a hyphen, and a hash of the workload's source",
        scenario="closed_loop: the next step starts when the last one ends",
        size="Named size: tiny, small, base, large",
        size_choice="user, or auto with the reason for the size chosen",
        config_hash="Hash of everything that must be equal to compare two trials; no hardware in it",
        params_json="Every parameter of the workload, as JSON",
        seed="Seed of data, weights and order",
        dtype="fp32, tf32, bf16 or fp16 (autocast; fp16 training scales its gradients)",
        data="generated (made in memory, through the loader), resident (already on the device), or a digest of --data",
        mode="real, throttled, emulated or simulated",
        link="Name of the modelled link; blank when mode is real",
        parallel="ddp, fsdp, tp or pp; blank on one device",
        layout="Ranks of each kind, such as tp4 x dp2; blank on one device",
        schedule="Pipeline schedule: 1f1b, or interleaved-V with V chunks on each device",
        mitigation="Algorithmic mitigation for a narrow link, such as powersgd-2; blank for none",
        bucket_bytes="Gradients that ddp sends together",
        grad_accum="Micro-batches in one optimizer step",
        compile="Whether torch.compile was used",
        channels_last="Whether tensors were laid out channels last",
        compile_mode="Mode of torch.compile, reduce-overhead or max-autotune; blank for torch's default",
        optimizer="Optimizer of training; AdamW-fused where the device updates all weights in one kernel",
        batch="Samples per step on one device",
    ),
    *_columns(
        "where",
        device="Label that was asked for: cpu, cuda:0, ...; with config_hash and trial it is what --resume looks for",
        device_type="torch device type: cpu, cuda, xpu, mps, npu, ...; fake is simulated time",
        device_name="Name as the driver or operating system gives it",
        device_vendor="Vendor, where it can be reported",
        device_stack="Software stack with version: CUDA, ROCm, CPU, ...",
        device_uuid_hash="Hash of the device's identifier",
        chip_limit="What --chip-limit left of the device, as granted; blank when it is whole",
        chip="Matching row of the chip catalogue; blank when none matches alone",
        device_count="Devices that took part; those that are virtual or simulated included",
        device_memory_bytes="Memory of one device",
        power_limit_w="Power limit in force",
        env_id="SHA-256 of the stable part of the environment; the sidecar has it in full",
        driver_version="Device driver",
        runtime_version="CUDA, ROCm or vendor runtime that torch was built with",
        torch_version="torch",
        dnn_version="cuDNN, MIOpen or oneDNN",
        python_version="Python",
        bench_version="gapbench",
        git_commit="Commit of the bench checkout, with -dirty when changed; blank when installed",
        cpu_model="Processor",
        os_version="Operating system and kernel",
        host_hash="Hash of the host name",
        cpu_cores_usable="Physical cores this process may use, after affinity and cgroup quota; fast ones only, where kinds differ",
        threads="CPU compute threads used",
        workers="Loader processes used",
    ),
    *_columns(
        "speed",
        items_unit="What an item is: patch, volume, token",
        elements_unit="What an element is: voxel, ...",
        step_clock="Where step times come from: event (device), host (synchronous device), host_sync (a synchronisation each step)",
        items="Items in the measured window",
        steps="Steps in the measured window",
        elements_per_item="Elements in one item; their mean where items differ",
        distinct_items="Items that lay on the device and were used in turn; blank where a loader brought them",
        item_sizes="How many of them have so many elements, where these differ: 2 of 9216; 1 of 248832",
        window_s="Wall time of the measured window, device synchronised at both ends",
        throughput_per_s="items / window_s",
        elements_per_s="Elements / window_s",
        step_median_ms="Median step",
        step_mean_ms="Mean step",
        step_p05_ms="5th percentile of steps",
        step_p95_ms="95th percentile of steps",
        step_iqr_ms="Interquartile range of steps",
        rel_ci95_frac="Half width of the 95 % interval of the mean step within this trial, by batch means, as a fraction",
        ess="Effective sample size of the window's steps",
        drift_frac="Second half's median step over the first half's, minus 1; of files up to schema 1.2, and blank since",
        drift_rise_frac="Rise of the steps over the window as a share of their median: a line through the medians of batches; blank with too few independent steps",
        drift_half_width_frac="Half width of the 95 % interval of drift_rise_frac",
        host_gap_frac="Share of the window's wall time that device events do not cover",
        host_bound_frac="Share of steps that the device had all but done (under 5 % left) when the host had queued them; blank without device events",
        lat_p50_ms="Median latency of a step; blank under the minimum count",
        lat_p90_ms="90th percentile latency (99 % confidence, early stopping); blank under 64 steps",
        lat_p99_ms="99th percentile latency (99 % confidence, early stopping); blank under 662 steps",
        ttft_ms="Median time to first token: one prefill step",
        tpot_ms="Median time per output token of one sequence in decode",
        prefill_tok_per_s="Prompt tokens per second",
        decode_tok_per_s="Generated tokens per second",
        lat_n="Steps that the latency percentiles rest on",
    ),
    *_columns(
        "communication",
        link_method="How the link's times come about: measured, curve, scaled-curve, tuner, alpha-beta or infinite",
        overlap="Whether communication can run beside compute in this program: yes, or none with the reason",
        comm_ops="Collectives of one step",
        comm_bytes="Bytes that the collectives of one step are about, full tensors",
        contention_units="Compute units that the delay occupied for contended_step_ms; on a CPU blank",
        comm_total_ms="Time of one step's collectives, modelled where the mode is not real",
        comm_low_ms="The same at the link's fast end of its error band",
        comm_high_ms="The same at the link's slow end of its error band",
        comm_exposed_ms="Part of it that compute waited for",
        compute_step_ms="Step without communication: this step replayed with an infinite link",
        contended_step_ms="Median step when communication also takes compute resources",
        contention_moved_frac="Share of the memory traffic asked for contended_step_ms that was really moved; on a CPU blank",
        step_low_ms="Lower end of the step: link fast and no contention",
        step_high_ms="Upper end of the step: link slow and full contention",
        simulated_step_ms="Step by event simulation over the recorded trace",
        simulated_error_frac="simulated_step_ms over the measured mean step of the traced steps, minus 1",
        straggler_step_ms="Expected step when every rank draws its own compute time from the measured steps",
        bubble_frac="Share of the step that a pipeline's stages stand idle",
    ),
    *_columns(
        "warm-up and cold costs",
        warmup_steps="Steps before the window",
        warmup_s="Time before the window, first step excluded",
        warmup_converged="Whether the steps were steady when the window began",
        import_s="Importing torch and the workload's libraries",
        build_s="Building the net and the data",
        transfer_s="Moving the net to the device, context creation included",
        first_step_s="First step",
        compile_s="First step minus median step when torch.compile is on",
        recompiles="torch.compile graphs made after the first step",
    ),
    *_columns(
        "data loading",
        data_wait_s="Time in the window spent waiting for the loader",
        data_wait_frac="data_wait_s / window_s",
    ),
    *_columns(
        "work",
        flops_per_item="Model FLOPs of one item (a multiply-add is 2)",
        flops_method="analytic",
        bytes_per_item="Least memory traffic of one item by formula; their mean where items differ",
        achieved_flops_per_s="flops_per_item x throughput_per_s, all devices together",
        peak_flops_per_s="Dense datasheet peak of the chip for this dtype",
        mfu_frac="achieved_flops_per_s of one device / peak_flops_per_s; blank when the peak is unknown",
        roof_flops_per_s="Best matrix product measured on this device for this dtype; on a CPU the best of matrix products and convolutions",
        roof_sustained_flops_per_s="The same product over the last second of two; blank on a CPU",
        roof_frac="achieved_flops_per_s of one device / roof_flops_per_s",
        roof_bytes_per_s="Best copy bandwidth measured on this device, bytes read plus written",
        peak_source="Catalogue row that the peak comes from",
        roof_source="Method, best of the shapes tried (side and layout), and when the roof was measured",
        num_parameters="Parameters of the net",
    ),
    *_columns(
        "memory",
        mem_alloc_peak_bytes="Peak of tensors on the device in the window, by torch",
        mem_reserved_peak_bytes="Peak of torch's allocator in the window",
        mem_device_peak_bytes="Highest use seen on the device minus the use before the context was made",
        rss_peak_bytes="Peak resident memory of the trial's process",
        mem_init_peak_bytes="Peak of tensors on the device before the window",
        mem_estimate_bytes="Estimate of the peak by formula, for the largest item that was used",
    ),
    *_columns(
        "energy",
        energy_j="Energy of one device over the window, idle power included",
        energy_per_item_j="energy_j / items; blank over several devices",
        energy_net_j="energy_j minus idle power over the window",
        energy_integrated_j="Energy by integrating sampled power, whatever energy_source is",
        energy_source="counter (hardware, validated), integrated (10 Hz power), or blank",
        energy_scope="What it covers: gpu, module, package, soc",
        power_mean_w="energy_j / window_s",
        idle_power_w="Power with the context open before the first step, measured once in a run",
    ),
    *_columns(
        "conditions",
        temp_start_c="Device temperature when the window began",
        temp_max_c="Highest device temperature in the window",
        sm_clock_mean_hz="Mean compute clock in the window",
        sm_clock_min_hz="Lowest compute clock seen in the window",
        throttle_frac="Share of samples with a thermal, brake or hardware slowdown",
        power_limited_frac="Share of samples at the power limit",
        throttle_reasons="Names of all clock-limiting reasons seen, separated by semicolons",
        ecc_uncorrected="Uncorrected memory errors during the trial",
        own_cpu_frac="CPU time of the trial's processes over the window, as a share of the usable cores",
        foreign_cpu_frac="CPU time of everything else on the machine, as a share of its cores",
        steal_frac="CPU time taken by the hypervisor",
        involuntary_switches_per_s="Involuntary context switches of the trial",
        major_faults_per_s="Major page faults of the trial",
    ),
    *_columns(
        "correctness",
        loss_first="Loss of the first step",
        loss_last="Loss of the last measured step",
        check_value="Checksum of the output at tiny on this device, dtype and mode of compilation",
        check_error_frac="Its relative distance (L2) from an eager fp32 CPU reference",
        check_tolerance_frac="Largest distance accepted",
    ),
)

REQUIRED = ("schema_version", "run_id", "trial", "status", "workload", "config_hash", "device")
"""Never blank, whatever became of the trial; a file without them is no result file."""

BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
NAMES: tuple[str, ...] = tuple(BY_NAME)

STATUSES = {
    "OK": "measured, without reservation; a label in `reasons` may say what sets the pace, or what the window alone cannot tell",
    "WARN": "measured and usable, with a reservation named in `reasons`",
    "INVALID": "measured, but conditions or output were wrong; never use its figures",
    "FAILED": "did not finish; `reasons` and `detail` say why",
    "SKIPPED": "was planned and not started, or was interrupted",
}

REASONS: Mapping[str, str] = {
    # code: what it means and what to do
    "not_steady": "steps were not steady when the warm-up limit was reached (up to schema 1.2: or only varied)",
    "drift": "steps became over 3 % slower or faster during the window (up to schema 1.2: whatever their noise)",
    "noisy": "steps vary so much that a change of 5 % could not be seen in the window; the detail has how well it is known",
    "foreign_cpu": "other programs used the processor during the window; stop them and run again",
    "foreign_cpu_heavy": "other programs used over 20 % of the processor during the window",
    "steal": "the hypervisor took processor time away during the window",
    "foreign_gpu": "the device was in use by something else before the trial started",
    "thermal_throttle": "the device slowed itself down for heat; improve cooling or wait",
    "power_brake": "the device was slowed by a hardware power brake; check the power supply",
    "ecc": "uncorrected memory errors occurred; the device may be faulty",
    "nonfinite": "the loss or output was not finite",
    "wrong_output": "the output differs from the fp32 CPU reference by more than the tolerance",
    "flops_disagree": "flops_per_item is far from the FLOPs of the operators that a step runs; the detail has both",
    "flops_unconfirmed": "flops_per_item and the operators of a step differ by over 10 %: another convention, or kernels that cannot be counted; or no step could be counted; the detail has more",
    "parameters_disagree": "num_parameters of the workload is not that of its net; the detail has both",
    "over_roof": "over 105 % of the roof was reached: flops_per_item is too high, or the roof was measured on a busy machine",
    "window_short": "the measured window had too few steps or too little time; raise --budget or shrink the workload",
    "few_samples": "under three steps were measured",
    "clock_backwards": "the clock went backwards during the window",
    "device_changed": "the device or its power limit changed during the trial",
    "recompiled": "torch.compile made new graphs during the window",
    "host_bound": "in over half of the steps the device kept up with the host that queued them, so the host sets the pace; a larger --batch or --compile helps",
    "input_bound": "the device waited for the data loader over 10 % of the time",
    "no_cuda_graphs": "torch.compile ran all or part of the net without the CUDA graphs that --compile-mode asks for: the net changes its inputs, or the device has no such graphs",
    "energy_unvalidated": "the energy counter disagreed with sampled power, so power was integrated",
    "out_of_memory": "device or host memory ran out; use a smaller --size or --batch",
    "oom_shrunk": "the batch was halved after memory ran out, as --oom-shrink allows",
    "unsupported_op": "the device's backend lacks an operator; the message names it",
    "unsupported_dtype": "the device does not compute in this dtype; choose another --dtype",
    "timeout": "the trial did not finish within --timeout",
    "crashed": "the trial's process died; the message has its signal or last line",
    "error": "the workload raised; the message has what, and what began it",
    "interrupted": "the run was interrupted before this trial finished",
    "budget": "the time budget was used up before this trial",
    "link_unresolved": "the link's times are below what can be resolved here, so nothing would be emulated; use a slower link or larger messages",
    "simulation_disagrees": "the event simulation over the same trace differs by over 3 %: timer or contention error",
    "smoke": "smoke profile: shows that it runs, too short to measure",
}

SIGNED = (
    *(column.name for column in COLUMNS if column.name.endswith(("_frac", "_c"))),
    *("loss_first", "loss_last", "check_value", "energy_net_j", "compile_s", "seed"),
)
"""Columns that may be below zero: shares and differences, temperatures, losses."""
USABLE = ("OK", "WARN")
"""Statuses whose figures may be used."""
