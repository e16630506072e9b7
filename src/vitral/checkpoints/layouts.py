"""The names of our tensors elsewhere: for each family those of timm, Hugging Face, the papers' releases and Google's .npz.

`hf` is what the Hub holds, `hf5` what version 5 of Transformers holds in memory.
"""

from torch import nn

from vitral.checkpoints.dense_layouts import YOLOS_LAYOUTS, eomt, segformer
from vitral.checkpoints.layout import (
    BUFFERS,
    DINO_SCALE,
    EMBEDDINGS,
    GLU_HF5,
    HEAD,
    HF4_ATTENTION,
    HF4_BLOCK,
    HF4_PLAIN,
    HF4_REST,
    HF5_BLOCK,
    HF5_PLAIN,
    SCALE,
    Layout,
    Rules,
    plain,
)  # fmt: skip
from vitral.models.beit import Beit
from vitral.models.cait import CaiT
from vitral.models.common import ImageModel
from vitral.models.deit import DeiT
from vitral.models.dino import Dino, DinoConfig
from vitral.models.eomt import Eomt
from vitral.models.heads.dense import Dense
from vitral.models.heads.segformer import SegformerHead
from vitral.models.hybrid import HybridTransformer
from vitral.models.mae import MaskedAutoencoder
from vitral.models.pvt import PyramidVisionTransformer, PyramidVisionTransformerV2
from vitral.models.resnet import ResNet
from vitral.models.swin import SwinTransformer
from vitral.models.swinv2 import SwinTransformerV2
from vitral.models.vit import VisionTransformer
from vitral.models.yolos import Yolos

GOOGLE: Rules = (
    (r"^cls_token$", "cls"),
    (r"^pos_embed$", "Transformer/posembed_input/pos_embedding"),
    (r"^patch_embed\.proj", "embedding"),
    (r"^patch_embed\.backbone\.(stem\.)?conv", "conv_root"),
    (r"^patch_embed\.backbone\.(stem\.)?norm", "gn_root"),
    *(
        (rf"^patch_embed\.backbone\.stages\.{s}\.blocks\.{b}\.", f"block{s + 1}/unit{b + 1}/")
        for s in range(4)
        for b in range(9)
    ),
    (r"downsample\.conv", "conv_proj"),
    (r"downsample\.norm", "gn_proj"),
    (r"(unit\d/)norm", r"\1gn"),
    (r"^blocks\.(\d+)\.", r"Transformer/encoderblock_\1/"),
    (r"/norm1", "/LayerNorm_0"),
    (r"/norm2", "/LayerNorm_2"),
    (r"/attn\.qkv", "/MultiHeadDotProductAttention_1/{query,key,value}"),
    (r"/attn\.proj", "/MultiHeadDotProductAttention_1/out"),
    (r"/mlp\.fc1", "/MlpBlock_3/Dense_0"),
    (r"/mlp\.fc2", "/MlpBlock_3/Dense_1"),
    (r"^norm", "Transformer/encoder_norm"),
    (r"^pre_logits\.0", "pre_logits"),
    (r"((LayerNorm_\d|encoder_norm|gn\d|gn_root|gn_proj))\.weight", r"\1/scale"),
    (r"\.weight$", "/kernel"),
    (r"\.bias$", "/bias"),
)
google = Layout("google", GOOGLE, left_out=r"pre_logits|^opt|^step")

