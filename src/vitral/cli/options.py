"""What a command can be told, read off its dataclass: the one list that parsing, help pages, error messages and shell completion share.

A command is a dataclass. Its fields, and those of the dataclasses among them (the sections of a recipe), are its options: a field's docstring is
the option's sentence, its type says what values are accepted, its default is the option's. Metadata of a field says what else there is to say:
`argument` makes a positional one, `{"flag": name}` renames it, `{"flag": ""}` leaves it to recipe files.
"""

import ast
import dataclasses
import functools
import itertools
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vitral.models.heads.options import HEADS, HeadOptions
from vitral.objectives.options import OBJECTIVES, ObjectiveOptions
from vitral.training.options import ModelArguments, ModelOptions

DEFAULT = re.compile(r"(?:^|[;.,] )default:? ", re.IGNORECASE)  # before the default in words, at the end of a sentence
METAVARS: dict[object, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
PLACEHOLDERS = {  # where a name tells more than the type
    "time": "TIME", "set": "FIELD=VALUES", "model": "NAME", "models": "NAME ...", "init": "SOURCE",
    "teacher": "MODEL", "tokenizer": "RUN", "against": "MODEL", "neighbours": "DATA", "resume": "RUN", "moved": "NEW", "recipe": "FILE",
    "recipes": "FILE ...", "device": "NAME", "data_dir": "FOLDER", "target": "CLASS", "layer": "N|mean",
    "query": "ROW COLUMN|N|cls|mean", "image_size": "H W", "window": "H W", "value_range": "LOW HIGH", "page": "N|all",
    "scale": "FROM TO", "local_scale": "FROM TO", "ratio": "FROM TO", "num_heads": "N ...", "host": "ADDRESS", "family": "NAME", "cutouts": "FOLDER",
    "backgrounds": "FOLDER", "int8": "DATA",
}  # fmt: skip
CHOICES = {
    "objective": f"What is learned: {', '.join(name for name, kind in OBJECTIVES.items() if not kind.labelled)} need no labels, "
    f"{' and '.join(name for name, kind in OBJECTIVES.items() if kind.labelled)} do.",
    "head": "What reads the backbone's maps, for dense tasks; default: by the task, and whether the model is a pyramid.",
}
WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    bool: "True or False",
}
WIDE = 44  # characters: alternatives that are longer in sum stand in the sentence alone


def argument(default: Any = dataclasses.MISSING, *, flags: tuple[str, ...] = ()) -> Any:
    """A field that is given by its place; with `flags`, an option that has these short names too."""
    return dataclasses.field(default=default, metadata={"also": flags} if flags else {"positional": True})


def names_said() -> Any:
    """A field for the names of the options that were given, which parsing fills."""
    return dataclasses.field(default=frozenset(), metadata={"flag": ""})


@dataclasses.dataclass(frozen=True)
class Option:
    """One thing that a command can be told."""

    name: str
    """Its flag without hyphens, with underscores: image_size."""
    path: tuple[str, ...]
    """Where its value goes: the fields from the command's dataclass on."""
    section: type
    """The dataclass that holds it."""
    hint: Any
    """Its type."""
    value: object
    """Its default; `dataclasses.MISSING` if there is none."""
    doc: str
    """The whole docstring, on one line."""
    positional: bool = False
    also: tuple[str, ...] = ()
    """Short flags."""

    @property
    def flag(self) -> str:
        """How an error names it."""
        return self.name.upper() if self.positional else f"--{self.name.replace('_', '-')}"

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that it takes, without None."""
        union = typing.get_origin(self.hint) in (types.UnionType, typing.Union)
        return tuple(each for each in (typing.get_args(self.hint) if union else (self.hint,)) if each is not type(None))

    @property
    def switch(self) -> bool:
        """Whether it is said without a value."""
        return self.kinds == (bool,)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, if they can be counted."""
        named = [_one(kind) for kind in self.kinds]
        literals = [each for each in named if typing.get_origin(each) is Literal]
        return tuple(str(value) for each in literals for value in typing.get_args(each))

    @property
    def many(self) -> bool:
        """Whether it takes any number of values."""
        return any(_many(kind) for kind in self.kinds)

    @property
    def metavar(self) -> str:
        """What stands for its value; nothing for a switch."""
        if self.positional:
            return self.name.upper().removesuffix("S") + " ..." if self.many else self.name.upper()
        listed = "|".join(self.choices)
        if listed and len(listed) > WIDE:
            return "NAME ..." if self.many else "NAME"
        if self.switch:
            return ""
        return PLACEHOLDERS.get(self.name) or "|".join(dict.fromkeys(map(_metavar, self.kinds)))

    @property
    def accepts(self) -> str:
        """What values it takes, for an error."""
        return " or ".join(dict.fromkeys(_accepted(kind) for kind in self.kinds))

    @property
    def sentence(self) -> str:
        """What it does, without its default."""
        found = self._default_in_words()
        text = self.doc if found is None else (self.doc[: found.start()] + ".").removeprefix(".")
        return text or self.doc

    @property
    def default(self) -> str:
        """Its default in words; nothing where without it nothing is done."""
        found = self._default_in_words()
        if found is not None:
            return self.doc[found.end() :].removesuffix(".")
        if self.value is None or self.value is dataclasses.MISSING or self.value == ():
            general = DEFAULT.search(_documented(self.section)[""]) if self.value is None else None
            return "" if general is None else general.string[general.end() :].removesuffix(".")
        if isinstance(self.value, bool):
            return "on" if self.value else ""
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

    def _default_in_words(self) -> re.Match[str] | None:
        """The last "default ..." that ends the docstring."""
        found = [each for each in DEFAULT.finditer(self.doc) if ". " not in self.doc[each.end() :]]
        return found[-1] if found else None


