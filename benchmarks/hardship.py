"""A server in trouble: a fifth of its requests are malformed, and meanwhile its model is replaced and its process killed. No good request may be
lost, and no answer wrong.

    python benchmarks/hardship.py [--requests 10000] [--clients 16]

A ViT of 32 pixels, exported, answers 8 pictures. Other weights take its file's place after a third of the requests; `kill -9` ends the server after
two thirds, and it is started again at once. A client whose connection broke, or that is refused (503), asks again. Answers are compared with the
predictor's, by the version that each names.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from serving import free_port, picture
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import create_model
from vitral.data.preprocess import Preprocess
from vitral.deploy.export.file import place
from vitral.deploy.export.formats import export
from vitral.deploy.serve.models import digest
from vitral.models.zoo import family_of
from vitral.predict import Predictor, load

PICTURES = 8
GOOD = picture(0)
MALFORMED = (
    b"",
    b"no picture",
    GOOD[: len(GOOD) // 2],
    b'{"inputs": 3}',
    b'{"inputs": "AAAA"}',
    bytes(range(256)) * 40,
)


def exported(out: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model = create_model(
        "vit_tiny_patch16_224", num_classes=10, image_size=32, patch_size=8, dim=64, depth=2, num_heads=2
    )
    torch.nn.init.normal_(model.head.weight)
    card = ModelCard(
        family_of(model.config),
        model.config.arguments(),
        [f"kind {k}" for k in range(10)],
        Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3),
    )
    export(Predictor(model.eval(), card), out)


async def ask(port: int, body: bytes, counts: dict[str, int]) -> tuple[int, str, bytes]:
    """(status, version, body) of an answer, asked for until there is one."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            said = await asyncio.wait_for(reader.read(), 60)
            writer.close()
        except (OSError, TimeoutError):
            said = b""
        if said and not said.startswith(b"HTTP/1.1 503"):
            break
        counts["refused" if said else "broken"] += 1
        await asyncio.sleep(0.2)
    told, _, answer = said.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in told.decode().split("\r\n")[1:])
    return int(told.split()[1]), headers.get("vitral-version", ""), answer


def start(file: Path, port: int) -> subprocess.Popen:
    words = [sys.executable, "-m", "vitral", "serve", str(file), "--port", str(port), "--batch-size", "8"]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def trouble(given: argparse.Namespace, folder: Path) -> dict[str, object]:
    file, port = folder / "m.onnx", free_port()
    bodies = [picture(seed) for seed in range(PICTURES)]
    expected: dict[str, list[np.ndarray]] = {}
    for seed in (1, 0):
        exported(folder / f"{seed}.onnx", seed)
        place(folder / f"{seed}.onnx", file)
        expected[digest(str(file))] = [answers_of(load(file), body) for body in bodies]
    server, counts, drawn = (
        start(file, port),
        dict.fromkeys(("right", "wrong", "told", "lost", "broken", "refused"), 0),
        random.Random(0),
    )
    kinds = [drawn.random() < 0.2 for _ in range(given.requests)]
    versions: dict[str, int] = {}
    await ask(port, bodies[0], dict(counts))
    left, asked, began = iter(range(given.requests)), 0, time.perf_counter()

    async def client() -> None:
        nonlocal asked, server
        for k in left:
            asked += 1
            if asked == given.requests // 3:
                place(folder / "1.onnx", file)
            if asked == 2 * given.requests // 3:
                server.kill()
                server.wait()
                server = start(file, port)
            malformed = kinds[k]
            status, version, body = await ask(
                port, MALFORMED[k % len(MALFORMED)] if malformed else bodies[k % PICTURES], counts
            )
            if malformed:
                counts["told" if 400 <= status < 500 and b"error" in body else "wrong"] += 1
            elif status != 200:
                counts["lost"] += 1
            else:
                found = {row["label"]: row["score"] for row in json.loads(body)}
                wanted = expected[version][k % PICTURES]
                right = all(abs(wanted[int(label.split()[1])] - score) < 1e-4 for label, score in found.items())
                counts["right" if right else "wrong"] += 1
                versions[version] = versions.get(version, 0) + 1

    await asyncio.gather(*(client() for _ in range(given.clients)))
    took = time.perf_counter() - began
    server.terminate()
    return {
        "requests": given.requests,
        "seconds": round(took, 1),
        **counts,
        "versions": versions,
        "ended": server.wait(),
    }


def answers_of(predictor: Predictor, body: bytes) -> np.ndarray:
    """Probabilities in the order of the labels."""
    from base64 import b64decode

    found = dict(predictor.predict(b64decode(json.loads(body)["inputs"]), top_k=10).top)
    return np.array([found[label] for label in predictor.labels])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(trouble(given, Path(folder)))
    print(json.dumps(found))
    sys.exit(bool(found["wrong"] or found["lost"]))


if __name__ == "__main__":
    main()
