"""Why something failed, in one line: the last cause, out of what wraps it.

torch's loader, its compilers and its launcher put an exception into the text of another one, whose
first line only says where. Exceptions are followed to their cause, tracebacks in a text likewise,
and both ends are kept: what the caller says, and what began it. A log without a traceback gives its
last line that says something. Where shared memory ran out, /dev/shm is named with its size.
"""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import dataclass, replace
from itertools import islice, takewhile

from bench.core.units import format_bytes

LOG_BYTES = 2**16
"""How much of the end of a log is looked at."""
_MOST_WORDS = 240
"""Letters of one message."""
_MOST_LINKS, _MOST_LINES = 20, 40
_LAUNCHER = "ChildFailedError"
"""torchrun's: the rank that failed has written its own traceback before."""
_SHARED_MEMORY = "/dev/shm"

_TRACEBACK = re.compile(r"\s*(?:\S.*?)??Traceback\b.*\(most recent call last\)")
_NESTED = re.compile(r"Original Traceback|Traceback of ")
"""How a traceback begins that is part of a message: torch's ExceptionWrapper, TorchScript."""
_OUTER = re.compile(r"\s*(The above exception was the direct cause|During handling of the above)")
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Z]\w*)(?:: (.*)|:?)$")
_RANK = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)
_WRAPPER = re.compile(
    r"Caught \w+ (?P<place>in .*?)\.?$|backend='.*' raised:|The following operation failed in the"
    r" TorchScript|DataLoader worker \(pid\(s\) .*\) exited unexpectedly"
)
"""Messages that only say where: of a loader's worker, torch.compile, TorchScript."""
_COMPILER = re.compile(r"\b(?:fatal|error)\s*:", re.IGNORECASE)
"""Below the first line of a message: the line of a compiler that says what is wrong."""
_TRITON_PLACE = re.compile(r"at \d+:\d+:?$")
_CRASH = re.compile(r"\s*(?:what\(\):\s+|Fatal Python error: )(.+)")
_SAYS_NOTHING = re.compile(r"\s*(?:[=\-^~*\s]*$|frame #\d+)")
_SHM_WORDS = re.compile(
    r"</torch_\d+|\bbus error|out of shared memory|\(shm\)|"
    r"(?:dataloader|multiprocessing|/dev/shm)[\s\S]*no space left on device|"
    r"no space left on device.*/dev/shm|SIGBUS",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Raised:
    """One exception of a chain."""

    kind: str
    message: str
    join: str = "caused by"
    """How it stands to the one before it."""

    @property
    def words(self) -> str:
        """Kind and message, cut short."""
        return f"{self.kind}: {self.message}"[:_MOST_WORDS].rstrip(": ")


def _below(error: BaseException, *, with_context: bool) -> BaseException | None:
    """What this was raised from; else, where that is wanted, what was being handled meanwhile."""
    cause = getattr(error, "inner_exception", None) or error.__cause__
    has_context = with_context and not error.__suppress_context__
    return cause or (error.__context__ if has_context else None)


def causes_of(error: BaseException, *, with_context: bool = False) -> list[BaseException]:
    """Return this exception and those that it was raised from, to what began it."""
    found = [error]
    while len(found) < _MOST_LINKS and (inner := _below(found[-1], with_context=with_context)):
        found.append(inner)
    return found


def cause_of(error: BaseException) -> str:
    """Name what was raised and what began it, in one line."""
    links: list[Raised] = []
    join = "caused by"
    for one in causes_of(error, with_context=True):
        links.append(Raised(kind=type(one).__name__, message=_gist(str(one)), join=join))
        links += _chain_in(str(one))
        join = "caused by" if _below(one, with_context=False) else "while handling"
    return _one_line(links) + hint_for(f"{error} {links[-1].message}")


def last_words(log: bytes) -> str:
    """Name what ended a process by the end of what it wrote; '' where it wrote nothing."""
    text = _text_of(log)
    links = _chain_in(text)
    return _one_line(links) if links else _last_line(text)


def how_it_ended(code: int, *, log: bytes) -> str:
    """Say how a process died: its exit code, or minus the signal, and its last words."""
    how, words, text = f"exit code {code}", last_words(log), _text_of(log)
    if code < 0:
        # A traceback that was printed earlier did not end it.
        crashes = [match[1] for line in text.splitlines() if (match := _CRASH.match(line))]
        how, words = f"signal {signal.Signals(-code).name}", next(iter(crashes[-1:]), "")
        words = words[:_MOST_WORDS] or _last_line(text)
    if code == -signal.SIGKILL:
        how += " (killed from outside; often the system was out of memory)"
    hint = hint_for(f"{how} {text}")
    return (f"{how}; last line: {words}" if words else how) + hint


def _text_of(log: bytes) -> str:
    return _RANK.sub("", log[-LOG_BYTES:].decode(errors="replace"))


def _last_line(text: str) -> str:
    return next(reversed(_telling_lines(text)), "")[:_MOST_WORDS]


def _telling_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if not _SAYS_NOTHING.match(line)]


