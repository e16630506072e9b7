"""The error that users can cause, and helpers for messages and figures."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

TRAINING = ("torch", "safetensors", "sklearn", "scipy")
"""Modules of the extra `train`, which predicting with an exported file does without."""


class VitralError(ValueError):
    """An error in the input, the options or the machine.

    The message names the file or the value and the remedy; the command line prints it without a traceback and exits with 2. Errors that only a
    programmer can cause are asserts.
    """


@contextmanager
def installed_whole(what: str) -> Iterator[None]:
    """Inside, a module of the extra `train` that is missing raises VitralError. what: that needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAINING:
            raise
        raise VitralError(
            f"{what} needs {error.name}, and this installation only predicts with exported files (.onnx, .xml); run pip install 'vitral[train]'"
        ) from error


def all_of(where: str, problems: Sequence[str]) -> str:
    """The message for several problems found together, so that a person can fix them in one go."""
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return f"{where}: {len(problems)} things to fix:\n" + "\n".join(f"- {problem}" for problem in problems)


def counted(n: int, one: str, many: str | None = None) -> str:
    """1 image, 2 images."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def some(items: Sequence[str], shown: int = 10) -> str:
    """The first items of a list, and how many more there are."""
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more


FEW = 20
"""A share of fewer cases than this is written as a count: 6 % of 16 images are one image."""


def ratio(share: float, whole: int, digits: int = 0) -> str:
    """A share of `whole` cases in words: 3 of 16, or from `FEW` cases on 45%; "none" for NaN or no cases."""
    if whole < 1 or share != share:
        return "none"
    part = round(share * whole)
    return f"{part:,} of {whole:,}" if part < FEW else f"{share:.{digits}%}"


def portion(share: float, whole: int, one: str, many: str | None = None) -> str:
    """`ratio` with a noun: 3 of 16 images, 45% of 120 images."""
    what = counted(whole, one, many)
    return f"{round(share * whole):,} of {what}" if round(share * whole) < FEW else f"{share:.0%} of {what}"
