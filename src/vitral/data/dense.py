"""Annotated data as a data set: which task they are for, brought to the kind that it needs, and refused where their faults would be learned."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vitral.data.annotated import AnnotatedData
from vitral.data.annotations import Annotations
from vitral.data.folder import UNLABELLED
from vitral.data.formats import FORMATS, read_annotated, recognise
from vitral.data.formats import masks as semantic
from vitral.data.formats.convert import plan_conversion
from vitral.data.formats.faults import refuse
from vitral.data.formats.files import Tree
from vitral.data.listing import Listing, build_listing
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.targets import TARGETS
from vitral.errors import VitralError, counted

FORMAT_OF = {"semantic": "masks", "panoptic": "panoptic", "objects": "coco"}
"""Of a kind of annotated data, a format that holds all of it."""


def list_annotated(
    data: str | Path,
    tree: Tree | None,
    options: DataOptions,
    *,
    training: bool,
    labelled: bool,
    progress: OnProgress | None = None,
) -> Listing | None:
    """The images of annotated data with their targets; None for data that are not annotated, or whose --task is of whole images.

    tree: of a folder, the files in it. labelled: False to take the images alone, for pre-training. Raises VitralError for annotations with faults
    that would be learned.
    """
    asked = None if options.task is None else TARGETS.get(options.task)
    if asked is not None and not issubclass(asked, Annotations):
        return None
    if recognise(data, tree) is None and (asked is None or not labelled):
        return None
    found = _read(data, options, progress)
    if not labelled:
        names = found.images.names
        known = [one.split or "train" for one in found.annotated]
        return build_listing(found.name, found.images, [UNLABELLED] * len(names), known, training=False)
    _refuse(data, found)
    task = options.task or _task_of(found)
    kind = TARGETS[task]
    assert issubclass(kind, Annotations)
    said = [
        f"{FORMATS[found.format].about}, for the task {task}{_others(found) if options.task is None else ''}",
        *found.understood,
    ]
    if found.kind != kind.kind:
        planned = plan_conversion(found, FORMAT_OF[kind.kind], progress)
        said += [f"{count:,} {what}: {why}" for count, what, why in planned.left_out]
        found = planned.data
    if task == "instance":
        _outlined(data, found)
    said += _left_out(found)
    targets = kind.of(found, progress)
    splits = [one.split for one in found.annotated]
    given = [split or "train" for split in splits] if any(splits) else None
    problems = targets.problems(found.classes.names, given) if training else []
    return Listing(
        found.name, found.images, list(found.classes.names), targets, given, problems=problems, understood=said
    )


def _read(data: str | Path, options: DataOptions, progress: OnProgress | None) -> AnnotatedData:
    """As it is recognised; but for semantic maps the maps, where a folder holds these beside objects."""
    path = Path(data)
    if options.task == "semantic" and path.is_dir() and semantic.recognised(Tree(path.absolute())):
        return read_annotated(data, "masks", progress)
    return read_annotated(data, None, progress, options.room)


def _refuse(data: str | Path, found: AnnotatedData) -> None:
    try:
        refuse(str(data), found.faults)
    except VitralError as error:
        error.args = (f"{error}\na mended copy, and the data stay as they are: vitral doctor {data} --fix OUT",)
        raise


def _task_of(found: AnnotatedData) -> str:
    """What annotations of this kind are usually for."""
    if found.kind != "objects":
        return found.kind
    return "instance" if all(each.shape is not None for one in found.annotated for each in one.objects) else "detect"


def _others(found: AnnotatedData) -> str:
    """The other tasks that the data would do for."""
    if found.kind != "objects" or _task_of(found) == "detect":
        return ""
    return "; --task detect learns boxes alone, --task semantic a class for each pixel"


def _outlined(data: str | Path, found: AnnotatedData) -> None:
    bare = sum(each.shape is None for one in found.annotated for each in one.objects)
    if bare:
        raise VitralError(
            f"{data}: {counted(bare, 'object has a box and no outline', 'objects have a box and no outline')}, and instance learns masks; "
            "annotate outlines, or learn boxes with --task detect"
        )


def _left_out(found: AnnotatedData) -> Sequence[str]:
    """What is no target."""
    kinds = Counter(
        "crowd" if each.crowd else "hard" for one in found.annotated for each in one.objects if each.crowd or each.hard
    )
    said = [
        f"{counted(n, 'object')} marked as {kind}: not learned, and finding something there is no mistake"
        for kind, n in kinds.items()
    ]
    bare = sum(one.unlabelled for one in found.annotated)
    return [*said, *([f"{counted(bare, 'image is', 'images are')} without annotation, taken as empty"] if bare else [])]
