"""Checkpoints as their authors publish them."""

import pickle
from collections import OrderedDict

import torch

from bench.weights.formats import hcformer, mask2former, maskformer
from bench.weights.rules import rename
from bench.zoo import build_model

PUBLISHED = {kind.method: kind for kind in (hcformer.FORMAT, hcformer.PLUS, maskformer.FORMAT, mask2former.FORMAT)}
LAYERS = "sem_seg_head.predictor.transformer_"
AUTHORS_NAMES = [  # from ours of HCFormer with a ResNet and the masked decoder to its authors'
    (r"^backbone\.conv1\.", "backbone.stem.0."),
    (r"^backbone\.bn1\.", "backbone.stem.1."),
    (r"^(clustering\.\d)\.scale$", r"\1.temp"),
    (r"^(clustering\.\d\.\w+)_embedding\.", r"\1_emb."),
    (r"^clustering\.", "backbone.clustering_layers."),
    (r"^mask_proj\.", "sem_seg_head.predictor.mask_proj."),
    (r"^decoder\.heads\.norm\.", "sem_seg_head.predictor.decoder_norm."),
    (r"^decoder\.(heads\.|(?=input_proj))", "sem_seg_head.predictor."),
    (r"^decoder\.query_features\.", "sem_seg_head.predictor.query_feat."),
    (r"^decoder\.query_positions\.", "sem_seg_head.predictor.query_embed."),
    (r"^decoder\.level_embedding\.", "sem_seg_head.predictor.level_embed."),
    (r"^decoder\.layers\.(\d+)\.self_norm\.", LAYERS + r"self_attention_layers.\1.norm."),
    (r"^decoder\.layers\.(\d+)\.cross_norm\.", LAYERS + r"cross_attention_layers.\1.norm."),
    (r"^decoder\.layers\.(\d+)\.feed_forward_norm\.", LAYERS + r"ffn_layers.\1.norm."),
    (r"^decoder\.layers\.(\d+)\.self_attention\.", LAYERS + r"self_attention_layers.\1.self_attn."),
    (r"^decoder\.layers\.(\d+)\.cross_attention\.", LAYERS + r"cross_attention_layers.\1.multihead_attn."),
    (r"^decoder\.layers\.(\d+)\.feed_forward\.", LAYERS + r"ffn_layers.\1."),
]


def official(chosen):
    """A checkpoint as HCFormer's authors publish it, of few bytes: half precision; its model's outputs are finite."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build_model(chosen).state_dict().items()}
    state = {name: torch.rand(shape) * (2 / max(2, shape[1:].numel())) ** 0.5 for name, shape in shapes.items()}
    state = {name: value - value.mean() if value.ndim > 1 else 0.5 + value for name, value in state.items()}
    return {name: value.half() for name, value in rename(state, AUTHORS_NAMES).items()}


def write(path, state, **others):
    """A training checkpoint as detectron2 writes it: torch file, or pickle of arrays."""
    if path.suffix == ".pkl":
        arrays = OrderedDict((name, value.numpy()) for name, value in state.items())
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody", **others}))
    else:
        torch.save({"model": state, "iteration": 9, **others}, path)
    return path
