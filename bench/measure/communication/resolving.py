"""Whether a layout's messages are long enough to be emulated here: asked before a run measures.

`python -m bench.measure.communication.resolving` builds the net as a trial does, steps a few times
and looks at what was sent; its answer is why nothing would be emulated, or ''. For messages that
only the net knows: units of FSDP, activations of tensor parallelism, factors of PowerSGD.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from bench.core.errors import UnresolvedLinkError
from bench.measure.asking import answer
from bench.measure.engine.torch_engine import TorchEngine
from bench.measure.messages import TrialRequest

SETTLED_STEPS = 4
"""DDP orders its buckets after the first step, and PowerSGD begins with the third."""


def why_unresolved(request: TrialRequest) -> str:
    """Return why nothing of the link would be emulated, '' where something would."""
    # One rank sends what each of several would, and the batches do not matter.
    layout = replace(request.config.layout, mode="emulated")
    config = replace(request.config, layout=layout, data="resident")
    engine = TorchEngine(msgspec.structs.replace(request, config=config, workers=0))
    engine.build(is_checked=False)
    try:
        for _ in range(SETTLED_STEPS):
            engine.step()
        engine.begin_window()
        assert engine.link is not None, "asked of modelled links"
        engine.drive(engine.link.tracing_afterwards())
    except UnresolvedLinkError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    answer(why_unresolved, TrialRequest)
