"""Trains a run in many pieces: each call of `train.main` resumes it, trains one chunk, and stops as after a signal.

    python tests/faults/resumes.py CONFIG WORKDIR

All happens in one process, with programs that are compiled once, because 1,000 processes would take an hour. The number
of resumes is printed last."""

import contextlib
import os
import signal
import sys
from types import SimpleNamespace

from absl import flags
from ml_collections import config_flags  # noqa: F401 - train.py defines its flags with it

import train
from mha.run import workdir


class Stopped(Exception):
    """End of a piece, in place of the end of the process."""


def stop(*_):
    raise Stopped


@contextlib.contextmanager
def received(interrupts=False):
    """Context in which a signal has been received already."""
    yield SimpleNamespace(received=signal.SIGTERM)


def keeping(build):
    """`build`, whose first experiment and its training programs are kept."""
    kept = {}

    def call(config):
        if not kept:
            run = build(config)
            chunk, programs = run.chunk, {}

            def compiled(final=False, meanwhile=lambda: None):
                if final not in programs:
                    programs[final] = chunk(final, meanwhile)
                return programs[final]

            object.__setattr__(run, 'chunk', compiled)
            kept['run'] = run
        return kept['run']

    return call


def main(config, directory):
    sys.argv = ['train.py', f'--config={config}', f'--workdir={directory}']
    flags.FLAGS(sys.argv)
    train.build = keeping(train.build)
    train.signals = SimpleNamespace(delayed=received)
    train.cli.end = stop
    resumes = -1
    while True:
        resumes += 1
        with contextlib.suppress(Stopped), open(os.devnull, 'w') as nowhere, contextlib.redirect_stderr(nowhere):
            train.main()
            break
        workdir._held.clear()  # which releases the lock, as the end of the process would
    print(resumes)


if __name__ == '__main__':
    main(*sys.argv[1:])
