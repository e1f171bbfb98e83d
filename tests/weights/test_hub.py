"""Hub checkpoints against transformers: names, both generations, shapes at full size, and what the model returns."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import (
    DetrConfig,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    ResNetConfig,
    SwinConfig,
    TimmBackboneConfig,
)

from baselines.mask2former import mask2former
from baselines.maskformer import maskformer
from bench.experiments.experiment import experiment
from bench.weights.formats import detect, mask2former_hub, maskformer_hub
from bench.zoo import build_model
from models.backbones.resnet import ResNet
from models.backbones.swin import VARIANTS, Swin
from tests.reference import relative_error

HUB = {"maskformer": maskformer_hub.FORMAT, "mask2former": mask2former_hub.FORMAT}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
TINY_SWIN = {"embed_dim": 16, "depths": (2, 1, 2, 2), "num_heads": (1, 2, 4, 8), "window_size": 4}
BLOCKS = (2, 1, 2, 1)


def swin_config(embed_dim, depths, num_heads, window_size):
    sizes = {"embed_dim": embed_dim, "depths": list(depths), "num_heads": list(num_heads), "window_size": window_size}
    return SwinConfig(**sizes, image_size=224, drop_path_rate=0.0, out_features=STAGES)


def resnet_config(width, depths):
    hidden_sizes = [4 * width * 2**i for i in range(4)]
    return ResNetConfig(embedding_size=width, hidden_sizes=hidden_sizes, depths=list(depths), out_features=STAGES)


BACKBONES = {
    "swin": (lambda: swin_config(**TINY_SWIN), lambda: Swin(**TINY_SWIN, drop_path_rate=0.0)),
    "resnet": (lambda: resnet_config(16, BLOCKS), lambda: ResNet(BLOCKS, width=16)),
    "timm": (
        lambda: TimmBackboneConfig(backbone="resnet26", out_indices=[1, 2, 3, 4], use_pretrained_backbone=False),
        lambda: ResNet((2, 2, 2, 2)),
    ),
}


def transformers_maskformer(backbone_config, num_labels=5, channels=32, layers=2, heads=4, hidden=48, queries=10):
    decoder = DetrConfig(
        decoder_layers=layers,
        decoder_attention_heads=heads,
        decoder_ffn_dim=hidden,
        d_model=channels,
        num_queries=queries,
    )
    return MaskFormerForInstanceSegmentation(
        MaskFormerConfig(
            backbone_config=backbone_config,
            decoder_config=decoder,
            fpn_feature_size=channels,
            mask_feature_size=channels,
            num_labels=num_labels,
        )
    )


def transformers_mask2former(backbone_config, num_labels=5, **sizes):
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(backbone_config=backbone_config, num_labels=num_labels, **sizes)
    )


def small_mask2former(backbone_config):
    sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_attention_heads": 4, "num_queries": 10}
    layers = {"encoder_layers": 1, "decoder_layers": 3, "encoder_feedforward_dim": 40, "dim_feedforward": 48}
    return transformers_mask2former(backbone_config, **sizes, **layers)


THEIRS = {"maskformer": transformers_maskformer, "mask2former": small_mask2former}
OURS = {
    "maskformer": lambda backbone: maskformer(
        5, backbone, decoder_layers=2, num_queries=10, channels=32, heads=4, hidden=48
    ),
    "mask2former": lambda backbone: mask2former(
        5, backbone, 10, 2, 1, hidden_dim=32, num_heads=4, encoder_feedforward=40, decoder_feedforward=48
    ),
}


def moved(model):
    """Every parameter and every normalisation statistic off its initial value: a swap of two must show.

    In double precision: Mask2Former's attention masks are thresholds, which rounding crosses now and then.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2.0)
    return model.double().eval()


# What transformers has and no model of ours: the loss's class weights, counters, Swin's position indices and last norm.
IGNORABLE = re.compile(
    r"^criterion\.empty_weight$|\.num_batches_tracked$|\.relative_position_index$"
    r"|^model\.pixel_level_module\.encoder\.(model|swin)\.layernorm\."
)


def mapped(tensors):
    """From the hub's names to ours, less what may be left over."""
    return {name: value for name, value in detect(tensors).to_ours(tensors).items() if not IGNORABLE.search(name)}


