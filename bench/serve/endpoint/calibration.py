"""What the client itself adds to a time to the first token, measured before each run.

The same load goes to a server of our own that answers at once, in another process: what is seen
then is the client, the network's loopback and that server's few microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.core.statistics import median, percentile
from bench.serve.arrivals import Arrivals
from bench.serve.endpoint.endpoint_client import EndpointClient
from bench.serve.endpoint.token_server import server_process
from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.endpoint.wire.request_stream import Reply

SECONDS, LEAST_PER_S = 2.0, 10.0
MOST_TOKENS, TOKEN_S = 50, 0.01
"""An answer of the server's: half a second of tokens at the pace of a model of some 8 B weights."""
_TOKEN_SERVER = "bench.serve.endpoint.token_server"
SHORTEST_FACTOR = 5.0
"""A time under so many times what the client adds is not the server's alone."""


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What the client adds at one load."""

    p50_s: float
    p99_s: float

    def hides(self, ttft_s: Sequence[float]) -> bool:
        """Whether times to the first token are too short to be the server's alone."""
        return bool(ttft_s) and median(ttft_s) < SHORTEST_FACTOR * self.p50_s


async def overhead_of(client: EndpointClient, arrivals: Arrivals) -> Overhead:
    """Put the client's load on its own server."""
    rate_per_s = max(arrivals.rate_per_s or 0.0, LEAST_PER_S)
    law = Arrivals(law="uniform", label="", rate_per_s=rate_per_s)
    schedule = [
        replace(one, output_tokens=min(one.output_tokens or 1, MOST_TOKENS))
        for one in client.schedule(law, seconds=SECONDS, name="calibration")
    ]
    with server_process(["-m", _TOKEN_SERVER, "0", str(TOKEN_S)]) as address:
        async with Connections(address, stall_s=SECONDS) as connections:
            own = replace(
                client,
                connections=connections,
                dialect=Dialect(model="", is_chat=client.dialect.is_chat),
            )
            loop = own.open_loop("calibration")
            await loop.run(schedule)
    return _overhead(loop.replies)


def _overhead(replies: Sequence[Reply]) -> Overhead:
    served = [one.served for one in replies]
    added_s = [
        one.first_token_s - one.scheduled_s for one in served if one.first_token_s is not None
    ]
    return Overhead(p50_s=median(added_s), p99_s=percentile(added_s, 0.99))
