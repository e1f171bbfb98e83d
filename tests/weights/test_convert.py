"""Conversion of checkpoints: what fits, what is reported, and every way in which a file can be the wrong one."""

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.swin_transformer import swin_small_patch4_window7_224
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    SwinConfig,
)

from bench.errors import BenchError
from bench.experiments.experiment import experiment
from bench.weights.convert import convert
from bench.weights.load import FORMAT, open_weights
from bench.weights.rules import rename
from tests.weights.checkpoints import official, write

ASKED = ("hcformer", "r50", "coco_panoptic")


@pytest.fixture(scope="module")
def chosen():
    return experiment(*ASKED, "paper", hierarchical_level=1, decoder_layers=1, num_queries=7)


@pytest.fixture(scope="module")
def state(chosen):
    torch.manual_seed(0)
    return official(chosen)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "weights.safetensors"


@pytest.mark.parametrize("ending", [".pth", ".pkl"])
def test_published_checkpoint(tmp_path, out, state, chosen, ending):
    """The factors are read from the file, and every entry of it is used or reported."""
    extra = {"criterion.empty_weight": torch.ones(134), "backbone.stem.1.num_batches_tracked": torch.tensor(3)}
    path = write(tmp_path / f"released{ending}", state | extra | {"what.is.this": torch.ones(2)})
    done = convert(path, out, *ASKED)
    assert done.experiment == chosen and done.content == "model" and done.fresh == ()
    assert done.used == len(state)
    reported = {"what.is.this", *extra, "__author__" if ending == ".pkl" else "iteration"}
    assert set(done.unused) == reported and done.unused["what.is.this"] == "no place in the model"

    opened = open_weights(out)
    model, facts = opened.build(), opened.facts
    assert opened.experiment == chosen and not model.training
    assert facts["file"] == out.name and facts["source"] == path.name and len(facts["source_sha256"]) == 64
    ours = model.state_dict()
    assert torch.equal(ours["clustering.0.scale"], state["backbone.clustering_layers.0.temp"].float())
    assert torch.equal(ours["backbone.conv1.weight"], state["backbone.stem.0.weight"].float())
    assert sum(value.double().sum() for value in ours.values()) == pytest.approx(
        sum(value.double().sum().item() for value in state.values())
    )


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("backbone.clustering_layers.0.temp", "clustering.0.scale"),
        ("backbone.layer3.1.conv2.weight", "backbone.layer3.1.conv2.weight"),
        ("sem_seg_head.predictor.level_embed.weight", "decoder.level_embedding.weight"),
        ("sem_seg_head.predictor.query_embed.weight", "decoder.query_positions.weight"),
        ("sem_seg_head.predictor.transformer_ffn_layers.0.norm.bias", "decoder.layers.0.feed_forward_norm.bias"),
    ],
)
def test_missing_tensors_are_named_as_ours_and_mis_shaped_ones_as_in_the_file(tmp_path, out, state, name, ours):
    path = write(tmp_path / "a.pth", {key: value for key, value in state.items() if key != name})
    with pytest.raises(BenchError, match=rf"^(?!.*\n).*a\.pth: lacks {ours}[:;].*--partial"):
        convert(path, out, *ASKED)
    path = write(tmp_path / "b.pth", state | {name: torch.ones(3, 5)})
    with pytest.raises(BenchError, match=rf"^(?!.*\n).*{name} .*is \[3, 5\], expected \["):
        convert(path, out, *ASKED)
    assert not out.exists() and not list(tmp_path.glob("**/*.tmp"))


def test_partial_takes_what_fits_and_is_no_model(tmp_path, out, state):
    name = "sem_seg_head.predictor.mask_embed.layers.1.weight"
    kept = {key: value for key, value in state.items() if key != name}
    done = convert(write(tmp_path / "a.pth", kept), out, *ASKED, partial=True)
    assert done.fresh == ("decoder.heads.mask_embed.layers.1.weight",)
    with pytest.raises(BenchError, match=r"incomplete.*decoder\.heads\.mask_embed\.layers\.1\.weight"):
        open_weights(out)