def difference(actual, expected):
    """Relative error of the logits and of their deviation from the mean over queries, which much resemble another."""
    apart = [logits - logits.mean(1, keepdim=True) for logits in (actual, expected)]
    return max(relative_error(actual, expected), relative_error(*apart))


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("maskformer", "swin"), ("maskformer", "resnet"), ("mask2former", "swin"), ("mask2former", "timm")],
)
def test_saved_model_computes_what_transformers_does(tmp_path, method, backbone):
    """On maps of all stages, smaller than a window too, transformers' Swins pad and shift as the official one does."""
    torch.manual_seed(0)
    config, build = BACKBONES[backbone]
    theirs = moved(THEIRS[method](config()))
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert detect(tensors) == HUB[method]
    state, in_memory = mapped(tensors), mapped(theirs.state_dict())  # two generations of names
    assert state.keys() == in_memory.keys()
    assert all(torch.equal(value, in_memory[name]) for name, value in state.items())
    model = OURS[method](build()).double().eval()
    model.load_state_dict(state)
    for image in (torch.randn(2, 3, 96, 160), F.pad(torch.randn(1, 3, 75, 101), (0, 27, 0, 21))):
        with torch.inference_mode():
            expected, actual = theirs(image.double()), model(image.double())
        assert difference(actual.class_logits, expected.class_queries_logits) < 1e-5
        assert difference(actual.mask_logits, expected.masks_queries_logits) < 1e-5


def full_size(method, backbone):
    """The experiment of a hub checkpoint and transformers' model for it; 133 classes, on the current device."""
    at = experiment(method, backbone, "coco_panoptic", "paper")
    size = VARIANTS.get(backbone)
    config = (
        swin_config(size.embed_dim, size.depths, size.num_heads, size.window_size)
        if size
        else resnet_config(64, (3, 4, 6, 3))
    )
    if method == "mask2former":
        return at, transformers_mask2former(config, 133, num_queries=at.num_queries)
    # transformers' pixel decoder has no transformer encoder: its R50 models are those of the other data sets.
    at = replace(at, encoder_layers=0)
    return at, transformers_maskformer(config, 133, 256, 6, 8, 2048, 100)


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        ("maskformer", "swin_s"),
        ("maskformer", "r50"),
        ("mask2former", "swin_s"),
        ("mask2former", "swin_l"),
        ("mask2former", "r50"),
    ],
)
def test_names_and_shapes_at_full_size(method, backbone):
    with torch.device("meta"):
        at, theirs = full_size(method, backbone)
        shapes = {name: value.shape for name, value in mapped(theirs.state_dict()).items()}
        expected = {name: value.shape for name, value in build_model(at).state_dict().items()}
    assert shapes == expected


