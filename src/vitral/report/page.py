"""The report of a run with labels: `report.html`, a single file with no script and nothing from the network.

Every text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vitral.errors import counted
from vitral.evaluation.evaluator import Scores
from vitral.report.classes import ClassSections
from vitral.report.frame import About, write_run_page
from vitral.report.labels import LabelSections
from vitral.report.maps import MapSections
from vitral.report.objects import ObjectSections
from vitral.report.sections import Sections
from vitral.report.seen import Seen, seen_section
from vitral.report.segments import SegmentSections

SECTIONS: dict[str, Sections] = {
    "classify": ClassSections(),
    "multilabel": LabelSections(),
    "semantic": MapSections(),
    "detect": ObjectSections(),
    "instance": ObjectSections(),
    "panoptic": SegmentSections(),
}


def write_report(
    run: Path,
    about: About,
    evaluation: Scores,
    *,
    pictures: str = "",
    split: str = "test",
    task: str = "classify",
    baselines: Mapping[str, float] | None = None,
    seen: Sequence[Seen] = (),
) -> Path:
    """Write `run/report.html`, whole or not at all; returns its path.

    Args:
        run: the run's folder; it exists.
        evaluation: the scores on `split`.
        pictures: single images and what was made of them, HTML.
        task: of the run.
        baselines: name -> headline on the same images of methods without training, where known.
        seen: images, and what of them the model's view holds.

    Raises:
        VitralError: the file cannot be written.
    """
    sections = SECTIONS[task]
    subtitle = f"{counted(evaluation.images, 'image')} of the {split} split, {sections.counted(evaluation)}"
    numbers = [*sections.tiles(evaluation, baselines or {}), (f"{evaluation.images:,}", "images scored")]
    details = [sections.body(evaluation), pictures, seen_section(seen)]
    return write_run_page(run, about, subtitle, numbers, details)
