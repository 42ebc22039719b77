"""Memory of a device, and what a compiled program takes of it. The devices of a CPU share the memory of the machine."""

import os
from pathlib import Path

import jax

CGROUP = Path('/sys/fs/cgroup')
"""Linux directory with the memory limit of a container."""
STATUS, MACHINE = Path('/proc/self/status'), Path('/proc/meminfo')
"""Linux files with the memory of this process and of the machine."""


def total() -> int:
    """Memory of the first device in bytes; for a CPU, that of the machine or the limit of its container."""
    statistics = _statistics()
    return statistics.get('bytes_limit') or _limit(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))


def used() -> int:
    """Memory in bytes that this process uses of the first device."""
    return _statistics().get('bytes_in_use') or _kilobytes(STATUS).get('VmRSS', 0)


def free() -> int:
    """Memory in bytes that programs of this process may still take of the first device."""
    statistics = _statistics()
    if 'bytes_limit' in statistics:
        return statistics['bytes_limit'] - statistics['bytes_in_use']
    return max(min(_kilobytes(MACHINE).get('MemAvailable', total()), total() - _in_container()), 0)


def needed(program: jax.stages.Compiled) -> int:
    """Memory in bytes that a program takes of a device while it runs, besides that of its arguments: an estimate. On a
    CPU, scratch space of matrix products adds up to a third."""
    statistics = program.memory_analysis()
    if statistics is None:
        return 0
    own = statistics.temp_size_in_bytes + statistics.output_size_in_bytes - statistics.alias_size_in_bytes
    devices = jax.local_device_count() if jax.default_backend() == 'cpu' else 1
    return own * devices


def shown(size: int) -> str:
    """Bytes as text, in GB or MB."""
    return f'{size / 1e9:,.1f} GB' if size >= 1e8 else f'{size / 1e6:,.1f} MB'


def _statistics() -> dict[str, int]:
    return jax.local_devices()[0].memory_stats() or {}


def _limit(machine: int) -> int:
    """Memory of a machine, limited by that of a container."""
    limit = _read(CGROUP / 'memory.max')
    return min(machine, int(limit)) if limit.isdecimal() else machine


def _in_container() -> int:
    """Memory that the processes of a container use, without caches of files; 0 outside of containers."""
    lines = dict(line.split() for line in _read(CGROUP / 'memory.stat').splitlines())
    return max(int(_read(CGROUP / 'memory.current') or 0) - int(lines.get('inactive_file', 0)), 0)


def _kilobytes(path: Path) -> dict[str, int]:
    """Sizes in a file such as /proc/meminfo, in bytes by their names; empty on other systems than Linux."""
    lines = (line.split() for line in _read(path).splitlines())
    return {words[0].rstrip(':'): int(words[1]) * 1024 for words in lines if words[2:] == ['kB']}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ''
