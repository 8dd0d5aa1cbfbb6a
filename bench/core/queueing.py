"""How long requests wait: a queue replayed with given arrivals and services, and formulas of means.

First come, first served, by one server or several; urgent requests go before the others, but what
has begun is finished. Left out: arrivals or services that depend on the queue, and servers that
take several requests at once. The formulas are for arrivals at random (Poisson) and one server.

All times are in one unit, and rates per that unit.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Marks = NDArray[np.bool_]

_TIE = 1e-9
"""Of a mean service: above what sums of so many are rounded by."""


def sojourn_times(
    arrivals: Floats, services: Floats, *, servers: int = 1, is_urgent: Marks | None = None
) -> Floats:
    """Time from each arrival to its end; arrivals in order, urgent ones go first."""
    import numpy as np

    if is_urgent is not None and not is_urgent.any():
        is_urgent = None
    if servers > 1:
        return _one_by_one(arrivals, services, servers, is_urgent)
    ends = _ends(arrivals, services)
    if is_urgent is not None:
        ends = _ends_by_class(arrivals, services, ends - services - arrivals, is_urgent)
    return np.maximum(ends - arrivals, services)


def _ends(ready: Floats, services: Floats) -> Floats:
    """When each is done by one server that takes them in order: Lindley's recursion, unrolled.

    Lindley, Proc. Cambridge Phil. Soc. 48 (1952), https://doi.org/10.1017/S0305004100027638
    """
    import numpy as np

    work = np.cumsum(services)
    return work + np.maximum.accumulate(ready - (work - services))


def _ends_by_class(arrivals: Floats, services: Floats, found: Floats, is_urgent: Marks) -> Floats:
    """When each is done if urgent ones go first; `found` is the work that each finds.

    A routine request waits for all the work it finds, which does not depend on the order, and for
    urgent work that comes until it begins: until the time without urgent work that came has grown
    to its own. An urgent one waits for what has begun and for earlier urgent ones.
    """
    import numpy as np

    urgent, routine = np.flatnonzero(is_urgent), np.flatnonzero(~is_urgent)
    came, urgent_work = arrivals[urgent], np.append(0.0, np.cumsum(services[urgent]))
    before = urgent_work[np.cumsum(is_urgent)[routine]]
    own = arrivals[routine] + found[routine] - before
    grown = np.maximum.accumulate(came - urgent_work[:-1])
    # Whoever finds one server busy with what found it idle has just that time: a tie.
    begins = own + urgent_work[np.searchsorted(grown, own + _TIE * services.mean(), "right")]
    ends = np.empty_like(arrivals)
    ends[routine] = begins + services[routine]
    begun = np.searchsorted(begins, came)
    blocked_until = np.append(-np.inf, ends[routine])[begun]
    ends[urgent] = _ends(np.maximum(came, blocked_until), services[urgent])
    return ends


def _one_by_one(
    arrivals: Floats, services: Floats, servers: int, is_urgent: Marks | None
) -> Floats:
    """The same by events, for any number of servers: whoever is free first takes the next."""
    import numpy as np

    free, came, takes = [0.0] * servers, arrivals.tolist(), services.tolist()
    ends = [0.0] * len(came)
    if is_urgent is None:
        for place, (arrival, service) in enumerate(zip(came, takes, strict=True)):
            ends[place] = max(arrival, free[0]) + service
            heapq.heapreplace(free, ends[place])
        return np.array(ends) - arrivals
    waiting: tuple[deque[int], deque[int]] = (deque(), deque())
    marks, following = is_urgent.tolist(), 0
    for _ in came:
        now = free[0]
        if not (waiting[0] or waiting[1]):
            now = max(now, came[following])
        while following < len(came) and came[following] <= now:
            waiting[not marks[following]].append(following)
            following += 1
        place = (waiting[0] or waiting[1]).popleft()
        ends[place] = now + takes[place]
        heapq.heapreplace(free, ends[place])
    return np.array(ends) - arrivals


def mean_waits(rates: Sequence[float], *, mean: float, cv2: float) -> list[float]:
    """Mean wait of each class for one server, the first before the others.

    Cobham, Operations Research 2 (1954), https://doi.org/10.1287/opre.2.1.70; of one class that is
    Pollaczek and Khinchine's formula.
    """
    begun = sum(rates) * mean**2 * (1.0 + cv2) / 2.0
    used = [0.0, *accumulate(rate * mean for rate in rates)]
    return [begun / ((1.0 - before) * (1.0 - after)) for before, after in pairwise(used)]
