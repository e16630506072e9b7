"""Any data set as tar shards with their index: `vitral data pack`."""

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vitral.data.files import ImageError
from vitral.data.filetypes import EXTENSIONS
from vitral.data.formats.indexing import write_index
from vitral.data.formats.samples import number_of, write_samples
from vitral.data.formats.shard_places import CLASSES
from vitral.data.images import Images
from vitral.data.listing import Listing
from vitral.errors import VitralError


@dataclass
class Packed:
    images: int
    shards: int
    bytes: int
    skipped: list[tuple[str, str]]
    """(name, reason) of images that cannot be read, and so are not in the index; names as in what was packed."""


def pack(listing: Listing, out: Path, shard_bytes: int, progress: Callable[[int, int], None] | None = None) -> Packed:
    """Write the images of a listing, as they are, and their labels to shards of about so many bytes in a new or empty folder, and the index.

    Shards keep the listing's order, those of a split that the data name together. The same data make the same bytes. Files that cannot be read are
    not in the shards, and images that cannot be decoded are not in the index.
    """
    splits = listing.given or ["data"] * len(listing.images.names)
    lost: list[tuple[str, str]] = []
    shards = done = 0

    def members(i: int) -> Iterator[tuple[str, bytes]]:
        nonlocal done
        name = listing.images.names[i]
        try:
            data = _encoded(listing.images, i)
        except ImageError as error:
            lost.append((name, str(error).removeprefix(f"{name}: ")))
        else:
            yield from _members(listing, i, data)
        done += 1
        if progress is not None and done % 100 == 0:
            progress(done, len(splits))

    for split in dict.fromkeys(splits):
        shards += write_samples(out, split, [i for i, each in enumerate(splits) if each == split], members, shard_bytes)
    (out / CLASSES).write_text("".join(f"{label}\n" for label in listing.labels), encoding="utf-8")
    made = write_index(str(out), out, skipped=lost)
    damaged = [(listing.images.names[number_of(name)], why) for name, why in made.skipped[len(lost) :]]
    return Packed(made.images, shards, sum(path.stat().st_size for path in out.glob("*.tar")), lost + damaged)


def _members(listing: Listing, i: int, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The suffix and the bytes of each member of image i's sample. data: the image's."""
    name = listing.images.names[i]
    suffix = os.path.splitext(name)[1].lower()
    yield suffix.lstrip(".") if suffix in EXTENSIONS and listing.images.path(i) is not None else _kind(data), data
    labels = listing.of(i)
    if listing.targets.task == "classify":
        yield "cls", str(listing.labels.index(labels[0])).encode()
        yield "json", json.dumps({"name": name}).encode()
    elif listing.targets.task == "multilabel":
        yield "json", json.dumps({"name": name, "labels": labels}).encode()
    else:
        raise VitralError(f"task {listing.targets.task}: shards are packed of classes and label sets; give such data")


def _encoded(images: Images, i: int) -> bytes:
    """The image's file, or where it has none its pixels as PNG."""
    try:
        return images.encoded(i)
    except AssertionError:
        buffer = io.BytesIO()
        pixels = images.read(i, None, None).numpy()
        Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, "PNG")
        return buffer.getvalue()


def _kind(data: bytes) -> str:
    starts = {
        b"\xff\xd8": "jpg",
        b"\x89P": "png",
        b"RI": "webp",
        b"II": "tiff",
        b"MM": "tiff",
        b"GI": "gif",
        b"BM": "bmp",
    }
    return starts.get(data[:2], "png")
