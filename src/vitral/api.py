"""What `vitral.load` gives: a predictor that can also explain itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from vitral.predict import ImageLike
from vitral.predict import Predictor as WithoutExplanations
from vitral.predict import load as load_plain

if TYPE_CHECKING:
    from vitral.explain.attention import LayerChoice
    from vitral.explain.figure import Explanation
    from vitral.explain.maps import Query


class Predictor(WithoutExplanations):
    """A model with its labels and its preprocessing, which can explain its answers."""

    def explain(
        self,
        image: ImageLike,
        method: str = "attention",
        layer: "LayerChoice | None" = None,
        head: int | None = None,
        query: "Query | None" = None,
        *,
        target: int | str | None = None,
        object: int | None = None,
        at: tuple[float, float] | None = None,
    ) -> "Explanation":
        """A map of what counted for the answer; see `vitral.explain.explain.explain` for the arguments. VitralError for an exported file."""
        self._torch()
        from vitral.explain.explain import explain

        return explain(self, image, method, layer, head, query, target=target, object=object, at=at)


def load(path: str | Path) -> Predictor:
    """A predictor from a model file, a run folder, a file of `vitral export`, or a folder or "hf:org/name" of Hugging Face or timm that has labels
    and preprocessing.
    """
    found = load_plain(path)
    return Predictor(found.engine, found.card)
