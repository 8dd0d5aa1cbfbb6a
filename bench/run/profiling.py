"""Operator profiles of a finished run, once for each configuration.

Each is made in a process of its own and times nothing. A projection to an absent chip is far
sharper with one. A profile that cannot be made is a line of advice and no failure: the rows stand
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from bench.core.errors import BenchError
from bench.measure.asking import ask
from bench.measure.messages import TrialRequest
from bench.results.operator_profiles import read_profiles, write_profile
from bench.results.schema import USABLE, Row
from bench.run.launching.launch import child_environment, make_request
from bench.run.planning.plan import Planned
from bench.run.session import Session

AUTOMATIC = ("default", "rigorous")
"""Profiles of `bench run` that end with operators profiled unasked: seconds after minutes."""


def wants_profiles(session: Session) -> bool:
    """Whether a run ends with operator profiles without being asked: not within a firm budget."""
    plan = session.plan
    return plan.profile in AUTOMATIC and not plan.is_budget_firm


def record_profiles(session: Session, *, rows: Sequence[Row], note: Callable[[str], None]) -> int:
    """Profile what has usable rows and no profile yet; return how many were recorded."""
    path = session.store.path
    known = read_profiles(path)
    usable = {str(row["config_hash"]) for row in rows if row["status"] in USABLE}
    recorded = 0
    for planned in session.plan.planned:
        config = planned.config
        key = (planned.config_hash, config.device)
        if not _can_profile(planned) or planned.config_hash not in usable or key in known:
            continue
        note(f"{config.name}: profiling operators (not timed)")
        request = make_request(planned, trial=0, limits=session.plan.limits, facts=session.facts)
        try:
            _record(session, planned, msgspec.structs.replace(request, idle_s=0.0))
            recorded += 1
        except BenchError as error:
            note(f"{config.name}: no operator profile: {error}")
    return recorded


def _can_profile(planned: Planned) -> bool:
    config = planned.config
    return planned.refusal is None and config.layout.is_single and config.device != "fake"


def _record(session: Session, planned: Planned, request: TrialRequest) -> None:
    """Profile one configuration and store it; `BenchError` says why there is none."""
    profile = ask(
        "bench.measure.operators.profile",
        request,
        kind=dict[str, Any],
        what="profiling ended",
        environment=child_environment(threads=request.threads),
        timeout_s=session.plan.timeout_s,
    )
    write_profile(
        session.store.path,
        config_hash=planned.config_hash,
        device=planned.config.device,
        profile=profile,
    )
