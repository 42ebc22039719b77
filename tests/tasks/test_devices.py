"""Equal keys give equal batches on any number of devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mha import tasks

ROOT = Path(__file__).parent.parent.parent
FROM_FILES = {'bytes_classification', 'bytes_retrieval', 'classification', 'text', 'translation'}
"""What reads files draws places in them, as the others draw symbols."""


@pytest.mark.slow
def test_equal_keys_give_equal_batches_on_four_devices():
    done = subprocess.run(
        [sys.executable, 'tests/distributed/draw.py'],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=4', 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert {*done.stdout.split()} >= {*tasks.names()} - FROM_FILES
