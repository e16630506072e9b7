"""`vitral export --to web`: a folder that opens as a page and answers pictures on the device that shows it.

The page asks nothing of anybody: its library, its model and its loader are scripts beside it, so that it opens from a disk as from a server. Where
Transformers has the architecture and the preprocessing, its folder `transformers` is what transformers.js reads
(https://huggingface.co/docs/transformers.js).
"""

import html
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import vitral
from vitral.checkpoints.to_transformers import transformers_files
from vitral.data import steps as named
from vitral.deploy.export.file import Exported, export_onnx
from vitral.deploy.export.graph import Traced
from vitral.deploy.export.verify import Verified
from vitral.deploy.web.runtime import VERSION, runtime
from vitral.errors import VitralError, counted, some
from vitral.models.heads.options import head_options
from vitral.predict import ImageLike, Predictor

STATIC = Path(__file__).parent / "static"
PAGE = ("page.js", "pixels.js", "answers.js", "page.css")
OWN = {*PAGE, "index.html", "model.js", "ort", "transformers"}
"""All that a page's folder holds, and no more is ever replaced."""
TASKS = ("classify", "multilabel", "semantic", "detect", "instance", "panoptic")
"""Those that static/answers.js has a row for."""
PART = 6_000_000
"""Bytes of a part in base64: a browser reads scripts part by part, and one string of a whole model would be too long. Divisible by 3."""
LARGEST = 1_500_000_000
"""Bytes of a model that a page takes."""


def export_web(
    traced: Traced,
    out: Path,
    images: Sequence[ImageLike] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write the folder `out`, whose model answers as the traced predictor does, or raise VitralError and leave nothing.

    images: what to compare on. say: called with what is done next. Raw graphs are refused.
    """
    predictor = traced.predictor
    if traced.raw:
        raise VitralError("--raw: a page takes pictures, not normalised pixels; leave it out")
    card = predictor.card
    if card.task not in TASKS:
        raise VitralError(
            f"the page has no answers of the task {card.task} yet; there are {some(list(TASKS))}; export it to onnx"
        )
    if card.preprocess.channels not in (1, 3):
        raise VitralError(
            f"the model reads {counted(card.preprocess.channels, 'channel')}, and browsers show pictures of 1 or 3"
        )
    if out.exists() and not (out.is_dir() and {each.name for each in out.iterdir()} <= OWN):
        raise VitralError(f"{out}: is there already, with other files than a page's; name another folder")
    files = runtime()
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".page-", dir=out.absolute().parent) as place:
        made = Path(place, "page")
        (made / "ort").mkdir(parents=True)
        verified = export_onnx(traced, Path(place, "model.onnx"), images, say).verified
        model = Path(place, "model.onnx").read_bytes()
        if len(model) > LARGEST:
            raise VitralError(f"{out}: {len(model) / 1e9:.1f} GB are too much for a page; take a smaller model")
        say("writing the page")
        for name in PAGE:
            shutil.copyfile(STATIC / name, made / name)
        (made / "index.html").write_text(_index(predictor, model, verified), encoding="utf-8")
        library, loader, wasm = files.values()
        (made / "ort" / "ort.wasm.min.js").write_bytes(library)
        (made / "ort" / "runtime.js").write_text(_script({"loader": loader, "runtime": wasm}))
        (made / "model.js").write_text(_script({"model": model}))
        said = _for_transformers(predictor, made / "transformers", images, say)
        size = sum(each.stat().st_size for each in made.rglob("*") if each.is_file())
        if out.exists():
            shutil.rmtree(out)
        made.rename(out)
    return Exported(verified, size, said)


def _index(predictor: Predictor, model: bytes, verified: Verified) -> str:
    """The page itself, with what it has to know of the model."""
    import onnx

    graph = onnx.load_from_string(model)
    taken = graph.graph.input[0].type.tensor_type.elem_type
    form = json.loads({each.key: each.value for each in graph.metadata_props}.get("outputs", "{}"))
    card = predictor.card
    steps = card.preprocess
    description = {
        "task": card.task,
        "labels": card.labels,
        "channels": steps.channels,
        "min_size": steps.min_size,
        "steps": [named.to_json(step) for step in steps.plan],
        "input": {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}[taken],
        "threshold": predictor.answers.threshold,
        **(form.get("constants") or {}),
        "verified": str(verified),
    }
    about = f"Tells {counted(len(card.labels), 'class', 'classes')} apart in {steps.height} x {steps.width} pixels."
    words = {
        "TITLE": html.escape(f"{card.architecture}: {some(card.labels, 3)}"),
        "ABOUT": html.escape(about),
        "DESCRIPTION": json.dumps(description).replace("<", "\\u003c"),
        "VERSION": vitral.__version__,
        "RUNTIME": VERSION,
    }
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    for name, value in words.items():
        page = page.replace(f"{{{{{name}}}}}", value)
    return page


def _for_transformers(
    predictor: Predictor, folder: Path, images: Sequence[ImageLike] | None, say: Callable[[str], None]
) -> str:
    """Write the folder that transformers.js reads, where Transformers has such a model and such steps; and what to know of it."""
    model, card = predictor.model, predictor.card
    head = None if card.head is None else head_options(card.head)
    try:
        files, unlike = transformers_files(model.config, card.labels, card.preprocess, card.task, head)
    except VitralError as error:
        return f"no folder for transformers.js: {error}"
    say("making its folder for transformers.js")
    (folder / "onnx").mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1))
    export_onnx(Traced(predictor, raw=True), folder / "onnx" / "model.onnx", images)
    return f"transformers: {'; '.join(unlike)}" if unlike else ""


def _script(files: dict[str, bytes]) -> str:
    """A script that puts files, in base64 and in parts, into `stored`."""
    lines: Iterable[str] = (
        f'stored.{name}.push("{b64encode(data[at : at + PART]).decode()}");'
        for name, data in files.items()
        for at in range(0, len(data), PART)
    )
    begin = ["var stored = globalThis.stored ?? {};", *(f"stored.{name} = [];" for name in files)]
    return "\n".join([*begin, *lines, ""])
