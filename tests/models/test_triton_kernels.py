"""The Triton kernels equal the definition, in Triton's interpreter, and compile for real GPUs, without a GPU.

Both need a process of their own: Triton looks for TRITON_INTERPRET when kernels are defined, and the compiler runs
under a stand-in for the driver. The functions `in_...` below run in such processes.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models import triton_kernels

ROOT = Path(__file__).parents[2]
DEVICE = "cuda" if torch.cuda.is_available() and not triton_kernels.INTERPRETED else "cpu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 1), (2, 2), (5, 1), (1, 5), (7, 9), (8, 10))
NEIGHBOURS = tuple(itertools.product((-1, 0, 1), repeat=2))
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: torch.cat((x, x), 1)[:, : x.shape[1]],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}
SCALES = (0.1, -0.1, 1e-3)
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

needs_triton = pytest.mark.skipif(triton_kernels.triton is None, reason="Triton is not installed")


def in_another_process(function, tmp_path, **environment):
    command = f"from tests.models import test_triton_kernels as tests; tests.{function.__name__}()"
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result.stdout


# --- The definition, in float64 ---


def neighbours(coarse, size):
    """The nine neighbours of every fine pixel, zeros outside the map: [B, C, h, w] -> [B, 9, C, H, W]."""
    rows, cols = coarse.shape[-2:]
    padded = F.pad(coarse, (1, 1, 1, 1))
    shifted = [padded[..., 1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + cols] for dy, dx in NEIGHBOURS]
    spread = torch.stack(shifted, 1).repeat_interleave(2, -2).repeat_interleave(2, -1)
    return spread[..., : size[0], : size[1]]


def similarities(fine, coarse):
    """Of every fine pixel to its nine neighbours: [B, 9, H, W]."""
    size = fine.shape[-2:]
    fine, coarse = F.normalize(fine.double(), dim=1), F.normalize(coarse.double(), dim=1)
    return (fine[:, None] * neighbours(coarse, size)).sum(2)


def outside(coarse, size):
    """Where a neighbour lies outside the map: [B, 9, H, W]."""
    return neighbours(torch.ones_like(coarse[:, :1]), size)[:, :, 0] == 0


def cluster(fine, coarse, scale):
    logits = similarities(fine, coarse) / (scale.double().abs() + 1e-8)
    return logits.masked_fill(outside(coarse, fine.shape[-2:]), float("-inf")).softmax(1)


def decode(masks, assignment):
    return (assignment.double()[:, :, None] * neighbours(masks.double(), assignment.shape[-2:])).sum(1)


# --- The kernels against it ---


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def half(size):
    return tuple((n + 1) // 2 for n in size)


def both(kernel, definition, inputs, common=0.0):
    """Output, gradients and the gradient of the output, of the kernel and of its definition.

    common: added to all of the gradient of the output.
    """
    results, grad = [], None
    for function in (kernel, definition):
        leaves = [x.detach().requires_grad_() for x in inputs]
        output = function(*leaves)
        grad = random(*output.shape, seed=7).add(common).to(output.dtype) if grad is None else grad
        output.backward(grad.to(output.dtype))
        results.append((output.detach(), *(leaf.grad for leaf in leaves)))
    for ours, x in zip(results[0], (output.to(grad.dtype), *inputs), strict=True):
        assert ours.shape == x.shape and ours.dtype == x.dtype
    assert results[0][0].permute(0, 2, 3, 1).is_contiguous()
    return *results, grad.double()


def assert_near(name, ours, theirs, limit):
    error = (ours.double() - theirs.double()).abs().max().item()
    assert error <= limit, f"{name}: off by {error:.2g}, more than {limit:.2g}"


def check_clustering(batch, channels, size, scale, layout, dtype):
    fine = random(batch, channels, *size, dtype=dtype, seed=1)
    if dtype != torch.float16:  # gradients of a zero vector, of the order 1e12, overflow there
        fine[0, :, 0, 0] = 0
        fine[-1, :, -1, -1] *= 3e-13 / channels**0.5  # shorter than F.normalize divides by
    coarse = random(batch, channels, *half(size), dtype=dtype, seed=2)
    fine, coarse, s = LAYOUTS[layout](fine), LAYOUTS[layout](coarse), torch.tensor([scale], device=DEVICE)
    ours, theirs, grad = both(triton_kernels.cluster, cluster, (fine, coarse, s))
    rounding, sharp = ROUNDING[dtype], 1e-6 / abs(scale)  # the logits are of the order 1 / s
    assert_near("assignment", ours[0], theirs[0], rounding + sharp)
    assert torch.all(ours[0][outside(coarse, size)] == 0)
    a, similarity = theirs[0], similarities(fine, coarse)
    terms = a * (grad - (a * grad).sum(1, keepdim=True)) * similarity / scale**2
    for name, x, our, their in zip(("fine", "coarse"), (fine, coarse), ours[1:], theirs[1:], strict=False):
        length = x.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
        our, their = our * length, their * length
        assert_near(name, our, their, (rounding + sharp) * their.abs().max().item() + sharp)
    assert_near("scale", ours[3], theirs[3], (rounding + sharp) * terms.abs().sum().item() + sharp / abs(scale))


def check_decoding(batch, queries, size, layout, dtype, assignment_dtype):
    masks = LAYOUTS[layout](random(batch, queries, *half(size), dtype=dtype, seed=3))
    assignment = random(batch, 9, *size, seed=4).softmax(1).to(assignment_dtype)
    ours, theirs, _ = both(triton_kernels.decode, decode, (masks, LAYOUTS[layout](assignment)))
    for name, our, their in zip(("decoded", "masks", "assignment"), ours, theirs, strict=True):
        assert_near(name, our, their, ROUNDING[our.dtype] * their.abs().max().item())


def check_hard_limit(dtype):
    """At s = 0 all probability goes to the most similar cluster, if it is so by more than rounding."""
    fine, coarse = random(2, 16, 7, 6, dtype=dtype, seed=1), random(2, 16, 4, 3, dtype=dtype, seed=2)
    assignment = triton_kernels.cluster(fine, coarse, torch.zeros(1, device=DEVICE))
    similarity = similarities(fine, coarse).masked_fill(outside(coarse, (7, 6)), -2)
    best = similarity.topk(2, dim=1).values
    clear = (best[:, 0] - best[:, 1] > 1e-5)[:, None].expand_as(similarity)
    assert clear.float().mean() > 0.9
    assert torch.equal(assignment[clear], F.one_hot(similarity.argmax(1), 9).movedim(3, 1).to(dtype)[clear])


def check_a_common_gradient(dtype):
    """What all nine neighbours' gradients have in common changes nothing, although half precision rounds their sum."""
    fine, coarse = random(2, 16, 7, 6, dtype=dtype, seed=1), random(2, 16, 4, 3, dtype=dtype, seed=2)
    ours, theirs, _ = both(triton_kernels.cluster, cluster, (fine, coarse, torch.ones(1, device=DEVICE)), common=100.0)
    for name, our, their in zip(("fine", "coarse"), ours[1:], theirs[1:], strict=False):
        assert_near(name, our, their, ROUNDING[dtype] * their.abs().max().item())


