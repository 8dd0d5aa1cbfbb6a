"""What ends a step: an optimizer's update, a forward without gradients, a batch, or a call.

Of several optimizers, or modules, one ends the step (`bench.wrap.steps.turns`). An update in the
middle of a backward pass, as where each parameter has an optimizer of its own, ends it with that
pass.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.optim import optimizer as optimizers

import bench
from bench.core.nouns import StepMark
from bench.wrap.steps.happenings import Happenings, wrap
from bench.wrap.steps.turns import Turns

OnStep = Callable[[torch.device | None], None]
"""Called at the end of a step, with the device that it was seen on."""


class _Learned:
    """What is known of an optimizer; neither it nor what it updates is kept alive."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        self.kind = type(optimizer).__name__
        self.parameters = [weakref.ref(one) for one in parameters]
        # FSDP1 has the size of a whole flat parameter beside a rank's shard.
        self.sizes = {
            id(one): getattr(one, "_unpadded_unsharded_size", one).numel() for one in parameters
        }


class Marks:
    """Calls `on_step` at each end of a step, and counts what else could have been one."""

    def __init__(
        self, kind: StepMark, *, on_step: OnStep, on_seen: Callable[[], None], sees: Happenings
    ) -> None:
        self._kind = kind
        self._on_step = on_step
        self._on_seen = on_seen
        self._sees = sees
        self.seen: Counter[str] = Counter()
        """What could have ended a step, of each kind."""
        self._turns = Turns()
        self._existing: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._devices: dict[int, torch.device | None] = {}
        """Of optimizers that have updated."""
        self._in_backward: list[torch.device | None] = []
        """Of an update that ends a step once the backward pass is over."""
        self._learned: dict[int, _Learned] = {}
        """Of optimizers that have updated, also of those of them that were the last."""
        self._called: dict[int, torch.Tensor] = {}
        """Parameters of modules whose forward ends a step."""
        self._modules: dict[int, nn.Module] = {}
        """Called at the outermost level until it is settled whose call ends a step."""
        wrap(torch.optim.Optimizer, "__init__", after=self._made)

        apart = _disable_dynamo(self._updated)  # lazily: it imports torch's compiler

        def updated(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if torch.compiler.is_compiling():
                apart(optimizer)
            else:  # as nearly always; to call it apart takes 3 us
                self._updated(optimizer)

        optimizers.register_optimizer_step_post_hook(updated)
        sees.on_batch = lambda: self._mark("loader", None)
        sees.on_backward_end = self._backward_ended
        bench._on_mark.append(lambda: self._mark("mark", None))
        self._call: Any = nn.Module.__call__
        if kind == "forward":
            self._find_modules()

    def settle(self) -> None:
        """From here on the same optimizer ends each step."""
        self._turns.is_final = True

    @property
    def num_parameters(self) -> int | None:
        """Number of what is trained, or called; None where only a rank's part of it is seen."""
        if "deepspeed" in sys.modules:  # its optimizers update flat parts
            return None
        sizes = {name: size for one in self._current() for name, size in one.sizes.items()}
        sizes |= {name: one.numel() for name, one in self._called.items()}
        return sum(sizes.values()) or None

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What is trained, or called, so far as it is still there."""
        found = [one() for learned in self._current() for one in learned.parameters]
        return [*(one for one in found if one is not None), *self._called.values()]

    @property
    def num_trained(self) -> int:
        """Tensors among them that take gradients, however they are cut over ranks."""
        return sum(one.requires_grad for one in self.parameters)

    @property
    def optimizers(self) -> str | None:
        """Classes of the optimizers that update."""
        return "+".join(dict.fromkeys(one.kind for one in self._current())) or None

    @property
    def closer(self) -> str | None:
        """Whose update ends a step, in words."""
        number, names = len(self._current()), self.optimizers
        return names if number < 2 else f"the last of {number} optimizers in turn ({names})"

    def _note(self, kind: StepMark) -> None:
        self.seen[kind] += 1
        if self.seen[self._kind] <= 1:
            self._on_seen()

    def _mark(self, kind: StepMark, device: torch.device | None) -> None:
        self._note(kind)
        if kind == self._kind:
            self._on_step(device)

    # Optimizers ----------------------------------------------------------------------------------

    def _made(self, optimizer: torch.optim.Optimizer, *_: object, **__: object) -> None:
        self._existing.add(optimizer)

    def _updated(self, optimizer: torch.optim.Optimizer) -> None:
        name = id(optimizer)
        if name not in self._devices:
            self._learn(optimizer)
        closer = self._turns.closer
        if closer is None or not self._turns.has_seen(name):
            ends_step = self._turns.ends_step(name, num_known=len(self._existing))
        else:  # as in nearly every step, where each microsecond counts
            ends_step = name == closer
            if not ends_step:
                self._turns.lacks_end(step=self._sees.now)
        # One that updates group by group updates several times after a backward pass.
        is_again = self._sees.has_backward and not self._sees.now.num_backward
        self._sees.note_update()
        if not ends_step or is_again:
            self._note("optimizer")
            return
        device = self._devices[name]
        if self._sees.is_in_backward:
            self._in_backward = [device]
        else:
            self._mark("optimizer", device)

    def _backward_ended(self) -> None:
        if self._in_backward:
            self._mark("optimizer", self._in_backward.pop())

    def _learn(self, optimizer: torch.optim.Optimizer) -> None:
        self._existing.add(optimizer)
        parameter = next((one for group in optimizer.param_groups for one in group["params"]), None)
        self._devices[id(optimizer)] = None if parameter is None else parameter.device
        weakref.finalize(optimizer, self._forget, id(optimizer)).atexit = False
        for name in [one for one in self._learned if one not in self._devices]:
            del self._learned[name]
        self._learned[id(optimizer)] = _Learned(optimizer)

    def _forget(self, name: int) -> None:
        self._devices.pop(name, None)
        self._turns.forget(name)

    def _current(self) -> list[_Learned]:
        learned = self._learned.items()
        return [one for name, one in learned if not self._turns.is_left(name)]

    # Forwards ------------------------------------------------------------------------------------

    def _find_modules(self) -> None:
        """See the outermost calls of modules without gradients; inside one nothing is watched."""
        kind: Any = nn.Module
        call = self._call

        def watched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled() or torch.compiler.is_compiling():
                return call(module, *args, **kwargs)
            kind.__call__ = call
            try:
                result = call(module, *args, **kwargs)
            finally:
                kind.__call__ = watched
            self._modules[id(module)] = module
            if self._turns.ends_step(id(module), num_known=None):
                kind.__call__ = call
                self._watch_module(module)
                self._mark("forward", self._device())
            else:
                self._note("forward")
            return result

        kind.__call__ = watched

    def _watch_module(self, closer: nn.Module) -> None:
        """See the calls of this module alone."""
        for module in self._modules.values():
            self._called |= {id(one): one for one in module.parameters()}
        self._modules.clear()

        def left(module: nn.Module, *_: object, **__: object) -> None:
            if module is closer and not torch.is_grad_enabled():
                self._mark("forward", self._device())

        wrap(type(closer), "__call__", after=left)

    def _device(self) -> torch.device | None:
        return next((one.device for one in self._called.values()), None)
