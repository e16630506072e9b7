"""The viewer's state: models, pictures, cached results, and the one thread that computes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import vitral
from vitral.deploy.limits import MAX_BYTES, MAX_PIXELS
from vitral.deploy.refused import RefusedError
from vitral.deploy.viewer.images import Images, Stored
from vitral.deploy.viewer.kept import Kept
from vitral.deploy.viewer.looks import Look, explainable, look_at
from vitral.deploy.viewer.places import modes
from vitral.deploy.worker import Worker
from vitral.drawing.colours import COLOURS
from vitral.errors import VitralError, counted
from vitral.explain.compare import UNORDERED
from vitral.explain.methods import METHODS, in_titles, undefined
from vitral.explain.removal import BRIEFLY, IN_WORDS, check_droppable
from vitral.predict import Predictor

if TYPE_CHECKING:
    from vitral.deploy.viewer.examples import Examples
    from vitral.deploy.viewer.neighbours import Neighbours

LOOKS = 1_000_000_000
"""Bytes of attention in the cache."""
PREFERRED = ("relevance", "rollout", "grad_cam", "occlusion")
"""Methods that are compared first, where the model has them."""
UNSCORED = "A picture in colours puts the patches in no order, so there is no curve to draw."
MANY = "The test removes patches and sees one answer change; this model answers places, many in a picture."
RESULTS = 128
"""Maps, curves and preprocessed pictures in the cache: a few megabytes each at most."""


class Session:
    """models, names: one name each. given: ids of the first pictures. examples: shown where there are none."""

    def __init__(
        self,
        models: Sequence[Predictor],
        names: Sequence[str],
        images: Images,
        *,
        given: Sequence[str] = (),
        examples: "Examples | None" = None,
    ) -> None:
        for model in models:
            explainable(model)  # VitralError for a model that reads no whole images
        self.models, self.names = list(models), list(names)
        self.images, self.given = images, list(given)
        self.neighbours: Neighbours | None = None  # set later, for it takes turns with the worker
        self.worker = Worker()
        self._hooks = [  # each forward pass is a step, at which the worker may stop
            each.model.backbone.register_forward_pre_hook(lambda *_: self.worker.step()) for each in self.models
        ]
        self._examples = examples
        self._looks: Kept[Look] = Kept(LOOKS, lambda look: look.nbytes)
        self.results: Kept[Any] = Kept(RESULTS, lambda _: 1)

    @property
    def examples(self) -> list[Stored]:
        """Example pictures."""
        return self._examples.stored() if self._examples else []

    def model(self, number: int) -> Predictor:
        """RefusedError where there is no such model."""
        if not 0 <= number < len(self.models):
            shown = counted(len(self.models), "model")
            raise RefusedError(404, f"model {number}: this viewer has {shown}, counted from 0")
        return self.models[number]

    def name(self, number: int) -> str:
        """The model's name; RefusedError where there is no such model."""
        self.model(number)
        return self.names[number]

    def kept(self, model: int, image: str) -> Look | None:
        """The cached look of a model at a picture, if there is one."""
        return self._looks.get((model, image))

    def look(self, model: int, image: str) -> Look:
        """The look of a model at a picture; computes it where it is not cached."""
        predictor, stored = self.model(model), self.images.get(image)
        return self.kept(model, image) or self._looks.put((model, image), look_at(predictor, stored))

    def neighbours_of(self, model: int, image: str, count: int) -> dict[str, object]:
        """The training images that are most similar to a picture, for JSON."""
        self.model(model)
        if self.neighbours is None:
            return {"state": "none", "why": "no training images were named; start vitral view with --neighbours DATA"}
        return self.neighbours.answer(model, self.images.get(image).data, count)

    def about(self) -> dict[str, object]:
        """Models, pictures and limits, for JSON."""
        return {
            "version": vitral.__version__,
            "models": [self._model(i) for i in range(len(self.models))],
            "removals": [
                {"value": name, "text": text, "title": f"removed patches are {IN_WORDS[name]}"}
                for name, text in BRIEFLY.items()
            ],
            "colours": COLOURS,
            "given": [self.images.get(key).describe() for key in self.given],
            "examples": [stored.describe() for stored in self.examples],
            "neighbours": None if self.neighbours is None else self.neighbours.data or "the run's own training data",
            "limits": {"bytes": MAX_BYTES, "pixels": MAX_PIXELS},
            "exported": False,
        }

    def _model(self, number: int) -> dict[str, object]:
        predictor = self.models[number]
        model, steps = predictor.model, predictor.card.preprocess
        return {
            "id": number,
            "name": self.names[number],
            "architecture": predictor.card.architecture,
            "model": predictor.card.model,
            "parameters": sum(p.numel() for p in model.parameters()),
            "labels": predictor.labels,
            "independent": predictor.answers.independent,
            "modes": modes(predictor),
            "view": [steps.height, steps.width],
            "channels": steps.channels,
            "methods": [
                {
                    "name": name,
                    "title": m.title,
                    "said": m.said,
                    "about": m.about,
                    "takes": sorted(m.takes),
                    "why": (why := undefined(model, name)) and in_titles(why),
                    "unscored": UNSCORED if name in UNORDERED else None,
                }
                for name, m in METHODS.items()
            ],
            "preferred": [name for name in dict.fromkeys((*PREFERRED, *METHODS)) if undefined(model, name) is None],
            "removals": removals(predictor),
        }

    def close(self) -> None:
        """Stop computing."""
        if self.neighbours is not None:
            self.neighbours.close()
        self.worker.close()
        for hook in self._hooks:
            hook.remove()


def removals(predictor: Predictor) -> dict[str, str | None]:
    """For each way to remove patches the reason why it does not work with this model, or None where it does."""
    reasons: dict[str, str | None] = {}
    for removal in IN_WORDS:
        try:
            predictor.check_head()
            if not predictor.answers.of_whole:
                raise VitralError(MANY)
            if removal == "drop":
                check_droppable(predictor.model)
            reasons[removal] = None
        except VitralError as error:
            reasons[removal] = str(error)
    return reasons
