"""One rank of a trial on several devices, in a process of its own.

`python -m bench.measure.ranks.rank_trial FOLDER`: a rank on one machine. The request lies in the
folder, rank 0 talks to the parent through its pipe, and a rank that fails leaves a note there and
ends with code 1, so that the agent ends the others. Standard input is the parent's: when it closes,
so does every rank.

`python -m bench.measure.ranks.rank_trial FD NUMBER`: a rank other than 0 under the user's torchrun.
It waits in the agent's store for what rank 0 does as number NUMBER, and takes part in it. With
`lead` for the number it is rank 0, which reads from standard input what to do and passes it on.

`python -m bench.measure.ranks.rank_trial` alone puts a message into that store for a parent.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import msgspec

from bench.devices.host import cpu
from bench.measure.asking import answer, end_with_parent, failure_of, leave, pin
from bench.measure.messages import (
    Failure,
    LinkRequest,
    Messages,
    Post,
    RankFailure,
    RankRequest,
    Request,
    RunEnd,
    decode,
    encode,
)
from bench.measure.trial import run_request
from bench.parallel import ranks as rank_context
from bench.parallel.ranks import Ranks

LOOK_EVERY_S = 0.5
"""How often a rank looks whether another one has failed, or rank 0 has gone on."""
CAUSE_WAIT_S = 4.0
"""How long rank 0, when it lost another one, waits for the reason."""
FAILURE_KEY = "failure"


def perform(request: RankRequest, ranks: Ranks, *, messages: Messages) -> None:
    """Take part in what is asked for; raises whatever goes wrong."""
    if isinstance(request, LinkRequest):
        from bench.measure.ranks import link_probe

        link_probe.run(request, ranks=ranks, messages=messages)
        return
    cpu_ids = ranks.share(cpu.usable_cpu_ids()) if request.cpu_ids else ()
    pin(cpu_ids)
    label = rank_context.local_label(request.config.device, ranks=ranks)
    config = dataclasses.replace(request.config, device=label)
    request = msgspec.structs.replace(request, config=config, cpu_ids=cpu_ids)
    run_request(request, messages, ranks=ranks)


def describe(request: RankRequest, error: Exception, *, rank: int) -> RankFailure:
    """Describe what a rank raised, as a row can carry it."""
    device = request.device if isinstance(request, LinkRequest) else request.config.device
    failure = failure_of(error, device=device)
    return RankFailure(
        rank=rank,
        failure=Failure(code=failure.code, detail=f"rank {rank}: {failure.detail}"),
        is_lost_peer=rank_context.is_lost_peer(error),
        time_s=time.time(),
    )


def run_local(folder: Path) -> int:
    """Be the rank on this machine that the environment says; code 1 after a failure."""
    rank = int(os.environ["RANK"])
    (folder / f"{rank}.pid").write_text(str(os.getpid()))
    end_with_parent()
    request: RankRequest = decode((folder / "request.json").read_bytes(), RankRequest)
    messages = Messages(os.open(folder / "messages", os.O_WRONLY) if rank == 0 else None)
    try:
        messages.stage("import")
        store = rank_context.within(rank_context.connect(), number=1)
        perform(request, rank_context.join(store), messages=messages)
    except Exception as error:  # whatever a rank raises becomes the trial's row
        traceback.print_exc()
        (folder / f"{rank}.failure").write_bytes(encode(describe(request, error, rank=rank)))
        return 1
    return 0


def lead(request: RankRequest, messages: Messages) -> None:
    """Rank 0 under torchrun: hand out what is next, take part, report a failure of any rank."""
    messages.stage("import")
    try:
        root = rank_context.connect()
        number = root.add("count", 1)
        store = rank_context.within(root, number=number)
        store.set("request", encode(request).decode())
        _end_on(FAILURE_KEY, number=number, messages=messages)
        perform(request, rank_context.join(store), messages=messages)
    except Exception as error:  # as above
        traceback.print_exc()
        failure = describe(request, error, rank=0)
        if failure.is_lost_peer:
            time.sleep(CAUSE_WAIT_S)  # for the rank that knows the reason, which the watch reports
        messages.send(failure.failure)


def _end_on(key: str, *, number: int, messages: Messages) -> None:
    """End this rank, which may hang in a collective, once a key of a trial is there.

    For rank 0 that is another one's failure, for the others that rank 0 has gone on to the next.
    """
    store = rank_context.within(rank_context.connect(), number=number)

    def wait() -> None:
        while not store.check([key]):
            time.sleep(LOOK_EVERY_S)
        if key == FAILURE_KEY:
            # Its own exception may be the better story, and rank 0 shows it meanwhile.
            time.sleep(LOOK_EVERY_S)
            messages.send(decode(store.get(key), Failure))
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def follow(messages: Messages, *, number: int) -> None:
    """Another rank: wait for what is next and take part; its parent learns when the run ends."""
    root = rank_context.connect()
    store = rank_context.within(root, number=number)
    request: RankRequest | RunEnd = decode(store.get("request"), Request)
    if isinstance(request, RunEnd):
        messages.send(request)
        return
    _end_on("request", number=number + 1, messages=messages)
    ranks = rank_context.join(store)
    messages.stage("begun")
    try:
        perform(request, ranks, messages=Messages())
    except Exception as error:  # as above
        failure = describe(request, error, rank=ranks.rank)
        if not failure.is_lost_peer:
            store.set(FAILURE_KEY, encode(failure.failure).decode())


def post(letter: Post) -> None:
    """Put something into the store for a parent, which has no torch."""
    root = rank_context.connect()
    number = root.add("count", 1) if letter.number is None else letter.number
    rank_context.within(root, number=number).set(letter.key, encode(letter.message).decode())


def main() -> int:
    """Be a rank; see the module's docstring for the arguments."""
    first, *rest = sys.argv[1:]
    if not rest:
        return run_local(Path(first))
    messages = Messages(int(first))
    request: Any = decode(sys.stdin.readline(), RankRequest) if rest == ["lead"] else None
    end_with_parent()
    if request is not None:
        lead(request, messages)
    else:
        follow(messages, number=int(rest[0]))
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        answer(post, Post)
    leave(main())
