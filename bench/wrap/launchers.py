"""Launchers that would start a process for each rank start one: the others are virtual.

torchrun and what calls it (accelerate), `torch.multiprocessing.spawn` and what calls that
(Lightning, notebook launchers). Launchers that see torchrun's variables, such as Lightning's own,
start nothing. A number of ranks that differs from --devices is refused.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch.multiprocessing

from bench.core.errors import UsageError
from bench.wrap.on_import import after_import


class Launchers:
    """Patches every launcher in this process; `runs` gets what a spawned rank does."""

    def __init__(self, num_ranks: int, *, runs: Callable[[Callable[[], None]], None]) -> None:
        self._num_ranks = num_ranks
        self._runs = runs
        # The package has a function of the module's name.
        self._patch_spawn(sys.modules["torch.multiprocessing.spawn"])
        after_import("torch.distributed.launcher.api", self._patch_agent)

    def check(self, asked: int, *, who: str) -> None:
        """Raise `UsageError` where a launcher insists on another number of ranks."""
        if asked not in (1, self._num_ranks):
            raise UsageError(
                f"{who} starts {asked} ranks, but --devices says {self._num_ranks}; "
                "give both the same number"
            )

    def _patch_spawn(self, module: Any) -> None:
        start, wrap = module.start_processes, module._wrap

        @functools.wraps(start)
        def start_one(fn: Any, args: Any = (), nprocs: int = 1, *more: Any, **named: Any) -> Any:
            self.check(nprocs, who="torch.multiprocessing")
            return start(fn, args, min(nprocs, 1), *more, **named)

        @functools.wraps(wrap)  # it is found by its name in the process that is spawned
        def wrap_rank(fn: Any, i: int, args: Any, error_file: Any) -> None:
            wrap(lambda i, *args: self._runs(lambda: fn(i, *args)), i, args, error_file)

        package: Any = torch.multiprocessing
        module.start_processes = package.start_processes = start_one
        module._wrap = wrap_rank

    def _patch_agent(self, module: ModuleType) -> None:
        api: Any = module
        launch = api.launch_agent

        @functools.wraps(launch)
        def launch_one(config: Any, *more: Any, **named: Any) -> Any:
            self.check(config.max_nodes * config.nproc_per_node, who="torchrun")
            # As --standalone has it: there is nobody to meet.
            config.min_nodes = config.max_nodes = config.nproc_per_node = 1
            config.rdzv_backend, config.rdzv_endpoint = "c10d", "localhost:0"
            config.rdzv_configs, config.max_restarts = {"timeout": 900}, 0
            return launch(config, *more, **named)

        api.launch_agent = launch_one
