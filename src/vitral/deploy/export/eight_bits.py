"""`vitral export --int8`: a file in 8 bits, kept only where it answers nearly as well and is faster here."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitral.data.dataset import Split
from vitral.data.resample import Pixels
from vitral.deploy.export.file import place
from vitral.deploy.export.formats import FORMATS, export
from vitral.deploy.export.quantise import WAYS, quantised
from vitral.deploy.fastest.contest import Result, Way, contest, lost_or_won
from vitral.errors import VitralError
from vitral.predict import Predictor, load
from vitral.training.machine import processor

ALLOWED = 0.3
"""Points of the headline score that 8 bits may lose."""


@dataclass(frozen=True)
class Tried:
    """The file in float32, and each way of bringing it to 8 bits."""

    results: tuple[Result, ...]
    batch: int

    def __str__(self) -> str:
        first, *others = self.results
        return "\n".join(
            f"{each.way.name}: {lost_or_won(each.lost)} ({first.score:.2%} to {each.score:.2%}), "
            f"{1 / each.slower[self.batch]:.2f} times the speed of float32 at batch {self.batch} "
            f"({each.rates[self.batch]:.1f} images/s on this processor)"
            for each in others
        )


def export_int8(
    predictor: Predictor,
    out: Path,
    split: Split,
    labels: list[str],
    calibration: Sequence[Pixels],
    *,
    to: str | None = None,
    batch: int = 8,
    say: Callable[[str], None] = lambda text: None,
) -> Tried:
    """Write `out` in 8 bits.

    Args:
        split: on which answers are compared, image by image, with those of the file in float32; labels: of its data set.
        calibration: images as the model sees them, from which the ranges are taken; they are timed, too.
        to: onnx or openvino; default, by how the name ends.

    Raises:
        VitralError: no way loses `ALLOWED` points or less and is faster than float32 on this processor; nothing is written then.
    """
    to = to or next((name for name in WAYS if FORMATS[name].suffix == out.suffix), "")
    if to not in WAYS:
        raise VitralError(
            f"{out}: --int8 is for {' and '.join(WAYS)} files ({', '.join(FORMATS[name].suffix for name in WAYS)})"
        )
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.absolute().parent) as folder:
        file = Path(folder, out.name)
        say("exporting in float32")
        export(predictor, file, to)
        ways = [Way("float32", to, load(file), file=file)]
        for name, how in WAYS[to].items():
            say(name)
            small = Path(folder, str(len(ways)), out.name)
            quantised(how, file, small, calibration)
            ways.append(Way(name, to, load(small), "int8", small))
        tried = Tried(tuple(contest(ways, split, labels, calibration, (batch,), say=say)), batch)
        good = [each for each in tried.results[1:] if each.lost <= ALLOWED and each.slower[batch] < 1]
        if not good:
            raise VitralError(
                f"{out}: nothing was written, as 8 bits are kept where they lose at most {ALLOWED} points and are faster than float32 on this "
                f"processor ({processor()}), and here they are not\n{tried}"
            )
        best = min(good, key=lambda each: each.slower[batch]).way.file
        assert best is not None
        place(best, out)
    return tried
