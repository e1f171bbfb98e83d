"""How often and how long a forward pass of HCFormer copies, by torch's profiler, plain and in the fast layout."""

import torch
from torch.profiler import ProfilerActivity, profile

from bench.speed.timings import IMAGE, build
from models.clustering import use_form

COUNTED = {"copies": "aten::copy_", "cats": "aten::cat"}


def copies(device: str) -> dict[str, dict[str, float]]:
    """One pass of HCFormer-R50 on 800x1088, before and after: {"plain", "fast"} -> calls and ms of COUNTED's operators.

    plain: contiguous maps and the reference form of clustering; fast: what is run otherwise.
    """
    model = build("hcformer", device).eval()
    image = torch.randn(1, 3, *IMAGE, generator=torch.Generator().manual_seed(0)).to(device)
    fast = _count(model, image.contiguous(memory_format=torch.channels_last))
    use_form(model.to(memory_format=torch.contiguous_format), "reference")
    return {"plain": _count(model, image), "fast": fast}


@torch.inference_mode()
def _count(model: torch.nn.Module, image: torch.Tensor) -> dict[str, float]:
    model(image)  # compilation, tuning
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * image.is_cuda
    with profile(activities=activities) as profiler:
        model(image)
    events = {event.key: event for event in profiler.key_averages()}
    result: dict[str, float] = {}
    for name, operator in COUNTED.items():
        event = events.get(operator)
        spent = 0.0 if event is None else event.device_time_total if image.is_cuda else event.cpu_time_total
        result |= {name: event.count if event else 0, f"{name}_ms": spent / 1000}
    return result
