"""Colour jitter against the standard library's HSV, and the ranges that SSD publishes."""

import colorsys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from bench.data.colour import jitter_colours, shift_hsv

CHANNEL = st.floats(0, 1, width=32)


def _grey(value: int) -> torch.Tensor:
    return torch.full((3, 1, 1), value, dtype=torch.uint8)


def _jittered(image, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([jitter_colours(image, generator) for _ in range(count)])


@given(st.tuples(CHANNEL, CHANNEL, CHANNEL), st.floats(0.5, 1.5), st.floats(-0.1, 0.1))
def test_hue_and_saturation_are_those_of_hsv(rgb, saturation, turn):
    hue, old, value = colorsys.rgb_to_hsv(*rgb)
    expected = colorsys.hsv_to_rgb((hue + turn) % 1.0, min(1.0, old * saturation), value)
    actual = shift_hsv(torch.tensor(rgb)[:, None, None], saturation, turn)[:, 0, 0]
    spread = max(rgb) - min(rgb)
    if spread > 1e-4:  # below, the hue is rounding
        torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=2e-5 / min(1.0, spread * 10))
    else:
        torch.testing.assert_close(actual, torch.tensor(rgb), rtol=0, atol=2e-4)


def test_hue_is_torchvisions():
    image = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    for turn in (-0.1, -0.03, 0.1, 0.5):
        torch.testing.assert_close(shift_hsv(image, 1.0, turn), F.adjust_hue(image, turn), rtol=0, atol=2e-6)


def test_ranges_of_brightness_and_contrast():
    """A grey pixel shows nothing else. Brightness comes first: (100 + 32) * 1.5 = 198, (100 - 32) * 0.5 = 34."""
    values = _jittered(_grey(100), 4000)[:, 0, 0, 0].int()
    assert 34 <= values.min() <= 38 and 193 <= values.max() <= 198
    assert (values == 100).float().mean() == pytest.approx(0.25, abs=0.03)  # neither, with probability 1/4


def test_ranges_of_hue_and_saturation():
    """Pixel (150, 100, 100): hue 0, S = 1/3. Brightness and contrast keep the hue, saturation 1.5 gives S = 1/2."""
    values = _jittered(torch.tensor([150, 100, 100], dtype=torch.uint8)[:, None, None], 4000)[:, :, 0, 0] / 255
    hsv = torch.tensor([colorsys.rgb_to_hsv(*rgb) for rgb in values.tolist()])
    degrees = 360 * ((hsv[:, 0] + 0.5) % 1.0 - 0.5)
    assert -38 <= degrees.min() <= -33 and 33 <= degrees.max() <= 38  # 36, and rounding to whole levels
    assert (degrees.abs() < 0.5).float().mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("contrast_first", "expected"),
    [
        (0.0, [255, 97, 97]),  # contrast: 300 cut to 255, 150, 150, S = 0.412; S times 1.5: 255 - 157.5
        (0.9, [255, 75, 75]),  # S = 0.5 becomes 0.75: 200, 50, 50; contrast: 300 cut to 255, 75, 75
    ],
)
def test_contrast_before_or_after_saturation_by_hand(monkeypatch, contrast_first, expected):
    #        brightness, contrast, its place, saturation, hue: below 0.5 means yes; then the four amounts
    draws = [0.9, 0.0, contrast_first, 0.0, 0.9, 0.5, 1.0, 1.0, 0.5]
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(draws))
    image = torch.tensor([200, 100, 100], dtype=torch.uint8)[:, None, None]
    result = jitter_colours(image, torch.Generator())[:, 0, 0].tolist()
    assert result == pytest.approx(expected, abs=1)


def test_draws_and_inputs():
    image = torch.randint(0, 256, (3, 7, 5), dtype=torch.uint8)
    before = image.clone()
    for seed in range(40):
        generator, counted = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
        result = jitter_colours(image, generator)
        assert result.shape == image.shape and result.dtype == torch.uint8 and torch.equal(image, before)
        torch.rand(9, generator=counted)
        assert torch.equal(generator.get_state(), counted.get_state())
        view = jitter_colours(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), torch.Generator().manual_seed(seed))
        assert torch.equal(view, result)
    extremes = torch.tensor([[0, 255]], dtype=torch.uint8).expand(3, 1, 2)
    for result in _jittered(extremes, 200):
        assert result[:, 0, 1].float().std() == 0 and result[:, 0, 0].max() <= 48  # black and white stay grey


def test_one_draw_in_sixteen_changes_nothing():
    image = torch.tensor([200, 120, 60], dtype=torch.uint8)[:, None, None]
    same = (_jittered(image, 4000) == image).flatten(1).all(1).float().mean()
    assert same == pytest.approx(1 / 16, abs=0.02)