def check_the_rest():
    masks, assignment = random(1, 3, 2, 2), random(1, 9, 4, 3).softmax(1)
    assert triton_kernels.decode(masks[:, :0], assignment).shape == (1, 0, 4, 3)
    assert triton_kernels.decode(masks[:0], assignment[:0]).shape == (0, 3, 4, 3)
    grad = assignment.clone().requires_grad_()
    triton_kernels.decode(masks[:, :0], grad).sum().backward()
    assert torch.equal(grad.grad, torch.zeros_like(assignment))
    some = masks.clone().requires_grad_()  # a gradient for one of the inputs only
    triton_kernels.decode(some, assignment).sum().backward()
    torch.testing.assert_close(some.grad.sum(), 3 * assignment[~outside(masks, (4, 3))].sum())
    twice = torch.autograd.grad(triton_kernels.decode(some, assignment).square().sum(), some, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        twice.sum().backward()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert triton_kernels.decode(masks, assignment).dtype == torch.float32
    for broken in ((masks, assignment[:, :8]), (masks.double(), assignment), (masks[..., :1], assignment)):
        with pytest.raises(ValueError):
            triton_kernels.decode(*broken)
    for broken in (
        (masks, masks, torch.ones(1, device=DEVICE)),
        (masks, masks[..., :1, :1], torch.ones(2, device=DEVICE)),
    ):
        with pytest.raises(ValueError):
            triton_kernels.cluster(*broken)


def check_everything():
    """Every size with every number of channels; the other properties take turns."""
    assert triton_kernels.is_available()
    layouts, failures = sorted(LAYOUTS), []

    def attempt(check, *case):
        try:
            check(*case)
        except AssertionError as error:
            failures.append(f"{check.__name__}{case}: {error}")

    for turn, (count, size) in enumerate(itertools.product(range(3), SIZES)):
        for n in range(turn + turn // 6, turn + turn // 6 + 1 + (size == (7, 9))):
            batch, layout, dtype = 1 + (n + turn // 3) % 2, layouts[(n + turn // 6) % 4], DTYPES[n % 3]
            attempt(check_clustering, batch, (1, 5, 128)[count], size, SCALES[turn // 2 % 3], layout, dtype)
            attempt(check_decoding, batch, (1, 7, 100)[count], size, layout, dtype, DTYPES[(n + turn // 4) % 3])
    for dtype in DTYPES:
        attempt(check_hard_limit, dtype)
    for dtype in DTYPES[1:]:
        attempt(check_a_common_gradient, dtype)
    attempt(check_the_rest)
    assert not failures, "\n".join(failures)


def in_interpreter():
    torch.set_num_threads(1)
    check_everything()


@needs_triton
def test_kernels_equal_the_definition(tmp_path):
    in_another_process(in_interpreter, tmp_path, TRITON_INTERPRET="1")


@pytest.mark.skipif(not triton_kernels.is_available(), reason="there is no CUDA device")
def test_kernels_equal_the_definition_on_a_device():
    check_everything()


# --- Compilation for real GPUs ---


class NoDriver:
    """Stands in for the driver of a GPU: enough of it to compile, not to launch."""

    def __init__(self, capability):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch  # so that kernels of one architecture are not found for another

    def get_current_stream(self, device):
        return 0


def resources(kernel):
    """Registers and bytes of local memory (so, of spilled registers) of a thread, from the compiled binary."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))


def in_compiler():
    """The whole way of a training step, from Python through Triton's launcher, except for the launches."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    kernels, run = {}, JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        kernels[kernel.hash] = kernel
        return kernel

    JITFunction.run = compile_only
    triton_kernels._check = lambda *tensors: None  # the maps lie on the CPU
    for capability, dtype in ((80, torch.bfloat16), (90, torch.float32), (90, torch.bfloat16)):
        driver.set_active(NoDriver(capability))
        kernels.clear()
        for size in ((6, 34), (7, 33)):  # one compilation serves both
            fine, coarse = random(1, 128, *size, dtype=dtype), random(1, 128, *half(size), dtype=dtype)
            fine, coarse, scale = (
                fine.requires_grad_(),
                coarse.requires_grad_(),
                torch.ones(1, device=DEVICE, requires_grad=True),
            )
            assignment = triton_kernels.cluster(fine, coarse, scale)
            masks = random(1, 100, *half(size), dtype=dtype).requires_grad_()
            triton_kernels.decode(masks, assignment).sum().backward()
        assert len(kernels) == 6, [kernel.name for kernel in kernels.values()]
        for kernel in kernels.values():
            registers, spilled = resources(kernel)
            print(f"sm_{capability} {dtype} {kernel.name}: {registers} registers, {spilled} bytes spilled")
            assert spilled <= 64, kernel.name


@needs_triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton bundles an assembler for Linux only")
def test_kernels_compile_without_spilling_registers(tmp_path):
    print(in_another_process(in_compiler, tmp_path, TRITON_INTERPRET="0"))


# --- Where they cannot run ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_not_available_without_a_device():
    assert not triton_kernels.is_available()
    with pytest.raises(RuntimeError, match="CUDA"):
        triton_kernels.decode(torch.ones(1, 1, 1, 1), torch.ones(1, 9, 2, 2))


def test_importable_without_triton():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "from models import triton_kernels\n"
        "assert not triton_kernels.is_available()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
