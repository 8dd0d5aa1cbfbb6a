"""The modelled link on an accelerator: streams wait on the device, the host never.

As NCCL does it: an asynchronous collective runs on a stream of its own behind the caller's, a
synchronous one on the caller's stream itself, since FSDP calls inside its own streams and records
events behind; futures are complete at once, in stream order. Its clock stamps moments of streams.
On an NVIDIA GPU that is kernels, and each collective is two: one that takes the link and one that
holds the stream until its end, with the moving of data between, inside the modelled time. A link
that is only recorded takes no time, and events serve, on any accelerator.
"""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import MeasurementError
from bench.devices.torch.torch_adapter import adapter_for
from bench.emulate.link.device_clock import DelayKernels, EventClock
from bench.emulate.link.host_link import LinkWork, Move, note_drain
from bench.emulate.link.serial_link import DEVICE_RESOLUTION_S, NUM_LINKS, level_of
from bench.emulate.replay import Issued, Moment, Recorder, Resolve

_CAPACITY = 2**16
"""Moments of one step, and far more than the host can launch ahead of the device."""
_TRAFFIC_PER_BYTE = {"all_reduce": 3.5}
"""Memory traffic of a collective in bytes of the full tensor; a judgment, to be calibrated."""
_TRAFFIC_ELSE = 2.0
"""What is read once and written once."""


class DeviceLink:
    """Carries collectives over modelled links, on the device's clock.

    `is_timed` holds streams as long as collectives take; else steps are only recorded.
    """

    resolution_s = DEVICE_RESOLUTION_S

    def __init__(self, device: torch.device, *, recorder: Recorder, is_timed: bool = True) -> None:
        index = torch.accelerator.current_device_index() if device.index is None else device.index
        torch.accelerator.set_device_index(index)
        self.device = torch.device(device.type, index)
        self.recorder = recorder
        # FSDP takes streams from there too; MPS has none there, and one in all.
        module: Any = torch.get_device_module(self.device)
        self._current_stream = getattr(module, "current_stream", torch.accelerator.current_stream)
        self._inside = getattr(module, "stream", nullcontext)
        self._lane = self.current()
        make_stream = getattr(module, "Stream", None)
        # One for each link, as NCCL has one for each group: the links do not wait for each other.
        self._streams = [
            self._lane if make_stream is None else make_stream(self.device, priority=-1)
            for _ in range(NUM_LINKS)
        ]
        self._clock: Any  # an event clock neither holds nor has traffic
        if is_timed:
            self._clock = DelayKernels(self.device, capacity=3 * _CAPACITY)
        else:
            self._clock = EventClock(adapter_for(str(self.device)), inside=self._inside)
        self._slots = itertools.count()
        self._watch = StreamWatch(stamp=self.stamp, stream_class=make_stream)
        self._units = 0
        self._nothing = torch.zeros(1, device=self.device)
        self._synchronize()

    @property
    def is_on_lane(self) -> bool:
        """Whether the current stream is the one on which the step computes."""
        return bool(self.current() == self._lane)

    def stamp(self, stream: Any) -> int:
        """Note when `stream` gets here; returns the number of the stamp."""
        slot = self._slot()
        self._clock.stamp(slot, stream=stream)
        return slot

    def now(self) -> Moment:
        """Return when the compute stream gets here."""
        return self.stamp(self._lane)

    def begin_step(self) -> None:
        """Take the caller's stream as the one that computes."""
        self._synchronize()  # whatever still holds has slots, which begin anew
        self._lane = self.current()
        self._slots = itertools.count()
        self._watch.begin(self._lane)

    def end_step(self) -> Resolve:
        """Wait for the device, read its stamps, and return what shows them in seconds."""
        self._watch.end()
        num_used = next(self._slots)
        if num_used > _CAPACITY:
            raise MeasurementError(
                f"the step has {num_used} moments to record, of at most {_CAPACITY}; "
                "run it with fewer micro-batches"
            )
        self._synchronize()
        return self._clock.seconds(3 * num_used)  # type: ignore[no-any-return]

    def set_contention(self, units: int) -> None:
        """Hold with `units` blocks and with memory traffic; 0: with one thread and none."""
        self._units = units

    def take_traffic(self) -> tuple[int, int]:
        """Return bytes that contention asked for, and that were moved, since the last call."""
        return self._clock.take_traffic()  # type: ignore[no-any-return]

    def carry(
        self,
        issued: Issued,
        *,
        outputs: list[Tensor],
        touched: Callable[[], list[Tensor]],
        move: Move | None,
        is_async: bool,
    ) -> LinkWork:
        """Take the link behind the current stream, and move the data."""
        current, is_recording = self.current(), self.recorder.is_on
        level = level_of(issued.group)
        stream = self._streams[level] if is_async else current
        arrived = issued.mark_start
        if is_recording and is_async and not issued.is_on_lane:
            arrived = self.stamp(current)
        if is_async:
            stream.wait_stream(current)
        with self._inside(stream):
            slot = self._slot()
            if issued.modelled_s > 0 or is_recording:
                self._clock.reserve(slot, level=level, duration_s=issued.modelled_s, stream=stream)
            real = None if move is None else move()
            if real is not None:
                real.wait()
            if issued.modelled_s > 0:
                traffic = issued.num_bytes * _TRAFFIC_PER_BYTE.get(issued.op, _TRAFFIC_ELSE)
                self._clock.hold(slot, units=self._units, traffic_bytes=traffic, stream=stream)
            future: torch.futures.Future[list[Tensor]] = torch.futures.Future(devices=[self.device])
            # To wait for a future is to wait for the devices of its tensors: a barrier has none.
            future.set_result(outputs or [self._nothing])
        if stream != current:
            for tensor in touched():
                if tensor.device == self.device:
                    tensor.record_stream(stream)
        if is_recording:
            # A side stream in which FSDP calls gets here only behind its last collective, and the
            # input was ready when compute got here, if that was before.
            issued.ready = (arrived,) if is_async else (arrived, slot)
            issued.mark_end = issued.mark_start
            issued.start, issued.end = slot + 1, slot + 2
            if real is not None:
                issued.end = self.stamp(stream)  # behind the real one, where that was later
            if not is_async and issued.is_on_lane:
                issued.waits.append((issued.mark_start, self.stamp(stream)))
            self._watch.issued_on(stream, issued)
        return DeviceWork(self, issued, outputs=outputs, future=future)

    def close(self) -> None:
        """Wait for what is under way."""
        self._watch.end()
        self._synchronize()

    def current(self) -> Any:
        """Return the current stream."""
        return self._current_stream(self.device)

    def _synchronize(self) -> None:
        torch.accelerator.synchronize(self.device)

    def _slot(self) -> int:
        return 3 * (next(self._slots) % _CAPACITY)


