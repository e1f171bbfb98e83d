"""Drawing of one synthetic scene: textured stuff regions with overlapping things, as arrays.

Only uniform draws and exactly rounded IEEE operations (+ - * / sqrt floor) are used, no sine and no matrix
product, so that a scene has the same bytes on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

SIZE = 128
MIN_AREA = 20  # visible pixels below which a segment is given to what lies there
MIN_VISIBLE = 0.25  # share of an object that must be visible: less cannot be told apart by anyone

Colour = tuple[int, int, int]
RED, ORANGE, YELLOW, PURPLE = (205, 50, 50), (235, 135, 35), (240, 215, 60), (150, 60, 180)
CYAN, PINK, BROWN, WHITE, BLACK = (50, 205, 205), (240, 120, 170), (115, 70, 40), (240, 240, 240), (35, 35, 45)

# Every colour but cyan, pink and orange belongs to two classes and every texture to several: shape, colour and
# texture together tell the classes apart.
THINGS: dict[str, tuple[tuple[Colour, ...], tuple[str, ...]]] = {
    "disc": ((RED, YELLOW), ("plain", "stripes")),
    "box": ((BROWN, ORANGE), ("checks", "plain")),
    "triangle": ((PURPLE, RED), ("stripes", "plain")),
    "star": ((YELLOW, WHITE), ("plain", "speckle")),
    "ring": ((CYAN, PINK, PURPLE), ("plain", "checks")),
    "pole": ((WHITE, BLACK, BROWN), ("plain", "stripes")),
}
STUFF: dict[str, tuple[Colour, ...]] = {
    "sky": ((140, 185, 235), (225, 195, 185)),
    "grass": ((75, 140, 55), (130, 150, 60)),
    "water": ((45, 90, 165), (50, 125, 140)),
    "road": ((115, 115, 120), (165, 140, 110)),
}
CLASSES = (*THINGS, *STUFF)  # contiguous class index = position

# Normals of the five sides of a pentagon (cosine and sine of 90 + 72 k degrees).
_PENTAGON = (
    (0.0, 1.0),
    (-0.9510565162951535, 0.3090169943749475),
    (-0.5877852522924731, -0.8090169943749475),
    (0.5877852522924731, -0.8090169943749475),
    (0.9510565162951535, 0.3090169943749475),
)
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


@dataclass(frozen=True)
class Scene:
    """image: uint8 [128, 128, 3]. segments: uint8 [128, 128], index into `classes` (every pixel has a segment).
    classes: for each segment its position in `CLASSES`, stuff first, then things from back to front."""

    image: np.ndarray
    segments: np.ndarray
    classes: tuple[int, ...]


def draw_scene(split: int, index: int, version: int) -> Scene:
    """The scene of a split (0 train, 1 val) and index; the same arguments give the same bytes anywhere."""
    rng = Generator(PCG64(SeedSequence([version, split, index])))
    stuff = _stuff_layout(rng)
    things = _keep_visible([_thing(rng, kind) for kind in _thing_sizes(rng)])
    covered = np.zeros((SIZE, SIZE), bool)
    for mask, _, _ in things:
        covered |= mask
    stuff = _merge_slivers(stuff, ~covered)

    image = np.zeros((SIZE, SIZE, 3))
    segments = np.zeros((SIZE, SIZE), np.uint8)
    classes: list[int] = []
    for label, name in enumerate(STUFF):
        region = stuff == label
        pixels = _stuff_pixels(rng, name)  # drawn even if absent, so that one class does not shift the others
        if region.any():
            image[region] = pixels[region]
            segments[region] = len(classes)
            classes.append(len(THINGS) + label)
    for mask, label, pixels in things:
        image[mask] = pixels[mask]
        segments[mask] = len(classes)
        classes.append(label)
    return Scene(_expose(rng, image), segments, tuple(classes))


def _uniform(rng: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _pick(rng: Generator, options):
    return options[int(float(rng.random()) * len(options))]


def _direction(rng: Generator, limit: float) -> tuple[float, float]:
    """Cosine and sine of a random angle in about +-2 atan(limit), without trigonometric functions."""
    t = _uniform(rng, -limit, limit)
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _wave(t: np.ndarray) -> np.ndarray:
    """Smooth wave of period 1 in [-1, 1], made of parabolas."""
    p = 2 * (t - np.floor(t)) - 1
    return 4 * p * (1 - np.abs(p))


def _stuff_layout(rng: Generator) -> np.ndarray:
    """Index into STUFF [128, 128]: ground, one or two other grounds as band, strip or pond, sky on top."""
    grounds = 1 + np.argsort(rng.random(3), kind="stable")
    layout = np.full((SIZE, SIZE), grounds[0])
    for ground, chance in zip(grounds[1:], (0.8, 0.4), strict=True):
        shape, present = _pick(rng, (_band, _strip, _pond))(rng), float(rng.random()) < chance
        if present:
            layout[shape] = ground
    sky = _Y < _boundary(rng, _uniform(rng, 22, 62))
    if float(rng.random()) < 0.75:
        layout[sky] = 0
    return layout


def _boundary(rng: Generator, base: float) -> np.ndarray:
    slope, amplitude = _uniform(rng, -0.3, 0.3), _uniform(rng, 0, 7)
    period, phase = _uniform(rng, 30, 90), _uniform(rng, 0, 1)
    return base + slope * (_X - SIZE / 2) + amplitude * _wave(_X / period + phase)


def _band(rng: Generator) -> np.ndarray:
    return _Y > _boundary(rng, _uniform(rng, 75, 105))


def _strip(rng: Generator) -> np.ndarray:
    slant, width = _uniform(rng, -0.7, 0.7), _uniform(rng, 9, 20)
    centre = _uniform(rng, 25, 103) + slant * (_Y - SIZE / 2) + 6 * _wave(_Y / _uniform(rng, 50, 110))
    return np.abs(_X - centre) < width * (0.5 + _Y / SIZE)  # wider to the front, as a road or river looks


def _pond(rng: Generator) -> np.ndarray:
    u = (_X - _uniform(rng, 25, 103)) / _uniform(rng, 22, 42)
    v = (_Y - _uniform(rng, 75, 110)) / _uniform(rng, 14, 26)
    return u * u + v * v < 1 + 0.25 * _wave(_X / _uniform(rng, 25, 50))


def _merge_slivers(stuff: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Give stuff with less than MIN_AREA visible pixels to the stuff with the largest visible area."""
    areas = np.bincount(stuff[visible], minlength=len(STUFF))
    return np.where(areas[stuff] < MIN_AREA, int(areas.argmax()), stuff)


