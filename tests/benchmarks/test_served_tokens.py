"""A token of our own engine against one of a server that others wrote, at one user.

Run with `pytest tests/benchmarks/test_served_tokens.py --benchmark-enable -s`, on a machine that
does nothing else. Both serve the same net on one thread, and take turns. A pass of it takes some
milliseconds, beside which what a server adds to each token, in the same interpreter, is little.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import discovery
from bench.core.statistics import median
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import parse_arrivals
from bench.serve.endpoint.open_loop import OpenLoop
from bench.serve.endpoint.opening import opened
from bench.serve.endpoint.wire.connections import Address, Connections
from tests.serve.foreign_server import foreign_server, write_model

pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
AGREES_FRAC = 0.10
SIZE, LAYERS = "small", 16
"""A server adds some 0.4 ms to each token: little beside a pass of this net, much to a tiny one."""
ROUNDS, SECONDS, TOKENS = 3, 20.0, 64
RATE = "uniform:0.5/s"
"""Each request has ended when the next one comes."""


def test_a_token_takes_as_long_as_in_our_own_engine(tmp_path: Path) -> None:
    model = tmp_path / "model"
    llm = discovery.instance(discovery.load("llm"), size=SIZE, overrides={"layers": LAYERS})
    write_model(model, llm.build_net())
    theirs_ms, ours_ms = [], []
    with foreign_server(model) as server:
        for number in range(ROUNDS):
            theirs_ms.append(tpot_of_server_ms(server, model=str(model), name=str(number)))
            ours_ms.append(tpot_of_row_ms(tmp_path / str(number)))
    print("\nms a token:", *(f"{kind}: {values}" for kind, values in
                              (("theirs", theirs_ms), ("ours", ours_ms))))  # fmt: skip
    assert median(ours_ms) == pytest.approx(median(theirs_ms), rel=AGREES_FRAC)


def tpot_of_server_ms(server: Address, *, model: str, name: str) -> float:
    async def run() -> float:
        async with Connections(server, stall_s=30.0) as connections:
            dialect = await opened(connections, model=model, is_chat=False, prompt_tokens=TOKENS)
            loop = OpenLoop(connections, dialect, seed=name)
            await loop.run(
                Arrival(at_s=one.at_s, prompt_tokens=TOKENS, output_tokens=TOKENS)
                for one in parse_arrivals(RATE).draw(seconds=SECONDS, seed=0)
            )
            assert {reply.served.tokens_got for reply in loop.replies} == {TOKENS}
            return 1e3 * median([reply.served.tpot_s or 0.0 for reply in loop.replies])

    return asyncio.run(run())


def tpot_of_row_ms(out: Path) -> float:
    lengths = ("--prompt-tokens", f"fixed:{TOKENS}", "--output-tokens", f"fixed:{TOKENS}")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench", "run", "--workload", "llm-serve", "--size", SIZE),
            *("--set", f"layers={LAYERS}"),
            *("--device", "cpu", "--threads", "1", "--arrivals", RATE, "--seconds", str(SECONDS)),
            *(*lengths, "--json", "--out", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    row = json.loads(done.stdout)["rows"][-1]  # after those of a machine that was not quiet
    assert row["tokens_got_mean"] == TOKENS, done.stderr
    return float(row["tpot_p50_ms"])
