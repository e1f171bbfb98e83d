"""Official parameter names of HCFormer, MaskFormer and their ResNets in terms of ours: rules for `rename`."""

from tests.reference import SWIN

_ATTENTION_PARTS = [
    (r"\.self_attn\.", ".self_attention."),
    (r"\.multihead_attn\.", ".cross_attention."),
    (r"\.linear(\d)\.", r".feed_forward.linear\1."),
]
RESNET = [  # HCFormer's is torchvision's
    (r"^backbone\.stem\.0\.", "backbone.conv1."),
    (r"^backbone\.stem\.1\.", "backbone.bn1."),
]
DETECTRON2_RESNET = [
    (r"^backbone\.stem\.conv1\.norm\.", "backbone.bn1."),
    (r"^backbone\.stem\.conv1\.", "backbone.conv1."),
    *((rf"^backbone\.res{i}\.", f"backbone.layer{i - 1}.") for i in (2, 3, 4, 5)),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.shortcut\.", ".downsample.0."),
    (r"^(backbone\.layer.*)\.conv(\d)\.norm\.", r"\1.bn\2."),
]
PREFIXED_SWIN = [(pattern.replace("^", r"^backbone\.", 1), "backbone." + new) for pattern, new in SWIN]
CLUSTERING = [
    (r"^backbone\.clustering_layers\.(\d)\.", r"clustering.\1."),
    *((rf"^backbone\.layers\.{i}\.clustering\.", f"clustering.{2 - i}.") for i in range(3)),
    (r"^(clustering\.\d)\.temp$", r"\1.scale"),
    (r"^(clustering\.\d\.\w+)_emb\.", r"\1_embedding."),
]
DECODER = [
    (r"^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_norm."),
    (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.cross_norm."),
    (r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.feed_forward_norm."),
    (r"^sem_seg_head\.predictor\.transformer_\w+_layers\.(\d+)\.", r"decoder.layers.\1."),
    (r"^sem_seg_head\.predictor\.transformer\.decoder\.norm\.", "decoder.heads.norm."),
    (r"^sem_seg_head\.predictor\.transformer\.decoder\.", "decoder."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.self_norm."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.cross_norm."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.feed_forward_norm."),
    (r"^sem_seg_head\.predictor\.decoder_norm\.", "decoder.heads.norm."),
    (r"^sem_seg_head\.predictor\.(class_embed|mask_embed)\.", r"decoder.heads.\1."),
    (r"^sem_seg_head\.predictor\.query_feat\.", "decoder.query_features."),
    (r"^sem_seg_head\.predictor\.query_embed\.", "decoder.query_positions."),
    (r"^sem_seg_head\.predictor\.level_embed\.", "decoder.level_embedding."),
    (r"^sem_seg_head\.predictor\.input_proj\.", "decoder.input_proj."),
    (r"^sem_seg_head\.predictor\.mask_proj\.", "mask_proj."),
]
ENCODER = [  # of HCFormer+
    (r"^backbone\.aux\.input_proj\.", "encoder."),
    (r"^backbone\.aux\.encoder\.", "encoder.2."),
]
PIXEL_DECODER = [  # of MaskFormer
    (r"^sem_seg_head\.pixel_decoder\.transformer\.encoder\.", "pixel_decoder.encoder."),
    (r"^sem_seg_head\.pixel_decoder\.adapter_(\d)\.norm\.", r"pixel_decoder.laterals.<\1>.1."),
    (r"^sem_seg_head\.pixel_decoder\.adapter_(\d)\.", r"pixel_decoder.laterals.<\1>.0."),
    (r"^sem_seg_head\.pixel_decoder\.layer_4\.norm\.", "pixel_decoder.top.1."),
    (r"^sem_seg_head\.pixel_decoder\.layer_4\.", "pixel_decoder.top.0."),
    (r"^sem_seg_head\.pixel_decoder\.layer_(\d)\.norm\.", r"pixel_decoder.smooth.<\1>.1."),
    (r"^sem_seg_head\.pixel_decoder\.layer_(\d)\.", r"pixel_decoder.smooth.<\1>.0."),
    *((rf"<{i}>", str(i - 1)) for i in (1, 2, 3)),
    (r"^sem_seg_head\.pixel_decoder\.", "pixel_decoder."),
]
HCFORMER = [*RESNET, *PREFIXED_SWIN, *CLUSTERING, *ENCODER, *DECODER, *_ATTENTION_PARTS]
MASKFORMER = [*DETECTRON2_RESNET, *PREFIXED_SWIN, *PIXEL_DECODER, *DECODER, *_ATTENTION_PARTS]
