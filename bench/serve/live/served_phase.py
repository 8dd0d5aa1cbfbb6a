"""An inference phase that serves a schedule: on a device in real time, or in simulated time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bench import discovery
from bench.core.errors import MeasurementError
from bench.core.nouns import Config, Serving
from bench.measure.declarations import declaration_problems
from bench.measure.engine.engine import Engine, FakeEngine
from bench.measure.messages import Messages, TrialRequest
from bench.measure.timing import summary
from bench.measure.timing.validity import Problems
from bench.measure.trial import CHECKED
from bench.results.schema import Row
from bench.serve import fake_server
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import Arrivals, equal_issue
from bench.serve.batcher import BatchRule
from bench.serve.lengths import parse_lengths, sized
from bench.serve.live.server import run_server
from bench.serve.run_report import Report
from bench.serve.slo import Slo, parse_slo
from bench.serve.tally import Served
from bench.workload import Phase

if TYPE_CHECKING:
    from bench.measure.engine.torch_engine import TorchEngine
    from bench.serve.live.own_answers import OwnAnswers
    from bench.serve.live.serving_engine import ServingEngine


SEEDS_APART = 1000


class ServedPhase(ABC):
    """What serves: `engine` does the steps of a closed loop, one request each."""

    engine: Engine
    is_one_server = True
    """Whether services follow one another."""
    cold_s: dict[str, float]
    """What getting there took, by stage."""

    def __init__(self, request: TrialRequest) -> None:
        assert request.config.serving is not None, "only what is served comes here"
        self.request = request
        self.serving: Serving = request.config.serving
        self.phase = phase_of(request.config)
        self.rule = BatchRule(max_batch=self.serving.max_batch, max_wait_s=self.serving.max_wait_s)
        self.slo: Slo | None = parse_slo(self.serving.slo) if self.serving.slo else None
        self.cold_s = {}
        self.link_columns: Row = {}
        """What a link carried in what ran last."""
        self.window_s: tuple[float, float] | None = None
        """Of what ran last, or what the row is of; on the engine's clock."""
        self._num_drawn = 0

    def schedule(self, arrivals: Arrivals) -> list[Arrival]:
        """Draw who comes for as long as was asked, and where requests are of tokens, how many."""
        # Two runs of a trial share no luck.
        seed = self.request.config.seed + self.request.trial + SEEDS_APART * self._num_drawn
        self._num_drawn += 1
        drawn = arrivals.draw(seconds=self.serving.seconds, seed=seed)
        if not drawn:
            raise MeasurementError(f"{arrivals.label}: nobody came; raise --seconds")
        return self.sized(drawn)

    def sized(self, drawn: Sequence[Arrival]) -> list[Arrival]:
        """Return the requests with their lengths, where this phase is of tokens."""
        if not self.phase.is_served:
            return list(drawn)
        prompt = parse_lengths(self.serving.prompt_tokens, what="--prompt-tokens")
        output = parse_lengths(self.serving.output_tokens, what="--output-tokens")
        return sized(drawn, prompt=prompt, output=output, seed=str(self.request.config.seed))

    def serve(self, schedule: Sequence[Arrival], *, report: Report) -> list[Served]:
        """Serve a schedule; one answer for each request, in its order."""
        start_s = self.engine.clock.now_s()
        served = self._serve(schedule, report=report)
        self.window_s = start_s, self.engine.clock.now_s()
        return served

    @abstractmethod
    def _serve(self, schedule: Sequence[Arrival], *, report: Report) -> list[Served]: ...

    @abstractmethod
    def columns(self) -> tuple[Row, Problems]:
        """Return what is known beside the requests, and what is wrong with it."""


class FakePhase(ServedPhase):
    """On the fake device: a batch takes half a step, and half a step for each request in it."""

    def __init__(self, request: TrialRequest, messages: Messages) -> None:
        super().__init__(request)
        self.engine = FakeEngine(request)

    @property
    def shapes(self) -> Sequence[Hashable]:
        """One request stands for all."""
        return [None]

    def batch_s(self, requests: Sequence[int]) -> float:
        """Return how long these requests take together."""
        return self._service_s(len(requests))

    def _service_s(self, num: int) -> float:
        start_s = self.engine.clock.now_s()
        self.engine.step()
        return (self.engine.clock.now_s() - start_s) * (1 + num) / 2

    def _serve(self, schedule: Sequence[Arrival], *, report: Report) -> list[Served]:
        served = fake_server.serve(schedule, law=self._service_s, rule=self.rule)
        if self.phase.is_served:
            served = [_of_tokens(one, asked) for one, asked in zip(served, schedule, strict=True)]
        for one in served:
            report.ended(one)
        report.send(self.serving.seconds)
        return served

    def columns(self) -> tuple[Row, Problems]:
        """Nothing is known beside the requests."""
        return {}, []


