"""ONNX Runtime for browsers: the npm package onnxruntime-web, of one version, fetched once by npm and kept in the cache.

Run as `python -m vitral.deploy.web.runtime` (which `make web` does) it fetches it.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from vitral.data.files import cache_folder
from vitral.errors import VitralError

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Of the package's folder dist: the library, and what it loads."""


def kept() -> Path:
    """The folder of the cache where the files are, or would be."""
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def runtime() -> dict[str, bytes]:
    """The files by their names. Raises VitralError where they were not fetched."""
    folder = kept()
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise VitralError(
            f"{folder}: has no {missing[0]} of {PACKAGE} {VERSION}, which the page needs; run make web, or python -m {__name__} (either needs npm)"
        )
    return {name: (folder / name).read_bytes() for name in FILES}


def fetch() -> Path:
    """Have npm fetch the package, check it, and keep its files; nothing where they are there. Raises VitralError where that fails."""
    folder = kept()
    if all((folder / name).is_file() for name in FILES):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise VitralError(
            f"npm: is not installed, and {PACKAGE} {VERSION} comes from it; install Node.js, or leave the page out"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        told = subprocess.run([npm, "pack", f"{PACKAGE}@{VERSION}"], cwd=place, capture_output=True, text=True)
        packed = Path(place, f"{PACKAGE}-{VERSION}.tgz")
        if told.returncode or not packed.is_file():
            raise VitralError(
                f"npm pack {PACKAGE}@{VERSION}: failed ({told.stderr.strip()[-300:]}); is there a network?"
            )
        if hashlib.sha512(packed.read_bytes()).hexdigest() != SHA512:
            raise VitralError(
                f"{PACKAGE} {VERSION}: is not the package that was tried (its SHA-512 differs); do not use it"
            )
        ready = Path(place, "ready")
        ready.mkdir()
        with tarfile.open(packed) as archive:
            for name in FILES:
                found = archive.extractfile(f"package/dist/{name}")
                assert found is not None
                (ready / name).write_bytes(found.read())
        shutil.rmtree(folder, ignore_errors=True)
        ready.rename(folder)
    return folder


if __name__ == "__main__":
    try:
        print(fetch(), file=sys.stderr)
    except VitralError as error:
        sys.exit(str(error))
