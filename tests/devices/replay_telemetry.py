"""A reader that plays recorded samples back, for tests of what samples and judges them."""

from collections.abc import Sequence

from bench.devices.telemetry import Baseline, Sample, available_fields


class ReplayTelemetry:
    """Plays recorded samples back, one for each call; an exception in the list is raised instead.

    After the last item the reader fails, as a device
    that was lost does.
    """

    def __init__(
        self,
        samples: Sequence[Sample | Exception],
        *,
        baseline: Baseline | None = None,
        scope: str = "gpu",
    ) -> None:
        self._samples = list(samples)
        self._baseline = baseline or Baseline()
        self._next = 0
        self.scope = scope
        self.is_closed = False

    @property
    def available(self) -> tuple[str, ...]:
        """What the first recorded sample has."""
        first = next((item for item in self._samples if isinstance(item, Sample)), None)
        if first is None:
            return ()
        return available_fields(first, baseline=self._baseline)

    def sample(self, *, with_memory: bool = True) -> Sample:
        """Return the next recorded sample, memory included whether asked for or not."""
        if self._next >= len(self._samples):
            raise OSError("the recording has ended")
        item = self._samples[self._next]
        self._next += 1
        if isinstance(item, Exception):
            raise item
        return item

    def baseline(self) -> Baseline:
        """Return the recorded baseline."""
        return self._baseline

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True
