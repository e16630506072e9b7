"""OpenVINO as a guest in a process that hears signals."""

import subprocess
import sys

from exporting import exported

HEARS = """
import gc, pathlib, signal, sys
from vitral.engines.openvino import OpenvinoEngine

signal.signal(signal.SIGTERM, lambda number, frame: print("heard"))
first, second = (OpenvinoEngine(pathlib.Path(sys.argv[1])) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_heard_after_engines_are_gone():
    """On processors with AMX each `openvino.Core` brings a stack for signal handlers, and may leave a freed one behind."""
    _, path = exported("openvino")
    done = subprocess.run([sys.executable, "-c", HEARS, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
