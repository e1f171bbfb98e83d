"""The formats of public checkpoints, one file each or two spellings of one model in one."""

from collections.abc import Collection

from bench.errors import BenchError
from bench.weights.formats import (
    hcformer,
    imagenet_resnet,
    imagenet_swin,
    mask2former,
    mask2former_hub,
    maskformer,
    maskformer_hub,
)
from bench.weights.rules import Format

FORMATS: tuple[Format, ...] = (
    maskformer_hub.FORMAT,
    mask2former_hub.FORMAT,
    mask2former.FORMAT,
    maskformer.FORMAT,
    hcformer.PLUS,
    hcformer.FORMAT,
    imagenet_resnet.TORCHVISION,
    imagenet_resnet.DETECTRON2,
    imagenet_swin.AUTHORS,
    imagenet_swin.TIMM,
)


def detect(names: Collection[str]) -> Format:
    """The format of a file with these tensors. Raises BenchError (without the file's name) for an unknown one."""
    for kind in FORMATS:
        if kind.recognise(names):
            return kind
    known = "; ".join(kind.title for kind in FORMATS)
    raise BenchError(f"holds no model that is known here, which are {known}")
