"""What became of a user's own program, in words: what it did, and what was waited for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import msgspec

from bench.core.nouns import Script
from bench.core.units import counted
from bench.measure.causes import how_it_ended
from bench.measure.messages import Failure, Seen, TrialRequest, TrialResult
from bench.run.launching.child import Outcome
from bench.run.planning.request import FLAGS

_MARKS = {
    "optimizer": "an optimizer step",
    "forward": "a forward without gradients",
    "loader": "a batch of a loader",
    "mark": "a call of bench.mark_step()",
}
_SEEN = {
    "optimizer": ("optimizer step", ""),
    "forward": ("forward", " without gradients"),
    "loader": ("batch", " of a loader"),
    "mark": ("call", " of bench.mark_step()"),
    "backward": ("backward pass", ""),
}
_NO_HOOK = (
    "no process of it imported a torch that calls bench's start hook: the program's Python needs "
    "gapbench installed beside torch, and TORCH_DEVICE_BACKEND_AUTOLOAD must not be 0"
)
_USAGE = 2
"""Exit code of argparse, and of most others, for a command line that cannot be read."""


@dataclass(kw_only=True)
class Heard:
    """What the processes of a program sent, but for their results."""

    stages: list[str] = field(default_factory=list)
    marks: Counter[str] = field(default_factory=Counter)
    failure: Failure | None = None
    """What the first that failed ended with."""

    def add(self, seen: Seen) -> None:
        """Take a process's report: the most that one of them saw."""
        self.marks |= Counter(seen.marks)
        self.failure = self.failure or seen.failure


def explained(outcome: Outcome, request: TrialRequest, *, heard: Heard) -> Outcome:
    """Say how the program ended, where it gave no result or its exit code is not 0."""
    script = request.config.script
    assert script is not None
    if outcome.failure is None:
        return _ended_after(outcome, script) if isinstance(outcome.result, TrialResult) else outcome
    code = outcome.exit_code or 0
    if heard.failure is not None:
        how = f" with exit code {code}" if code > 0 else ""
        detail = f"the program failed{how}: {heard.failure.detail}"
        if heard.failure.detail.startswith("EOFError: EOF when reading a line"):
            detail += "; its standard input is empty under bench wrap"
        detail += _unlaunched(heard.failure.detail)
        failure = Failure(heard.failure.code, detail)
    elif outcome.failure.code == "timeout":
        failure = Failure("timeout", _too_late(outcome, script, heard))
    elif outcome.failure.code != "crashed" and not (code > 0 and "ended" in heard.stages):
        return outcome  # what we refuse
    elif code < 0:
        failure = Failure("crashed", f"the program died{_place(heard)}: {_how(outcome)}")
    elif code > 0:
        detail = f"the program failed{_place(heard)}: {_how(outcome)}"
        detail += _misplaced(request, code)
        failure = Failure("error", detail)
    else:
        failure = Failure("error", _too_early(script, heard))
    return replace(outcome, failure=Failure(failure.code, _in_one_line(failure.detail)))


def _ended_after(outcome: Outcome, script: Script) -> Outcome:
    """Add how the program ended to its result, where it was left to end by itself."""
    assert isinstance(outcome.result, TrialResult)
    is_own_end = outcome.last_stage == "ended"
    if not outcome.exit_code or not (is_own_end or script.runs_to_end):
        return outcome
    if is_own_end and outcome.exit_code > 0:
        failure = Failure("error", _in_one_line(f"the program failed: {_how(outcome)}"))
        return replace(outcome, result=None, failure=failure)
    words = _in_one_line(f"after what is measured the program ended: {_how(outcome)}")
    detail = "; ".join(filter(None, [outcome.result.detail, words]))
    return replace(outcome, result=msgspec.structs.replace(outcome.result, detail=detail))


def _how(outcome: Outcome) -> str:
    return how_it_ended(outcome.exit_code or 0, log=outcome.log.encode())


def _too_late(outcome: Outcome, script: Script, heard: Heard) -> str:
    assert outcome.failure is not None
    limit = outcome.failure.detail.partition(",")[0]
    if "import" not in heard.stages:
        return f"{limit}: {_NO_HOOK}"
    if heard.marks[script.step]:
        return f"{limit}{_place(heard)}; --timeout gives it longer"
    alone = "; other ranks are virtual: it may wait for one of them" if script.is_rank else ""
    return f"{limit}: {_without_step(script, heard)}{alone}"


def _too_early(script: Script, heard: Heard) -> str:
    if "import" not in heard.stages:
        return f"the program ended, and {_NO_HOOK}"
    if heard.marks[script.step]:
        return (
            f"the program ended{_place(heard)} without Python's own end, as by os._exit; give it "
            "more to do, such as more epochs"
        )
    return f"the program ended: {_without_step(script, heard)}"


def _without_step(script: Script, heard: Heard) -> str:
    """`it waited for ... and saw none, but 213 batches of a loader: try --step forward or ...`."""
    waited = f"it waited for {_MARKS[script.step]} (--step {script.step}) and saw none"
    others = {name: heard.marks[name] for name in _SEEN if heard.marks[name]}
    # Forward passes are looked at under --step forward alone.
    may_infer = script.step not in ("forward", "mark") and "backward" not in others
    if not others:
        more = "a program that only infers needs --step forward"
        if not may_infer:
            more = "a call of bench.mark_step() under --step mark ends a step anywhere"
        return f"{waited}, no backward pass and no batch of a loader; {more}"
    seen = [counted(count, _SEEN[name][0]) + _SEEN[name][1] for name, count in others.items()]
    marks = [name for name in others if name != "backward"] or ["mark"]
    marks = list(dict.fromkeys(["forward", *marks] if may_infer else marks))
    hint = " or ".join(f"--step {name}" for name in marks)
    return f"{waited}, but {', '.join(seen)}: try {hint}"


def _place(heard: Heard) -> str:
    stages = {"warmup": "while warming up", "window": "in its window", "look": "in its first steps"}
    found = [words for name, words in stages.items() if name in heard.stages]
    return f" {found[-1]}" if found else " before its first step"


def _unlaunched(detail: str) -> str:
    """What is missing where a program makes a process group and nothing started it as a rank."""
    if "env:// rendezvous" not in detail:
        return ""
    return (
        "; start it as one of several (--devices 8 --link pcie4) or by its launcher "
        "(-- torchrun --nproc-per-node 1 train.py)"
    )


def _misplaced(request: TrialRequest, code: int) -> str:
    """Name the flags of bench that came after the command, and so to the program."""
    ours = {name for flag in FLAGS.values() for name in flag.names}
    ours |= {"--step", "--items-per-step", "--to-end"}
    words = [word.partition("=")[0] for word in request.command[1:]]
    found = [word for word in words if word in ours and word.startswith("--")]
    if code != _USAGE or not found:
        return ""
    return f"; a {found[0]} of bench stands before the command"


def _in_one_line(text: str) -> str:
    """Replace what would move a terminal's cursor: a program may print anything."""
    return "".join(one if one.isprintable() else " " for one in " ".join(text.split()))
