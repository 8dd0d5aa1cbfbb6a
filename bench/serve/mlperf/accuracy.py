"""LoadGen's accuracy run: it asks for every sample once, through the batches that it also times.

What its log keeps of an answer is eight bytes: the distance from the one that the sample gets when
it is served alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from bench.serve.live.own_answers import OwnAnswers

_FORMAT = "<d"


def logged_answers(answers: OwnAnswers, samples: Sequence[int]) -> list[bytes]:
    """Serve these samples together; return the distance of each."""
    answers.serve(samples)
    distances = map(answers.distance_frac, samples)
    return [struct.pack(_FORMAT, math.nan if one is None else one) for one in distances]
