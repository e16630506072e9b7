"""Every parser of files, fed by atheris (libFuzzer) with what it makes of right files, for so many seconds each: crashes, hangs, memory and escapes.

    pip install atheris
    python benchmarks/fuzz.py [--seconds 60] [--only tar toml] [--found found/]

A parser may answer or raise VitralError. What else it raises is counted once for each line that raised it, and its input is kept in `--found`; so are
inputs that take longer than 20 seconds or 2 GB, at which the parser's process ends. An escape is a file outside of its folder that a parser opens, or
one that it leaves behind. Prints a table: inputs, minutes and what was found.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
LONGEST, MOST_MB, LARGEST = 20, 2048, 65536  # seconds and memory of an input, and its bytes
Parser = tuple[list[bytes], Callable[[bytes], object]]
"""Right files, and what reads one."""


def parsers(place: Path) -> dict[str, Callable[[], Parser]]:
    """Each parser by name, set up in a folder of its own when it is asked for."""
    import test_hostile_files as right
    from annotations import data_of, outlined
    from vitral.checkpoints.atomic import read_safetensors
    from vitral.checkpoints.bundle import load_model
    from vitral.checkpoints.recognise import read_source
    from vitral.data.decode import decode_bytes
    from vitral.data.formats import FORMATS, read_annotated
    from vitral.data.formats.convert import plan_conversion
    from vitral.data.formats.shards import open_index
    from vitral.data.listers import list_data
    from vitral.data.options import DataOptions
    from vitral.errors import VitralError
    from vitral.training.toml import read_recipe

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def written(data: bytes) -> object:
            (place / name).write_bytes(data)
            return read(place / name)

        return written

    def weights(path: Path) -> None:
        read_safetensors(path)
        load_model(path)

    def tar() -> Parser:
        return [right.shard()], of_file("a.tar", lambda path: open_index(str(path.parent), 0))

    def index() -> Parser:
        (place / "a.tar").write_bytes(right.shard())
        open_index(str(place), 0)
        return [(place / "index.json").read_bytes()], of_file(
            "index.json", lambda path: open_index(str(path.parent), 0)
        )

    def annotated(name: str, suffix: str, kind: str = "coco") -> Callable[[], Parser]:
        def made() -> Parser:
            objects = [[outlined(0, [(1, 1), (9, 1), (9, 9)])], [outlined(2, [(3, 2), (8, 2), (8, 15)])]]
            FORMATS[name].write(plan_conversion(data_of(objects), kind).data, place)
            file = next(path for path in sorted(place.rglob(f"*{suffix}")))
            return [file.read_bytes()], of_file(str(file.relative_to(place)), lambda path: read_annotated(place, name))

        return made

    def pictures() -> Parser:
        import io

        from PIL import Image

        seeds = []
        for kind, mode in (
            ("PNG", "RGB"),
            ("JPEG", "RGB"),
            ("TIFF", "I;16"),
            ("GIF", "P"),
            ("BMP", "L"),
            ("WEBP", "RGBA"),
        ):
            buffer = io.BytesIO()
            Image.new(mode, (7, 5)).save(buffer, kind)
            seeds.append(buffer.getvalue())
        return seeds, lambda data: decode_bytes(data, None, "picture", 1)

    def table(name: str, seed: bytes) -> Callable[[], Parser]:
        return lambda: ([seed], of_file(name, lambda path: list_data(str(path), DataOptions())))

    def address(data: bytes) -> object:
        """The words of a command that name data, without asking any network."""
        from vitral.data.formats.shard_places import recognised, shards_in

        said = data.decode(errors="replace").replace("\0", "")
        if len(said) > 200 or (re.match(r"[a-z0-9+]+://", said) and not said.endswith(".tar")):
            raise VitralError("not looked at")
        try:
            return recognised(said), len(shards_in(said))
        except OSError:
            return None

    return {
        "safetensors": lambda: ([right.weights()], of_file("w.safetensors", weights)),
        "npz": lambda: ([right.google()], of_file("w.npz", read_source)),
        "tar": tar,
        "index of shards": index,
        "Parquet": table("t.parquet", right.table()),
        "CSV": table("t.csv", b"image,label\na.png,x\nb.png,y\n"),
        "Parquet with objects": annotated("parquet", ".parquet"),
        "COCO": annotated("coco", ".json"),
        "YOLO texts": annotated("yolo", ".txt"),
        "YOLO data.yaml": annotated("yolo", ".yaml"),
        "VOC": annotated("voc", ".xml"),
        "labelme": annotated("labelme", ".json"),
        "maps in shards": annotated("shards", ".tar", "masks"),
        "segments in shards": annotated("shards", ".tar", "panoptic"),
        "index of annotations": annotated("shards", ".beside", "masks"),
        "index of maps' values": annotated("shards", ".values", "masks"),
        "recipe TOML": lambda: ([right.RECIPE], of_file("r.toml", read_recipe)),
        "images": pictures,
        "addresses of shards": lambda: (
            [b"https://host/train-{000000..000031}.tar", b"s3://bucket/a.tar", b"a/b.tar"],
            address,
        ),
    }


def feed(name: str, seconds: int, found: Path) -> None:
    """In a process of its own: atheris with one parser."""
    import atheris

    with atheris.instrument_imports(include=["vitral"]):
        import vitral.data.formats.shards
        import vitral.data.sources
        import vitral.training.toml  # noqa: F401
    from vitral.errors import VitralError

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    seeds, parse = parsers(place)[name]()
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    allowed = tuple(map(str, (place, sys.prefix, sys.base_prefix, TESTS.parent, os.environ["XDG_CACHE_HOME"], corpus, found,
                              "/proc", "/sys", "/dev", *sys.path)))  # fmt: skip
    escaped, met, reading = list[str](), set[str](), [False]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and reading[0] and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(allowed):
                escaped.append(path)

    sys.addaudithook(watch)

    def one(data: bytes) -> None:
        reading[0] = True
        escaped.clear()
        try:
            parse(data)
        except VitralError:
            pass
        except Exception as error:
            note(data, "".join(traceback.format_exception(error)), str(traceback.extract_tb(error.__traceback__)[-1]))
        reading[0] = False
        if escaped:
            note(data, f"escape: {escaped}", "escape")

    def note(data: bytes, text: str, where: str) -> None:
        if where not in met:
            met.add(where)
            (found / f"{name}-{len(met)}").write_bytes(data)
            print(f"FOUND {text}", file=sys.stderr, flush=True)

    limits = [f"-max_total_time={seconds}", f"-timeout={LONGEST}", f"-rss_limit_mb={MOST_MB}", f"-max_len={LARGEST}"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-print_final_stats=1", f"-artifact_prefix={found}/{name}-"], one)
    atheris.Fuzz()


# Fragments of the viewer's address, changed at random: each gives a state with all fields, whose own fragment gives it again.
FRAGMENTS = """
const [, , file, seconds] = process.argv, heard = {};
globalThis.location = { hash: "", pathname: "/", search: "" };
globalThis.history = { pushState() {}, replaceState() {} };
globalThis.addEventListener = (name, fn) => (heard[name] = fn);
const { state, START, toFragment } = await import(file);
const names = Object.keys(START), seeds = ["#query=3,4&layer=5", "#mode=compare&left=0:relevance&right=1:grad_cam", "#masked=0-3,7&removal=mean"];
const odd = ["toString", "__proto__", "constructor", "%E0%A4", "%00", "9".repeat(30), "\u202e", "NaN", "1e9"];
const words = [...names, ...odd, ..."=&#%-,:"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const read = (hash) => ((location.hash = hash), heard.hashchange(), JSON.stringify(state.get()));
const met = new Set();
let inputs = 0;
for (const end = performance.now() + 1000 * seconds; performance.now() < end; inputs++) {
  let text = pick(seeds);
  for (let n = 1 + Math.floor(4 * Math.random()); n--; ) {
    const at = Math.floor(text.length * Math.random());
    const put = pick([pick(words), pick(words) + "=" + pick(words) + "&", "", String.fromCharCode(65535 * Math.random())]);
    text = text.slice(0, at) + put + text.slice(at + Math.floor(3 * Math.random()));
  }
  try {
    const first = read(text);
    if (Object.keys(state.get()).join() !== names.join()) throw new Error("fields");
    if (read(toFragment(state.get())) !== first) throw new Error("another state");
  } catch (error) {
    if (!met.has(error.message)) console.error(`FOUND ${error.message}: ${JSON.stringify(text)}`);
    met.add(error.message);
  }
}
console.error(`stat::number_of_executed_units: ${inputs}`);
process.exit(0);
"""
FRAGMENT = "fragments of addresses"


def feed_fragments(seconds: int) -> list[str]:
    """The command that does the same in node to the page's own module."""
    folder = Path(tempfile.mkdtemp())
    (folder / "fragments.mjs").write_text(FRAGMENTS)
    (folder / "state.mjs").write_text((TESTS.parent / "src/vitral/deploy/viewer/static/state.js").read_text())
    return ["node", str(folder / "fragments.mjs"), str(folder / "state.mjs"), str(seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--found", type=Path, default=Path("found"))
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    given.found.mkdir(exist_ok=True)
    if given.feed:
        feed(given.feed, given.seconds, given.found.resolve())
        return
    wrong = 0
    for name in (*parsers(Path()), FRAGMENT):
        if given.only and name not in given.only:
            continue
        command = [
            sys.executable,
            __file__,
            "--feed",
            name,
            "--seconds",
            str(given.seconds),
            "--found",
            str(given.found),
        ]
        if name == FRAGMENT:
            command = feed_fragments(given.seconds)
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        told = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        found = re.findall(r"^FOUND (.*(?:\n.+)*)", done.stderr, re.M) + re.findall(
            r"ERROR: libFuzzer: .*", done.stderr
        )
        wrong += len(found)
        inputs = int(told.get("number_of_executed_units", 0))
        print(f"| {name} | {inputs:,} | {given.seconds / 60:.1f} | {len(found) or 'nothing'} |", flush=True)
        for text in found:
            print(text, file=sys.stderr, flush=True)
        if not inputs:
            print(done.stderr[-3000:], file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
