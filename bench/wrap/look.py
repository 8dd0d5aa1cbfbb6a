"""A look at a user's program before it is measured: what it trains, how, and what a step computes.

A process of its own, because counting operators slows a step down. Nothing of it is a time.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from msgspec import to_builtins

from bench.emulate.replay import Collective
from bench.hardware.operators import MATRIX
from bench.measure.engine.engine import Stepping
from bench.measure.messages import ScriptFacts
from bench.measure.operator_count import OperatorCounter
from bench.wrap.script_trial import label_of, num_graphs
from bench.wrap.strategy import strategy_in_use

if TYPE_CHECKING:
    from bench.wrap.watch import Watch

SETTLED_STEPS = 3
"""Before the counted one: lazy layers are built, DDP has ordered its buckets."""


def looking(watch: Watch, device: torch.device) -> Stepping[None]:
    """Watch the first steps, count one, and tell what was seen."""
    items, backwards = [], []
    link = watch.ranks.link
    for _ in range(SETTLED_STEPS):
        yield
        items.append(watch.last.items)
        backwards.append(watch.last.num_backward)
    graphs = num_graphs()
    if link is not None:
        link.begin_step()
    counter = OperatorCounter()
    stance = torch.compiler.set_stance("force_eager" if graphs else "default")
    with stance, counter, counter.counting_optimizer():
        yield
    items.append(watch.last.items)
    sent = [] if link is None else link.end_step(is_kept=False).trace.collectives
    operators = counter.operators
    products = [one for one in operators if one.kind in MATRIX] or operators
    widest = max(products, key=lambda one: one.flops, default=None)
    marks = watch.marks
    flops = sum(one.flops for one in operators if one.kind in MATRIX)
    facts = ScriptFacts(
        device=label_of(device),
        version=version_of(Path(sys.argv[0])),
        dtype=widest.dtype if widest and widest.dtype in ("fp32", "bf16", "fp16") else "fp32",
        strategy=strategy_in_use(marks.parameters.values()) or ("ddp" if sent else None),
        num_ranks=watch.ranks.num_ranks,
        is_training=bool(marks.seen["optimizer"]),
        items_per_step=round(median(items)) or None,
        grad_accum=max(1, round(median(backwards))),
        num_parameters=sum(one.numel() for one in marks.parameters.values()) or None,
        optimizer="+".join(marks.optimizers) or None,
        is_compiled=bool(graphs),
        threads=torch.get_num_threads(),
        flops_per_step=None if counter.uncounted or not flops else flops,
        uncounted=counter.uncounted,
        operators=to_builtins(operators),
        sent=[(one.op, one.num_bytes, one.group.num_ranks) for one in sent],
        stand_ins=[*watch.ranks.notes, *_received(sent)],
    )
    watch.messages.send(facts)


def _received(sent: Sequence[Collective]) -> list[str]:
    from_one = any(one.op == "send" for one in sent)
    return ["tensors received from one other rank are zero"] if from_one else []


def version_of(script: Path) -> str:
    """Eight hex digits of the code that a program imported from its own folder."""
    folder = script.resolve().parent
    digest = hashlib.sha256()
    paths = {script.resolve()}
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        path = Path(name).resolve() if isinstance(name, str) else None
        is_own = path is not None and path.is_relative_to(folder)
        if path is not None and is_own and "site-packages" not in path.parts:
            paths.add(path)
    for path in sorted(paths):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
