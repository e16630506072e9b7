"""Maps with a whole number for each pixel, from and to picture files: semantic maps, panoptic ids, and objects painted into one map."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData, Object
from vitral.data.files import read_file
from vitral.data.filetypes import JPEG, recognise
from vitral.data.raster import named, open_frame, quiet, turn
from vitral.data.shapes import mask_of
from vitral.drawing.objects import class_colours
from vitral.errors import VitralError

VOID = 255
Colours = Sequence[tuple[int, int]]
"""Of each colour its code and the value that it stands for."""
CITYSCAPES = {
    (128, 64, 128): 7, (244, 35, 232): 8, (70, 70, 70): 11, (102, 102, 156): 12, (190, 153, 153): 13, (153, 153, 153): 17, (250, 170, 30): 19,
    (220, 220, 0): 20, (107, 142, 35): 21, (152, 251, 152): 22, (70, 130, 180): 23, (220, 20, 60): 24, (255, 0, 0): 25, (0, 0, 142): 26,
    (0, 0, 70): 27, (0, 60, 100): 28, (0, 80, 100): 31, (0, 0, 230): 32, (119, 11, 32): 33, (0, 0, 0): 0,
}  # fmt: skip
"""Colours of gtFine_color, and their labelIds (cityscapesScripts, helpers/labels.py)."""


class Counted(NamedTuple):
    """What a map holds."""

    values: dict[int, int]
    """Value -> pixels, ascending."""
    size: tuple[int, int]
    """Height and width as it is stored."""


def count_values(found: NDArray[np.int32]) -> Counted:
    """Of a map [h, w]."""
    there, pixels = np.unique(found, return_counts=True)
    return Counted(dict(zip(there.tolist(), pixels.tolist(), strict=True)), (found.shape[0], found.shape[1]))


def _opened(data: bytes, name: str) -> Image.Image:
    known = recognise(data)
    if known is JPEG:
        raise VitralError(f"{name}: is a JPEG, which changes values at every edge; write maps as PNG")
    if known is None or known.reader not in ("PNG", "TIFF", "BMP", "GIF", "WEBP"):
        raise VitralError(f"{name}: is {known.name if known else 'no picture'}, and maps are PNGs; write it as one")
    image = open_frame(data, name, known.reader)
    with named(name), quiet():
        image.load()
    return image


def read_map(path: Path, name: str, colours: Colours = ()) -> NDArray[np.int32]:
    """`decode_map` of a file."""
    return decode_map(read_file(path, name)[0], name, colours)


def decode_map(data: bytes, name: str, colours: Colours = ()) -> NDArray[np.int32]:
    """Values [h, w] as stored: palettes are not applied; colours are mapped back by `ClassTable.colours`, or if they are VOC's or Cityscapes'.

    data: of a picture file. Raises VitralError for one that cannot be a map.
    """
    image = _opened(data, name)
    if colours and image.mode == "P":
        image = image.convert("RGB")
    if image.mode in ("P", "L", "1", "I;16", "I;16B", "I;16L", "I"):
        return np.asarray(image if image.mode != "1" else image.convert("L")).astype(np.int32)
    if image.mode not in ("RGB", "RGBA", "LA", "PA"):
        raise VitralError(f"{name}: is a picture of kind {image.mode}, not a map of values; write a PNG of one channel")
    if image.mode == "PA":
        raise VitralError(f"{name}: has a palette with transparency; write it without")
    channels = np.asarray(image)
    if image.mode in ("RGBA", "LA"):
        if (channels[..., -1] != 255).any():
            raise VitralError(f"{name}: has transparent pixels, which are no value; write it without transparency")
        channels = channels[..., :-1]
    if not colours and (channels == channels[..., :1]).all():
        return channels[..., 0].astype(np.int32)
    return _coloured(channels, name, colours)


def _coloured(channels: NDArray[np.uint8], name: str, colours: Colours) -> NDArray[np.int32]:
    codes = channels.astype(np.int32) @ (1, 256, 65536)  # [h, w]
    voc = {
        tuple(colour): value for value, colour in enumerate(class_colours(256).tolist()) if value <= 20 or value == VOID
    }
    published = [{r + 256 * g + 65536 * b: k for (r, g, b), k in table.items()} for table in (voc, CITYSCAPES)]
    there, tables = np.unique(codes), [dict(colours)] if colours else published
    for known in tables:
        if set(there.tolist()) <= set(known):
            return np.array([known[code] for code in there.tolist()], np.int32)[np.searchsorted(there, codes)]
    code = next((code for code in there.tolist() if not any(code in known for known in tables)), int(there[-1]))
    y, x = np.argwhere(codes == code)[0].tolist()
    said = f"{name}: has the colour #{code & 255:02x}{code >> 8 & 255:02x}{code >> 16:02x} at x {x}, y {y}"
    if colours:
        raise VitralError(f"{said}, which classes.json does not name; name it as a class or as void")
    raise VitralError(
        f"{said}, and its colours are not VOC's or Cityscapes'; write a PNG of one channel with class values, or name the colours in classes.json: "
        '{"classes": {"#c81e1e": "roof"}, "void": ["#000000"]}'
    )


def read_ids(path: Path, name: str) -> NDArray[np.int32]:
    """`decode_ids` of a file."""
    return decode_ids(read_file(path, name)[0], name)


def decode_ids(data: bytes, name: str) -> NDArray[np.int32]:
    """The ids [h, w] of a panoptic map: R + 256 G + 65536 B. data: of a picture file. Raises VitralError for one that cannot be such a map."""
    image = _opened(data, name)
    if image.mode not in ("RGB", "RGBA"):
        raise VitralError(
            f"{name}: is a picture of kind {image.mode}; a panoptic map has its ids in red, green and blue"
        )
    return np.asarray(image)[..., :3].astype(np.int32) @ np.array((1, 256, 65536), np.int32)


def save_ids(path: Path, ids: NDArray[np.int32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids_picture(ids).save(path)


def ids_picture(ids: NDArray[np.int32]) -> Image.Image:
    """The ids [h, w] of a panoptic map in red, green and blue: R + 256 G + 65536 B."""
    return Image.fromarray(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8))


def values_of(data: AnnotatedData, i: int) -> NDArray[np.int32]:
    """The map [h, w] of image i, upright, in values as they are stored (of panoptic data: ids)."""
    one = data.annotated[i]
    if data.render is not None:
        return data.render(i)
    assert one.map is not None, "neither a map nor what draws it"
    stored, name = one.map.read(), one.map.name
    values = decode_ids(stored, name) if data.kind == "panoptic" else decode_map(stored, name, data.classes.colours)
    return np.ascontiguousarray(turn(values[:, :, None], one.turn)[:, :, 0])


def painted(one: Annotated, value: Callable[[Object], int]) -> NDArray[np.int32]:
    """The objects that have a shape as a map [h, w], 0 beside them: the large ones first, so that the small ones show."""
    found = np.zeros((one.height, one.width), np.int32)
    masks = [
        (mask_of(each.shape, one.height, one.width), value(each)) for each in one.objects if each.shape is not None
    ]
    for mask, number in sorted(masks, key=lambda pair: -int(pair[0].sum())):
        found[mask] = number
    return found
