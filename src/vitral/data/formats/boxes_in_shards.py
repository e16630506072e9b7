"""Objects in tar shards: beside each image a `.json` with `objects` as the column of that name in Parquet, and class names in classnames.txt."""

import io
import json
import tarfile
from pathlib import Path

from vitral.data.annotated import AnnotatedData, ClassTable
from vitral.data.formats.draft import Drafted
from vitral.data.formats.files import parse_json
from vitral.data.formats.parquet import HOLDS as HOLDS
from vitral.data.formats.parquet import drafts, listed, told
from vitral.data.formats.shards import CLASSES, open_index, recognised, write_index
from vitral.data.formats.write import Writing
from vitral.data.shards import ShardImages
from vitral.data.splits import SPLITS
from vitral.errors import VitralError

SHARD = 256 * 10**6  # bytes, about


def holds_objects(data: Path) -> bool:
    """Whether the data are shards with objects."""
    return recognised(str(data)) and open_index(str(data), 0).kind == "objects"


def read(data: Path) -> Drafted:
    """A folder of shards, or one."""
    index = open_index(str(data), 0)
    images = ShardImages(index)
    drafted = Drafted(Path(index.root), "objects", ClassTable((), ()), [], [], images=images)
    rows = []
    for i, row in enumerate(index.rows):
        name = images.names[i]
        beside = index.ranges.read(int(row["shard"]), int(row["beside"]), int(row["beside_size"]), None, name)
        stated = parse_json(beside.decode(errors="replace"), name)
        if not isinstance(stated, dict):
            raise VitralError(f"{name}: the .json beside it is no mapping; write the shard again")
        rows.append({
            "image": True, "called": name, "height": stated.get("height"), "width": stated.get("width"),
            "objects": listed(stated.get("objects"), name),
        })  # fmt: skip
    for i, (draft, _) in enumerate(drafts(data, [("shards", rows, index.classes or None)], drafted)):
        split = int(index.rows["split"][i])
        draft.name, draft.where, draft.split = images.names[i], images.names[i], SPLITS[split] if split >= 0 else None
    return drafted


def write(data: AnnotatedData, out: Path) -> None:
    """SPLIT-000000.tar, ..., and their index; images without a split are in train."""
    writing, number = Writing(data, out), 0
    out.mkdir(parents=True, exist_ok=True)
    for split, rows in writing.splits("train"):
        left, shard = list(rows), 0
        while left:
            with tarfile.open(out / f"{split}-{shard:06d}.tar", "w") as tar:
                while left and tar.offset < SHARD:
                    i = left.pop(0)
                    one, objects = data.annotated[i], []
                    for each in one.objects:
                        number += 1
                        objects.append(told(each, number))
                    beside = {"name": writing.names[i], "height": one.height, "width": one.width, "objects": objects}
                    ending = writing.names[i].rpartition(".")[2]
                    for suffix, content in ((ending, data.images.encoded(i)), ("json", json.dumps(beside).encode())):
                        member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
            shard += 1
    (out / CLASSES).write_text("".join(f"{name}\n" for name in data.classes.names), encoding="utf-8")
    write_index(str(out), out)
