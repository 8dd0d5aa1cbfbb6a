"""A cost model whose every collective takes a given time."""

from collections.abc import Callable, Sequence

from bench.hardware.costs.collectives import Cost, Group, Op, group_of


class FixedModel:
    """Takes `seconds`, or what `seconds(op, num_bytes, group)` says; notes what was asked."""

    def __init__(
        self,
        seconds: float | Callable[[Op, int, Group], float] = 0.0,
        *,
        node_size: int | None = None,
    ) -> None:
        self._seconds = seconds
        self._node_size = node_size
        self.asked: list[tuple[Op, int, Group]] = []

    def cost(self, op: Op, *, num_bytes: int, group: Group) -> Cost:
        self.asked.append((op, num_bytes, group))
        seconds = self._seconds
        time_s = seconds(op, num_bytes, group) if callable(seconds) else seconds
        return Cost(time_s, time_s, time_s, "alpha-beta", "")

    def group_of(self, ranks: Sequence[int]) -> Group:
        return group_of(ranks, node_size=self._node_size)
