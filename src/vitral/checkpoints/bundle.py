"""The model file: one safetensors file with the weights and, in its metadata, all that is needed to use them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from vitral.checkpoints.atomic import read_safetensors, write_safetensors
from vitral.checkpoints.card import ModelCard, read_card
from vitral.errors import VitralError, some
from vitral.models.common import ImageModel


def save_model(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Weights and card in one file, atomically."""
    write_safetensors(path, model.state_dict(), {"vitral": card.to_json(), "format": "pt"})


def load_model(path: Path) -> tuple[ImageModel, ModelCard]:
    """The model in evaluation mode, and its card."""
    tensors, metadata = read_safetensors(path)
    card = read_card(path, metadata)
    try:
        model = card.build()
    except (TypeError, VitralError) as error:
        raise VitralError(f"{path}: needs a model that this version cannot build ({error}); upgrade vitral") from error
    fill(model, tensors, str(path))
    return model.eval(), card


@dataclass
class LoadReport:
    """What `load_weights` did: `loaded` of `total` tensors of the model, and what differed."""

    loaded: int
    total: int
    missing: list[str]
    """In the model, not in the source."""
    unexpected: list[str]
    """In the source, not in the model."""
    mismatched: list[str]
    """In both with other shapes: "name: source shape, model shape"."""
    notes: list[str] = field(default_factory=list)
    """What was resized, adapted or left out on the way."""
    layout: str = "vitral"
    """Whose names the source had: vitral, timm, hf, hf5, google or paper."""
    base: str = ""
    """The prefix that its encoder's tensors had."""
    left_out: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the source that are no part of the model."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{self.loaded} of {self.total} tensors"]
        for title, names in (
            ("only in the model", self.missing),
            ("only in the file", self.unexpected),
            ("of another shape (file, model)", self.mismatched),
        ):
            if names:
                lines.append(f"  {len(names)} {title}: {some(names, 8)}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def fill(
    model: nn.Module, tensors: dict[str, Tensor], source: str, *, strict: bool = True, optional: Sequence[str] = ()
) -> LoadReport:
    """Copy `tensors` into the model by name; with `strict`, anything left over on either side is a VitralError that lists both.

    optional: tensors of the model that may be missing.
    """
    own = model.state_dict()
    mismatched = {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}
    report = LoadReport(
        loaded=len(own.keys() & tensors.keys()) - len(mismatched),
        total=len(own),
        missing=sorted(own.keys() - tensors.keys() - set(optional)),
        unexpected=sorted(tensors.keys() - own.keys()),
        mismatched=[f"{k}: {tuple(tensors[k].shape)}, {tuple(own[k].shape)}" for k in sorted(mismatched)],
    )
    if strict and not report.complete:
        only_head = all(k.startswith("head.") for k in (*report.missing, *mismatched)) and not report.unexpected
        new = "for a new head, pass new_head=True" if only_head else "create the model that these weights belong to"
        raise VitralError(f"{source}: does not fit the model: {report}\n{new}, or pass strict=False to load what fits")
    model.load_state_dict({k: v for k, v in tensors.items() if k in own and k not in mismatched}, strict=False)
    return report
