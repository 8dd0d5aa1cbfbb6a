"""A language model that serves requests of tokens, by an engine that batches them as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.measure.timing.validity import Problems
from bench.results.schema import Row
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import parse_arrivals
from bench.serve.live.served_phase import DevicePhase
from bench.serve.llm_engine import engine_label
from bench.serve.run_report import Report
from bench.serve.tally import Served

if TYPE_CHECKING:
    from bench.serve.live.language_engine import LanguageEngine

NUM_TYPICAL = 20_000
"""Requests whose lengths the cache is made for."""


class LanguagePhase(DevicePhase):
    """Requests share each pass through the net: no service stands by itself."""

    engine: LanguageEngine
    is_one_server = False

    def _make(self, *, on_stage: Callable[[str], None]) -> LanguageEngine:
        from bench.serve.live.language_engine import LanguageEngine

        return LanguageEngine(self.request, on_stage=on_stage)

    def _make_ready(self) -> None:
        recorded = parse_arrivals(self.serving.given).recorded
        typical = self.sized(recorded or [Arrival(at_s=0.0)] * NUM_TYPICAL)
        self.engine.open([(one.prompt_tokens or 0) + (one.output_tokens or 0) for one in typical])

    def _serve(self, schedule: Sequence[Arrival], *, report: Report) -> list[Served]:
        seconds, slo = self.serving.seconds, self.slo
        longest_s = max((slo.latency_s or 0.0, slo.ttft_s or 0.0)) if slo else 0.0
        self.engine.begin_counting()
        served = self.engine.tokens.serve(
            schedule,
            seed=f"{self.request.config.seed}/{self.request.trial}/{len(schedule)}",
            last_s=seconds + max(seconds, 2 * longest_s),
            report=report,
        )
        self.link_columns = self.engine.link_columns()
        return served

    def columns(self) -> tuple[Row, Problems]:
        """Return what every device has, the engine, and what it answered wrongly."""
        self.engine.close()
        row, problems = super().columns()
        plan = self.engine.workload.serving_plan()
        row |= {
            "engine": engine_label(),
            "max_batch": plan.max_requests if plan else None,
        }
        return row, [*filter(None, [self.engine.answers_problem]), *problems]
