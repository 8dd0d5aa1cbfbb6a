"""From what an endpoint answered at one rate to the columns of a row, and what is wrong with them.

What every open loop has comes from `bench.serve.columns`; here are tokens, their gaps, what the
client adds, and what the server would not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from bench.core.statistics import median, percentile
from bench.core.units import counted, format_duration
from bench.measure.timing.validity import Problems
from bench.results.schema import Row
from bench.serve.columns import FEWEST_FOR_P99, columns_of
from bench.serve.endpoint.calibration import Overhead
from bench.serve.endpoint.rate_run import RateRun
from bench.serve.endpoint.wire.request_stream import Reply

JOINED_S, JOINED_FRAC = 1e-4, 0.01
"""More gaps than this part, so short, are of tokens that were sent together."""
CACHED_FRAC = 0.01
_NOT_SEEN = ("wait_p50_ms", "wait_p99_ms")
"""Of an endpoint: when it begins with a request is its own business."""


def endpoint_columns(
    run: RateRun, *, overhead: Overhead, is_smoke: bool = False
) -> tuple[Row, Problems]:
    """Return the columns of one rate, and what is wrong with it."""
    tally = columns_of(
        run.served, slo=run.slo, seconds=run.seconds, is_one_server=False, is_smoke=is_smoke
    )
    row, problems = dict(tally.row), list(tally.problems)
    for name in _NOT_SEEN:
        row.pop(name, None)
    answered = [one for one in run.replies if one.served.status == "ok"]
    row |= {
        "client_overhead_p50_ms": 1e3 * overhead.p50_s,
        "client_overhead_p99_ms": 1e3 * overhead.p99_s,
    }
    ttft_s = [one.served.ttft_s for one in answered if one.served.ttft_s is not None]
    if overhead.hides(ttft_s):
        row["ttft_p50_ms"] = row["ttft_p99_ms"] = None
        parts = format_duration(median(ttft_s)), format_duration(overhead.p50_s)
        problems.append(("client_overhead", "TTFT {}, of which the client is {}".format(*parts)))
    for part in (_token_columns(answered), _gap_columns(answered)):
        row |= part[0]
        problems += part[1]
    if not (run.is_steady or run.gone or is_smoke):
        problems.append(("not_steady", "TTFT had not settled when the warm-up ended"))
    problems += [("", words) for words in _words(run, answered)]
    return row, problems


def _words(run: RateRun, answered: Sequence[Reply]) -> list[str]:
    early = sum(_is_early(one) for one in answered)
    words = [run.gone] if run.gone else []
    if early:
        words.append(f"{early} of {counted(len(answered), 'answer')} ended early")
    errors = [one for one in run.replies if one.served.is_error]
    return words + ([f"first error: {errors[0].words}"] if errors and not run.gone else [])


def _is_early(reply: Reply) -> bool:
    got, asked = reply.served.tokens_got, reply.served.tokens_asked
    return got is not None and asked is not None and got < asked


def _token_columns(answered: Sequence[Reply]) -> tuple[Row, Problems]:
    served = [one.served for one in answered]
    with_usage = [one for one in served if one.tokens_got is not None]
    problems: Problems = []
    if len(with_usage) < len(served):
        missing = len(served) - len(with_usage)
        problems.append(("no_usage", f"{missing} of {counted(len(served), 'stream')}"))
    row: Row = {}
    if with_usage:
        row["items"] = sum(one.tokens_got or 0 for one in with_usage)
    known = [
        (one.cached_tokens, one.served.tokens_sent)
        for one in answered
        if one.cached_tokens is not None and one.served.tokens_sent
    ]
    if known:
        share = sum(cached for cached, _ in known) / sum(sent for _, sent in known)
        row["cached_tokens_frac"] = share
        if share > CACHED_FRAC:
            problems.append(("prefix_cache_hit", f"{100 * share:.3g} % of the prompt tokens"))
    return row, problems


def _gap_columns(answered: Sequence[Reply]) -> tuple[Row, Problems]:
    """Gaps between chunks; they are those between tokens where each chunk has one."""
    gaps_s = list(chain.from_iterable(one.gaps_s for one in answered))
    row: Row = {}
    if len(gaps_s) >= FEWEST_FOR_P99:
        row["icl_p99_ms"] = 1e3 * percentile(gaps_s, 0.99)
    several = sum(one.joins_tokens for one in answered)
    together = fmean(gap < JOINED_S for gap in gaps_s) if gaps_s else 0.0
    if several or together > JOINED_FRAC:
        words = f"{100 * together:.3g} % of the chunks come at once"
        words += f", {counted(several, 'stream')} with several tokens in a chunk" * bool(several)
        return row, [("chunks_joined", words)]
    if all(one.served.tokens_got is not None for one in answered):
        row["itl_p99_ms"] = row.get("icl_p99_ms")
    return row, []
