"""What a model costs: parameters, multiply-adds, token shapes and memory, found without computing anything."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vitral.models.common import ImageModel, ModelConfig
from vitral.models.shapes import shapes_only
from vitral.models.zoo import build

ADAM_BYTES = 16  # of a parameter in training: weight, gradient and two moments in float32

Shape = tuple[int, ...]


def _fused(q: Shape, k: Shape, v: Shape, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


# The processor's fused attention, which torch's counter does not know.
FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused}


@dataclass(frozen=True)
class Part:
    """A stage of a model in the order of computation."""

    name: str
    shape: tuple[int, ...]
    """Of its output for one image, without the batch axis."""
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Cost:
    parameters: int
    multiply_adds: int
    """Of one image: products in linear layers, convolutions and attention; what papers print as FLOPs."""
    parts: list[Part]
    training_bytes_an_image: int
    """Activations of one image that the backward pass needs, in float32."""

    @property
    def inference_bytes(self) -> int:
        """Weights in float32."""
        return 4 * self.parameters

    def training_bytes(self, batch: int) -> int:
        """Weights, gradients, AdamW's moments and kept activations of a batch, in float32."""
        return ADAM_BYTES * self.parameters + batch * self.training_bytes_an_image


def measure(config: ModelConfig) -> Cost:
    """The cost of one image of the model's own size, found with tensors that have shapes and no numbers."""
    with shapes_only():
        model = build(config).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # in training it refuses a map of one pixel, which a small image becomes in a deep network
    with FakeTensorMode(allow_non_fake_inputs=True):  # as if on the processor, whose kernels decide what is kept
        return _measure(model.to_empty(device="cpu"))


def multiply_adds(model: ImageModel, height: int, width: int) -> int:
    """Of one image of this size through a model with whatever head."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        model.eval()(torch.zeros(1, model.config.in_channels, height, width))
    return counter.get_total_flops() // 2


def _measure(model: ImageModel) -> Cost:
    parts = dict(_parts(model))
    last = {(part[-1] if isinstance(part, nn.ModuleList) else part): name for name, part in parts.items()}
    shapes: dict[str, tuple[int, ...]] = {}

    def seen(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[last[module]] = tuple(output.shape[1:])

    hooks = [module.register_forward_hook(seen) for module in last]
    images = torch.empty(1, model.config.in_channels, *model.image_size)
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter, _kept(model) as kept:
        model(images)
    for hook in hooks:
        hook.remove()
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__

    def spent(name: str, part: nn.Module) -> int:
        """FLOPs of a part; the sum over its children where it is not called as a whole, as lists and MAE's encoder are not."""
        if (whole := flops.get(f"{root}.{name}")) is not None:
            return whole
        return sum(spent(f"{name}.{child}", module) for child, module in part.named_children())

    table = [Part(name, shapes.get(name, ()), _size(part), spent(name, part) // 2) for name, part in parts.items()]
    if rest := _size(model) - sum(part.parameters for part in table):
        table.append(Part("tokens, positions", (), rest, 0))
    return Cost(_size(model), counter.get_total_flops() // 2, table, sum(kept.values()))


def _parts(model: ImageModel) -> Iterator[tuple[str, nn.Module]]:
    """The model's children in order; lists of stages one by one, lists of equal blocks as one."""
    blocks = {block for stage in model.blocks_by_stage() for block in stage}
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList) and not blocks & {*child} and blocks & {*child.modules()}:
            yield from ((f"{name}.{i}", stage) for i, stage in enumerate(child))
        elif not isinstance(child, nn.Identity):
            yield name, child


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@contextlib.contextmanager
def _kept(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of the storages that autograd keeps, without those of parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