@pytest.mark.parametrize(
    ("asked", "factors", "message"),
    [
        (("hcformer+", "r50", "coco_panoptic"), {}, "holds HCFormer, --method says hcformer\\+: use --method hcformer"),
        (("maskformer", "r50", "coco_panoptic"), {}, "holds HCFormer, --method says maskformer"),
        (("hcformer", "r101", "coco_panoptic"), {}, "holds a r50 backbone, --backbone says r101"),
        (("hcformer", "swin_s", "coco_panoptic"), {}, "holds a r50 backbone"),
        (("hcformer", "r50", "ade20k"), {}, "class embedding has 133 classes .* ade20k has 150: .*--dataset"),
        (ASKED, {"hierarchical_level": 0}, "has hierarchical level 1, --hierarchical-level says 0"),
        (ASKED, {"hierarchical_level": 2}, "lacks .*(layer3.0.conv2.offset|clustering)"),
        (ASKED, {"num_queries": 100}, "has num queries 7, --num-queries says 100"),
        (ASKED, {"downsampling": "conv"}, "has downsampling deformable"),
        (ASKED, {"transformer_decoder": "standard"}, "has transformer decoder masked"),
        (("hcformre", "r50", "coco_panoptic"), {}, "did you mean 'hcformer'"),
    ],
)
def test_other_experiment_than_asked_for(tmp_path, out, state, asked, factors, message):
    path = write(tmp_path / "a.pth", state)
    with pytest.raises(BenchError, match=rf"^(?!.*\n).*{message}"):
        convert(path, out, *asked, **factors)
    assert not out.exists()


def test_factors_that_agree_are_accepted(tmp_path, out, state, chosen):
    factors = {"hierarchical_level": 1, "decoder_layers": 1, "downsampling": "deformable"}
    assert convert(write(tmp_path / "a.pth", state), out, *ASKED, **factors).experiment == chosen
    open_weights(out, method="hcformer", **factors)
    with pytest.raises(BenchError, match="has decoder layers 1, --decoder-layers says 8"):
        open_weights(out, decoder_layers=8)


def test_unknown_and_unfit_files(tmp_path, out, state):
    cases = {
        "no model that is known": {"weight": torch.ones(1)},
        "MSRA": {"conv1_w": torch.ones(1), "res2_0_branch2a_w": torch.ones(1)},
        r"lacks backbone\.bn1\.weight.*other shapes: conv1\.weight .* is \[8, 3, 7, 7\], expected \[64, 3, 7, 7\]": {
            "conv1.weight": torch.ones(8, 3, 7, 7),
            "layer1.0.conv1.weight": torch.ones(1),
        },
    }
    for message, wrong in cases.items():
        with pytest.raises(BenchError, match=rf"^(?!.*\n).*a\.pth: .*{message}"):
            convert(write(tmp_path / "a.pth", wrong), out, *ASKED)
    source = write(tmp_path / "a.pth", state)
    for bad in (source.with_suffix(".bin"), tmp_path):
        with pytest.raises(BenchError, match="with -o|name the output"):
            convert(source, bad, *ASKED)


def test_converted_file_is_not_converted_again_and_other_files_are_not_loaded(tmp_path, out, state):
    convert(write(tmp_path / "a.pth", state), out, *ASKED)
    with pytest.raises(BenchError, match="converted already"):
        convert(out, tmp_path / "again.safetensors", *ASKED)
    with pytest.raises(BenchError, match="bench weights convert"):
        open_weights(tmp_path / "a.pth")
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(out)
    assert set(metadata) == {FORMAT}
    for changed in ({"hcformer-bench weights 9": metadata[FORMAT]}, {FORMAT: "{"}, {FORMAT: "[1]"}):
        save_file(tensors, tmp_path / "c.safetensors", changed)
        with pytest.raises(BenchError, match=r"^(?!.*\n).*convert the source again"):
            open_weights(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("method", "queries"),
    [("maskformer", "decoder.query_positions.weight"), ("mask2former", "transformer.queries_embedder.weight")],
)
def test_hub_checkpoint(tmp_path, out, method, queries):
    """A full-size file as transformers writes it; what it lacks is called as we call it."""
    model = hub_model(method)
    model.half().save_pretrained(tmp_path)
    source = tmp_path / "model.safetensors"
    done = convert(source, out, method, "swin_s", "ade20k")
    assert done.content == "model" and done.fresh == () and done.experiment.num_queries == 100
    assert set(done.unused.values()) <= {
        "weights of the training loss",
        "computed from the window size",
        "last norm of the classifier",
    }
    assert open_weights(out).experiment == experiment(method, "swin_s", "ade20k", "paper")
    name = "model.transformer_module.queries_embedder.weight"
    save_file({key: value for key, value in load_file(source).items() if key != name}, tmp_path / "less.safetensors")
    with pytest.raises(BenchError, match=f"lacks {queries}:"):
        convert(tmp_path / "less.safetensors", out, method, "swin_s", "ade20k")
    for path, what in ((source, "its config.json"), (tmp_path / "less.safetensors", "the class embedding")):
        with pytest.raises(BenchError, match=f"{what} has 150 classes"):
            convert(path, out, method, "swin_s", "coco_panoptic")


