"""Files that are either whole or absent: written beside the target, synced, then renamed over it."""

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from vitral.errors import VitralError


def write_atomically(path: Path, content: bytes) -> None:
    """`content` at `path`, or the old file untouched: a kill, a full disk or a power cut at any byte leaves no half file there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself survives a power cut
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error says more
            temporary.unlink(missing_ok=True)
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "check the folder"
        raise VitralError(
            f"{path}: could not be written ({error.strerror}); {remedy}, or choose another place with --out. "
            "What was there before is intact"
        ) from error


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, atomically."""
    write_atomically(path, as_safetensors(tensors, metadata))


def as_safetensors(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file: a copy of the tensors, which may change from then on."""
    plain = {name: t.detach().to("cpu", copy=False).contiguous() for name, t in tensors.items()}
    return serialise(plain, metadata=metadata)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; a VitralError says what else `path` is."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise VitralError(f"{path}: no such file; give a model.safetensors or a run folder that holds one")
    try:
        with safe_open(path, framework="pt") as file:
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except PermissionError as error:
        raise VitralError(f"{path}: not allowed to read it; change its permissions (chmod +r)") from error
    except (SafetensorError, OSError) as error:
        raise VitralError(f"{path}: {what_it_is(path)} ({error})") from error


def is_pickle(start: bytes) -> bool:
    """Whether a file with this start is a pickle or PyTorch's zip of one. A safetensors file can begin with a pickle's first byte, too."""
    return start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:9] != b"{")


def what_it_is(path: Path, wanted: str = "a safetensors file") -> str:
    """What `path` is instead of the `wanted` kind of file, and the remedy."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty; copy or download it again"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not weights; a download probably answered with an error page, so download it again"
    if start[:2] == b"PK" and wanted == "an .npz archive":
        return "is cut short or damaged; copy or download it again"
    if is_pickle(start):
        return "is a pickle (a PyTorch .pt/.pth file), which can run code when it is opened; convert it to safetensors first"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length < 100_000_000:
        return "is cut short or damaged; copy or download it again"
    return f"is not {wanted}; give the model.safetensors of a run, or weights in a known format"
