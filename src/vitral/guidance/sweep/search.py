"""A search for good settings instead of a grid: the tree-structured Parzen estimator of optuna, which must be installed (extra `search`).

Bergstra et al. 2011 (https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization). Trials are suggested in rounds of `ROUND`, from
the scores of the rounds before, with a fixed seed: the suggestions are a pure function of the sweep and those scores. So a search that was killed
starts again at its first round, where finished runs answer at once, and needs no data base.
"""

import threading
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vitral.errors import VitralError
from vitral.guidance.sweep.sweep import Point, Range, Sweep, bases, distinct, make_point

if TYPE_CHECKING:
    import optuna

ROUND = 4
STARTUP = 8  # trials at random before the estimator has something to go by
Score = Callable[[Point], float | None]
"""The task's headline on validation images, of a run that `train` was given; None if it failed."""


def search(
    sweep: Sweep,
    train: Callable[[list[Point]], bool],
    score: Score,
    stop: threading.Event,
) -> tuple[list[Point], list[tuple[float, list[Point]]]] | None:
    """Run the trials. Returns all their runs in order, and (mean score, its runs) of each trial that did not fail; None if stopped.

    A trial is one setting, and a run of it for each seed.
    """
    optuna, found, scored = load_optuna(), dict[str, Point](), dict[str, tuple[float, list[Point]]]()
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=STARTUP)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for start in range(0, sweep.search or 0, ROUND):
        trials = [study.ask() for _ in range(min(ROUND, (sweep.search or 0) - start))]
        members = [_suggested(sweep, trial) for trial in trials]
        together = list({point.name: point for points in members for point in points}.values())
        if not train(together) or stop.is_set():
            return None
        found |= {point.name: point for point in together}
        for trial, points in zip(trials, members, strict=True):
            scores = [value for point in points if (value := score(point)) is not None]
            if len(scores) < len(points):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                mean = fmean(scores)
                study.tell(trial, mean)
                scored[points[0].name] = mean, points
    return list(found.values()), list(scored.values())


def sample(sweep: Sweep) -> list[Point]:
    """A run for each recipe and model, with one value of each field, to check before the search begins."""
    values = {name: _end(values) for name, values in sweep.values.items()}
    return [
        make_point(sweep, name, base, model, *_first(sweep), values)
        for name, base in bases(sweep).items()
        for model in sweep.models or (None,)
    ]


def load_optuna() -> Any:
    """The module; VitralError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise VitralError("--search: optuna is not installed; pip install 'vitral[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _end(values: object) -> object:
    if isinstance(values, Range):
        return int(values.low) if values.whole else values.low
    assert isinstance(values, tuple)
    return values[0]


def _first(sweep: Sweep) -> tuple[float | None, int | None]:
    """The fraction, and the first seed."""
    return next(iter(sweep.fractions), None), next(iter(sweep.seeds), None)


def _suggested(sweep: Sweep, trial: "optuna.Trial") -> list[Point]:
    """The trial's runs, one for each seed."""
    recipes = bases(sweep)
    name = trial.suggest_categorical("recipe", list(recipes)) if len(recipes) > 1 else next(iter(recipes))
    model = next(iter(sweep.models), None)
    if len(sweep.models) > 1:
        model = trial.suggest_categorical("model", sweep.models)
    values: dict[str, object] = {}
    for field, choices in sweep.values.items():
        if isinstance(choices, tuple):  # by position: a choice may be a tuple itself
            values[field] = choices[trial.suggest_categorical(field, range(len(choices)))]
        elif choices.whole:
            values[field] = trial.suggest_int(field, int(choices.low), int(choices.high), log=choices.logarithmic)
        else:
            exact = trial.suggest_float(field, choices.low, choices.high, log=choices.logarithmic)
            values[field] = float(f"{exact:.3g}")  # what its run is called
    fraction, _ = _first(sweep)
    seeds = sweep.seeds or (None,)
    return distinct([make_point(sweep, name, recipes[name], model, fraction, seed, values) for seed in seeds])
