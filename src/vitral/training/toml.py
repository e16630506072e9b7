"""Recipes as TOML: read with every key and type checked, merged over the defaults, and written so that they read back equal."""

import contextlib
import dataclasses
import difflib
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

from vitral.data.options import DataOptions
from vitral.errors import VitralError
from vitral.models.heads.options import HEADS, HeadOptions
from vitral.objectives.options import OBJECTIVES, ClassifyOptions, ObjectiveOptions
from vitral.training.config import SECTIONS, Recipe
from vitral.training.options import ModelArguments, ModelOptions
from vitral.typed import fitted

T = typing.TypeVar("T")
N = typing.TypeVar("N", ObjectiveOptions, HeadOptions)
# Data options of runs from before these options existed.
BEFORE: dict[str, object] = {"near_copies": "apart"}

FLAGS = "the command line"  # the origin of values from flags

# Other common names of fields.
ALIASES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "label_smoothing": "smoothing",
    "batch": "batch_size",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "num_workers": "workers",
    "architecture": "name",
    "model": "name",
    "width": "dim",
    "layers": "depth",
    "heads": "num_heads",
    "img_size": "image_size",
    "grad_clip": "clip",
    "warmup": "warmup_fraction",
}


def read_recipe(path: str | Path, *, stored: bool = False) -> Recipe:
    """The recipe of a TOML file: its values over the defaults. Raises VitralError with the nearest name of each unknown key.

    stored: whether a run wrote it, so that missing fields have the defaults of that time.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise VitralError(f"{path}: no such recipe" + (f"; there are {', '.join(near)}" if near else "")) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitralError(f"{path}: cannot be read as TOML ({error}); mend it there") from error
    if not stored:
        return merge(Recipe(), table, str(path))
    objective = table.get("objective", {})
    own = OBJECTIVES.get(objective.get("name", ClassifyOptions.name), ObjectiveOptions)
    other = {key for kind in OBJECTIVES.values() for key in _fields(kind)} - set(_fields(own))  # once, recipes had all
    table["objective"] = {key: value for key, value in objective.items() if key not in other}
    return merge(merge(Recipe(), {"data": BEFORE}, "before"), table, str(path))


def merge(base: T, table: Mapping[str, object], where: str) -> T:
    """`base` with the fields that `table` names replaced, nested tables likewise, every value checked against its type.

    Raises VitralError with all unknown keys and wrong values together.
    """
    wrong: list[str] = []
    merged = _merged(base, table, where, wrong)
    if wrong:
        raise VitralError(
            wrong[0] if len(wrong) == 1 else f"{len(wrong)} things to fix:\n" + "\n".join(f"- {each}" for each in wrong)
        )
    return merged


def _merged(base: T, table: Mapping[str, object], where: str, wrong: list[str]) -> T:
    """`merge`, adding to `wrong` instead of raising."""
    known = {f.name: f for f in dataclasses.fields(base) if f.name != "said"}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(base))
    changes: dict[str, object] = {}
    if isinstance(base, Recipe):
        base = base.under(  # type: ignore[assignment]
            f"{name}.{key}" for name, section in table.items() if isinstance(section, dict) for key in section
        )
    before = len(wrong)
    for key, value in table.items():
        with _noting(wrong):
            if key not in known:
                raise VitralError(f"{where}: unknown key {key!r}; {_meant(key, list(known), isinstance(base, Recipe))}")
            current = getattr(base, key)
            if not dataclasses.is_dataclass(current):
                changes[key] = fitted(value, hints[key], f"{where}: {key} = {value!r}")
            elif not isinstance(value, dict):
                raise VitralError(f"{where}: {key} is a section; write its fields under [{key}]")
            elif isinstance(current, ModelOptions):
                changes[key] = _model(current, value, f"{where} [{key}]", wrong)
            elif isinstance(current, ObjectiveOptions):
                changes[key] = _named(current, OBJECTIVES, value, f"{where} [{key}]", wrong)
            elif isinstance(current, HeadOptions):
                changes[key] = _named(current, HEADS, value, f"{where} [{key}]", wrong)
            else:
                changes[key] = _merged(current, value, f"{where} [{key}]", wrong)
    return base if wrong[before:] else dataclasses.replace(base, **changes)  # type: ignore[type-var]


@contextlib.contextmanager
def _noting(wrong: list[str]) -> Iterator[None]:
    """Add a VitralError's text to `wrong` instead of raising it."""
    try:
        yield
    except VitralError as error:
        wrong.append(str(error))


