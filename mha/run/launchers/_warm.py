"""Process that imports the modules named on its command line, then forks once per cell. This saves each cell the
seconds of the imports.

Orders come as lines of JSON on stdin, `{"cell": .., "argv": [..], "log": .., "environ": {..}, "cores": [..]}`; answers
go to stdout, `{"cell": .., "pid": ..}` when it has started and `{"cell": .., "code": ..}` when it has ended.
`{"stop": true}` ends this process and its children, which have `PATIENCE` seconds to save their state. If stdin ends,
because the launcher was killed, this process ends and its children go on.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
import time
from typing import Any

from mha.machine import signals

PATIENCE = signals.GRACE + 0.5
"""Seconds in which children may end by themselves."""


def serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # signals are for the launcher, which tells
    for name in sys.argv[1:]:
        importlib.import_module(name)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.freeze()
    orders = selectors.DefaultSelector()
    orders.register(sys.stdin, selectors.EVENT_READ)
    running: dict[int, str] = {}
    unread = b''
    while True:
        if orders.select(0.05):
            read = os.read(sys.stdin.fileno(), 2**16)
            if not read:
                return
            *lines, unread = (unread + read).split(b'\n')
            for order in map(json.loads, lines):
                if 'stop' in order:
                    _stop(list(running))
                    return
                if (pid := os.fork()) == 0:
                    _train(order)
                running[pid] = order['cell']
                print(json.dumps({'cell': order['cell'], 'pid': pid}), flush=True)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(ended[1])
            print(json.dumps({'cell': running.pop(ended[0]), 'code': code}), flush=True)


def _stop(pids: list[int]) -> None:
    """Ends the children: by SIGTERM, then by SIGKILL."""
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while pids:
        if (ended := os.waitpid(-1, os.WNOHANG)[0]) in pids:
            pids.remove(ended)
        elif time.monotonic() < end:
            time.sleep(0.02)
        else:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            return


def _train(order: dict[str, Any]) -> None:
    """Trains a cell in this process; never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ctrl-C stays with the launcher
    os.environ.update(order['environ'])
    if order['cores']:
        os.sched_setaffinity(0, order['cores'])
    log = os.open(order['log'], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, number in (nothing, 0), (log, 1), (log, 2):
        os.dup2(file, number)
    sys.argv = order['argv']
    runpy.run_path(sys.argv[0], run_name='__main__')
    sys.exit()


if __name__ == '__main__':
    serve()
