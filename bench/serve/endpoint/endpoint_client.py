"""Who asks one endpoint: what is alike in all runs against it, and the schedules of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import Arrivals
from bench.serve.endpoint.open_loop import OpenLoop
from bench.serve.endpoint.wire.connections import Connections
from bench.serve.endpoint.wire.dialect import Dialect
from bench.serve.lengths import OUTPUT, PROMPT, Lengths, lengths_of


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
        seed = f"{self.seed}/{name}"
        asked = (self.prompt, "--prompt-tokens", PROMPT), (self.output, "--output-tokens", OUTPUT)
        own = [one.prompt_tokens for one in drawn], [one.output_tokens for one in drawn]
        prompts, outputs = (
            lengths_of(
                law if arrivals.recorded or law.median else default,
                theirs,
                what=what,
                otherwise=default,
                seed=f"{seed}/{what}",
            )
            for (law, what, default), theirs in zip(asked, own, strict=True)
        )
        return [
            replace(one, prompt_tokens=prompt, output_tokens=output)
            for one, prompt, output in zip(drawn, prompts, outputs, strict=True)
        ]

    def open_loop(self, name: str) -> OpenLoop:
        """Return a run whose prompts no run of another name has."""
        return OpenLoop(self.connections, self.dialect, seed=f"{self.seed}/{name}")