def _model(base: ModelOptions, table: dict[str, object], where: str, wrong: list[str]) -> ModelOptions:
    """`base` with the name and arguments of the table; the family checks them when its configuration is made."""
    hints = typing.get_type_hints(ModelArguments)
    if not table.keys() <= hints.keys():
        from vitral.models.zoo import argument_types  # which loads torch, as most recipes need not

        hints = argument_types() | hints
    changes = {}
    for key, value in table.items():
        with _noting(wrong):
            if key not in hints:
                raise VitralError(f"{where}: unknown key {key!r}; {_meant(key, list(hints), top=False)}")
            changes[key] = fitted(value, hints[key], f"{where}: {key} = {value!r}")
    return ModelOptions(**changes).over(base)  # type: ignore[arg-type]


def _named(base: N, kinds: Mapping[str, type[N]], table: dict[str, object], where: str, wrong: list[str]) -> N:
    """The row of `kinds` that the table names, else the only one that has the table's fields, or `base`, with these fields.

    A field of another row is refused unless it has its default, as the recipes of older runs held those of all objectives.
    """
    alone = [name for name, each in kinds.items() if table and table.keys() <= set(_fields(each))]
    name = str(table.get("name", base.name or (alone[0] if len(alone) == 1 else "")))
    if name not in kinds and (name or "name" in table):
        raise VitralError(f"{where}: name = {table['name']!r}: choose one of {', '.join(kinds)}")
    kind: type[N] = kinds.get(name, type(base))
    hints, changes = typing.get_type_hints(kind), {}
    for key, value in table.items():
        homes = [each for each in kinds.values() if key in _fields(each)]
        instead = f"this is {name}: leave it out" if name else "name that, too"
        others = f"is for {', '.join(each.name for each in homes)}; {instead}"
        if kind in homes:
            with _noting(wrong):
                changes[key] = fitted(value, hints[key], f"{where}: {key} = {value!r}")
        elif homes and where.startswith(FLAGS):
            wrong.append(f"--{key.replace('_', '-')} {others}")
        elif homes and literal(value) not in [literal(getattr(each(), key)) for each in homes]:
            wrong.append(f"{where}: {key} {others}")
        elif not homes and key != "name":
            wrong.append(f"{where}: unknown key {key!r}; {_meant(key, ['name', *_fields(kind)], top=False)}")
    return dataclasses.replace(base if type(base) is kind else kind(), **changes)


def _fields(kind: type) -> list[str]:
    return [each.name for each in dataclasses.fields(kind)]


def _keys(section: object) -> list[str]:
    """The keys of a section, for any model or objective."""
    if isinstance(section, ModelOptions):
        return _fields(ModelArguments)
    kinds = OBJECTIVES if isinstance(section, ObjectiveOptions) else HEADS if isinstance(section, HeadOptions) else None
    if kinds is not None:
        return ["name", *dict.fromkeys(key for kind in kinds.values() for key in _fields(kind))]
    return _fields(type(section))


def _meant(key: str, known: list[str], top: bool) -> str:
    """What an unknown key of a section, or of the whole recipe (`top`), may have been meant as."""
    homes = {key: section for section in SECTIONS for key in _keys(getattr(Recipe(), section))}
    name = ALIASES.get(key, key)
    if name in known:
        return f"the nearest is {name!r}"
    if name in homes:
        return f"{name} belongs in [{homes[name]}]"
    aliases = [] if top else [alias for alias in ALIASES if ALIASES[alias] in known]
    if near := difflib.get_close_matches(key, [*known, *aliases], n=1):
        return f"the nearest is {near[0] if near[0] in known else ALIASES[near[0]]!r}"
    return f"the {'sections' if top else 'keys'} are {', '.join(known)}"


def stored_data_options(stored: dict[str, object]) -> DataOptions:
    """How a finished run read and divided its data, from the recipe in its model file."""
    section = stored.get("data", {})
    assert isinstance(section, dict)
    return merge(merge(DataOptions(), BEFORE, "before"), section, "the model file's recipe [data]")


def to_table(recipe: Recipe) -> dict[str, dict[str, object]]:
    """Section -> field -> value, without the fields that are None."""
    tables = {name: _table(getattr(recipe, name)) for name in SECTIONS}
    return {name: {k: v for k, v in table.items() if v is not None} for name, table in tables.items()}


def _table(section: object) -> dict[str, object]:
    if isinstance(section, ModelOptions):
        return {"name": section.name, **section.arguments}
    own = dataclasses.asdict(section)  # type: ignore[call-overload]
    return {"name": section.name or None, **own} if isinstance(section, ObjectiveOptions | HeadOptions) else own


def to_toml(recipe: Recipe) -> str:
    """The recipe as a file that `read_recipe` reads back to an equal one."""
    lines = []
    for name, section in to_table(recipe).items():
        if not section:
            continue
        lines += [f"[{name}]", *(f"{key} = {literal(value)}" for key, value in section.items()), ""]
    return "\n".join(lines)


def literal(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # TOML's basic strings are JSON's, but for DEL
    if isinstance(value, tuple | list):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return repr(value)
