"""How many tokens a request's prompt holds, and how many it asks for.

Real lengths differ much from one request to the next, and what waits depends on it: one figure for
all of them is the exception. They are drawn before the run from its seed. Left out: prompts that
share a beginning, and lengths that go together (a long prompt with a long answer), save in a trace.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.core.errors import UsageError
from bench.serve.arrival_files import Arrival

MOST_TOKENS = 10_000_000
MOST_SIGMA = 2.0
_FIXED = re.compile(r"fixed:([0-9]+)")
_LOGNORMAL = re.compile(r"lognormal:([0-9]+):([0-9]*\.?[0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """A law of lengths in tokens: each is `median` times a lognormal factor of that sigma."""

    label: str
    """As it was given: lognormal:1024:0.5."""
    median: int | None
    """None: the lengths are those of the trace that the arrivals come from."""
    sigma: float = 0.0
    """Standard deviation of the length's natural logarithm; 0: all alike."""

    def draw(self, num: int, *, seed: str) -> list[int]:
        """Return so many lengths, each at least 1; a longer draw begins with a shorter one."""
        assert self.median is not None, "a trace has lengths of its own"
        source = random.Random(f"{seed}/{self.label}")
        factors = (source.lognormvariate(0.0, self.sigma) for _ in range(num))
        return [min(max(1, round(self.median * factor)), MOST_TOKENS) for factor in factors]


PROMPT = Lengths(label="lognormal:1024:0.5", median=1024, sigma=0.5)
OUTPUT = Lengths(label="lognormal:256:0.5", median=256, sigma=0.5)


def parse_lengths(text: str, *, what: str) -> Lengths:
    """Read `fixed:N`, `lognormal:MEDIAN:SIGMA` or `trace:`; `UsageError` for anything else."""
    label = text.strip().lower()
    if label == "trace:":
        return Lengths(label=label, median=None)
    match = _FIXED.fullmatch(label) or _LOGNORMAL.fullmatch(label)
    if match is None or not 1 <= int(match[1]) <= MOST_TOKENS:
        raise UsageError(
            f"{what} {text!r} is not fixed:N, lognormal:MEDIAN:SIGMA (tokens, such as "
            f"lognormal:1024:0.5) or trace: (those of --arrivals trace:FILE); "
            f"1 to {MOST_TOKENS} tokens"
        )
    sigma = float(match[2]) if match.re is _LOGNORMAL else 0.0
    if sigma > MOST_SIGMA:
        raise UsageError(f"{what} {text!r}: a sigma over {MOST_SIGMA:g} is not a spread of lengths")
    return Lengths(label=label, median=int(match[1]), sigma=sigma)


def lengths_of(
    asked: Lengths | None,
    own: Sequence[int | None],
    *,
    what: str,
    otherwise: Lengths,
    seed: str,
) -> list[int]:
    """Return the length of each request: by the law asked for, or its `own`, that of a trace.

    Without a law a request keeps its own, and `otherwise` is the law of those that have none.

    Raises:
        UsageError: `trace:` is asked for and a request has no length of its own.
    """
    if asked is not None and asked.median is not None:
        return asked.draw(len(own), seed=seed)
    if asked is not None and None in own:
        raise UsageError(
            f"{what} trace: needs --arrivals trace:FILE whose every line has a length; "
            "give fixed:N or lognormal:MEDIAN:SIGMA"
        )
    drawn = otherwise.draw(len(own), seed=seed)
    return [one if its is None else its for its, one in zip(own, drawn, strict=True)]


def sized(
    drawn: Sequence[Arrival], *, prompt: Lengths | None, output: Lengths | None, seed: str
) -> list[Arrival]:
    """Return the requests with the lengths of their prompts and answers, as in `lengths_of`."""
    asked = (prompt, "--prompt-tokens", PROMPT), (output, "--output-tokens", OUTPUT)
    own = [one.prompt_tokens for one in drawn], [one.output_tokens for one in drawn]
    prompts, outputs = (
        lengths_of(law, theirs, what=what, otherwise=default, seed=f"{seed}/{what}")
        for (law, what, default), theirs in zip(asked, own, strict=True)
    )
    return [
        replace(one, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        for one, prompt_tokens, output_tokens in zip(drawn, prompts, outputs, strict=True)
    ]
