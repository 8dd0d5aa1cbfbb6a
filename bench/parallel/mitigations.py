"""Algorithmic mitigations for a narrow link: their names, what they are, how a name is read.

Each trades the exact average of gradients in every step for fewer bytes. Gradient accumulation,
larger buckets and fewer devices also spare the link, change no algorithm, and are flags of their
own. What loss such a run ends with is for real ranks to tell: virtual ranks have no gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from bench.core.errors import UsageError, one_of

Half = Literal["fp16", "bf16"]
Averaging = Literal["postlocalsgd", "diloco"]
LARGEST = 10**6
"""Of a rank or a period; beyond it a number is a slip."""


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """What a name such as powersgd-4+fp16 asks for."""

    half: Half | None = None
    """Gradients (with diloco, the weights' change) travel in this dtype."""
    powersgd_rank: int | None = None
    averaging: Averaging | None = None
    period_steps: int = 1
    """Optimizer steps from one communication to the next."""

    @property
    def is_none(self) -> bool:
        """Whether gradients are averaged in full, in every step."""
        return self == Mitigation()


NAMES = ["fp16", "bf16", "powersgd-R", "postlocalsgd-H", "diloco-H"]
"""fp16, bf16: gradients travel in this dtype (the hooks of
https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html). powersgd-R: each gradient matrix travels
as two factors of rank R, errors fed back (https://arxiv.org/abs/1905.13727). postlocalsgd-H:
replicas step alone and average their weights every H steps (https://arxiv.org/abs/1808.07217).
diloco-H: the same, with an outer Nesterov step by their mean change
(https://arxiv.org/abs/2311.08105)."""
COMBINED = ("powersgd-R+fp16", "powersgd-R+bf16", "diloco-H+fp16", "diloco-H+bf16")
"""Pairs that go together: what the first sends is sent in the second's dtype."""


def parse_mitigation(text: str) -> Mitigation:
    """Read `--mitigate`; '' is none. Raises UsageError in one line."""
    found = Mitigation()
    for part in text.split("+") if text.strip() else ():
        one = _parse_one(part.strip().lower())
        is_other = found.powersgd_rank is not None or found.averaging is not None
        if is_other if "half" not in one else found.half is not None:
            raise UsageError(
                f"--mitigate {text}: these do not go together; what does is {', '.join(COMBINED)}"
            )
        found = replace(found, **one)
    if found.averaging == "postlocalsgd" and found.half is not None:
        raise UsageError(
            f"--mitigate {text}: postlocalsgd sends the weights themselves, which {found.half} "
            f"would round; what goes together is {', '.join(COMBINED)}"
        )
    return found


def _parse_one(part: str) -> dict[str, Any]:
    """Fields of a `Mitigation` that one name sets."""
    kind, _, number = part.partition("-")
    if part in get_args(Half):
        return {"half": part}
    if kind not in ("powersgd", *get_args(Averaging)):
        raise one_of("--mitigate", part, NAMES, hint="(R a rank, H a period in steps)")
    letter, least = ("R", 1) if kind == "powersgd" else ("H", 2)
    if not (number.isascii() and number.isdigit() and least <= int(number) <= LARGEST):
        raise UsageError(
            f"--mitigate {part}: {letter} in {kind}-{letter} is a whole number from {least} "
            f"to {LARGEST}, such as {kind}-4"
        )
    if kind == "powersgd":
        return {"powersgd_rank": int(number)}
    return {"averaging": kind, "period_steps": int(number)}
