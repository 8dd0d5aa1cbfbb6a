"""One trial of an endpoint in a process of its own, started as `bench.measure.trial` is.

The server is somewhere else; this process is the client, and nothing else runs in it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Callable
from functools import partial

from bench.core.errors import MeasurementError
from bench.measure.asking import leave
from bench.measure.messages import Messages, Samples, TrialRequest, TrialResult
from bench.measure.timing.validity import Problems
from bench.measure.trial import main
from bench.results.schema import Row
from bench.serve.arrivals import Arrivals, parse_arrivals
from bench.serve.columns import columns_of
from bench.serve.endpoint.calibration import overhead_of
from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.endpoint_columns import endpoint_columns
from bench.serve.endpoint.opening import key_of, models_of, opened
from bench.serve.endpoint.rate_run import RateRun
from bench.serve.endpoint.rate_search import found_capacity, users_columns
from bench.serve.endpoint.wire.connections import Connections, parse_address
from bench.serve.lengths import PROMPT, parse_lengths
from bench.serve.run_report import Report
from bench.serve.slo import parse_slo


class EndpointTrial:
    """What a trial is asked, read from its configuration, and what came of it."""

    def __init__(self, request: TrialRequest, messages: Messages) -> None:
        config = request.config
        assert config.server is not None and config.serving is not None
        self.server, self.serving = config.server, config.serving
        self.model, self.is_chat = str(config.params["model"]), bool(config.params["chat"])
        self.slo = parse_slo(self.serving.slo) if self.serving.slo else None
        self.arrivals = parse_arrivals(self.serving.given)
        self.seed = config.seed + request.trial
        self.is_smoke = request.limits.is_smoke
        self.row: Row = {}
        self.problems: Problems = []
        self.window_s = (0.0, 0.0)
        """By the monotonic clock, of the run that the row is about."""
        self._messages = messages
        self._key = key_of(os.environ)

    def hidden(self, words: str) -> str:
        """Return the same without the key, which a server may repeat."""
        return words.replace(self._key, "[key]") if self._key else words

    async def run(self) -> None:
        """Open the endpoint and measure what is asked for."""
        self._messages.stage("opening")
        address = parse_address(self.server.address)
        async with Connections(address, stall_s=self.server.stall_s, key=self._key) as connections:
            models = await models_of(connections)
            prompt = parse_lengths(self.serving.prompt_tokens, what="--prompt-tokens")
            dialect = await opened(
                connections,
                model=self.model,
                is_chat=self.is_chat,
                prompt_tokens=prompt.median or PROMPT.median or 1,
                models=models,
            )
            client = EndpointClient(
                connections=connections,
                dialect=dialect,
                prompt=prompt,
                output=parse_lengths(self.serving.output_tokens, what="--output-tokens"),
                seed=self.seed,
            )
            measure = self._at_one_rate if self.arrivals.rate_per_s else self._searched
            await measure(client)
        self.row["engine"] = models.get(self.model)
        self.problems += [("", note) for note in dialect.notes]

    async def _at_one_rate(self, client: EndpointClient) -> None:
        self._messages.stage("calibration")
        overhead = await overhead_of(client, self.arrivals)
        run = self._rate_run(client, self.arrivals, self.serving.seconds)
        await run.run()
        self._read(run)
        self.row, self.problems = endpoint_columns(run, overhead=overhead, is_smoke=self.is_smoke)

    async def _searched(self, client: EndpointClient) -> None:
        assert self.slo is not None, "a search has limits"
        found = await found_capacity(
            client,
            partial(self._rate_run, client, ends_when_decided=True),
            arrivals=self.arrivals,
            seconds=self.serving.seconds or None,
        )
        self._read(found.run)
        overhead = await overhead_of(client, found.run.arrivals)
        self._messages.stage("users")
        users, words = await users_columns(client, found, think_s=self.server.think_s)
        row, problems = endpoint_columns(found.run, overhead=overhead, is_smoke=self.is_smoke)
        if found.bracket.holds_per_s is None:
            problems.append(("capacity_not_confirmed", "no rate held"))
        self.row = row | found.row | users
        self.problems = [*problems, ("", found.words), ("", words)]

    def _rate_run(
        self,
        client: EndpointClient,
        arrivals: Arrivals,
        seconds: float,
        *,
        ends_when_decided: bool = False,
    ) -> RateRun:
        self._messages.stage("warmup")
        report = Report(self._messages, arrivals=arrivals.label, slo=self.slo)
        return RateRun(
            client,
            arrivals,
            slo=self.slo,
            seconds=seconds,
            ends_when_decided=ends_when_decided,
            on_look=_told(report),
        )

    def _read(self, run: RateRun) -> None:
        """Keep when the run was; refuse one in which nothing came."""
        if not run.served:
            raise MeasurementError(run.gone or "no request came in the time that was measured")
        now_s = time.monotonic()
        start_s = now_s - run.loop.elapsed_s
        self.window_s = (start_s, start_s + run.seconds)


def _told(report: Report) -> Callable[[RateRun], None]:
    """Return who lets the parent know how a run goes."""
    num_told = 0

    def look(run: RateRun) -> None:
        nonlocal num_told
        for reply in run.loop.replies[num_told:]:
            report.ended(reply.served)
        num_told = len(run.loop.replies)
        if run.is_over:
            report.send(run.loop.elapsed_s, came_to=_came_to(run))
        else:
            report.look(run.loop.elapsed_s, is_idle=not run.loop.waiting)

    return look


def _came_to(run: RateRun) -> Row | None:
    if not run.served:
        return None
    return columns_of(run.served, slo=run.slo, seconds=run.seconds, is_one_server=False).row


def run_request(request: TrialRequest, messages: Messages) -> None:
    """Run the trial in this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection for each who waits
    trial = EndpointTrial(request, messages)
    try:
        asyncio.run(trial.run())
    except MeasurementError as error:
        raise MeasurementError(trial.hidden(str(error))) from None
    messages.send(
        TrialResult(
            row=trial.row,
            reasons=list(dict.fromkeys(code for code, _ in trial.problems if code)),
            detail=trial.hidden("; ".join(words for _, words in trial.problems if words)),
            window_start_s=trial.window_s[0],
            window_end_s=trial.window_s[1],
            samples=Samples(warmup_step_s=[], step_s=[], step_clock="host", data_wait_s=None),
        )
    )


if __name__ == "__main__":
    leave(main(run_request))