def hint_for(text: str) -> str:
    """Say what often ends a process like this: full memory, or a full /dev/shm; else ''."""
    if "killed by signal: Killed" in text:
        return "; often the system was out of memory"
    if not _SHM_WORDS.search(text) or "Too many open files" in text:
        return ""
    try:
        holds = f" (it holds {format_bytes(shutil.disk_usage(_SHARED_MEMORY).total)})"
    except OSError:
        holds = ""
    return (
        f"; often {_SHARED_MEMORY} is full{holds}: docker run --shm-size=4g ..., or --workers 0, "
        "and see bench doctor"
    )


def _one_line(links: list[Raised]) -> str:
    """Put the first and the last that say something into one line, and where it was."""
    telling = [one for one in links if one.message and not _WRAPPER.match(one.message)]
    first, *rest = telling or links
    words = first.words
    if rest and rest[-1].words != words:
        words += f"; {rest[-1].join} {rest[-1].words}"
    wrapped = (_WRAPPER.match(one.message) for one in links)
    places = [match["place"] for match in wrapped if match and match["place"]]
    return f"{words} ({places[-1]})" if places and telling else words


def _gist(text: str) -> str:
    """First line of a message, and what it announces or a compiler complains of below it."""
    lines = takewhile(lambda line: not _TRACEBACK.match(line), _telling_lines(text))
    own = list(islice(lines, _MOST_LINES))
    if not own:
        return ""
    if _TRITON_PLACE.match(own[0]):
        return own[-1]
    below = own[1:2] if own[0].endswith(":") else []
    below = [line for line in own[1:] if _COMPILER.search(line)][:1] or below
    return ": ".join([own[0].removesuffix(":"), *below]) if below else own[0]


def _chain_in(text: str) -> list[Raised]:
    """Exceptions of the last chain of tracebacks in a text, from the outermost to what began it.

    A traceback that is part of a message is below the one before it; one after "The above
    exception" is above it; any other has nothing to do with it.
    """
    chain: list[Raised] = []
    place = 0
    lines = ["", *(line for line in text.splitlines() if line.strip())]
    for number, line in enumerate(lines):
        link = _raised_below(line, lines[number + 1 :]) if _TRACEBACK.match(line) else None
        if link is None:
            continue
        outer = _OUTER.match(lines[number - 1])
        if _NESTED.match(line.strip()):
            place = min(place + 1, len(chain))
        elif outer and chain:
            join = "caused by" if "cause" in outer[1] else "while handling"
            chain[place] = replace(chain[place], join=join)
        else:
            chain, place = [], 0
        chain.insert(place, link)
    return chain


def _raised_below(header: str, lines: list[str]) -> Raised | None:
    """Return what a traceback ends with; None where it is cut off, or is torch's launcher's own."""
    indent = len(header) - len(header.lstrip())
    for number, line in enumerate(lines):
        if _TRACEBACK.match(line):
            return None
        match = _RAISED.match(line.strip())
        if match and len(line) - len(line.lstrip()) <= indent:
            rest = takewhile(lambda one: not _OUTER.match(one), lines[number + 1 :])
            message = _gist("\n".join([match[2] or "", *rest]))
            return None if match[1] == _LAUNCHER else Raised(kind=match[1], message=message)
    return None
