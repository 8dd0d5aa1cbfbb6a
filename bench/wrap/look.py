"""A look at a user's program before it is measured: what it trains, how, and what a step computes.

A process of its own, because counting operators slows a step down. Nothing of it is a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from msgspec import to_builtins
from torch.optim import optimizer as optimizers

from bench.core.nouns import DTYPES
from bench.devices.torch.backends import attempt
from bench.devices.torch.detect import uuid_of
from bench.emulate.replay import Collective
from bench.hardware.operators import MATRIX
from bench.measure.engine.engine import Stepping
from bench.measure.messages import ScriptFacts
from bench.measure.operator_count import OperatorCounter
from bench.wrap.program_version import version_of_program
from bench.wrap.script_trial import label_of, num_graphs
from bench.wrap.strategy import strategy_in_use

if TYPE_CHECKING:
    from bench.wrap.watch import Watch

SETTLED_STEPS = 3
"""Before the counted one: lazy layers are built, DDP has ordered its buckets."""
MOST_COUNTED = 20
"""Steps in which a usual one is looked for."""


def watch_updates(watch: Watch) -> None:
    """Tell the counter of a step where an optimizer begins and ends; a hook cannot add hooks."""

    def begin(*given: Any) -> Any:
        return None if watch.counter is None else watch.counter.begin_update(*given)

    def end(*given: Any) -> None:
        if watch.counter is not None:
            watch.counter.end_update(*given)

    optimizers.register_optimizer_step_pre_hook(begin)
    optimizers.register_optimizer_step_post_hook(end)


def looking(watch: Watch, device: torch.device) -> Stepping[None]:
    """Watch the first steps, count one, and tell what was seen."""
    usual = watch.usual
    accumulated = []
    for _ in range(SETTLED_STEPS):
        yield
        usual.unusual(watch.last)
        accumulated.append(watch.last.accumulated)
    graphs = num_graphs()
    for _ in range(MOST_COUNTED):
        counter, sent = yield from _counted_step(watch, is_compiled=bool(graphs))
        # The last batch of an epoch may be smaller.
        if not usual.unusual(watch.last) and usual.is_of_usual_size(watch.last):
            break
    accumulated.append(watch.last.accumulated)
    operators = counter.operators
    products = [one for one in operators if one.kind in MATRIX] or operators
    widest = max(products, key=lambda one: one.flops, default=None)
    marks = watch.marks
    flops = sum(one.flops for one in operators if one.kind in MATRIX)
    facts = ScriptFacts(
        device=label_of(device),
        uuid=_uuid_of(device),
        version=version_of_program(),
        dtype=widest.dtype if widest and widest.dtype in DTYPES else "fp32",
        strategy=strategy_in_use(marks.parameters) or ("ddp" if sent else None),
        num_ranks=watch.ranks.num_ranks,
        is_training=bool(marks.seen["optimizer"]),
        items_per_step=usual.items(watch.last),
        items_of=watch.happenings.items_of,
        grad_accum=max(1, round(median(accumulated))),
        num_parameters=marks.num_parameters,
        num_trained=marks.num_trained,
        optimizer=marks.closer,
        is_compiled=bool(graphs),
        threads=torch.get_num_threads(),
        flops_per_step=None if counter.uncounted or not flops else flops,
        uncounted=counter.uncounted,
        operators=to_builtins(operators),
        sent=[(one.op, one.num_bytes, one.group.num_ranks) for one in sent],
        stand_ins=[*watch.ranks.notes, *_received(sent)],
    )
    watch.messages.send(facts)


def _counted_step(
    watch: Watch, *, is_compiled: bool
) -> Generator[None, Any, tuple[OperatorCounter, tuple[Collective, ...]]]:
    """Count a step's operators and what it sends; compiled code runs operator by operator."""
    link = watch.ranks.link
    if link is not None:
        link.begin_step()
    counter = watch.counter = OperatorCounter()
    stance = torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()
    with stance, counter:
        yield
    watch.counter = None
    sent = () if link is None else link.end_step(is_kept=False).trace.collectives
    return counter, sent


def _uuid_of(device: torch.device) -> str | None:
    module: Any = torch if device.type == "cpu" else torch.get_device_module(device)
    return attempt(lambda: uuid_of(module.get_device_properties(device)))


def device_in_use(seen: torch.device | None, *, parameters: Iterable[torch.Tensor]) -> torch.device:
    """Return the device that a program computes on, with its index.

    `seen` is that of a parameter where a step ended, None where none was looked at. What an
    optimizer updates on the CPU may be a copy of what an accelerator computes with.
    """
    num_bytes: Counter[torch.device] = Counter()
    for one in parameters:
        num_bytes[one.device] += one.numel() * one.element_size()
    if seen is not None:
        num_bytes[seen] += 0
    found = [
        (size, device) for device, size in num_bytes.items() if device.type not in ("cpu", "meta")
    ]
    if found:
        return max(found, key=lambda one: one[0])[1]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        index = torch.accelerator.current_device_index()
        held_bytes = attempt(lambda: torch.accelerator.memory_allocated(index))
        if held_bytes or (held_bytes is None and seen is None):
            return torch.device(accelerator.type, index)
    return torch.device("cpu")


def _received(sent: Sequence[Collective]) -> list[str]:
    from_one = any(one.op == "send" for one in sent)
    return ["tensors received from one other rank are zero"] if from_one else []