class DeviceWork(LinkWork):
    """A collective in stream order: to wait is to make the current stream wait."""

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Make the current stream wait; the host goes on."""
        link, issued = self._link, self._issued
        # What compute waits for is noted.
        is_noted = link.recorder.is_noting(issued) and not issued.waits and link.is_on_lane
        start = link.now() if is_noted else 0
        self._future.wait()
        if is_noted:
            issued.waits.append((start, link.now()))
        if issued.op == "barrier":  # the one for which NCCL blocks the host
            link.current().synchronize()
        return True

    def get_future(self) -> torch.futures.Future[list[Tensor]]:
        """Return the future of the output tensors: complete, in stream order."""
        self._issued.is_future_taken = True
        note_drain(self._link)
        return self._future  # type: ignore[no-any-return]

    def is_completed(self) -> bool:
        """Whether it is under way: as with NCCL's futures, streams keep the order."""
        return bool(self._future.done())


class StreamWatch:
    """Notes waits of one stream for events behind collectives, between `begin` and `end`.

    FSDP calls its collectives inside streams of its own, records an event behind each, and makes
    the compute stream wait for that later; the process group hears nothing of it. While a step is
    recorded, and only then, the two methods of torch's streams that do this are watched. A version
    of FSDP that waits in another way leaves no waits in the trace, and its replay then differs from
    its step.
    """

    def __init__(self, *, stamp: Callable[[Any], int], stream_class: Any) -> None:
        self._stamp = stamp
        # Methods of torch's own class cannot be replaced; a backend of one stream has no other.
        self._class: Any = None if stream_class is torch.Stream else stream_class
        self._originals: tuple[Any, Any] | None = None
        self._last: dict[Any, Issued] = {}
        self._behind: dict[int, tuple[Any, Issued]] = {}

    def issued_on(self, stream: Any, issued: Issued) -> None:
        """Say that an event recorded on `stream` from now on is behind this collective."""
        self._last[stream] = issued

    def begin(self, lane: Any) -> None:
        """Watch what `lane` waits for."""
        self.end()
        if self._class is None:
            return
        record, wait = self._class.record_event, self._class.wait_event
        self._originals = (record, wait)

        def record_event(stream: Any, event: Any = None) -> Any:
            recorded = record(stream, event)
            if stream in self._last:
                # The event is kept, so that its address is not given to another one.
                self._behind[id(recorded)] = (recorded, self._last[stream])
            return recorded

        def wait_event(stream: Any, event: Any) -> None:
            _, issued = self._behind.get(id(event), (None, None))
            if issued is None or issued.waits or stream != lane:
                wait(stream, event)
                return
            start = self._stamp(stream)
            wait(stream, event)
            issued.waits.append((start, self._stamp(stream)))

        self._class.record_event, self._class.wait_event = record_event, wait_event

    def end(self) -> None:
        """Stop watching."""
        if self._originals is not None:
            self._class.record_event, self._class.wait_event = self._originals
            self._originals = None
        self._last.clear()
        self._behind.clear()
