"""The form of a layout: the names of our tensors in another library, and the rules that several families share.

A layout maps one of our names to theirs, and so serves both directions. {a,b,c} in theirs: our tensor is these joined along the first axis.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Rules = tuple[tuple[str, str], ...]

BUFFERS = (
    r"relative_position_index|relative_coords_table|attn_mask|position_ids|rope_embed|k_bias$|num_batches_tracked$"
)
PRETRAINING = r"mask_token|decoder|lm_head|pooler\.dense|dino_head|ibot_head|^head\.(mlp|last_layer)|^fc_norm_pre"
LEFT_OUT = rf"{BUFFERS}|{PRETRAINING}"


@dataclass(frozen=True)
class Layout:
    """One library's names for one family."""

    name: str
    rules: Rules = ()
    """Regular expressions and replacements, each applied in turn to our name."""
    base: str = ""
    """Prefix of everything but the heads; a file of the bare encoder lacks it."""
    heads: str = r"(head|fc|.*classifier)\b"
    """What, among the resulting names, has no `base` before it."""
    left_out: str = LEFT_OUT
    """Tensors that may be in the file and are no part of the model."""
    added: Callable[[nn.Module], dict[str, Tensor]] = lambda model: {}
    """Tensors that the other library wants beside the model's."""
    pointwise: str = r"(?!)"
    """Their names of 1x1 convolutions [E, D, 1, 1] that are linear layers [E, D] here."""
    tables: str = r"(?!)"
    """Their names of tables [N, D] that are [1, N, D] here."""

    def theirs(self, ours: str, base: str | None = None) -> list[str]:
        """Their names for our tensor, to be joined along the first axis if more than one."""
        name = ours
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        base = self.base if base is None else base
        if base and not re.match(self.heads, name):
            name = base + name
        choice = re.search(r"\{(.*?)\}", name)
        return [name.replace(choice[0], part) for part in choice[1].split(",")] if choice else [name]

    def read(self, theirs: str, tensor: Tensor) -> Tensor:
        """Their tensor in our axes."""
        if re.search(self.pointwise, theirs):
            return tensor.flatten(1)
        if re.search(self.tables, theirs):
            return tensor[None]
        return from_google(theirs, tensor) if self.name == "google" else tensor

    def write(self, theirs: str, tensor: Tensor) -> Tensor:
        """Our tensor in their axes; not for Google's."""
        if re.search(self.tables, theirs):
            return tensor[0]
        return tensor[..., None, None] if re.search(self.pointwise, theirs) else tensor


def from_google(name: str, tensor: Tensor) -> Tensor:
    """Flax axes to ours: convolutions [h, w, in, out], attention kernels [D, H, d] and [H, d, D], linear layers [in, out]."""
    leaf = name.rsplit("/", 1)[-1]
    if leaf == "kernel":
        if tensor.ndim == 4:
            return tensor.permute(3, 2, 0, 1)
        if tensor.ndim == 3:
            return (tensor.flatten(0, 1) if "/out/" in name else tensor.flatten(1)).T
        return tensor.T
    return tensor.flatten() if leaf in ("bias", "scale") else tensor


HEAD = (r"^head\.", "classifier.")
SCALE = ((r"\bls([12])\.gamma", r"gamma_\1"),)
EMBEDDINGS: Rules = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
)
HF5_BLOCK: Rules = (
    (r"attn\.qkv\.", "attention.{q,k,v}_proj."),
    (r"attn\.([qv])_bias", r"attention.\1_proj.bias"),
    (r"attn\.proj\.", "attention.o_proj."),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
)
HF4_ATTENTION: Rules = (
    (r"attn\.qkv\.", "attention.attention.{query,key,value}."),
    (r"attn\.q_bias", "attention.attention.query.bias"),
    (r"attn\.v_bias", "attention.attention.value.bias"),
    (r"attn\.proj\.", "attention.output.dense."),
)
HF4_REST: Rules = (
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
)
HF4_BLOCK: Rules = (*HF4_ATTENTION, *HF4_REST)
NORMS: Rules = ((r"^norm\.", "layernorm."), (r"^fc_norm\.", "pooler.layernorm."))
HF5_PLAIN: Rules = (*EMBEDDINGS, *HF5_BLOCK, *NORMS, (r"^blocks\.", "layers."))
HF4_PLAIN: Rules = (*EMBEDDINGS, *HF4_BLOCK, *NORMS, (r"^blocks\.", "encoder.layer."))


def plain(base: str, *rules: tuple[str, str]) -> tuple[Layout, Layout]:
    """Transformers' two layouts of a plain encoder under `base`, with `rules` before the common ones."""
    return (Layout("hf", (*rules, *HF4_PLAIN), base), Layout("hf5", (*rules, *HF5_PLAIN), base))


DINO_SCALE = (r"ls([12])\.gamma", r"layer_scale\1.lambda1")
GLU_HF5 = (r"mlp\.fc1", "mlp.{gate_proj,up_proj}"), (r"mlp\.fc2", "mlp.down_proj")
