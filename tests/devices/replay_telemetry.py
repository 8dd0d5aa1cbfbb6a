"""A reader that plays recorded samples back, for tests of what samples and judges them."""

from collections.abc import Callable, Sequence

from bench.devices.telemetry.common import Baseline, Sample


class ReplayTelemetry:
    """One recorded sample for each call; an exception is raised, a function called instead.

    After the last item the reader fails, as a device that was lost does.
    """

    scope = "gpu"
    available: tuple[str, ...] = ()

    def __init__(
        self,
        samples: Sequence[Sample | Exception | Callable[[], Sample]] = (),
        *,
        baseline: Baseline | None = None,
    ) -> None:
        self.samples = iter(samples)
        self.recorded_baseline = baseline or Baseline()
        self.asked: list[bool] = []

    def sample(self, *, with_memory: bool = True) -> Sample:
        self.asked.append(with_memory)
        item = next(self.samples, OSError("the recording has ended"))
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, Sample) else item()

    def baseline(self) -> Baseline:
        return self.recorded_baseline

    def close(self) -> None: ...
