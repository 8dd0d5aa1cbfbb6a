"""Who asks one endpoint: what is alike in all runs against it, and the schedules of them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import Arrivals
from bench.serve.endpoint.open_loop import OpenLoop
from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.lengths import Lengths, sized


@dataclass(frozen=True, kw_only=True)
class EndpointClient:
    """Asks one endpoint in its dialect for answers of such lengths."""

    connections: Connections
    dialect: Dialect
    prompt: Lengths
    """Law of the prompts' lengths."""
    output: Lengths
    seed: int

    def schedule(self, arrivals: Arrivals, *, seconds: float, name: str) -> list[Arrival]:
        """Draw who comes within so many seconds, and the lengths of each."""
        drawn = arrivals.draw(seconds=seconds, seed=self.seed)
        prompt, output = (
            # Beside a trace the client asks by itself as well: then of the default lengths.
            law if arrivals.recorded or law.median else None
            for law in (self.prompt, self.output)
        )
        return sized(drawn, prompt=prompt, output=output, seed=f"{self.seed}/{name}")

    def open_loop(self, name: str) -> OpenLoop:
        """Return a run whose prompts no run of another name has."""
        return OpenLoop(self.connections, self.dialect, seed=f"{self.seed}/{name}")
