"""Which of several ranks failed first: what one raised, how one died, and who only lost a peer."""

import signal
from pathlib import Path
from typing import Any

from torch.distributed import DistNetworkError

from bench.measure.messages import Failure, RankFailure, encode
from bench.measure.ranks.rank_agent import first_failure
from bench.parallel.ranks import is_lost_peer


class Died:
    """As torch's agent shows of a process that ended badly."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode


def note(folder: Path, rank: int, detail: str, *, time_s: float, is_lost_peer: bool) -> None:
    failure = Failure(code="error", detail=f"rank {rank}: {detail}")
    raised = RankFailure(rank=rank, failure=failure, is_lost_peer=is_lost_peer, time_s=time_s)
    (folder / f"{rank}.failure").write_bytes(encode(raised))


def detail_of(folder: Path, exits: dict[int, int]) -> str:
    died: Any = {rank: Died(code) for rank, code in exits.items()}
    return first_failure(died, folder=folder, num_ranks=3).detail


def test_earliest_exception_is_told_and_not_who_lost_a_peer(tmp_path: Path) -> None:
    note(tmp_path, 0, "connection closed", time_s=1.0, is_lost_peer=True)
    note(tmp_path, 1, "later", time_s=3.0, is_lost_peer=False)
    note(tmp_path, 2, "earlier", time_s=2.0, is_lost_peer=False)
    assert detail_of(tmp_path, {0: 1, 1: 1, 2: 1}) == "rank 2: earlier"


def test_death_without_a_word_comes_before_lost_peers(tmp_path: Path) -> None:
    note(tmp_path, 0, "connection closed", time_s=1.0, is_lost_peer=True)
    log = tmp_path / "run_x" / "attempt_0" / "1"
    log.mkdir(parents=True)
    (log / "stdout.log").write_text("the last words\n\n")
    exits = {0: 1, 1: -signal.SIGSEGV, 2: -signal.SIGTERM}
    assert detail_of(tmp_path, exits) == "rank 1 died: signal SIGSEGV; last line: the last words"


def test_lost_peer_is_told_when_nothing_else_is_known(tmp_path: Path) -> None:
    assert detail_of(tmp_path, {0: -signal.SIGTERM}) == "the ranks were ended from outside"
    note(tmp_path, 2, "connection closed", time_s=1.0, is_lost_peer=True)
    assert detail_of(tmp_path, {0: -signal.SIGTERM, 2: 1}) == "rank 2: connection closed"


def test_errors_that_only_say_that_another_rank_is_gone() -> None:
    gone = "[third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"
    assert is_lost_peer(RuntimeError(gone))
    assert is_lost_peer(DistNetworkError("connection reset"))
    assert not is_lost_peer(RuntimeError("shape mismatch"))
    assert not is_lost_peer(ValueError("gloo::"))