def hub_model(method):
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(embed_dim=96, depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], out_features=stages)
    if method == "mask2former":
        return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone, num_labels=150))
    return MaskFormerForInstanceSegmentation(MaskFormerConfig(backbone_config=backbone, num_labels=150))


def test_torchvision_backbone_for_deformable_downsampling(tmp_path, out):
    original = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(original, tmp_path / "resnet50.pth")
    done = convert(tmp_path / "resnet50.pth", out, *ASKED)
    assert done.content == "backbone"
    assert {name: done.unused[name] for name in ("fc.weight", "fc.bias")} == dict.fromkeys(
        ("fc.weight", "fc.bias"), "the classifier of ImageNet"
    )
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in done.unused)
    tensors = load_file(out)
    assert torch.equal(tensors["backbone.layer2.0.conv2.deform.weight"], original["layer2.0.conv2.weight"])
    assert torch.equal(tensors["backbone.layer1.0.conv2.weight"], original["layer1.0.conv2.weight"])
    with pytest.raises(BenchError, match="ImageNet backbone only"):
        open_weights(out)
    del original["layer4.2.bn3.running_var"]
    torch.save(original, tmp_path / "resnet50.pth")
    with pytest.raises(BenchError, match=r"lacks backbone\.layer4\.2\.bn3\.running_var"):
        convert(tmp_path / "resnet50.pth", out, *ASKED)


def test_detectron2_backbone(tmp_path, out):
    """Names as detectron2's own converter writes them: torchvision/R-50.pkl."""
    rules = [
        (r"^fc\.", "stem.fc."),
        (r"^conv1\.", "stem.conv1."),
        (r"^bn1\.", "stem.conv1.norm."),
        *((rf"^layer{i}\.", f"res{i + 1}.") for i in (1, 2, 3, 4)),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
    ]
    original = torchvision.models.resnet50(weights=None).state_dict()
    original = {name: value for name, value in original.items() if not name.endswith("tracked")}
    done = convert(write(tmp_path / "R-50.pkl", rename(original, rules)), out, "maskformer", "r50", "ade20k")
    assert set(done.unused) == {"stem.fc.weight", "stem.fc.bias", "__author__"}
    tensors = load_file(out)
    original = {f"backbone.{name}": value for name, value in original.items() if not name.startswith("fc.")}
    assert tensors.keys() == original.keys() and all(torch.equal(tensors[n], v) for n, v in original.items())


@pytest.mark.parametrize("authors_names", [False, True])
def test_swin_backbone(tmp_path, out, authors_names):
    """timm's names, and those of Swin's authors, who attach a patch merging to the stage it leaves."""
    original = swin_small_patch4_window7_224(pretrained=False).state_dict()
    state = original
    if authors_names:
        state = rename(original, [(rf"^layers\.{i}\.downsample\.", f"layers.{i - 1}.downsample.") for i in (1, 2, 3)])
    torch.save({"model": state}, tmp_path / "swin.pth")
    done = convert(tmp_path / "swin.pth", out, "mask2former", "swin_s", "coco_panoptic")
    assert done.content == "backbone" and ("authors' names" in done.title) == authors_names
    tensors = load_file(out)
    for name in ("layers.1.downsample.reduction.weight", "layers.3.blocks.1.attn.qkv.weight", "patch_embed.norm.bias"):
        assert torch.equal(tensors[f"backbone.{name}"], original[name])
    assert {n for n in done.fresh if n.startswith("backbone.")} == {
        f"backbone.norm{i}.{kind}" for i in range(4) for kind in ("weight", "bias")
    }
    with pytest.raises(BenchError, match="holds a swin_s backbone, --backbone says swin_l"):
        convert(tmp_path / "swin.pth", out, "mask2former", "swin_l", "coco_panoptic")