def phase_of(config: Config) -> Phase:
    """Return the phase that a configuration is of."""
    return discovery.load_planned(config.origin, version=config.version).phase(config.phase)


def _of_tokens(one: Served, asked: Arrival) -> Served:
    """A simulated service whose tokens came evenly."""
    tokens = asked.output_tokens or 1
    return replace(
        one,
        first_token_s=one.started_s + (one.ended_s - one.started_s) / tokens,
        last_token_s=one.ended_s,
        tokens_asked=tokens,
        tokens_sent=asked.prompt_tokens,
        tokens_got=tokens,
    )


class DevicePhase(ServedPhase):
    """On a device, in real time."""

    engine: TorchEngine

    def __init__(self, request: TrialRequest, messages: Messages) -> None:
        super().__init__(request)
        start_s = time.perf_counter()
        messages.stage("import")
        self.engine = messages.kept = self._make(on_stage=messages.stage)
        import_s = time.perf_counter() - start_s
        self.engine.build()
        self._make_ready()
        self.cold_s = self.engine.cold_s | {"import": self.engine.cold_s["import"] + import_s}

    @abstractmethod
    def _make(self, *, on_stage: Callable[[str], None]) -> TorchEngine:
        """Import and make the engine; it is built afterwards."""

    @abstractmethod
    def _make_ready(self) -> None:
        """Do once what no user should be the first for."""

    def columns(self) -> tuple[Row, Problems]:
        """Return the net, memory and correctness."""
        engine = self.engine
        row: Row = {
            "num_parameters": engine.num_parameters,
            "mem_alloc_peak_bytes": engine.adapter.peak_allocated_bytes(),
            "mem_reserved_peak_bytes": engine.adapter.peak_reserved_bytes(),
            "mem_init_peak_bytes": engine.init_peak_bytes,
            **summary.item_columns(engine.resident),
        }
        if engine.granted is not None:
            row["chip_limit"] = engine.granted.label
        found = [engine.output_problem()]
        if (check := engine.check) is not None:
            row |= {f"check_{figure}": getattr(check, figure) for figure in CHECKED}
            found.append(check.problem)
        problems: Problems = [one for one in found if one is not None]
        if engine.lacks_graphs():
            problems.append(("no_cuda_graphs", ""))
        return row, problems + declaration_problems(engine)


class QueuePhase(DevicePhase):
    """One server and one queue, the client in a thread beside it."""

    engine: ServingEngine
    answers: OwnAnswers | None = None
    """What LoadGen was answered; else requests are asked for when the window is over."""

    def _make(self, *, on_stage: Callable[[str], None]) -> ServingEngine:
        from bench.serve.live.serving_engine import ServingEngine

        return ServingEngine(self.request, on_stage=on_stage)

    def _make_ready(self) -> None:
        self.engine.warm_batches(self.rule.max_batch)

    @property
    def shapes(self) -> Sequence[Hashable]:
        """Of each distinct request; those of one shape go together."""
        return [self.engine.shape_of(one) for one in range(self.engine.num_distinct)]

    def batch_s(self, requests: Sequence[int]) -> float:
        """Return how long these distinct requests take together."""
        start_s = self.engine.clock.now_s()
        self.engine.serve(requests)
        return self.engine.clock.now_s() - start_s

    def _serve(self, schedule: Sequence[Arrival], *, report: Report) -> list[Served]:
        engine, seconds, shapes = self.engine, self.serving.seconds, self.shapes
        issue = equal_issue(engine.num_distinct, num=len(schedule), seed=self.request.config.seed)
        limit_s = (self.slo.latency_s if self.slo else None) or 0.0
        served = run_server(
            schedule,
            serve=lambda places: engine.serve([issue[place] for place in places]),
            shapes=[shapes[one] for one in issue],
            rule=self.rule,
            last_s=seconds + max(seconds, 2 * limit_s),
            clock=engine.clock,
            report=report,
        )
        return [replace(one, sample=sample) for one, sample in zip(served, issue, strict=True)]

    def columns(self) -> tuple[Row, Problems]:
        """Return what every device has; and whether requests get their own answers."""
        from bench.serve.live.own_answers import answered_together

        self.engine.stop_bringing()
        row, problems = super().columns()
        answers = self.answers or answered_together(self.engine, rule=self.rule)
        return row, [*problems, *answers.problems()]
