"""The learning rate and the weight decay as pure functions of a run's progress."""

import math
from dataclasses import dataclass

from vitral.training.options import OptimOptions

LEAST = 1e-3  # of the peak: where a warm-up by the clock starts, as its first step would have a rate of 0


@dataclass(frozen=True)
class Schedule:
    """Rates by `progress`, the share of the budget that is spent (0 to 1), and `step`, the number of steps taken.

    The rate is warmup_lr + (target - warmup_lr) * ramp. `ramp` rises from 0 to 1 in the warm-up. `target` is min_lr + (lr - min_lr) * shape, where
    shape stays at 1 in the warm-up and then declines to 0 (cosine, linear), or until the cool-down does not (constant) or slowly (rsqrt).
    """

    options: OptimOptions
    warmup_steps: float | None
    """None: the warm-up is a share of the budget."""
    warmup_share: float
    """Share of the budget after which cosine and linear begin; 0 where the budget is a time and the warm-up is given in steps."""

    @classmethod
    def of(cls, options: OptimOptions, budget: int | None, steps_per_epoch: int) -> "Schedule":
        """`budget` in steps; None for a budget of time, whose number of steps is unknown: the rate then declines from the start."""
        steps: float | None = options.warmup_steps
        if options.warmup_epochs is not None:
            steps = options.warmup_epochs * steps_per_epoch
        if steps is None:
            return cls(options, None, options.warmup_fraction)
        return cls(options, steps, 0.0 if budget is None else min(1.0, steps / budget))

    def learning_rate(self, progress: float, step: int) -> float:
        """The rate of the next step, before each layer's own factor (layer_decay)."""
        options = self.options
        assert options.lr is not None
        target = options.min_lr + (options.lr - options.min_lr) * self._shape(progress, step)
        if self.warmup_steps is None:
            ramp = max(LEAST, _over(progress, self.warmup_share))
        else:
            ramp = _over(step + 1, self.warmup_steps)
        return target if ramp >= 1 else options.warmup_lr + (target - options.warmup_lr) * ramp

    def weight_decay(self, progress: float) -> float:
        """From weight_decay to weight_decay_end along a cosine, without warm-up: DINO, https://arxiv.org/abs/2104.14294, section 3.2."""
        first, last = self.options.weight_decay, self.options.weight_decay_end
        return first if last is None else last + (first - last) * _cosine(progress)

    def _shape(self, progress: float, step: int) -> float:
        """The rate's place between lr (1) and min_lr (0)."""
        options = self.options
        end = 1 - options.cooldown
        if options.schedule in ("cosine", "linear"):
            done = min(1.0, max(0.0, (progress - self.warmup_share) / max(1e-9, end - self.warmup_share)))
            return _cosine(done) if options.schedule == "cosine" else 1 - done
        kept = min(1.0, _over(1 - progress, options.cooldown))  # https://arxiv.org/abs/2106.04560, section 3.5
        if options.schedule == "constant":
            return kept
        warmed = _over(progress, self.warmup_share) if self.warmup_steps is None else _over(step, self.warmup_steps)
        return kept / math.sqrt(max(1.0, warmed))  # https://arxiv.org/abs/1706.03762, section 5.3


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _over(part: float, whole: float) -> float:
    """part / whole; infinite where `whole` is 0."""
    return part / whole if whole else math.inf
