"""Initial weights and what training may change: another model's weights, frozen parts, LoRA, a norm before the head.

Fine-tuning as in the ViT paper (https://arxiv.org/abs/2010.11929, sections 3.2 and B.1.1): one new layer that starts at zero replaces the head and
the layer before it, and positions are resized to the grid of the new image size. From a masked autoencoder (https://arxiv.org/abs/2111.06377,
appendix A.1) comes its encoder without the last norm.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from torch import Tensor, nn

from vitral.checkpoints.bundle import LoadReport
from vitral.checkpoints.card import read_card
from vitral.checkpoints.convert import place
from vitral.checkpoints.create import Opened, open_model
from vitral.checkpoints.recognise import Source
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError, some
from vitral.layers.lora import add_head_norm, add_lora
from vitral.models.common import RATES, ImageModel, ModelConfig
from vitral.models.words import model_in_words
from vitral.models.zoo import family_of, model_config
from vitral.objectives.options import OBJECTIVES, PretextOptions
from vitral.training.config import Recipe
from vitral.training.options import ModelOptions, TransferOptions


@dataclass
class Initial:
    """The weights that training starts from, as the model that they belong to."""

    source: str
    model: ImageModel
    labels: list[str]
    """Class names in the order of its head; empty where they are not known."""
    preprocess: Preprocess | None
    notes: list[str] = field(default_factory=list)
    """What was changed or left out, line by line."""
    whole: ImageModel | None = None
    """The model with what is not fine-tuned: a decoder, or the head of a dense task."""

    def fill(self, model: ImageModel, labels: list[str], zero_head: bool) -> None:
        """Bring the weights into `model`, whose head answers `labels`. A VitralError where the two have other shapes."""
        tensors, backbone = self.model.state_dict(), model.backbone
        kept = self._head(model, labels) if backbone is model else {}
        # What answers beside the source was fitted to its images; of these it is fitted anew.
        tensors = {name: t for name, t in tensors.items() if not name.startswith(("head.", "beside."))} | kept
        rule = model.config.position_resize
        report = place(backbone, Source(self.source, tensors), strict=False, new_head=not kept, resize=rule)
        self.notes += report.notes
        self._refuse_other_shapes(report, model.replaceable)
        for what, names in (("left out", report.unexpected), ("starts afresh", report.missing)):
            if names:
                self.notes.append(f"{what}, as the model was changed: {some(names)}")
        if backbone is not model:
            self._fill_dense_head(model, labels)
            return
        if kept:
            same = self.labels == labels
            self.notes.append(
                f"the head is kept: it knows these classes{'' if same else ', which are brought into this order'}"
            )
            return
        if zero_head:
            for parameter in model.head.parameters():
                if parameter.ndim > 1:  # biases stay where the recipe puts them
                    nn.init.zeros_(parameter)
        classes = self.model.num_classes
        why = f"the source's {classes} classes are others" if classes else "the source has none"
        self.notes.append(
            f"a new head of {len(labels)} classes, begun {'at zero' if zero_head else 'at random'}: {why}"
        )

    def _fill_dense_head(self, model: ImageModel, labels: list[str]) -> None:
        """Keep the source's head where it is the same one for the same classes; else the new one stays as it is."""
        assert self.whole is not None
        old, new = self.whole.head.state_dict(), model.head.state_dict()
        same = {name: t.shape for name, t in old.items()} == {name: t.shape for name, t in new.items()}
        if same and self.labels == labels and self.whole is not self.model:
            model.head.load_state_dict(old)
            self.notes.append("the head is kept: it knows these classes")
        else:
            self.notes.append(f"a new head for {len(labels)} classes, begun at random")

    def _head(self, model: ImageModel, labels: list[str]) -> dict[str, Tensor]:
        """The head's tensors with their rows in the order of `labels`; none where it answers other classes or reads something else."""
        old, new = (
            {name: t for name, t in m.state_dict().items() if name.startswith(("head.", "pre_logits."))}
            for m in (self.model, model)
        )
        if sorted(self.labels) != sorted(labels) or {k: t.shape for k, t in old.items()} != {
            k: t.shape for k, t in new.items()
        }:
            return {}
        order = [self.labels.index(label) for label in labels]
        return {name: t[order] for name, t in old.items() if name.startswith("head.")}

    def _refuse_other_shapes(self, report: LoadReport, replaceable: tuple[str, ...]) -> None:
        differing = [name for name in (*report.missing, *report.unexpected) if not name.startswith(replaceable)]
        if differing or report.mismatched:
            raise VitralError(
                f"{self.source}: does not fit the model that the recipe asks for: {report}\nleave out the settings of the model that "
                "change its shape, or give --model the architecture that these weights are for"
            )


