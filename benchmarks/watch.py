"""Run a command; print its CPU seconds and its peak memory in MiB as JSON.

    python benchmarks/watch.py COMMAND ARGUMENTS...

A process of its own, because a child's peak is never told as less than what its parent held when
it started it, and a benchmark holds a million rows.
"""

import json
import os
import subprocess
import sys


def main() -> None:
    """Run it, wait for it."""
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(sys.argv[1:])}")
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(json.dumps({"cpu_seconds": seconds, "memory_mib": memory}))


if __name__ == "__main__":
    main()
