"""The fast form of clustering and decoding equals the reference form.

Compilation is slow, so most tests run what is compiled without compiling it; one process compiles for real.
"""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import shifted
from models.clustering import cluster, decode, fast_form, hard_assignment, use_form
from models.hcformer import hcformer
from tests.models.test_clustering import half

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: torch.cat((x, x), 3)[..., : x.shape[3]],
    "strided": lambda x: torch.stack((x, -x), -1)[..., 0],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}
CASES = dict(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.integers(1, 3),
    channels=st.integers(1, 12),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 1000),
)


@pytest.fixture(autouse=True, scope="module")
def uncompiled():
    """The functions that are compiled, as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shifted.Compiled, "__call__", lambda self, *tensors: self._function(*tensors))
        yield


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def both_forms(function, *tensors):
    """Outputs and gradients of all tensors, of either form, for the same random gradient of the output."""
    results = []
    for form in ("reference", "compiled"):
        leaves = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
        output = function(*leaves, form)
        output.backward(random(*output.shape, seed=1, dtype=output.dtype))
        results.append((output.detach(), [leaf.grad for leaf in leaves]))
    return results


def assert_same(results, **tolerance):
    (reference, reference_grads), (fast, fast_grads) = results
    assert fast.shape == reference.shape and fast.dtype == reference.dtype
    torch.testing.assert_close(fast, reference, **tolerance)
    for ours, theirs in zip(fast_grads, reference_grads, strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


@given(**CASES, scale=st.sampled_from([0.1, -0.1, 1.0, -5.0, 1e-2, 1e-3]))
def test_clustering_equals_the_reference(size, batch, channels, layout, seed, scale):
    fine = LAYOUTS[layout](random(batch, channels, *size, seed=seed))
    coarse = LAYOUTS[layout](random(batch, channels, *half(size), seed=seed + 1))
    scale = torch.tensor([scale], dtype=torch.float64)
    assert_same(both_forms(cluster, fine, coarse, scale), rtol=1e-7, atol=1e-9)


@given(**CASES)
def test_decoding_equals_the_reference(size, batch, channels, layout, seed):
    masks = LAYOUTS[layout](random(batch, channels, *half(size), seed=seed))
    assignment = LAYOUTS[layout](random(batch, 9, *size, seed=seed + 1).softmax(1))
    assert_same(both_forms(decode, masks, assignment), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
def test_number_types(dtype, tolerance):
    """Results have the inputs' type and only its rounding error, because sums are made in float32."""
    fine, coarse = random(2, 128, 10, 14, seed=0), random(2, 128, 5, 7, seed=1)
    fine, coarse = fine.to(dtype), coarse.to(dtype)
    scale = torch.tensor([0.1])
    exact = cluster(fine.double(), coarse.double(), scale)
    for form in ("reference", "compiled"):
        ours = cluster(fine, coarse, scale, form)
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=tolerance)
    masks = random(2, 30, 5, 7, seed=2).to(dtype)
    exact = decode(masks.double(), ours.double())
    for form in ("reference", "compiled"):
        decoded = decode(masks, ours, form)
        assert decoded.dtype == dtype
        torch.testing.assert_close(decoded.double(), exact, rtol=tolerance, atol=4 * tolerance)


def test_hard_limit_and_zero_vectors():
    fine, coarse = random(1, 8, 7, 9, seed=0), random(1, 8, 4, 5, seed=1)
    fine[:, :, 2, 3], coarse[:, :, 1, 1] = 0, 0
    for scale in (torch.zeros(1), torch.full((1,), 1e-6)):
        fast, reference = cluster(fine, coarse, scale, "compiled"), cluster(fine, coarse, scale)
        torch.testing.assert_close(fast, reference)
        others = torch.ones(7, 9, dtype=torch.bool)
        others[2, 3] = False  # a zero vector is as similar to every cluster
        torch.testing.assert_close(fast[..., others], hard_assignment(fast)[..., others], rtol=0, atol=1e-6)


