"""Our client against a server that somebody else wrote; it takes ten seconds to start."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from foreign_server import foreign_server, write_model

from bench import discovery
from bench.serve.arrival_files import Arrival
from bench.serve.arrivals import parse_arrivals
from bench.serve.endpoint.open_loop import OpenLoop
from bench.serve.endpoint.opening import opened
from bench.serve.endpoint.wire.connections import Address, Connections
from bench.serve.endpoint.wire.request_stream import Reply

pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
pytestmark = pytest.mark.slow
PROMPT, ANSWER = 24, 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    llm = discovery.instance(discovery.load("llm"), size="tiny", overrides={})
    torch.manual_seed(0)
    write_model(folder, llm.build_net())
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Address]:
    with foreign_server(model) as address:
        yield address


def asked(
    server: Address, model: Path, *, rate: str, seconds: float, is_chat: bool = False
) -> tuple[list[Reply], tuple[str, ...]]:
    """Return what came of a schedule of requests, and what the server would not take."""

    async def run() -> tuple[list[Reply], tuple[str, ...]]:
        async with Connections(server, stall_s=20.0) as connections:
            dialect = await opened(
                connections, model=str(model), is_chat=is_chat, prompt_tokens=PROMPT
            )
            loop = OpenLoop(connections, dialect, seed=rate)
            await loop.run(
                Arrival(at_s=one.at_s, prompt_tokens=PROMPT, output_tokens=ANSWER)
                for one in parse_arrivals(rate).draw(seconds=seconds, seed=0)
            )
            return loop.replies, dialect.notes

    return asyncio.run(run())


def test_refused_fields_and_prompts_of_ids_are_done_without_and_tokens_are_exact(
    server: Address, model: Path
) -> None:
    replies, notes = asked(server, model, rate="poisson:40/s", seconds=2.0)
    refused, words = notes
    assert refused == "the server takes no ignore_eos"  # 422: Unexpected fields
    assert words.startswith("prompts are English words, since the server takes no token ids")  # 400
    assert len(replies) > 40
    for one in (reply.served for reply in replies):
        assert (one.status, one.tokens_sent, one.tokens_got) == ("ok", PROMPT, ANSWER)
        assert one.first_token_s is not None and one.sent_s < one.first_token_s <= one.ended_s
    assert sum(len(reply.gaps_s) + 1 for reply in replies) <= len(replies) * ANSWER


def test_a_chat_is_asked_in_messages_and_its_tokens_are_exact(server: Address, model: Path) -> None:
    replies, notes = asked(server, model, rate="uniform:10/s", seconds=1.0, is_chat=True)
    assert any("ignore_eos" in note for note in notes)
    assert [one.served.tokens_got for one in replies] == [ANSWER] * 10
    assert {one.served.status for one in replies} == {"ok"}