# The merge belongs to the stage after it in timm and here, to the one before it elsewhere.
MERGE_BEFORE: Rules = tuple((rf"^layers\.{i}\.downsample", f"layers.{i - 1}.downsample") for i in range(1, 8))
SWIN_EMBED: Rules = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^norm\.", "layernorm."),
    (r"^layers\.", "encoder.layers."),
)
SWIN_SELF: Rules = (
    (r"attn\.qkv\.", "attention.self.{query,key,value}."),
    (r"attn\.q_bias", "attention.self.query.bias"),
    (r"attn\.v_bias", "attention.self.value.bias"),
    (r"attn\.proj\.", "attention.output.dense."),
    (r"attn\.cpb_mlp", "attention.self.continuous_position_bias_mlp"),
    (r"attn\.(logit_scale|relative_position_bias_table)", r"attention.self.\1"),
    *HF4_REST,
)
SWIN_HF4: Rules = (HEAD, *MERGE_BEFORE, *SWIN_EMBED, *SWIN_SELF)
SWIN_HF5: Rules = (
    HEAD,
    *MERGE_BEFORE,
    *SWIN_EMBED,
    *HF5_BLOCK,
    (r"attn\.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
)
SWIN_TIMM: Rules = ((r"^head\.", "head.fc."),)

PVT_HF: Rules = (
    HEAD,
    *((rf"^pos_embed{s + 1}$", f"encoder.patch_embeddings.{s}.position_embeddings") for s in range(4)),
    *((rf"^patch_embed{s + 1}\.proj", f"encoder.patch_embeddings.{s}.projection") for s in range(4)),
    *((rf"^patch_embed{s + 1}\.norm", f"encoder.patch_embeddings.{s}.layer_norm") for s in range(4)),
    *((rf"^block{s + 1}\.", f"encoder.block.{s}.") for s in range(4)),
    (r"^cls_token$", "encoder.patch_embeddings.3.cls_token"),
    (r"attn\.q\.", "attention.self.query."),
    (r"attn\.kv\.", "attention.self.{key,value}."),
    (r"attn\.sr\.", "attention.self.sequence_reduction."),
    (r"attn\.norm\.", "attention.self.layer_norm."),
    (r"attn\.proj\.", "attention.output.dense."),
    (r"\.norm([12])\.", r".layer_norm_\1."),
    (r"mlp\.fc", "mlp.dense"),
    (r"^norm\.", "encoder.layer_norm."),
)
PVT2_HF: Rules = (
    HEAD,
    (r"^patch_embed\.", "encoder.layers.0.patch_embedding."),
    (r"^stages\.(\d+)\.downsample\.", r"encoder.layers.\1.patch_embedding."),
    (r"^stages\.", "encoder.layers."),
    (r"attn\.q\.", "attention.query."),
    (r"attn\.kv\.", "attention.{key,value}."),
    (r"attn\.sr\.", "attention.spatial_reduction."),
    (r"attn\.", "attention."),
    (r"\bnorm([12])\.", r"layer_norm_\1."),
    (r"\bnorm\.", "layer_norm."),
    (r"mlp\.fc", "mlp.dense"),
    (r"dwconv\.", "dwconv.dwconv."),
)
# The paper's release of v2 numbers its stages in the names: patch_embed1, block1, norm1.
PVT2_PAPER: Rules = (
    (r"^patch_embed\.", "patch_embed1."),
    *((rf"^stages\.{s}\.downsample\.", f"patch_embed{s + 1}.") for s in range(4)),
    *((rf"^stages\.{s}\.blocks\.", f"block{s + 1}.") for s in range(4)),
    *((rf"^stages\.{s}\.norm\.", f"norm{s + 1}.") for s in range(4)),
    (r"dwconv\.", "dwconv.dwconv."),
)
RESNET_HF: Rules = (
    (r"^head\.", "classifier.1."),
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    *((rf"^layer{s + 1}\.", f"encoder.stages.{s}.layers.") for s in range(4)),
    (r"downsample\.0", "shortcut.convolution"),
    (r"downsample\.1", "shortcut.normalization"),
    *((rf"conv{i + 1}\.", f"layer.{i}.convolution.") for i in range(3)),
    *((rf"bn{i + 1}\.", f"layer.{i}.normalization.") for i in range(3)),
)
DINO_KEEP: Rules = (DINO_SCALE, (r"^blocks\.", "encoder.layer."), HEAD)
DINO2_HF4: Rules = (*DINO_KEEP, *EMBEDDINGS, *HF4_ATTENTION, (r"^norm\.", "layernorm."))
DINO2_HF5: Rules = (*DINO_KEEP, *EMBEDDINGS, *HF5_BLOCK[:3], (r"^norm\.", "layernorm."))
GLU_HF4 = (r"mlp\.fc1", "mlp.weights_in"), (r"mlp\.fc2", "mlp.weights_out")
GLU_PAPER = (r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3")
REGISTERS_PAPER = (r"^reg_token$", "register_tokens")
DINO3_HF: Rules = (DINO_SCALE, (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."), *EMBEDDINGS, *HF5_BLOCK[:3])
PLAIN_GLU = (r"mlp\.fc1", "mlp.up_proj"), (r"mlp\.fc2", "mlp.down_proj")
EVA_GLU = ((r"mlp\.fc1", "mlp.{fc1_g,fc1_x}"),)
BEIT_SCALE = (r"\bls([12])\.gamma", r"lambda_\1")
BEIT_HF4: Rules = (
    BEIT_SCALE,
    (r"^rel_pos_bias\.", "encoder.relative_position_bias."),
    (r"attn\.relative", "attention.attention.relative_position_bias.relative"),
    HEAD,
    *HF4_PLAIN,
)
BEIT_HF5: Rules = (
    BEIT_SCALE,
    (r"^rel_pos_bias\.", "shared_position_bias."),
    (r"^blocks\.(\d+)\.attn\.relative", r"blocks.\1.relative_position_bias.relative"),
    HEAD,
    *HF5_PLAIN,
)


def masked(name: str, block: Rules, blocks: str, decoder_blocks: str) -> Layout:
    rules = (
        (r"^encoder\.(patch_embed\.proj)\.", "vit.embeddings.patch_embeddings.projection."),
        (r"^encoder\.cls_token$", "vit.embeddings.cls_token"),
        (r"^encoder\.pos_embed$", "vit.embeddings.position_embeddings"),
        (r"^encoder\.blocks\.", blocks),
        (r"^encoder\.norm\.", "vit.layernorm."),
        (r"^decoder_blocks\.", decoder_blocks),
        (r"^(decoder_|mask_token)", r"decoder.\1"),
        *block,
    )
    return Layout(name, rules)


def dino(config: DinoConfig) -> tuple[Layout, ...]:
    """The layouts of a DINO, whose names depend on its positions, SwiGLU and registers. timm has DINOv3 among its EVA models."""
    glu = config.swiglu
    if config.position == "rotary":
        rules = (*(GLU_HF5 if glu else PLAIN_GLU), *DINO3_HF)
        timm = Layout("timm", (*SCALE, *(EVA_GLU if glu else ())))
        hf, hf5 = (Layout(n, (*rules, (r"^blocks\.", base))) for n, base in (("hf", "layer."), ("hf5", "model.layer.")))
        return timm, hf, hf5
    base = "dinov2_with_registers." if config.num_registers else "dinov2."
    return (
        Layout("timm"),
        Layout("paper", (REGISTERS_PAPER, *(GLU_PAPER if glu else ()))),
        Layout("hf", (*(GLU_HF4 if glu else ()), *DINO2_HF4), base),
        Layout("hf5", (*(GLU_HF5 if glu else ()), *DINO2_HF5), base),
    )


LAYOUTS: dict[type[nn.Module], tuple[Layout, ...]] = {
    VisionTransformer: (Layout("timm"), *plain("vit.", HEAD), google),
    HybridTransformer: (Layout("timm"), google),
    DeiT: (
        Layout("timm", ((r"^head\.cls\.", "head."), (r"^head\.dist\.", "head_dist."))),
        Layout("paper", (*SCALE, (r"^head\.cls\.", "head."), (r"^head\.dist\.", "head_dist."))),
        *plain("deit.", (r"^head\.cls\.", "cls_classifier."), (r"^head\.dist\.", "distillation_classifier."), HEAD),
        *plain("vit.", HEAD),
    ),
    CaiT: (Layout("timm", SCALE),),
    Beit: (Layout("timm", SCALE), Layout("hf", BEIT_HF4, "beit."), Layout("hf5", BEIT_HF5, "beit.")),
    MaskedAutoencoder: (
        Layout("paper", ((r"^encoder\.", ""),), left_out=BUFFERS),
        masked("hf", HF4_BLOCK, "vit.encoder.layer.", "decoder_layers."),
        masked("hf5-saved", HF4_BLOCK, "vit.encoder.layer.", "decoder_encoder.layer."),
        masked("hf5", HF5_BLOCK, "vit.layers.", "decoder_layers."),
    ),
    SwinTransformer: (
        Layout("timm", SWIN_TIMM),
        Layout("paper", MERGE_BEFORE),
        Layout("hf", SWIN_HF4, "swin."),
        Layout("hf5", SWIN_HF5, "swin."),
    ),
    SwinTransformerV2: (Layout("timm", SWIN_TIMM), Layout("paper", MERGE_BEFORE), Layout("hf", SWIN_HF4, "swinv2.")),
    PyramidVisionTransformer: (Layout("paper"), Layout("hf", PVT_HF, "pvt.")),
    PyramidVisionTransformerV2: (
        Layout("timm"),
        Layout("paper", PVT2_PAPER),
        Layout("hf", PVT2_HF, "pvt_v2."),
        *segformer("-segformer"),
    ),
    Yolos: YOLOS_LAYOUTS,
    ResNet: (
        Layout("timm", ((r"^head\.", "fc."),), left_out=r"(?!)"),
        Layout("hf", RESNET_HF, "resnet.", left_out=r"(?!)"),
    ),
}


def layouts_of(model: ImageModel) -> tuple[Layout, ...]:
    """Other libraries' names for the model's tensors."""
    if isinstance(model, Dense):
        known = isinstance(model.encoder, PyramidVisionTransformerV2) and isinstance(model.head, SegformerHead)
        return segformer() if known else ()
    if isinstance(model, Eomt):
        return eomt(model.config)
    return dino(model.config) if isinstance(model, Dino) else LAYOUTS.get(type(model), ())