def open_initial(recipe: Recipe) -> tuple[Recipe, Initial | None]:
    """The weights that `[transfer] init` names, and the recipe with their model's whole architecture under what it says of the model itself."""
    options, asked = recipe.transfer, recipe.model
    _check(recipe)
    if options.init is None:
        return recipe, None
    opened = open_model(options.init, architecture=asked.name, allow_pickle=options.allow_pickle)
    model = opened.model.backbone
    base, name = model.config, opened.architecture
    if asked.name is not None:
        base, name = model_config(asked.name), asked.name
    base, known = base.backbone, model_config(name)
    name = name if known.backbone is known else family_of(base)
    size, rule = model.config.image_size, model.config.position_resize
    told = [
        f"starts from {options.init}: {model_in_words(opened.model.config, opened.architecture)}",
        *opened.report.notes,
    ]
    initial = Initial(options.init, model, opened.labels or [], opened.preprocess, told, opened.model)
    changes: dict[str, object] = {"image_size": size, "position_resize": rule, "representation_dim": 0}
    whole = options.freeze != "encoder" and not options.lora_rank
    if whole and masked(opened) and not {"pooling", "fc_norm"} & asked.arguments.keys():
        changes |= {"pooling": "mean", "fc_norm": True}
        initial.notes.append("the head reads the mean of the patches, then a new norm, as MAE is fine-tuned")
    if options.freeze == "encoder":
        changes |= dict.fromkeys(RATES, 0.0)
    return replace(recipe, model=described(name, base, changes, asked)), initial


def described(name: str, base: ModelConfig, changes: dict[str, object], asked: ModelOptions) -> ModelOptions:
    """Every field of `base` with `changes`, and over both what was asked for; the data say how many channels and classes there are."""
    known = {f.name: getattr(base, f.name) for f in fields(base) if f.name not in ("in_channels", "num_classes")}
    values = known | {key: value for key, value in changes.items() if key in known}
    if values.get("layer_scale", 0.0) is None:
        values["layer_scale"] = 0.0  # in a recipe None leaves it to the model's row, and 0 is none
    return ModelOptions(**{**values, **asked.arguments, "name": name})


def masked(opened: Opened) -> bool:
    """Whether the source is a masked autoencoder, or the encoder of one, as far as it says so."""
    if opened.model.backbone is not opened.model or opened.source.config.get("model_type") == "vit_mae":
        return True
    if "vitral" not in opened.source.metadata:
        return False
    objective = read_card(Path(opened.source.name), opened.source.metadata).recipe.get("objective")
    kind = OBJECTIVES.get(objective.get("name", "")) if isinstance(objective, dict) else None
    return kind is not None and issubclass(kind, PretextOptions) and kind.read_as_mean


def _check(recipe: Recipe) -> None:
    options = recipe.transfer
    asked = [
        name for name in ("init", "freeze", "lora_rank", "head_norm")
        if getattr(options, name) != getattr(TransferOptions(), name)
    ]  # fmt: skip
    if asked and not recipe.objective.labelled:
        raise VitralError(
            f"{' and '.join(asked)}: belong to training with labels; leave them out of {recipe.objective.name}"
        )


def restrict(model: ImageModel, options: TransferOptions) -> None:
    """Freeze what the options freeze, and put LoRA and the head's norm where they ask for them."""
    embedding = model.embedding_parameters()
    for name, parameter in model.named_parameters():
        if options.freeze == "encoder" or options.lora_rank:
            parameter.requires_grad_(name.startswith("head."))
        elif options.freeze == "embed" and name in embedding:
            parameter.requires_grad_(False)
    if options.lora_rank and not add_lora(model.backbone, options.lora_rank, options.lora_alpha):
        raise VitralError(
            f"lora_rank {options.lora_rank}: this {type(model).__name__} has no matrix in attention or MLP that is larger; choose a lower "
            "rank, or a Transformer"
        )
    if options.head_norm:
        model.head = add_head_norm(model.head)


def learning(model: nn.Module, options: TransferOptions) -> list[str]:
    """A line on how many of the parameters learn, where some of them are frozen."""
    if options.freeze == "none" and not options.lora_rank:
        return []
    learn, every = (sum(p.numel() for p in model.parameters() if p.requires_grad >= least) for least in (True, False))
    return [f"{learn:,} of {every:,} parameters learn, the others stay as they are"]
