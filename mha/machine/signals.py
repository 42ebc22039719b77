"""SIGINT (Ctrl-C) and SIGTERM (notice of a cluster, a container, a cloud) while a script runs. It ends at once, or
after it has kept what it has done.

Python calls handlers of signals in the main thread, between two operations. A chunk of training is one operation,
however long it takes. A thread therefore waits for the signals, and ends the process when its time is over."""

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 8.0
"""Seconds from a signal to the end of a process that keeps its work first. Containers are killed after 10."""
TOGETHER = 0.5
"""Seconds in which further signals count as the same one, because a launcher and a cluster may both send it."""
_watches: list['Watch'] = []
"""Watches of this process; the last one is in charge."""


class Watch:
    """Context in which signals call `end(number)`, which must end the process, in a thread. Signals that are ignored,
    as in a background job of a shell, stay ignored. For the main thread."""

    def __init__(self, end: Callable[[int], None]):
        self.end = end
        self.received = 0
        """Number of the signal that was received; 0 before."""
        self.delays = self.raises = False

    def __enter__(self) -> 'Watch':
        self.ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.wakeup = signal.set_wakeup_fd(self.theirs.fileno(), warn_on_full_buffer=False)
        self.before = {each: signal.getsignal(each) for each in SIGNALS}
        for each, handler in self.before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(each, self._handle)
        threading.Thread(target=self._wait, daemon=True).start()
        _watches.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _watches.remove(self)
        for each, handler in self.before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(self.wakeup)
        self.theirs.close()  # which ends the thread

    def _handle(self, number: int, _: Any) -> None:
        self.received = self.received or number
        if self.raises:
            self.raises = False
            raise KeyboardInterrupt

    def _wait(self) -> None:
        with self.ours:
            if (first := self._next(None)) is None:
                return
            self.received, began = first, time.monotonic()
            if self.delays:
                while self._next(TOGETHER):
                    pass
                self._next(began + GRACE - time.monotonic())
            self.end(first)

    def _next(self, seconds: float | None) -> int | None:
        """Number of the next signal; None after so many seconds, or at the end of the context."""
        end = None if seconds is None else time.monotonic() + seconds
        while select.select([self.ours], [], [], None if end is None else max(end - time.monotonic(), 0))[0]:
            if not (read := self.ours.recv(1)):
                return None
            if read[0] in SIGNALS:
                return read[0]
        return None


@contextlib.contextmanager
def delayed(interrupts: bool = False) -> Iterator[Watch]:
    """Context in which the watch that it gives only notes a signal. The block should end soon: the process does after
    `GRACE` seconds, and at a second signal. With `interrupts`, the signal also raises `KeyboardInterrupt`."""
    watch = _watches[-1] if _watches else Watch(lambda number: None)
    before = watch.delays, watch.raises
    watch.delays, watch.raises = True, interrupts
    try:
        yield watch
    finally:
        watch.delays, watch.raises = before
    if watch.received and not watch.delays:
        watch.end(watch.received)
