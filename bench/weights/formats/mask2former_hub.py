"""Names of the Hugging Face hub's Mask2Former checkpoints in terms of ours."""

from bench.weights.formats.mask2former import factors
from bench.weights.formats.transformers_hub import HUB_NOT_NEEDED, PIXELS, RESNET, SWIN, TRANSFORMER
from bench.weights.rules import Format, Rules, join_attention, starts

_MASK2FORMER: Rules = [  # ours has transformers' own decoders
    (PIXELS, "pixel_decoder."),
    (TRANSFORMER, "transformer."),
]

FORMAT = Format(
    title="Mask2Former of the transformers hub",
    holds="Mask2Former",
    method="mask2former",
    recognise=lambda names: starts(names, "model.transformer_module.decoder.mask_predictor."),
    rules=(SWIN, RESNET, _MASK2FORMER),
    factors=factors,
    class_head="class_predictor.weight",
    reshape=join_attention,  # our Swin has one matrix for queries, keys and values
    not_needed=HUB_NOT_NEEDED,
)