def _thing_sizes(rng: Generator) -> list[float]:
    """Radii of the things, 3 to 8 of them, mostly from large (drawn first) to small."""
    count = 3 + int(float(rng.random()) * 6)
    radii = []
    for large in range(count):
        draw = float(rng.random())
        if draw < 0.25 and large < 3:
            radii.append(_uniform(rng, 22, 31))
        elif draw < 0.6:
            radii.append(_uniform(rng, 11, 20))
        else:
            radii.append(_uniform(rng, 5.5, 9))
    depth = [radius * _uniform(rng, 0.6, 1.4) for radius in radii]
    return [radius for _, radius in sorted(zip(depth, radii, strict=True), reverse=True)]


def _thing(rng: Generator, radius: float) -> tuple[np.ndarray, int, np.ndarray]:
    """Mask [128, 128], class index and pixels [128, 128, 3] of one thing of about that radius."""
    label = int(float(rng.random()) * len(THINGS))
    name = tuple(THINGS)[label]
    cx, cy = _uniform(rng, 6, SIZE - 6), _uniform(rng, 16, SIZE - 6)
    cos, sin = _direction(rng, 0.09 if name == "pole" else 0.4)
    u, v = (_X - cx) * cos + (_Y - cy) * sin, (_Y - cy) * cos - (_X - cx) * sin
    if name == "pole":
        mask = (np.abs(u) < _uniform(rng, 1.5, 2.7)) & (np.abs(v) < 1.2 * radius + 12)
    else:
        mask = _shape(name, u / (radius * _uniform(rng, 0.85, 1.15)), v / radius)
    colours, textures = THINGS[name]
    shade = _texture(rng, _pick(rng, textures), u, v)
    if name != "pole":
        shade = np.where(_rim(mask), 0.6 * shade, shade)
    colour = np.array(_pick(rng, colours)) + 50 * (rng.random(3) - 0.5)
    return mask, label, colour * shade[..., None]


