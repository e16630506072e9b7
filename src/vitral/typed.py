"""Values from outside (a recipe's, a caller's) held against the type of the field that they are for."""

import types
import typing

from vitral.errors import VitralError


def fitted(value: object, hint: object, what: str) -> object:
    """The value as the type has it: a list as a tuple, a whole number as a float, one number for a pair of whole numbers as both.

    Which texts a Literal allows its dataclass knows. Raises VitralError, which opens with `what`, for a value of another type.
    """
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple:
            parts = typing.get_args(option)
            if parts[-1] is Ellipsis and isinstance(value, list | tuple):
                parts = (parts[0],) * len(value)
            if parts == (int, int) and type(value) is int:
                return value, value
            if isinstance(value, list | tuple) and len(value) == len(parts):
                return tuple(fitted(v, p, what) for v, p in zip(value, parts, strict=True))
        elif typing.get_origin(option) is typing.Literal and isinstance(value, str):
            return value
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    raise VitralError(f"{what} should be {' or '.join(_in_words(o) for o in options if o is not type(None))}")


def _in_words(hint: object) -> str:
    """A type, for a person."""
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[-1] is Ellipsis:
            return f"a list of {_in_words(parts[0]).removeprefix('a ')}s, such as [0.5, 0.5, 0.5]"
        return {int: "[height, width], such as [32, 32]"}.get(parts[0], "[smallest, largest], such as [0.5, 1.0]")
    if typing.get_origin(hint) is typing.Literal:
        hint = str
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
    return words[hint]  # type: ignore[index]
