"""How the batch of a recipe is divided: evenly among processes, and by each into passes, where its model allows that.

Batch norms that are trained compute their statistics over one pass of all processes (`bench.training.batch_norm`), and
the recipe says over how many images: the whole batch. So such a model computes a process's share in one pass.
"""

from functools import cache

from bench.errors import BenchError
from bench.experiments.backbones import get_backbone
from bench.experiments.experiment import Experiment
from bench.experiments.recipe import FROZEN, recipe_for

IMAGES_AT_ONCE = 2  # of a GPU at paper scale, as eight GPUs share the batch of 16; fewer GPUs add up gradients


def share_length(batch: int, processes: int) -> int:
    """Images of the batch that each process computes. Raises BenchError where they cannot be equally many."""
    if batch % processes:
        raise BenchError(
            f"{processes} processes cannot share a batch of {batch} evenly: start {_sharing(batch)} of them"
        )
    return batch // processes


def remedy_of_batch_norms(batch: int, processes: int) -> str:
    """What helps where the share of so many processes does not fit into memory and batch norms are trained."""
    more = _sharing(batch, above=processes)
    helps = f"share it among {more} GPUs (bench launch --gpus N, or torchrun)" if more else "take larger GPUs"
    return f"batch norms are trained over the whole batch of {batch}: {helps}"


def _sharing(batch: int, above: int = 0) -> str:
    """Numbers of processes that can share the batch: "1, 2, 4, 8, 16"."""
    return ", ".join(str(n) for n in range(above + 1, batch + 1) if batch % n == 0)


def images_at_once(experiment: Experiment) -> int | None:
    """Most images that a process computes at once where nobody says how many; None: its whole share."""
    return None if experiment.scale != "paper" or trains_batch_norms(experiment) else IMAGES_AT_ONCE


def check_division(experiment: Experiment, processes: int, micro_batch: int | None = None) -> None:
    """Raises BenchError, one line with what would do, where so many processes with passes of at most `micro_batch`
    images (None: their whole share) cannot train as the recipe says. Needs neither data nor a GPU.
    """
    batch = recipe_for(experiment).batch_size
    share = share_length(batch, processes)
    if micro_batch is None or micro_batch >= share or not trains_batch_norms(experiment):
        return
    remedy = f"leave it out (each computes its {share} images at once)"
    if batch % micro_batch == 0:
        remedy += f", or start {batch // micro_batch} processes, one a GPU"
    raise BenchError(
        f"{experiment.method} on {experiment.backbone} trains its batch norms over the whole batch of {batch} images, "
        f"--micro-batch {micro_batch} in {processes} process(es) makes that {micro_batch * processes}: {remedy}"
    )


@cache
def trains_batch_norms(experiment: Experiment) -> bool:
    """Whether the experiment's model has batch norms that are trained. Those of timm show in the model alone."""
    if recipe_for(experiment).batch_norm == FROZEN:
        return False
    if get_backbone(experiment.backbone).family != "timm":
        return True
    import torch

    from bench.training.batch_norm import has_batch_norms
    from bench.zoo import build_model

    with torch.device("meta"):
        return has_batch_norms(build_model(experiment))
