"""Operator profiles of a finished run, once for each configuration.

Each is made in a process of its own and times nothing. A projection to an absent chip is far
sharper with one. A profile that cannot be made is a line of advice and no failure: the rows stand
without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bench.core.errors import BenchError
from bench.measure.asking import ask
from bench.results.operator_profiles import read_profiles, write_profile
from bench.results.schema import USABLE
from bench.run.launching.launch import child_environment, make_request
from bench.run.runner import Runner


def record_profiles(run: Runner, *, note: Callable[[str], None]) -> None:
    """Profile what has usable rows and no profile yet."""
    path = run.store.path
    known = read_profiles(path)
    usable = {str(row["config_hash"]) for row in run.rows if row["status"] in USABLE}
    for planned in run.plan.planned:
        config = planned.config
        can_profile = config.layout.is_single and config.device != "fake"
        if not can_profile or planned.config_hash not in usable:
            continue
        if (planned.config_hash, config.device) in known:
            continue
        note(f"{config.name}: profiling operators (not timed)")
        request = make_request(planned, trial=0, limits=run.plan.limits, facts=run.facts)
        try:
            profile = ask(
                "bench.measure.operators.profile",
                msgspec.structs.replace(request, idle_s=0.0),
                kind=dict[str, Any],
                what="profiling ended",
                environment=child_environment(threads=request.threads),
                timeout_s=run.plan.timeout_s,
            )
        except BenchError as error:
            note(f"{config.name}: no operator profile: {error}")
            continue
        key = {"config_hash": planned.config_hash, "device": config.device}
        write_profile(path, **key, profile=profile)
