"""Runs that note the gradients of their first step and log every step, alone or shared by torchrun's processes: FOLDER, then a file of commands.

All commands run one after another in the same processes, which are slow to start.
"""

import contextlib
import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from vitral.cli import main
from vitral.report import run as report
from vitral.training import loop, world
from vitral.training.whole import gathered

loop.LOG_EVERY = 1


def noting(update):
    def noted(self):
        if self.progress.step == 0:
            found = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
            gradients = {name: gradient.contiguous() for name, gradient in gathered(found, self.world.main).items()}
            if self.world.main:
                save_file(gradients, notes)
        return update(self)

    return noted


loop.Loop.update = noting(loop.Loop.update)
report.report_run = lambda folder, *rest: (folder / "report.html").write_text(
    ""
)  # drawing it takes longer than learning here
folder, commands = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
with world.joined() as one:
    world.joined = lambda: contextlib.nullcontext(one)
    for name, words in commands.items():
        notes, one.in_step = folder / f"{name}.gradients", False
        with contextlib.suppress(SystemExit):
            main([*words, "--out", str(folder / name)])
        one.wait()
        if not (folder / name / "report.html").exists():
            sys.exit(f"{name}: did not end")
