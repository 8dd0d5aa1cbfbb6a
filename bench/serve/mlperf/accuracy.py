"""LoadGen's accuracy run: it asks for every sample once, through the batches that it also times.

What its log keeps of an answer is eight bytes: the distance from the one that the sample gets when
it is served alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.measure.timing.validity import Problems
from bench.serve.live.own_answers import answers_of, distance_frac, served_alone, wrong_answers

if TYPE_CHECKING:
    import torch

    from bench.serve.live.serving_engine import ServingEngine

_FORMAT = "<d"


class AccuracyRun:
    """Serves samples, and keeps what each was answered."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine
        self._alone = served_alone(engine, num=engine.num_distinct)
        self._found: dict[int, torch.Tensor | None] = {}

    def serve(self, samples: Sequence[int]) -> list[bytes]:
        """Serve these samples together; return the distance of each."""
        output = self._engine.serve(samples)
        answers = answers_of(self._engine, output, num=len(samples))
        self._found.update(zip(samples, answers, strict=True))
        return [self._logged(sample) for sample in samples]

    def _logged(self, sample: int) -> bytes:
        answer, own = self._found[sample], self._alone[sample]
        if answer is None or own is None or answer.shape != own.shape:
            return struct.pack(_FORMAT, math.nan)
        return struct.pack(_FORMAT, distance_frac(answer, own))

    def problems(self) -> Problems:
        """Return what is wrong with the answers."""
        return wrong_answers(self._found, self._alone, engine=self._engine)
