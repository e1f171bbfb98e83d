"""The weights and the image of the reference fixtures, from their names: the formula is that of the recordings.

The i-th number of a tensor (from 1, row by row) is splitmix64's finaliser of `key + i G`, its upper 24 bits as a number
in [-1, 1); the key is the finaliser of the seed (upper 32 bits) and the CRC-32 of the name. Kind and shape of the
parameter then say how it is scaled and shifted. All arithmetic is float32's, so that everybody gets the same numbers.
"""

import zlib
from math import prod

import numpy as np
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# (centre, scale) by the last part of the name, or the last two
BY_NAME = {
    "running_var": (1.0, 0.5),
    "running_mean": (0.0, 0.1),
    "query_feat.weight": (0.0, 1.0),
    "query_embed.weight": (0.0, 1.0),
    "level_embed.weight": (0.0, 1.0),
    "level_embed": (0.0, 1.0),
    "relative_position_bias_table": (0.0, 0.5),
    "sampling_offsets.bias": (0.0, 2.0),
    "offset.bias": (0.0, 1.0),
}
GAINS = {"in_proj_weight": 2.0, "out_proj.weight": 0.5, "offset.weight": 0.5}


def filled(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Value of the parameter or float buffer of that official name."""
    centre, scale = _centre_and_scale(name, shape)
    return torch.from_numpy(np.float32(centre) + np.float32(scale) * _waves(name, shape, seed))


def filled_image(name: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Values in 0..255."""
    return torch.from_numpy(np.float32(127.5) + np.float32(127.5) * _waves(name, shape, seed))


def _centre_and_scale(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    last, last_two = name.rpartition(".")[2], ".".join(name.split(".")[-2:])
    if last == "temp":  # both signs occur
        sign = -1 if zlib.crc32(name.encode()) % 2 else 1
        return sign * 0.1, sign * 0.05
    if known := BY_NAME.get(last_two, BY_NAME.get(last)):
        return known
    if len(shape) == 1:
        return (1.0, 0.1) if last == "weight" else (0.0, 0.1)  # of a norm; a bias
    return 0.0, GAINS.get(last_two, GAINS.get(last, 1.0)) * (3.0 / prod(shape[1:])) ** 0.5


def _waves(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers in [-1, 1), multiples of 2^-23."""
    key = _finalised(np.array([(seed << 32) + zlib.crc32(name.encode())], np.uint64))
    bits = _finalised(np.arange(1, prod(shape) + 1, dtype=np.uint64) * GOLDEN + key) >> np.uint64(40)
    return (np.float32(2.0**-23) * bits.astype(np.float32) - np.float32(1)).reshape(shape)


def _finalised(z: np.ndarray) -> np.ndarray:
    """splitmix64's last step, modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
