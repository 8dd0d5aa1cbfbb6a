"""What ends a step: an optimizer's update, a forward without gradients, a batch, or a call.

Of several optimizers the one that updates least often ends the step, of equals the one that came
last: a generator after its discriminator's five updates, AdamW beside Muon. It is settled while
the program warms up and kept from then on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

import bench
from bench.core.nouns import StepMark
from bench.wrap.happenings import Happenings

OnStep = Callable[[torch.device | None], None]
"""Called at the end of a step, with the device that it was seen on."""


class Marks:
    """Calls `on_step` at each end of a step, and counts what else could have been one."""

    def __init__(
        self, kind: StepMark, *, on_step: OnStep, on_first: Callable[[str], None], sees: Happenings
    ) -> None:
        self._kind = kind
        self._on_step = on_step
        self._on_first = on_first
        self.seen: Counter[str] = Counter()
        """Ends of steps of each kind, whichever is counted."""
        self._updates: Counter[int] = Counter()
        self._closer: int | None = None
        """The optimizer whose update ends a step; None until it is settled."""
        self.optimizers: dict[str, None] = {}
        self.parameters: dict[int, torch.Tensor] = {}
        """Of all optimizers, so far as they have updated."""
        self._depth = 0
        self._hooks: list[Any] = []
        optimizers.register_optimizer_step_post_hook(self._updated)
        sees.on_batch = self._batch_asked
        bench._on_mark.append(lambda: self._mark("mark", None))
        if kind in ("forward", "optimizer"):
            self._hooks = [
                modules.register_module_forward_pre_hook(self._entered),
                modules.register_module_forward_hook(self._left, always_call=True),
            ]

    def settle(self) -> None:
        """From here on the same optimizer ends each step."""
        self._closer = self._last_of_cycle() if self._updates else None

    def _mark(self, kind: StepMark, device: torch.device | None) -> None:
        if not self.seen[kind]:
            self._on_first(kind)
        self.seen[kind] += 1
        if kind == self._kind:
            self._on_step(device)

    # Optimizers ----------------------------------------------------------------------------------

    # Torch's own, because that of torch.compiler imports a compiler, which takes a second.
    @torch._disable_dynamo  # type: ignore[attr-defined]
    def _updated(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        key = id(optimizer)
        if not self._updates[key]:
            self._learn(optimizer)
        self._updates[key] += 1
        if key == (self._last_of_cycle() if self._closer is None else self._closer):
            parameter = optimizer.param_groups[0]["params"][0]
            self._mark("optimizer", parameter.device)

    def _learn(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizers[type(optimizer).__name__] = None
        for group in optimizer.param_groups:
            self.parameters |= {id(one): one for one in group["params"]}
        if self._kind == "optimizer":
            self._forget_forwards()

    def _last_of_cycle(self) -> int:
        fewest = min(self._updates.values())
        # In the middle of a cycle those that have had their turn are one ahead.
        return [key for key, count in self._updates.items() if count <= fewest + 1][-1]

    # Forwards ------------------------------------------------------------------------------------

    def _entered(self, *_: object) -> None:
        if not torch.is_grad_enabled():
            self._depth += 1

    def _left(self, module: nn.Module, *_: object) -> None:
        if torch.is_grad_enabled():
            return
        self._depth = max(0, self._depth - 1)
        if self._depth == 0:
            parameter = next(module.parameters(), None)
            self._mark("forward", None if parameter is None else parameter.device)

    def _forget_forwards(self) -> None:
        """Take the hooks off every module: they cost a microsecond a call."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    # Loaders -------------------------------------------------------------------------------------

    def _batch_asked(self) -> None:
        self._mark("loader", None)