def _shape(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    if name == "box":
        return np.maximum(np.abs(u), np.abs(v)) < 0.85
    if name == "triangle":
        return (v < 0.75) & (math.sqrt(3) * np.abs(u) - v < 1)
    if name == "star":  # a pentagram: inside at least four of the five sides
        inside = [nx * u - ny * v > -0.36 for nx, ny in _PENTAGON]
        return np.sum(inside, axis=0) >= 4
    square = u * u + v * v
    return (square < 1) & (square > 0.25) if name == "ring" else square < 1


def _rim(mask: np.ndarray) -> np.ndarray:
    inner = mask.copy()
    for axis in (0, 1):
        for shift in (-1, 1):
            inner &= np.roll(mask, shift, axis)
    return mask & ~inner


def _texture(rng: Generator, kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Brightness factor [128, 128] in the object's own coordinates."""
    period = _uniform(rng, 3, 5)
    noise = rng.random((SIZE, SIZE))
    if kind == "stripes":
        return np.where(np.floor(v / period) % 2 == 0, 1.05, 0.55)
    if kind == "checks":
        return np.where((np.floor(u / period) + np.floor(v / period)) % 2 == 0, 1.05, 0.6)
    return 0.5 + 0.6 * noise if kind == "speckle" else 0.92 + 0.12 * noise


def _stuff_pixels(rng: Generator, name: str) -> np.ndarray:
    """Pixels [128, 128, 3] of a stuff class: sky fades, grass is grainy, water is rippled, road is cobbled."""
    colour = np.array(_pick(rng, STUFF[name])) + 40 * (rng.random(3) - 0.5)
    a, b, noise = _uniform(rng, 0, 1), _uniform(rng, 8, 14), rng.random((SIZE, SIZE))
    if name == "sky":
        shade = 0.9 + 0.2 * _Y / SIZE + 0.03 * noise
    elif name == "grass":
        shade = 0.65 + 0.6 * noise
    elif name == "water":
        shade = 1 + 0.18 * _wave(_Y / b + 0.35 * _wave(_X / (4 * b)) + a) + 0.06 * noise
    else:
        row = np.floor(_Y / 5)
        joint = (_Y - 5 * row < 1) | ((_X + 4 * (row % 2)) % 8 < 1)
        shade = np.where(joint, 0.78, 0.97 + 0.14 * np.repeat(np.repeat(noise[::4, ::4], 4, 0), 4, 1))
    return colour * shade[..., None]


def _keep_visible(things: list[tuple[np.ndarray, int, np.ndarray]]) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Drop things that those in front of them cover nearly wholly; back to front as given."""
    covered = np.zeros((SIZE, SIZE), bool)
    kept = []
    for thing in reversed(things):
        mask = thing[0]
        visible = int((mask & ~covered).sum())
        if visible >= max(MIN_AREA, MIN_VISIBLE * int(mask.sum())):
            covered |= mask
            kept.append(thing)
    return kept[::-1]


def _expose(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Global light, tint and a light gradient, then sensor noise; uint8."""
    cos, sin = _direction(rng, 1.0)
    gain, slope = _uniform(rng, 0.8, 1.12), _uniform(rng, 0, 0.15)
    light = gain * (1 + slope * ((_X - SIZE / 2) * cos + (_Y - SIZE / 2) * sin) / (SIZE / 2))
    tint = 1 + 0.12 * (rng.random(3) - 0.5)
    noise = 16 * (rng.random((SIZE, SIZE, 3)) + rng.random((SIZE, SIZE, 3)) - 1)
    return np.clip(np.rint(image * light[..., None] * tint + noise), 0, 255).astype(np.uint8)
