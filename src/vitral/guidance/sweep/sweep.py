"""The description of a sweep: many runs on the same data, over models, recipes, fractions of the training images, seeds and any field of a recipe.

A TOML file holds it (`OUT/sweep.toml`); a run of it is a recipe with a name. Nothing here needs torch or the data.
"""

import dataclasses
import hashlib
import itertools
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from vitral.errors import VitralError
from vitral.training.config import BUDGETS, Recipe
from vitral.training.toml import literal, merge, read_recipe, to_toml

Table = dict[str, dict[str, object]]
AXES = {"model.name": "models", "data.train_fraction": "fractions", "train.seed": "seeds"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high` for a search, on a logarithmic scale where they span a factor of ten or more."""

    low: float
    high: float
    whole: bool

    @property
    def logarithmic(self) -> bool:
        return self.low > 0 and self.high >= 10 * self.low

    def __str__(self) -> str:
        low, high = (int(v) if self.whole else v for v in (self.low, self.high))
        return f"{low!r}..{high!r}"


Values = tuple[object, ...] | Range


@dataclass(frozen=True)
class Sweep:
    """An empty axis means: as the recipes and settings say."""

    data: str
    models: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    fractions: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    search: int | None = None
    """Trials of a search, instead of a grid."""
    threads: int | None = None
    """Processor threads of a run; None until the sweep starts."""
    values: dict[str, Values] = field(default_factory=dict)
    """section.field -> the values of any other field that varies."""
    settings: Table = field(default_factory=dict)
    """Section -> field -> value, the settings of all runs, over their recipes."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    name: str
    """Of its folder."""
    recipe_name: str
    values: dict[str, object]
    """The fields that --set gave it."""
    recipe: Recipe

    @property
    def model(self) -> str:
        return self.recipe.model.name or "default"

    @property
    def setting(self) -> dict[str, object]:
        """All of its choices but the seed."""
        fraction = {"fraction": self.recipe.data.train_fraction}
        return {"recipe": self.recipe_name, "model": self.model} | self.values | fraction

    def curve(self, against: str) -> dict[str, object]:
        """The settings that all runs of a scaling curve against "images" or "compute" share.

        Along it the fraction varies, or for the compute the budget, where --set gives several.
        """
        budgets = {f"train.{name}" for name in BUDGETS} & self.values.keys()
        along = budgets if against == "compute" and budgets else {"fraction"}
        return {name: value for name, value in self.setting.items() if name not in along}


def parse_values(text: str) -> tuple[str, Values]:
    """`optim.lr=1e-3,3e-3` as the field and its values; `optim.lr=1e-4..1e-2` as a range."""
    name, equals, right = text.partition("=")
    if not equals or not name.strip() or not right.strip():
        raise VitralError(f"--set {text}: write it as section.field=value,value, such as optim.lr=1e-3,3e-3")
    return name.strip(), _values(name.strip(), right.strip())


def _values(name: str, text: str) -> Values:
    if match := re.fullmatch(r"([^,\s]+?)\.\.([^,\s]+)", text):
        ends = [_value(end) for end in match.groups()]
        low, high = (end if type(end) in (int, float) else float("nan") for end in ends)
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        if not low < high:
            raise VitralError(f"--set {name}={text}: a range goes from a smaller to a larger number")
        return Range(low, high, all(type(end) is int for end in ends))
    try:
        return _tuples(tomllib.loads(f"v = [{text}]")["v"])
    except tomllib.TOMLDecodeError:  # words without quotes
        return tuple(_value(part.strip()) for part in text.split(","))


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _tuples(values: list[object]) -> tuple[object, ...]:
    return tuple(_tuples(v) if isinstance(v, list) else v for v in values)


def read_sweep(path: Path) -> Sweep:
    """The sweep that a TOML file describes."""
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise VitralError(
            f"{path}: no such file; give the sweep.toml of a sweep, or describe one with flags"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitralError(f"{path}: cannot be read as TOML ({error}); mend it there") from error
    given, settings = table.pop("set", {}), table.pop("settings", {})
    for name, section in (("set", given), ("settings", settings)):
        if not isinstance(section, dict):
            raise VitralError(f"{path}: {name} is a section; write its fields under [{name}]")
    for name in ("values", "settings"):
        if name in table:
            raise VitralError(f"{path}: unknown key {name!r}; the fields that vary are under [set]")
    values: dict[str, Values] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            raise VitralError(f'{path}: under [set] write "{name}.{next(iter(value), "field")}" = [...] in quotes')
        values[name] = _tuples(value) if isinstance(value, list) else _values(name, str(value))
    return dataclasses.replace(merge(Sweep(""), table, str(path)), values=values, settings=settings)


def write_sweep(sweep: Sweep) -> str:
    """The text of a file that `read_sweep` reads back to an equal sweep."""
    plain = ("data", "models", "recipes", "fractions", "seeds", "search", "threads")
    lines = [f"{name} = {literal(value)}" for name in plain if (value := getattr(sweep, name)) not in (None, ())]
    lines += ["", "[set]"]
    lines += [f'"{name}" = {literal(str(v) if isinstance(v, Range) else v)}' for name, v in sweep.values.items()]
    for section, fields in sweep.settings.items():
        lines += ["", f"[settings.{section}]", *(f"{name} = {literal(value)}" for name, value in fields.items())]
    return "\n".join(lines) + "\n"


def verify(sweep: Sweep) -> None:
    """VitralError for a sweep that contradicts itself; recipes are checked by `training.defaults.check`."""
    if not sweep.data:
        raise VitralError("sweep: which data? Give a folder, a table or a built-in name such as digits")
    axes: dict[str, tuple[object, ...]] = {
        name: getattr(sweep, name) for name in ("models", "recipes", "fractions", "seeds")
    }
    choices = {name: values for name, values in sweep.values.items() if not isinstance(values, Range)}
    for name, values in (axes | choices).items():
        if len(set(map(repr, values))) < len(values):
            raise VitralError(f"{name} {' '.join(map(str, values))}: a value is there twice; leave one out")
        if name in choices and not values:
            raise VitralError(f"--set {name}: has no values; give at least one")
    said = {f"{section}.{name}" for section, fields in sweep.settings.items() for name in fields}
    for name, flag in AXES.items():
        if name in sweep.values or (axes[flag] and name in said):
            raise VitralError(f"{name}: a sweep over it is --{flag} VALUE ..., and nothing else may say it")
    for name in sweep.values.keys() & said:
        raise VitralError(f"{name}: is in --set and among the settings that all runs share; leave one out")
    stems = [Path(path).stem for path in sweep.recipes]
    if len(set(stems)) < len(stems):
        raise VitralError(f"recipes {' '.join(sweep.recipes)}: two have the same file name; rename one")
    ranges = [name for name, values in sweep.values.items() if isinstance(values, Range)]
    if ranges and sweep.search is None:
        raise VitralError(
            f"--set {ranges[0]}={sweep.values[ranges[0]]}: a grid needs single values; a range is for --search N"
        )
    if sweep.search is not None:
        _verify_search(sweep)


def _verify_search(sweep: Sweep) -> None:
    if sweep.search is not None and sweep.search < 1:
        raise VitralError(f"--search {sweep.search}: give the number of trials, 1 or more")
    if len(sweep.fractions) > 1:
        raise VitralError("--search: compares trials on the same images; give one of --fractions")
    if not sweep.values and len(sweep.models) < 2 and len(sweep.recipes) < 2:
        raise VitralError("--search: nothing varies; give --set section.field=low..high")
    for options in (*bases(sweep).values(), merge(Recipe(), sweep.settings, "the settings")):
        if options.train.score_split != "val" and "score_split" in sweep.settings.get("train", {}):
            raise VitralError(
                "--search with --score-split test: settings are chosen on validation images; leave it out"
            )
    if "train.score_split" in sweep.values:
        raise VitralError("--search over train.score_split: settings are chosen on validation images; leave it out")


def bases(sweep: Sweep) -> dict[str, Recipe]:
    """The recipes by file name, with the settings that all runs share."""
    read = {Path(path).stem: read_recipe(path) for path in sweep.recipes} or {"": Recipe()}
    return {name: merge(recipe, sweep.settings, "the settings") for name, recipe in read.items()}


def make_point(
    sweep: Sweep,
    recipe_name: str,
    base: Recipe,
    model: str | None,
    fraction: float | None,
    seed: int | None,
    values: dict[str, object],
) -> Point:
    """The run with this recipe, whose fields are replaced by the arguments that are not None and by `values`."""
    table: Table = {}
    axes = {"model.name": model, "data.train_fraction": fraction, "train.seed": seed}
    if sweep.search is not None:
        axes["train.score_split"] = "val"
    for name, value in {**{k: v for k, v in axes.items() if v is not None}, **values}.items():
        section, dot, key = name.partition(".")
        if not dot:
            merge(Recipe(), {name: value}, "--set")  # a field without its section: raises with where it belongs
            raise VitralError(f"--set {name}: name a field of the section, such as {name}.{_first_field(name)}")
        table.setdefault(section, {})[key] = value
    recipe = merge(base, table, "--set")
    words = [recipe_name, recipe.model.name or "default", f"f{recipe.data.train_fraction:g}"]
    words += [f"{name.rpartition('.')[2]}{_word(value)}" for name, value in values.items()]
    name = "-".join(filter(None, [*words, f"s{recipe.train.seed}"]))
    return Point(re.sub(r"[^A-Za-z0-9._+-]+", "_", name), recipe_name, values, recipe)


def _first_field(section: str) -> str:
    return dataclasses.fields(getattr(Recipe(), section))[0].name


def _word(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(_word, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def grid(sweep: Sweep) -> list[Point]:
    """Every combination, in a fixed order; the seed changes fastest."""
    choices = {name: values for name, values in sweep.values.items() if not isinstance(values, Range)}
    combinations = itertools.product(
        bases(sweep).items(), sweep.models or (None,), itertools.product(*choices.values()),
        sweep.fractions or (None,), sweep.seeds or (None,),
    )  # fmt: skip
    return distinct([
        make_point(sweep, name, base, model, fraction, seed, dict(zip(choices, values, strict=True)))
        for (name, base), model, values, fraction, seed in combinations
    ])  # fmt: skip


def distinct(points: list[Point]) -> list[Point]:
    """The points under unique names: to a name that several share a digest of the recipe is added."""
    names = [point.name for point in points]

    def own(point: Point) -> str:
        if names.count(point.name) == 1:
            return point.name
        return f"{point.name}-{hashlib.blake2b(to_toml(point.recipe).encode(), digest_size=4).hexdigest()}"

    return [dataclasses.replace(point, name=own(point)) for point in points]