# Names as the hub's files hold them since 2022, by transformers' own conversion scripts; "swin." begins version 5's.
HUB_NAMES = {
    "maskformer": [
        ("model.pixel_level_module.encoder.model.embeddings.norm.bias", "backbone.patch_embed.norm.bias"),
        ("model.pixel_level_module.encoder.model.encoder.layers.2.downsample.reduction.weight",
         "backbone.layers.3.downsample.reduction.weight"),
        ("model.pixel_level_module.encoder.model.encoder.layers.2.blocks.17.attention.output.dense.bias",
         "backbone.layers.2.blocks.17.attn.proj.bias"),
        ("model.pixel_level_module.encoder.model.encoder.layers.3.blocks.1.output.dense.weight",
         "backbone.layers.3.blocks.1.mlp.fc2.weight"),
        ("model.pixel_level_module.encoder.model.encoder.layers.0.blocks.1.attention.self.relative_position_index",
         "backbone.layers.0.blocks.1.attn.relative_position_index"),
        ("model.pixel_level_module.encoder.hidden_states_norms.3.weight", "backbone.norm3.weight"),
        ("model.pixel_level_module.encoder.encoder.stages.3.layers.2.layer.1.normalization.running_var",
         "backbone.layer4.2.bn2.running_var"),
        ("model.pixel_level_module.encoder.encoder.stages.0.layers.0.shortcut.convolution.weight",
         "backbone.layer1.0.downsample.0.weight"),
        ("model.pixel_level_module.decoder.fpn.stem.0.weight", "pixel_decoder.top.0.weight"),
        ("model.pixel_level_module.decoder.fpn.layers.0.proj.0.weight", "pixel_decoder.laterals.2.0.weight"),
        ("model.pixel_level_module.decoder.fpn.layers.2.block.1.bias", "pixel_decoder.smooth.0.1.bias"),
        ("model.transformer_module.decoder.layers.5.encoder_attn.out_proj.weight",
         "decoder.layers.5.cross_attention.out_proj.weight"),
        ("model.transformer_module.decoder.layers.0.fc1.bias", "decoder.layers.0.feed_forward.linear1.bias"),
        ("model.transformer_module.decoder.layers.0.mlp.fc2.bias", "decoder.layers.0.feed_forward.linear2.bias"),
        ("model.transformer_module.decoder.layers.0.self_attn.o_proj.bias",
         "decoder.layers.0.self_attention.out_proj.bias"),
        ("model.transformer_module.decoder.layernorm.weight", "decoder.heads.norm.weight"),
        ("mask_embedder.2.0.weight", "decoder.heads.mask_embed.layers.2.weight"),
        ("criterion.empty_weight", "criterion.empty_weight"),
    ],
    "mask2former": [
        ("model.pixel_level_module.encoder.embeddings.patch_embeddings.projection.weight",
         "backbone.patch_embed.proj.weight"),
        ("model.pixel_level_module.encoder.encoder.layers.0.downsample.norm.bias",
         "backbone.layers.1.downsample.norm.bias"),
        ("model.pixel_level_module.encoder.hidden_states_norms.stage1.bias", "backbone.norm0.bias"),
        ("model.pixel_level_module.encoder.encoder.layers.1.blocks.0.intermediate.dense.weight",
         "backbone.layers.1.blocks.0.mlp.fc1.weight"),
        ("model.pixel_level_module.encoder.swin.encoder.layers.1.blocks.0.mlp.fc2.weight",
         "backbone.layers.1.blocks.0.mlp.fc2.weight"),
        ("model.pixel_level_module.encoder.swin.encoder.layers.1.blocks.0.attention.o_proj.weight",
         "backbone.layers.1.blocks.0.attn.proj.weight"),
        ("model.pixel_level_module.encoder._backbone.layer2.0.downsample.1.running_mean",
         "backbone.layer2.0.downsample.1.running_mean"),
        ("model.pixel_level_module.decoder.level_embed", "pixel_decoder.level_embed"),
        ("model.pixel_level_module.decoder.encoder.layers.5.self_attn.sampling_offsets.weight",
         "pixel_decoder.encoder.layers.5.self_attn.sampling_offsets.weight"),
        ("model.transformer_module.decoder.layers.8.self_attn.q_proj.weight",
         "transformer.decoder.layers.8.self_attn.q_proj.weight"),
        ("model.transformer_module.decoder.mask_predictor.mask_embedder.0.0.bias",
         "transformer.decoder.mask_predictor.mask_embedder.0.0.bias"),
        ("class_predictor.weight", "class_predictor.weight"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("method", HUB_NAMES)
def test_names_on_the_hub(method):
    tensors = {theirs: torch.full((1,), float(i)) for i, (theirs, _) in enumerate(HUB_NAMES[method])}
    kept = dict(tensors)
    assert detect(tensors) == HUB[method]
    assert HUB[method].to_ours(tensors) == {ours: tensors[theirs] for theirs, ours in HUB_NAMES[method]}
    assert tensors == kept, "the caller's tensors were changed"


BLOCK = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self."
MARK = "model.transformer_module.decoder.mask_predictor.mask_embedder.0.0.bias"
OURS_BLOCK = "backbone.layers.0.blocks.0.attn."


def test_query_key_and_value_are_joined_in_this_order():
    parts = torch.randn(3, 4, 4)
    tensors = {BLOCK + f"{name}.weight": part for name, part in zip(("value", "key", "query"), parts, strict=True)}
    joined = HUB["mask2former"].to_ours(tensors | {MARK: torch.zeros(1)})
    assert torch.equal(joined.pop(OURS_BLOCK + "qkv.weight"), parts.flip(0).flatten(0, 1))
    assert list(joined) == ["transformer.decoder.mask_predictor.mask_embedder.0.0.bias"]


@pytest.mark.parametrize(
    "parts",
    [
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4), torch.zeros(5)),
        (torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4).half(), torch.zeros(4)),
        (torch.zeros(()),) * 3,
    ],
    ids=["missing", "longer", "flat", "half", "scalars"],
)
def test_parts_that_do_not_fit_together_stay(parts):
    """A damaged file: the caller finds qkv missing and names what is there instead."""
    tensors = {BLOCK + f"{name}.bias": part for name, part in zip(("query", "key", "value"), parts, strict=False)}
    left = HUB["mask2former"].to_ours(tensors | {MARK: torch.zeros(1)})
    assert {name for name in left if name.startswith("backbone.")} == {
        OURS_BLOCK + f"{part}_proj.bias" for part in "qkv"[: len(parts)]
    }


@pytest.mark.parametrize(
    "name",
    [
        "sem_seg_head.predictor.class_embed.weight",  # detectron2
        "transformer.decoder.mask_predictor.mask_embedder.0.0.bias",  # ours
        "pixel_decoder.top.0.weight",
        "class_predictor.weight",
        "model.pixel_level_module.encoder.embeddings.norm.weight",  # OneFormer has these two
        "model.transformer_module.level_embed.weight",
    ],
)
def test_other_files_are_no_hub_checkpoints(name):
    assert not any(kind.recognise([name]) for kind in HUB.values())
