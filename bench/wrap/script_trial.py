"""A trial of a user's program: the loops of `bench run`, and the columns of its row."""

from __future__ import annotations

import resource
import sys
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bench.devices.torch.torch_adapter import adapter_for
from bench.measure.asking import peak_rss_bytes
from bench.measure.engine.engine import Engine, StepCount, Stepping, StepsEndedError
from bench.measure.timing import summary
from bench.measure.timing.validity import Problems
from bench.measure.timing.window import Window
from bench.measure.trial import Measured, layout_columns, measuring, send_result
from bench.parallel.laid_out import DDP_OVERLAP
from bench.results.schema import Row
from bench.workload import INFER, TRAIN
from bench.wrap.strategy import overlap_of, strategy_in_use

if TYPE_CHECKING:
    from bench.wrap.watch import Watch


def label_of(device: torch.device) -> str:
    """Return the device's label as `--device` takes it."""
    return "cpu" if device.type == "cpu" else f"{device.type}:{device.index or 0}"


def num_graphs() -> int:
    """Return how many graphs torch.compile has made; its compiler is not imported for it."""
    compiler: Any = sys.modules.get("torch._dynamo.utils")
    return 0 if compiler is None else int(compiler.counters["stats"]["unique_graphs"])


class ScriptEngine(Engine):
    """Steps that a program does by itself; they are seen to end and never asked for."""

    def __init__(self, watch: Watch, device: torch.device) -> None:
        self.watch = watch
        self.config = watch.request.config
        self.script = watch.script
        self.adapter = adapter_for(label_of(device))
        self.layout = self.config.layout
        self.link = watch.ranks.link
        self.is_traced = self.link is not None and self.link.is_traced
        self.apart: list[str] = []
        """What those steps of the window held that held more than most."""
        self.num_trained = 0
        """Tensors that take gradients, when the window began."""

    def step(self) -> StepCount:
        """Never called: the program steps."""
        raise NotImplementedError

    def count(self) -> StepCount | None:
        """Return what the step that has just ended processed; None where it was no usual one."""
        happened, usual = self.watch.last, self.watch.usual
        unusual = usual.unusual(happened)
        if self.is_traced:
            self.link.end_step(is_kept=not unusual)
        if unusual:
            self.apart.append(" and ".join(unusual))
            return None
        items, flops = usual.items(happened), self.script.flops_per_step
        if flops and items and self.script.counted_items:
            flops *= items / self.script.counted_items
        return StepCount(
            items=self.script.items_per_step or items or 1,
            elements=None,
            flops=flops,
            data_wait_s=happened.data_wait_s,
        )

    def begin_window(self) -> None:
        """Count memory peaks and traces from here."""
        self.watch.marks.settle()
        self.apart.clear()
        self.num_trained = self.watch.marks.num_trained
        self.adapter.reset_peak_memory()
        if self.link is not None:
            in_use = strategy_in_use(self.watch.marks.parameters)
            self.overlap = overlap_of(
                self.layout, in_use=in_use, is_cpu=self.adapter.label == "cpu"
            )
            self.link.waits_hide = self.overlap in ("", DDP_OVERLAP)
            self.link.is_smoke = self.watch.request.limits.is_smoke
            self.link.begin_window()

    def recompiles(self) -> int | None:
        """Graphs that torch.compile has made so far; None where there are none."""
        return num_graphs() or None


def measuring_script(watch: Watch, device: torch.device) -> Stepping[None]:
    """Measure the steps and send the row."""
    engine, request = ScriptEngine(watch, device), watch.request
    loop = measuring(engine, request, messages=watch.messages)
    if engine.is_traced:
        engine.link.begin_step()
    measured = yield from _counted(loop, engine)
    measured, uncounted = _as_counted(measured, engine=engine)
    row = _columns(request.config.layout.link, engine=engine, window=measured.window)
    row |= _own_columns(engine, measured)
    rows = [row]
    for link in request.also_links:
        rows.append(row | _columns(link, engine=engine, window=measured.window))
    problems = [*_problems(engine, measured.window), *uncounted]
    send_result(watch.messages, rows, request=request, measured=measured, problems=problems)


def _counted(loop: Stepping[Measured], engine: ScriptEngine) -> Stepping[Measured]:
    """Tell the loop what each step that has ended processed."""
    next(loop)
    while True:
        try:
            try:
                yield
            except StepsEndedError as ended:
                while True:  # whatever it waits for: no step comes any more
                    loop.throw(ended)
            else:
                loop.send(engine.count())
                if engine.is_traced:
                    engine.link.begin_step()
        except StopIteration as stopped:
            measured: Measured = stopped.value
            return measured


def _as_counted(measured: Measured, *, engine: ScriptEngine) -> tuple[Measured, Problems]:
    """Return the steps without FLOPs where they train other parameters than the counted one did.

    Such as a whole net, after a stage that trained its head.
    """
    counted, seen = engine.script.counted_tensors, engine.num_trained
    now = engine.watch.marks.num_trained or seen  # a program that has ended has none left
    if not (engine.script.flops_per_step and counted) or counted == seen == now:
        return measured, []
    engine.script = replace(engine.script, flops_per_step=None)
    counts = [replace(count, flops=None) for count in measured.window.counts]
    words = f"FLOPs are blank: the step that was counted trained {counted} tensors, these "
    words += str(now) if seen in (now, counted) else f"{seen} and {now}"
    return replace(measured, window=replace(measured.window, counts=counts)), [("", words)]


def _columns(link: str, *, engine: ScriptEngine, window: Window) -> Row:
    reported, row, _ = layout_columns(engine, window, link=link)
    row |= summary.speed_columns(reported)
    row["flops_method"] = "counted" if engine.script.flops_per_step else None
    phase = TRAIN if engine.config.phase == TRAIN.name else INFER
    row |= summary.latency_columns(reported, phase=phase, sequences=1)
    waited = any(count.data_wait_s for count in reported.counts)
    return row | summary.wait_columns(reported, uses_loader=waited)


def _own_columns(engine: ScriptEngine, measured: Measured) -> Row:
    warmup = measured.warmup
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "warmup_steps": len(warmup.step_s),
        "warmup_s": warmup.wall_s,
        "warmup_converged": warmup.has_converged,
        "recompiles": warmup.recompiles,
        "threads": torch.get_num_threads(),
        "num_parameters": engine.watch.marks.num_parameters,
        "optimizer": engine.watch.marks.optimizers,
        # Of several processes this one's: its launcher's would be the parent's to see.
        "rss_peak_bytes": peak_rss_bytes(usage) if engine.watch.ranks.num_real > 1 else None,
        "mem_alloc_peak_bytes": engine.adapter.peak_allocated_bytes(),
        "mem_reserved_peak_bytes": engine.adapter.peak_reserved_bytes(),
    }


def _problems(engine: ScriptEngine, window: Window) -> Problems:
    if not window.apart_step_s:
        return []
    took_s: dict[str, list[float]] = defaultdict(list)
    for kind, step_s in zip(engine.apart, window.apart_step_s, strict=False):  # or traced behind it
        took_s[kind].append(step_s)
    held = ", ".join(f"{kind} ({len(one)}, {sum(one):.3g} s)" for kind, one in took_s.items())
    number = len(window.apart_step_s)
    words = f"{number} of {number + len(window.counts)} steps held more than the others"
    return [("steps_apart", f"{words} and are in no figure: {held}")]
