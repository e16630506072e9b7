"""The names of dense models' tensors in Transformers: SegFormer, YOLOS and EoMT. Old names are the Hub's, new ones those in memory of version 5."""

import torch
from torch import Tensor, nn

from vitral.checkpoints.layout import DINO_SCALE, EMBEDDINGS, GLU_HF5, HEAD, HF4_PLAIN, Layout, Rules
from vitral.models.eomt import EomtConfig

SEGFORMER_HEAD: Rules = (
    (r"^encoder\.", ""),  # of a model for a dense task
    (r"^head\.linear_fuse\.", "decode_head.linear_fuse."),
    (r"^head\.classifier\.", "decode_head.classifier."),
    (r"^head\.norm\.", "decode_head.batch_norm."),
)
SEGFORMER: Rules = (
    (r"^head\.linear_c\.(\d)\.", r"decode_head.linear_c.\1.proj."),
    *SEGFORMER_HEAD,
    HEAD,
    (r"^patch_embed\.", "encoder.patch_embeddings.0."),
    (r"^stages\.(\d+)\.downsample\.", r"encoder.patch_embeddings.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"^stages\.(\d+)\.norm\.", r"encoder.layer_norm.\1."),
    (r"attn\.q\.", "attention.self.query."),
    (r"attn\.kv\.", "attention.self.{key,value}."),
    (r"attn\.(sr|norm)\.", r"attention.self.\1."),
    (r"attn\.proj\.", "attention.output.dense."),
    (r"\bnorm([12])\.", r"layer_norm_\1."),
    (r"\bnorm\.", "layer_norm."),
    (r"mlp\.fc", "mlp.dense"),
    (r"dwconv\.", "dwconv.dwconv."),
)
SEGFORMER_HF5: Rules = (
    (r"^head\.linear_c\.(\d)\.", r"decode_head.linear_projections.\1.proj."),
    *SEGFORMER_HEAD,
    HEAD,
    (r"^patch_embed\.", "stages.0.patch_embeddings."),
    (r"\.downsample\.", ".patch_embeddings."),
    (r"attn\.q\.", "attention.q_proj."),
    (r"attn\.kv\.", "attention.{k,v}_proj."),
    (r"attn\.sr\.", "attention.sequence_reduction.sequence_reduction."),
    (r"attn\.norm\.", "attention.sequence_reduction.layer_norm."),
    (r"attn\.proj\.", "attention.o_proj."),
    (r"\bnorm1\.", "layernorm_before."),
    (r"\bnorm2\.", "layernorm_after."),
    (r"\bnorm\.", "layer_norm."),
    (r"dwconv\.", "dwconv.dwconv."),
)


def segformer(suffix: str = "") -> tuple[Layout, Layout]:
    """SegFormer's layouts: of the whole model, or under names with this suffix of its encoder with a classifier."""
    heads, pointwise = r"(decode_head|classifier)\b", r"^decode_head\.(linear_fuse|classifier)\.weight$"
    return (
        Layout(f"hf{suffix}", SEGFORMER, "segformer.", heads, pointwise=pointwise),
        Layout(f"hf5{suffix}", SEGFORMER_HF5, "segformer.", heads, pointwise=pointwise),
    )


# Of the three linear layers of an MLP, with activations between.
THREE: Rules = tuple((rf"^head\.(boxes|classes)\.{2 * i}\.", rf"head.\1.layers.{i}.") for i in range(3))
YOLOS: Rules = (
    *THREE,
    (r"^head\.classes\.", "class_labels_classifier."),
    (r"^head\.boxes\.", "bbox_predictor."),
    (r"^det_tokens$", "embeddings.detection_tokens"),
    *HF4_PLAIN,
)
EOMT: Rules = (
    (r"^query$", "query.weight"),
    (r"^head\.classes\.", "class_predictor."),
    *((rf"^head\.mask\.{2 * i}\.", f"mask_head.fc{i + 1}.") for i in range(3)),
    (r"^head\.pixels\.(\d)\.enlarge\.", r"upscale_block.block.\1.conv1."),
    (r"^head\.pixels\.(\d)\.mix\.", r"upscale_block.block.\1.conv2."),
    (r"^head\.pixels\.(\d)\.norm\.", r"upscale_block.block.\1.layernorm2d."),
    (r"^pos_embed$", "embeddings.position_embeddings.weight"),
    *EMBEDDINGS,
    DINO_SCALE,
    (r"attn\.qkv\.", "attention.{q,k,v}_proj."),
    (r"attn\.proj\.", "attention.out_proj."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.", "layers."),
)
NO_OBJECT = 0.1  # weight in training's loss: Transformers' default
EOMT_ONLY = r"^attn_mask_probs$|^criterion\.empty_weight$"
YOLOS_HEADS = r"(class_labels_classifier|bbox_predictor)\b"


def eomt(config: EomtConfig) -> tuple[Layout, ...]:
    """Transformers' layout of an EoMT, old and new, with the buffers that say that no block masks its attention any more."""

    def added(model: nn.Module) -> dict[str, Tensor]:
        weights = torch.ones(config.num_classes + 1)
        weights[-1] = NO_OBJECT
        return {"attn_mask_probs": torch.zeros(config.joint), "criterion.empty_weight": weights}

    rules = (*(GLU_HF5 if config.swiglu else ()), *EOMT)
    return tuple(
        Layout(name, rules, left_out=EOMT_ONLY, tables=r"^embeddings\.position_embeddings\.weight$", added=added)
        for name in ("hf", "hf5")
    )


YOLOS_LAYOUTS = (
    Layout("hf", ((r"^mid_pos_embed$", "encoder.mid_position_embeddings"), *YOLOS), "vit.", YOLOS_HEADS),
    Layout("hf5", ((r"^mid_pos_embed$", "encoder.interpolation.mid_position_embeddings"), *YOLOS), "vit.", YOLOS_HEADS),
)
