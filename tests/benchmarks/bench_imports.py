"""CPU time of first uses of fstat, as a ratio to importing numpy and scipy.special."""

import argparse
import statistics
import subprocess
import sys

REPEATS = 7
UNIT = "import numpy, scipy.special"
RATIOS: dict[str, float] = {}
USES = (
    UNIT,
    "import fstat",
    "from fstat import Trace",
    "import fstat; fstat.GaussianTradeOff(1.0)(0.1)",
    "from fstat import compose",
    "from fstat import FInfluence",
    "from fstat import *",
)


def seconds(statement):
    """Median CPU time of a statement, each time in a process of its own."""
    code = f"""
from time import process_time
start = process_time()
{statement}
print(process_time() - start)
"""
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, capture_output=True, check=True).stdout)
        for _ in range(REPEATS)
    ]
    return statistics.median(times)


def main(argv=None):
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    print(f"{'':50}{'CPU s':>8}{'ratio':>8}")
    unit = seconds(UNIT)
    for statement in USES:
        taken = seconds(statement)
        print(f"{statement:50}{taken:8.3f}{taken / unit:8.2f}")
        if statement != UNIT:
            RATIOS[statement] = taken / unit


if __name__ == "__main__":
    main()
