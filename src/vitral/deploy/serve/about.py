"""What a server says of itself: its models as JSON, and a page of its routes."""

import html
from typing import Any

from vitral.deploy.serve.forms import FORMS
from vitral.deploy.serve.models import Loaded, Served
from vitral.deploy.serve.protocol import DECLARED

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "code,pre{font:14px/1.5 ui-monospace,monospace;background:#f3f1ec;border-radius:4px;padding:.1rem .3rem}"
    "pre{padding:.7rem;overflow:auto}h2{margin-top:2rem}h3{margin:1.4rem 0 .2rem}b{color:#9a5b00;font-weight:600}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}"
)


def documented(said: dict[str, Any], models: list[Served], here: str) -> str:
    """The page of an OpenAPI description."""
    shown = html.escape
    rows = "".join(
        f"<tr><td><code>{shown(each.name)}</code><td>{shown(each.loaded.predictor.card.task)}<td>"
        f"{len(each.loaded.predictor.labels)} classes<td><code>{each.loaded.version}</code>"
        for each in models
    )
    parts: dict[str, list[str]] = {}
    for path, methods in said["paths"].items():
        for method, route in methods.items():
            options = "".join(
                f"<tr><td><code>{shown(p['name'])}</code><td>{shown(p.get('description', p['in']))}"
                for p in route.get("parameters", [])
            )
            parts.setdefault(route["tags"][0], []).append(
                f"<h3><b>{method.upper()}</b> <code>{shown(path)}</code></h3><div>{shown(route.get('description', ''))}</div>"
                + (f"<table>{options}</table>" if options else "")
            )
    commands = f"curl --data-binary @cat.jpg '{shown(here)}/predict?top_k=3'\ncurl -F file=@cat.jpg -F file=@dog.jpg '{shown(here)}/predict'"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>vitral serve</title><style>{STYLE}</style>'
        f"<h1>vitral serve {shown(said['info']['version'])}</h1><table><tr><th>model<th>task<th><th>version{rows}</table>"
        f'<pre>{commands}</pre><p>The same for programs: <a href="/openapi.json">openapi.json</a></p>'
        + "".join(f"<h2>{shown(tag)}</h2>{''.join(routes)}" for tag, routes in parts.items())
    )


def described(model: Served) -> dict[str, Any]:
    """A model, for JSON."""
    card = model.loaded.predictor.card
    return {
        "name": model.name, "version": model.loaded.version, "ready": model.ready, "task": card.task,
        "architecture": card.architecture, "engine": engine_of(model.loaded), "labels": card.labels,
        "image_size": [card.preprocess.height, card.preprocess.width],
    }  # fmt: skip


def engine_of(loaded: Loaded) -> str:
    """The name of what runs a model, such as torch or onnx."""
    return type(loaded.predictor.engine).__name__.removesuffix("Engine").lower()


def tensors_of(model: Served, loaded: Loaded) -> dict[str, Any]:
    """The Open Inference Protocol's description of a model: its inputs and outputs."""
    card = loaded.predictor.card
    declared = FORMS[card.task].declared(len(card.labels))
    outputs = [{"name": "answer", "datatype": "BYTES", "shape": [-1]}]
    outputs += [{"name": key, "datatype": kind, "shape": [-1, *shape]} for key, (kind, shape) in declared.items()]
    return {
        "name": model.name, "versions": [loaded.version], "platform": f"vitral_{engine_of(loaded)}",
        "inputs": DECLARED, "outputs": outputs,
    }  # fmt: skip
