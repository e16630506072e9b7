"""What the index of shards keeps of a sample, so that nothing is read when they are opened: facts of its image and of the files beside it."""

from vitral.data.decode import decode_bytes, packed
from vitral.data.formats.maps import Colours, Counted, count_values, decode_ids, decode_map
from vitral.data.formats.samples import Sample
from vitral.data.ranges import digest_of
from vitral.data.shards import ANNOTATED
from vitral.data.values import ImageInfo
from vitral.errors import VitralError

MOST_VALUES = 2**16  # of a map: a photograph is none
Look = tuple[ImageInfo, tuple[int | bytes, ...] | None, dict[int, int]]
"""The image's facts; of annotations a row of BESIDE, and the map's values with their pixels."""


def look(sample: Sample, colours: Colours) -> Look | VitralError:
    """Read the image and the map to their ends; the error if the image cannot be read. colours: those that classes.json names, with their values."""
    try:
        info = decode_bytes(sample.data, None, sample.name, 1)[1]
        if sample.kind not in ANNOTATED:
            return info, None, {}
        orientation = packed(sample.data, sample.name).orientation
    except VitralError as error:
        return error
    known = _counted(sample, colours)
    places = [
        (0, 0, bytes(16)) if each is None else (each.offset, each.size, digest_of(each.data))
        for each in (sample.told, sample.map)
    ]
    return info, (orientation, *places[0], *places[1], *known.size, len(known.values)), known.values


def _counted(sample: Sample, colours: Colours) -> Counted:
    """What the map of a sample holds; nothing where it cannot be used: whoever opens the shards reads it again, and is told why."""
    nothing = Counted({}, (0, 0))
    if sample.map is None:
        return nothing
    try:
        is_ids, data = sample.kind == "panoptic", sample.map.data
        found = count_values(decode_ids(data, sample.name) if is_ids else decode_map(data, sample.name, colours))
    except VitralError:
        return nothing
    return found if len(found.values) <= MOST_VALUES else nothing
