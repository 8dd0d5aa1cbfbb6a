"""Operator profiles of a finished run, once for each configuration.

Each is made in a process of its own and times nothing. A projection to an absent chip is far
sharper with one. A profile that cannot be made is a line of advice and no failure: the rows stand
without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.core.errors import BenchError
from bench.hardware.loader import decode
from bench.hardware.operators import Operators
from bench.measure.request import TrialRequest
from bench.results.operator_profiles import read_profiles, write_profile
from bench.results.schema import USABLE, Row
from bench.run.launch import child_environment
from bench.run.plan import Planned
from bench.run.resources import make_request
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
        problem = _record(session, planned, replace(request, idle_s=0.0))
        if problem is None:
            recorded += 1
        else:
            note(f"{config.name}: no operator profile: {problem}")
    return recorded


def _can_profile(planned: Planned) -> bool:
    config = planned.config
    return planned.refusal is None and config.layout.is_single and config.device != "fake"


def _record(session: Session, planned: Planned, request: TrialRequest) -> str | None:
    """Profile one configuration and store it; return what went wrong, or None."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.measure.profile"],
            input=request.to_json() + "\n",
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(threads=request.threads),
            timeout=session.plan.timeout_s,
        )
    except subprocess.TimeoutExpired:
        return f"not finished after {session.plan.timeout_s:g} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:300]
    try:
        profile = json.loads(lines[-1])
        if "refused" in profile:
            return str(profile["refused"])
        decode(profile["operators"], into=list[Operators], what="profile")
        write_profile(
            session.store.path,
            config_hash=planned.config_hash,
            device=planned.config.device,
            profile=profile,
        )
    except (BenchError, KeyError, TypeError, ValueError) as error:
        return str(error)
    return None
