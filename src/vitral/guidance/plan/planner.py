"""A plan: whether to start from weights, which size of model, for how long, and why."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vitral.checkpoints.card import ModelCard
from vitral.data.dataset import DataSet
from vitral.evaluation.described import LEARNED_FROM, left_out_top1
from vitral.evaluation.probes import edges_and_colours, features, pixels
from vitral.guidance import weights
from vitral.guidance.plan.choices import Choice, Estimate, Plan
from vitral.guidance.plan.ladder import climb, open_size, passes_worth
from vitral.predict import Predictor
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.display import clock
from vitral.training.options import ModelOptions
from vitral.training.settle import Settled
from vitral.training.sizes import UNSAID, Size, model_for, side_of_photographs, sizes_for
from vitral.training.tasks import learning_of
from vitral.training.transfer import Initial, open_initial

PATIENCE = 1800.0  # seconds: the longest that a plan trains without a given budget
ENOUGH = 3.0  # times the passes worth having: the most that is planned without being asked for
FEW = 20  # images a class: too few to change a whole encoder, enough for a new head (the ViT paper's few-shot probes have 5 to 25)
STARVED = (
    100  # images a class: with fewer a network from scratch is about level with edges and colours (docs/small-data.md)
)
SCORABLE = 50  # images: with fewer a top-1 is uncertain by 14 points or more
FINE_TUNED = 3.0  # passes worth having from scratch over those from trained weights


@dataclass
class Planner:
    """Decides step by step. `estimate` gives the cost of a recipe, from the recipe and its settled form: by trials here, by a table elsewhere."""

    data: DataSet
    device: str
    budget: float | None
    """Seconds; None: as long as it pays, up to `PATIENCE`."""
    estimate: Callable[[Recipe, Settled], Estimate]
    choices: list[Choice] = field(default_factory=list)
    known: dict[Size, Estimate] = field(default_factory=dict)
    brief: bool = False
    """Whether to measure only what decides something."""
    initial: Initial | None = None
    described: ModelOptions | None = None
    """The model of the weights that training starts from."""
    source: str = ""
    """The data as they were named, from the root."""

    @property
    def limit(self) -> float:
        """Seconds that training may take at most."""
        return self.budget or PATIENCE

    @property
    def images(self) -> int:
        return len(self.data.splits["train"])

    def choose(self, what: str, value: str, why: str) -> None:
        self.choices.append(Choice(what, value, why))

    def plan(self, recipe: Recipe) -> Plan:
        recipe, worth, size = self.start(recipe), passes_worth(self.images), None
        unnamed = recipe.model.name is None and self.initial is None
        if self.initial is not None:
            worth /= FINE_TUNED
        elif open_size(recipe):
            size = self.size(recipe, worth)
            recipe = replace(recipe, model=self.model(recipe, size))
        if unnamed:
            recipe = self.beside(recipe)
        estimate = None
        if not self.brief or self.undecided(recipe, size):
            estimate = self.of(recipe, size) if size is not None else self.estimate(recipe, self.settled(recipe))
        recipe, passes = self.length(recipe, estimate, worth)
        self.warn_of_few()
        longer = "" if self.brief else self.longer(recipe, size, worth, passes)
        return Plan(self.settled(recipe), recipe, self.choices, estimate, passes, longer)

    def undecided(self, recipe: Recipe, size: Size | None) -> bool:
        """Whether the cost still matters: for the length, for the size, or for whether a range test is worth its time."""
        if recipe.train.steps is not None or recipe.train.epochs is not None:
            return False
        return self.budget is None or size is not None or recipe.optim.lr is None

    def set_rate(self, plan: Plan, rate: float) -> None:
        """Give the plan a measured learning rate; the reason for the usual one goes."""
        settled = self.settled(replace(plan.asked, optim=replace(plan.asked.optim, lr=rate)))
        recipe = replace(plan.recipe, optim=replace(plan.recipe.optim, lr=rate))
        plan.settled = replace(settled, recipe=recipe)

    def start(self, recipe: Recipe) -> Recipe:
        """From scratch or from weights, and whether the encoder learns."""
        if recipe.transfer.init is None:
            why = "no weights were given (--init), and to pre-train on the same images first did not pay where we measured it"
            self.choose("start", "from scratch", why)
            if self.starved:
                why = f"{self.images / len(self.data.labels):.0f} images a class teach a new network little more than their edges and colours"
                self.choose(
                    "better",
                    f"start from trained weights, such as --init {weights.NAME} ({weights.ABOUT})",
                    f"{why}; docs/guidance.md names others",
                )
            return recipe
        share = self.images / max(1, len(self.data.labels))
        whole = recipe.transfer.freeze == "none" and not recipe.transfer.lora_rank
        places = learning_of(self.data.task).dense  # of which one image has many examples
        # A layer decay, too, is of an encoder that learns.
        said = not recipe.said.isdisjoint({"transfer.freeze", "optim.layer_decay"})
        if whole and share < FEW and not places and not said:
            why = f"{share:.0f} images a class are too few to change an encoder with"
            self.choose("start", f"a new head on {recipe.transfer.init}, frozen", why)
            recipe = replace(recipe, transfer=replace(recipe.transfer, freeze="encoder"))
        else:
            self.choose("start", f"from {recipe.transfer.init}", f"{self.images:,} images, {share:.0f} a class")
        opened, self.initial = open_initial(recipe)
        self.described = opened.model
        if recipe.model.get("image_size") is None:
            height, width = opened.model.get("image_size")
            self.choose(
                "images", f"{height}x{width} pixels", "the size that these weights know; --image-size for another"
            )
        self.weigh(recipe)
        return recipe

    def weigh(self, recipe: Recipe) -> None:
        """Say what trained weights know of few images, by their frozen features, beside what needs no weights."""
        known = frozen(self.initial, self.data.channels)
        if known is None or not self.starved:
            return
        split, steps = self.data.splits["train"].thinned(LEARNED_FROM), self.settled(recipe).preprocess
        read = (features(known, split), edges_and_colours(split, steps))
        theirs, told = (left_out_top1(each, split.targets.values) for each in read)
        compared = (
            f"of training images left out one by one a linear classifier on their frozen features tells {theirs:.0%}, one on edges and colours "
            f"{told:.0%}"
        )
        if theirs > told:
            self.choose("weights", "of use", compared)
        else:
            self.choose(
                "better",
                "leave out --init, or choose other weights",
                f"{compared}: these have seen too little like your images",
            )

    def size(self, recipe: Recipe, worth: float) -> Size:
        """The largest model that sees the images often enough in the given time."""
        sizes, enough = sizes_for(recipe.model, self.images), f"more parameters gain little from {self.images:,} images"
        if recipe.train.steps is not None or recipe.train.epochs is not None:
            self.say_model(recipe, sizes[-1], enough)
            return sizes[-1]
        size = climb(sizes, lambda each: self.limit / self.of(recipe, each).pass_seconds, worth)
        passes = self.limit / self.of(recipe, size).pass_seconds
        larger = sizes[sizes.index(size) + 1 :]
        if passes < worth:
            why = f"the smallest; {clock(self.limit)} are {passes:.1f} passes over the images, and {worth:.0f} are worth having"
        elif larger:
            other = self.limit / self.of(recipe, larger[0]).pass_seconds
            why = f"width {larger[0].dim} would make {other:.1f} passes in {clock(self.limit)}, and {worth:.0f} are worth having"
        else:
            why = enough
        self.say_model(recipe, size, why)
        return size

    @property
    def starved(self) -> bool:
        """Whether there are so few images a class that a network learns little more of them than a person would measure."""
        return self.data.splits["train"].targets.one_class and self.images < STARVED * len(self.data.labels)

    def beside(self, recipe: Recipe) -> Recipe:
        """The recipe with a classifier on edges and colours beside the model, where it tells the few images better than one on pixels does."""
        if not self.starved or recipe.model.get("beside") is not None:
            return recipe
        split, steps = self.data.splits["train"].thinned(LEARNED_FROM), self.settled(recipe).preprocess
        told, pixel = (left_out_top1(read(split, steps), split.targets.values) for read in (edges_and_colours, pixels))
        compared = f"of training images left out one by one it tells {told:.0%}, one on pixels {pixel:.0%}"
        if told <= pixel:
            self.choose("beside", "nothing", f"a linear classifier on edges and colours is no help here: {compared}")
            return recipe
        why = f"{compared}; so few images teach a network little more, and their answers are added"
        self.choose("beside", "a linear classifier on edges and colours", why)
        return replace(recipe, model=ModelOptions(beside="edges").over(recipe.model))

    def say_model(self, recipe: Recipe, size: Size, why: str) -> None:
        model, own = self.model(recipe, size), (self.data.height, self.data.width)
        patches = "patches by convolutions" if model.get("stem") else "linear patches"
        self.choose("model", f"ViT, width {size.dim}, {model.get('depth')} layers, {patches}", why)
        shown = model.get("image_size")
        why = (
            "as said"
            if recipe.model.get("image_size") is not None
            else "the images' own size"
            if shown == own
            else f"of {own[0]}x{own[1]}, a third of the work of 224x224, as there is no GPU"
            if self.device == "cpu"
            else f"of {own[0]}x{own[1]}, the usual size of photographs"
        )
        self.choose("images", f"{shown[0]}x{shown[1]} pixels, patches of {model.get('patch_size')}", why)

    def model(self, recipe: Recipe, size: Size) -> ModelOptions:
        side, places = side_of_photographs(self.device), learning_of(self.data.task).dense
        return model_for(recipe.model, size, self.data.height, self.data.width, side, places=places)

    def of(self, recipe: Recipe, size: Size) -> Estimate:
        """What a size of model costs, asked once."""
        if size not in self.known:
            wanted = replace(recipe, model=self.model(recipe, size))
            self.known[size] = self.estimate(wanted, self.settled(wanted))
        return self.known[size]

    def length(self, recipe: Recipe, estimate: Estimate | None, worth: float) -> tuple[Recipe, float]:
        """The budget: what was said, or the passes that are worth having."""
        train = recipe.train
        if train.steps is not None:
            each = -(-self.images // ((self.settled(recipe).recipe.train.batch_size or 1) * train.accumulation))
            return recipe, train.steps / each
        if train.epochs is not None:
            return recipe, train.epochs
        if self.budget is not None and estimate is None:
            self.choose("length", clock(self.limit), "as said; the schedule ends with the clock")
            return recipe, math.nan
        assert estimate is not None
        if self.budget is not None:
            passes = self.limit / estimate.pass_seconds
            why = "as said; the schedule ends with the clock" if passes >= 1 else "too short to see every image once"
            self.choose("length", f"{clock(self.limit)}, {passes:.1f} passes", why)
            return recipe, passes
        wanted, allowed = round(ENOUGH * worth), int(self.limit / estimate.pass_seconds)
        passes = float(max(1, min(wanted, allowed)))
        why = (
            f"{self.images:,} images: few are seen more often"
            if wanted <= allowed
            else f"all that {clock(self.limit)} allow; --hours says otherwise"
        )
        self.choose("length", f"{passes:g} passes, {clock(passes * estimate.pass_seconds)}", why)
        return replace(recipe, train=replace(train, epochs=passes)), passes

    def warn_of_few(self) -> None:
        """Say where there are too few images to tell a good model from a bad one."""
        counts = {name: len(split) for name, split in self.data.splits.items() if name != "train"}
        scarce = [count for count in counts.values() if count < SCORABLE]
        if scarce:
            said = " and ".join(f"{count} {name}" for name, count in counts.items())
            half = 100 / math.sqrt(min(scarce))  # two standard errors of a share near a half
            self.choose("scores", f"{said} images", f"so few that a score can be off by {half:.0f} points by chance")

    def settled(self, recipe: Recipe) -> Settled:
        """What a run of this recipe begins with."""
        if self.described is not None:
            recipe = replace(recipe, model=self.described)
        own = None if self.initial is None else self.initial.preprocess
        recipe, reasons = resolve(recipe, self.data, self.device, own)
        return Settled(self.source, self.data, recipe, self.initial, tuple(reasons))

    def longer(self, recipe: Recipe, size: Size | None, worth: float, passes: float) -> str:
        """What twice the time would change."""
        larger = [] if size is None else [each for each in sizes_for(UNSAID, self.images) if each.dim > size.dim]
        if larger:
            twice = 2 * self.limit / self.of(recipe, larger[0]).pass_seconds
            if twice >= worth:
                return f"width {larger[0].dim}, {larger[0].depth} layers, {twice:.0f} passes"
        return f"the same model, {2 * passes:.0f} passes"


def frozen(initial: Initial | None, channels: int) -> Predictor | None:
    """The weights that training starts from, if they bring their own preprocessing for images of these channels."""
    if initial is None or initial.preprocess is None or initial.preprocess.channels != channels:
        return None
    numbers = [str(k) for k in range(initial.model.num_classes)]  # its classes may be those of a head that is not read
    return Predictor(initial.model, ModelCard(initial.source, {}, numbers, initial.preprocess))
