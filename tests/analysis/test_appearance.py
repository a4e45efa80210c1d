"""Statistics of drawn bars, whose place, extent, slant and thickness are known."""

import pytest
import torch

from synthaug.analysis.exploration.appearance import measure_appearance


def bar(*, x=0.0, thickness=4, slant=0.0, height=20, colour=(1.0,), size=32):
    """An upright bar around x (from -1 to 1), leaning by `slant` columns a row, on a background of -1."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = (size - 1) / 2
    centre = middle * (1 + x) - slant * (rows - middle)
    inside = ((columns - centre).abs() <= thickness / 2) & ((rows - middle).abs() <= height / 2)
    return torch.stack([torch.where(inside, value, -1.0) for value in colour])


def changes(first, second):
    before, after = (measure_appearance(image[None]) for image in (first, second))
    return {name: float(after[name] - before[name]) for name in before}


def test_each_statistic_follows_its_own_change():
    plain = bar()
    assert changes(plain, bar(x=0.25))["horizontal position"] == pytest.approx(0.25, abs=0.02)
    assert changes(plain, bar(thickness=8))["stroke thickness"] > 1.5
    assert changes(plain, bar(thickness=8))["width"] > 0.05
    assert changes(plain, bar(height=28))["height"] > 0.05
    assert changes(plain, bar(slant=0.3))["slant"] == pytest.approx(0.3, abs=0.05)
    assert changes(plain, bar(slant=-0.3))["slant"] == pytest.approx(-0.3, abs=0.05)
    assert abs(changes(plain, bar(x=0.25))["slant"]) < 0.01
    assert changes(plain, torch.roll(plain, 4, dims=1))["vertical position"] == pytest.approx(8 / 31, abs=0.02)


def test_ink_does_not_ask_which_side_is_dark():
    plain = bar()
    before, after = measure_appearance(plain[None]), measure_appearance(-plain[None])
    for name in ("ink", "stroke thickness", "width", "slant"):
        assert torch.allclose(before[name], after[name]), name
    assert torch.allclose(before["brightness"], -after["brightness"])


def test_colour_and_sharpness():
    red = measure_appearance(bar(colour=(1.0, -1.0, -1.0))[None])
    assert red["red"] > 0 > red["green"] == red["blue"]
    assert "red" not in measure_appearance(bar()[None])
    soft = torch.nn.functional.avg_pool2d(bar()[None], 5, 1, 2)
    assert measure_appearance(soft)["sharpness"] < measure_appearance(bar()[None])["sharpness"]


def test_a_blank_image_gives_finite_numbers():
    for values in measure_appearance(torch.full((2, 3, 9, 9), -1.0)).values():
        assert torch.isfinite(values).all()
