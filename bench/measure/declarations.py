"""What the author of a workload declares, against the net and against one step that is counted.

Parameters are counted exactly. FLOPs are those of the matrix products, convolutions and attention
that one more step runs after the window, eagerly, from shapes; the other operators' are added where
the declaration is larger. Conventions differ by up to a factor of 2 (recomputed activations, half
of a causal product, 6 N), and a kernel that is no operator of torch is not seen: then a difference
is a reservation. Without such an excuse the row is INVALID, since every utilisation rests on the
declaration. Left out: tp, pp and fsdp, where no step of one device runs the whole net.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.core.units import format_si
from bench.hardware.operators import MATRIX
from bench.measure.timing.validity import Problems

if TYPE_CHECKING:
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.measure.operator_count import OperatorCounter

AGREES_FRAC = 0.10
"""Biases, norms and what the first layer's gradient leaves out are less."""
MOST_OVER, MOST_UNDER = 2.0, 10.0
"""Declared over counted beyond which no convention explains it, and counted over declared: experts
that are computed and not used, windows of padding, and attention left out may add up to much."""
MOST_OVER_ELEMENTWISE = 100.0
"""Where elementwise operators dominate: they count as one operation, and a sine may be dozens."""
PARAMETERS_FRAC = 0.01


def declaration_problems(engine: TorchEngine) -> Problems:
    """What the author declared wrongly; asked when the window's figures have been read."""
    declared = engine.workload.num_parameters()
    return parameter_problems(declared, in_net=engine.num_parameters) + _flops_problems(engine)


def parameter_problems(declared: int, *, in_net: int) -> Problems:
    """Whether the declared parameters are those of the net."""
    if abs(declared - in_net) <= PARAMETERS_FRAC * in_net:
        return []
    words = f"num_parameters declares {declared:,}, the net has {in_net:,}"
    return [("parameters_disagree", words)]


def _flops_problems(engine: TorchEngine) -> Problems:
    has_others = engine.layout.strategy not in (None, "ddp")
    # Where all ranks take part none may drop out, as one may that runs a compiled net eagerly.
    if has_others or (engine.config.compile and not engine.layout.is_single):
        return []
    import torch

    from bench.measure.operator_count import OperatorCounter

    counter = OperatorCounter()
    try:
        with torch.compiler.set_stance("force_eager"), counter.counting_optimizer(), counter:
            count = engine.untraced_step()
        engine.adapter.synchronize()
    except Exception as error:  # the figures of the window stand, whatever a counted step lacks
        if engine.workload.flops_per_item(engine.phase) is None:
            return []
        why = (str(error).splitlines() or [""])[0][:100]
        words = f"flops_per_item could not be checked: {type(error).__name__}: {why}"
        return [("flops_unconfirmed", words)]
    if count.flops is None or not count.items:
        return []
    return flops_problems(count.flops / count.items, counter=counter, items=count.items)


def flops_problems(declared: float, *, counter: OperatorCounter, items: int) -> Problems:
    """Judge the declared FLOPs of an item by the operators of a step of so many."""
    matrix = sum(one.flops for one in counter.operators if one.kind in MATRIX) / items
    others = sum(one.flops for one in counter.operators if one.kind in ("vector", "norm")) / items
    most = matrix + others
    if matrix * (1 - AGREES_FRAC) <= declared <= most * (1 + AGREES_FRAC):
        return []
    shown = f"a step runs {format_si(matrix, 'FLOP')} for each"
    words = f"flops_per_item declares {format_si(declared, 'FLOP')}, {shown}"
    is_wrong = declared * MOST_UNDER < matrix
    if declared > most:
        most_over = MOST_OVER if matrix >= others else MOST_OVER_ELEMENTWISE
        is_wrong = declared > most_over * most and not counter.uncounted
        if counter.uncounted:
            words += f" beside {', '.join(counter.uncounted)}, whose FLOPs are not known"
    return [("flops_disagree" if is_wrong else "flops_unconfirmed", words)]
