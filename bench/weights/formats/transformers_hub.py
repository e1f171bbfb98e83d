"""What the Hugging Face hub's MaskFormer and Mask2Former checkpoints have in common: names of their backbones.

They hold transformers' `MaskFormerForInstanceSegmentation` and `Mask2FormerForUniversalSegmentation` with a Swin, a
ResNet or a timm ResNet. Most names have two generations: as transformers 4 wrote them and 5 still does
(`attention.self.query`), and as version 5 has them in memory (`attention.q_proj`); see its `conversion_mapping`.
"""

from bench.weights.rules import NOT_NEEDED, Rules

ENCODER = r"^model\.pixel_level_module\.encoder\."
PIXELS = r"^model\.pixel_level_module\.decoder\."
TRANSFORMER = r"^model\.transformer_module\."

_SWIN_MODEL = ENCODER + r"(?:model\.|swin\.)?"
_SWIN_BLOCK = r"^(backbone\.layers\.\d+\.blocks\.\d+\.)"
SWIN: Rules = [
    (_SWIN_MODEL + r"embeddings\.patch_embeddings\.projection\.", "backbone.patch_embed.proj."),
    (_SWIN_MODEL + r"embeddings\.norm\.", "backbone.patch_embed.norm."),
    (_SWIN_MODEL + r"encoder\.layers\.", "backbone.layers."),
    # transformers attaches a patch merging to the stage it leaves, timm to the stage it leads into.
    *((rf"^backbone\.layers\.{i}\.downsample\.", f"backbone.layers.{i + 1}.downsample.") for i in (2, 1, 0)),
    *((ENCODER + rf"hidden_states_norms\.(?:{i}|stage{i + 1})\.", f"backbone.norm{i}.") for i in range(4)),
    (_SWIN_BLOCK + r"layernorm_before\.", r"\1norm1."),
    (_SWIN_BLOCK + r"layernorm_after\.", r"\1norm2."),
    (_SWIN_BLOCK + r"attention\.(?:self|relative_position_bias)\.relative_", r"\1attn.relative_"),
    (_SWIN_BLOCK + r"attention\.(?:self\.query|q_proj)\.", r"\1attn.q_proj."),
    (_SWIN_BLOCK + r"attention\.(?:self\.key|k_proj)\.", r"\1attn.k_proj."),
    (_SWIN_BLOCK + r"attention\.(?:self\.value|v_proj)\.", r"\1attn.v_proj."),
    (_SWIN_BLOCK + r"attention\.(?:output\.dense|o_proj)\.", r"\1attn.proj."),
    (_SWIN_BLOCK + r"intermediate\.dense\.", r"\1mlp.fc1."),
    (_SWIN_BLOCK + r"output\.dense\.", r"\1mlp.fc2."),
]
_BOTTLENECK = r"^(backbone\.layer\d\.\d+\.)"
RESNET: Rules = [
    (ENCODER + r"_backbone\.", "backbone."),  # timm's ResNet has torchvision's names
    (ENCODER + r"embedder\.embedder\.convolution\.", "backbone.conv1."),
    (ENCODER + r"embedder\.embedder\.normalization\.", "backbone.bn1."),
    *((ENCODER + rf"encoder\.stages\.{i}\.layers\.", f"backbone.layer{i + 1}.") for i in range(4)),
    (_BOTTLENECK + r"shortcut\.convolution\.", r"\1downsample.0."),
    (_BOTTLENECK + r"shortcut\.normalization\.", r"\1downsample.1."),
    *((_BOTTLENECK + rf"layer\.{i}\.convolution\.", rf"\1conv{i + 1}.") for i in range(3)),
    *((_BOTTLENECK + rf"layer\.{i}\.normalization\.", rf"\1bn{i + 1}.") for i in range(3)),
]
HUB_NOT_NEEDED = NOT_NEEDED | dict.fromkeys(("layernorm.weight", "layernorm.bias"), "last norm of the classifier")