def test_under_autocast():
    """Autocast changes nothing inside: embeddings in half precision are compared in float32."""
    fine, coarse = random(1, 64, 8, 12, seed=0, dtype=torch.bfloat16), random(1, 64, 4, 6, seed=1, dtype=torch.bfloat16)
    plain = cluster(fine, coarse, torch.tensor([0.1]))
    with torch.autocast("cpu", torch.bfloat16):
        for form in ("reference", "compiled"):
            torch.testing.assert_close(cluster(fine, coarse, torch.tensor([0.1]), form), plain, rtol=0, atol=1e-2)


def test_model_gives_the_same_in_either_form(monkeypatch):
    from models.backbones.resnet import small_resnet

    torch.manual_seed(0)
    model = hcformer(4, small_resnet(2, width=8), 2, 2, 5, channels=32, heads=2, hidden=16, embedding_channels=16)
    images = torch.randn(2, 3, 70, 50)
    model.eval()
    with torch.no_grad():
        reference = model(images)
        fast = use_form(model, "compiled")(images)
    assert model.form == model.clustering[0].form == "compiled"
    torch.testing.assert_close(fast.mask_logits, reference.mask_logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="none of reference, compiled, triton"):
        use_form(model, "fast")
    assert fast_form("cpu") == "compiled"
    monkeypatch.setattr(shifted.Compiled, "works", False)
    assert fast_form("cpu") == "reference"


COMPILED = """
import torch, warnings
from bench.measure.complexity.protocol import listed_sizes
from models.clustering import cluster, decode
from models.shifted import _COMPILED_ASSIGN, _COMPILED_DECODE
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
torch.manual_seed(0)
warnings.simplefilter("error", UserWarning)
warnings.filterwarnings("ignore", module="torch")
shapes = sorted({size.padded for size in listed_sizes("coco_val2017_first100")})
with torch.inference_mode():
    for height, width in shapes:
        fine, coarse = torch.randn(1, 16, height // 16, width // 16), torch.randn(1, 16, height // 32, width // 32)
        fast = cluster(fine, coarse, torch.tensor([0.1]), "compiled")
        torch.testing.assert_close(fast, cluster(fine, coarse, torch.tensor([0.1])), rtol=1e-4, atol=1e-5)
        masks = torch.randn(1, 10, height // 32, width // 32)
        torch.testing.assert_close(decode(masks, fast, "compiled"), decode(masks, fast), rtol=1e-4, atol=1e-5)
print(len(shapes), counters["stats"]["unique_graphs"])
leaves = [torch.randn(2, 5, *size, requires_grad=True) for size in ((7, 10), (4, 5))] + [torch.tensor([0.1])]
gradients = []
for form in ("compiled", "reference"):
    decode(leaves[1][:, :2], cluster(*leaves, form), form).square().sum().backward()
    gradients.append([leaf.grad for leaf in leaves[:2]])
    for leaf in leaves[:2]:
        leaf.grad = None
torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=os.environ | environment
    )


def test_one_compilation_serves_all_sizes_of_coco():
    """Compiled for real: all padded shapes of COCO, then gradients. Three functions make three graphs."""
    done = run(COMPILED, TORCHINDUCTOR_VEC_ISA_OK="1")  # spares trying the processor's vector instructions one by one
    assert done.returncode == 0, done.stderr[-2000:]
    shapes, graphs = map(int, done.stdout.split())
    assert shapes > 15 and graphs == 3


NO_COMPILER = """
import torch, warnings
from models.clustering import cluster, decode
fine, coarse, scale = torch.randn(1, 4, 6, 8), torch.randn(1, 4, 3, 4), torch.tensor([0.1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        fast = cluster(fine, coarse, scale, "compiled")
        decoded = decode(coarse, fast, "compiled")
ours = [str(warning.message) for warning in caught if "uncompiled" in str(warning.message)]
assert torch.equal(fast, cluster(fine, coarse, scale)) and torch.equal(decoded, decode(coarse, fast))
print(len(ours))
"""


def test_without_a_compiler_the_reference_form_takes_over_with_one_warning(tmp_path):
    done = run(NO_COMPILER, CXX=str(tmp_path / "no compiler"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["1"]
