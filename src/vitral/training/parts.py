"""A model that no process holds whole: each has a part of every parameter, of its gradient and of the optimiser's state (FSDP2, `fully_shard`).

PyTorch FSDP, https://arxiv.org/abs/2304.11277. A block's parameters are gathered when it computes and let go after; what is no block (patches, head)
is gathered for the whole step. All that training changes is elementwise but for the optimisers that need a tensor whole, which gather it (`whole`).
"""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.layers.block import Block
from vitral.models.heads.dense import build_model
from vitral.models.measure import ADAM_BYTES
from vitral.models.shapes import shapes_only
from vitral.objectives.objective import Objective
from vitral.training.machine import ROOM, available_memory
from vitral.training.optim import image_models
from vitral.training.settle import Settled
from vitral.training.whole import whole
from vitral.training.world import World

SHARE = 0.5  # of a process's memory, from which the model is divided: activations need the rest
AVERAGE_BYTES = 4  # of a parameter's average


def settle_parts(settled: Settled, device: torch.device, world: World) -> Settled:
    """The run with `fsdp` decided, where several processes share it: in parts where the whole model would leave a process too little memory."""
    recipe = settled.recipe
    if recipe.train.fsdp != "auto" or world.size == 1:
        return settled
    with shapes_only():
        model = build_model(settled.config, recipe.head if recipe.head.name else None)
    needed = (ADAM_BYTES + AVERAGE_BYTES * bool(recipe.optim.ema)) * sum(p.numel() for p in model.parameters())
    room = ROOM * available_memory(device.type) / (world.beside if device.type == "cpu" else 1)
    divided, reasons = needed > room * SHARE, settled.reasons
    if divided:
        reasons += (
            f"each process holds a part of the model: whole, with gradients and moments, it takes {needed / 1e9:,.1f} GB, over half of the "
            f"{room / 1e9:,.1f} GB of a process; --fsdp no holds it whole, --fsdp offload keeps the parts in main memory",
        )
    train = replace(recipe.train, fsdp="yes" if divided else "no")
    return replace(settled, recipe=replace(recipe, train=train), reasons=reasons)


class Parts(nn.Module):
    """The losses of `objective` as one module, under which the model's parts are gathered and let go.

    model: becomes one of parts, in place. offload: whether the parts stay in main memory between steps.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, device: torch.device, world: World, offload: bool
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

        super().__init__()
        shapes = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
        self._blank = [copy.deepcopy(model, shapes)]  # in a list, so as to be no part of this module
        self.model, self.objective, self._device = model, objective, device
        mesh = init_device_mesh(device.type, (world.size,))
        policy = CPUOffloadPolicy(pin_memory=device.type == "cuda") if offload else OffloadPolicy()
        blocks = {b: None for _, each in image_models(model) for b in each.ordered_blocks()}
        blocks |= {b: None for b in model.modules() if isinstance(b, Block)}
        for module in (*blocks, self):
            fully_shard(module, mesh=mesh, offload_policy=policy)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)  # gradients are sums, as the loss is of the whole batch
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def forward(self, part: Batch) -> dict[str, Tensor]:
        """The losses of a micro-batch, which the backward pass starts from."""
        return self.objective(self.model, part)

    def whole(self, average: dict[str, Tensor] | None = None) -> nn.Module:
        """A copy of the model that is whole, with these averaged weights if any; all processes must ask."""
        tensors = {
            name: whole(t).detach().clone() for name, t in {**self.model.state_dict(), **(average or {})}.items()
        }
        model = copy.deepcopy(self._blank[0])
        model.load_state_dict(tensors, assign=True)
        return model.to(self._device)
