"""
Runs of other commands by benchmarks, and the lines that record their results.
"""

import json
import os
import shlex
import statistics
import subprocess

from utils import InputError


def run_command(command, log):
    """Runs a command in one thread; its output is appended to the file `log` -> its CPU time in seconds. Raises InputError
    with its last line."""
    with open(log, "a+b") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"})
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        with open(log, errors="replace") as file:
            lines = file.read().strip().splitlines() or ["no output"]
        raise InputError(f"{shlex.join(command)}: exit status {process.returncode}: {lines[-1]}")
    return used.ru_utime + used.ru_stime


def read_results(path):
    """-> list of the results in a file of JSON lines; [] if there is none. A line that was not completed is left out."""
    results = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    results.append(json.loads(line))
                except ValueError:
                    continue
    return results


def mean_and_spread(values, digits=2):
    """Formats numbers as "mean ± standard deviation"; of one number, itself."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"
