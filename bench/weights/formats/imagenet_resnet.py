"""ImageNet ResNets with the names of torchvision, which ours has, and of detectron2."""

from collections.abc import Collection
from dataclasses import replace

from bench.errors import BenchError
from bench.weights.rules import NOT_NEEDED, Format, Rules, starts

DETECTRON2_RESNET: Rules = [
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    *((rf"^res{i}\.", f"layer{i - 1}.") for i in (2, 3, 4, 5)),
    (r"^(layer.*)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(layer.*)\.shortcut\.", r"\1.downsample.0."),
    (r"^(layer.*)\.conv(\d)\.norm\.", r"\1.bn\2."),
]


def _is_detectron2(names: Collection[str]) -> bool:
    if "conv1_w" in names and starts(names, "res2_0_branch"):
        raise BenchError(
            "holds the ResNet of MSRA (Caffe2 names), which takes BGR images and strides in other convolutions: "
            "use detectron2's torchvision/R-50.pkl"
        )
    return {"stem.conv1.weight", "res2.0.conv1.weight"} <= set(names)


TORCHVISION = Format(
    title="ImageNet ResNet (torchvision names)",
    holds="ImageNet ResNet",
    method=None,
    recognise=lambda names: {"conv1.weight", "layer1.0.conv1.weight"} <= set(names),
    rules=([("^", "backbone.")],),
    not_needed=NOT_NEEDED | dict.fromkeys(("fc.", "stem.fc."), "the classifier of ImageNet"),
)
DETECTRON2 = replace(
    TORCHVISION,
    title="ImageNet ResNet (detectron2 names)",
    recognise=_is_detectron2,
    rules=(DETECTRON2_RESNET, [("^", "backbone.")]),
)