def _many(kind: Any) -> bool:
    return typing.get_origin(kind) is list or (
        typing.get_origin(kind) is tuple and typing.get_args(kind)[-1] is Ellipsis
    )


def _one(kind: Any) -> Any:
    """The type of one value."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) in (tuple, list) else kind


def _metavar(kind: Any) -> str:
    one = _one(kind)
    text = "|".join(map(str, typing.get_args(one))) if typing.get_origin(one) is Literal else METAVARS[one]
    if _many(kind):
        return f"{text} ..."
    return " ".join([text] * len(typing.get_args(kind))) if typing.get_origin(kind) is tuple else text


def _accepted(kind: Any) -> str:
    one = _one(kind)
    if typing.get_origin(one) is Literal:
        text = "one of " + ", ".join(map(str, typing.get_args(one)))
    else:
        text = WORDS[one]
    if _many(kind):
        return (
            f"one or more of them: {text}" if text.startswith("one of") else f"one or more {text.removeprefix('a ')}s"
        )
    if typing.get_origin(kind) is tuple:
        return f"{len(typing.get_args(kind))} {text.removeprefix('a ')}s"
    return text


@functools.cache
def options_of(kind: Any) -> tuple[Option, ...]:
    """Everything that the dataclass of a command can be told, in the order of its fields."""
    found = tuple(_walk(kind, (), None))
    names = [option.name for option in found]
    assert len(set(names)) == len(names), f"{kind.__name__}: two options of one name"
    return found


def _walk(kind: type, path: tuple[str, ...], values: object) -> typing.Iterator[Option]:
    """values: an instance whose fields are the defaults; None for the dataclass's own."""
    hints, docs = typing.get_type_hints(kind), _documented(kind)
    for each in dataclasses.fields(kind):
        value = getattr(values, each.name) if values is not None else each.default
        if value is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            value = each.default_factory()
        where = (*path, each.name)
        if isinstance(value, ModelOptions):
            yield from _walk(ModelArguments, where, None)
        elif isinstance(value, ObjectiveOptions):
            yield from _of_table(where, value.name, OBJECTIVES, ObjectiveOptions)
        elif isinstance(value, HeadOptions):
            yield from _of_table(where, None, HEADS, HeadOptions)
        elif dataclasses.is_dataclass(value):
            yield from _walk(type(value), where, value)
        elif name := each.metadata.get("flag", each.name):
            yield Option(
                name, where, kind, hints[each.name], value, docs.get(each.name, ""),
                each.metadata.get("positional", False), each.metadata.get("also", ()),
            )  # fmt: skip


def _of_table(
    path: tuple[str, ...], chosen: str | None, kinds: Mapping[str, type], section: type
) -> typing.Iterator[Option]:
    """The name of a row, and each option that any of the rows has, once."""
    names = Literal[tuple(kinds)] if chosen is not None else Literal[tuple(kinds)] | None
    yield Option(path[-1], (*path, "name"), section, names, chosen, CHOICES[path[-1]])
    options = {name: {each.name: each for each in _walk(kind, path, None)} for name, kind in kinds.items()}
    for name in dict.fromkeys(itertools.chain(*options.values())):
        first, *others = [(kind, own[name]) for kind, own in options.items() if name in own]
        option = dataclasses.replace(first[1], section=section)
        if others and (others[0][1].doc, others[0][1].value) != (option.doc, option.value):
            listed = ", ".join(f"{each.default} ({kind})" for kind, each in (first, *others))
            option = dataclasses.replace(option, doc=f"{option.doc.removesuffix('.')}; default: {listed}.")
        yield option


@functools.cache
def _documented(kind: Any) -> dict[str, str]:
    """Field -> its docstring on one line, inherited ones included; "" -> the dataclass's own."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):  # the last is object
        found |= {name: " ".join(text.split()) for name, text in _module(each.__module__)[each.__name__].items()}
    return found | {"": " ".join((kind.__doc__ or "").split())}


@functools.cache
def _module(name: str) -> dict[str, dict[str, str]]:
    """Class -> field -> docstring, from a module's source: Python keeps no docstrings of fields."""
    source = sys.modules[name].__file__
    assert source is not None
    classes: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(source).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            docs = classes.setdefault(node.name, {})
            for field, text in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    docs[field.target.id] = str(text.value.value)
    return classes
