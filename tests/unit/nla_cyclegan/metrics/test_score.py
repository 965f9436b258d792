"""The score of translations, and the distance of colours in it."""

import math

import pytest
import torch
from degraded import CHANGES, MARGIN, drawn_sets, measure
from measured import evaluate_images, lab_distance
from torch import Tensor
from torch.nn import functional as F

from nla_cyclegan.metrics.lab_colours import COLOUR, colour_distance, colour_sides, linear, to_lab
from nla_cyclegan.metrics.sampled import sample
from nla_cyclegan.metrics.score import CONTENT, KERNEL, PATCHES, definition, score, scores_of
from nla_cyclegan.metrics.similarity import scene_ssim, ssim


def noise(count: int, side: int = 32, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, side // 4, side // 4), generator=random, dtype=torch.uint8)
    return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)


def plain(*colours: tuple[int, int, int], side: int = 32) -> Tensor:
    """An image of each colour."""
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, side, side).contiguous()


def features(images_NCHW: Tensor) -> Tensor:
    return F.avg_pool2d(images_NCHW.float(), 8).flatten(1)


@pytest.mark.parametrize("network", [None, features])
@pytest.mark.parametrize(("images", "real", "side"), [(5, 7, 32), (9, 4, 36), (3, 3, 96)])
def test_a_copy_of_the_inputs_scores_exactly_1(images: int, real: int, side: int, network: object) -> None:
    inputs, others = noise(images, side), noise(real, side, seed=1) // 2
    found = evaluate_images(inputs, inputs.clone(), others, network)  # type: ignore[arg-type]
    assert found.score == 1
    assert found.score_names == (KERNEL if network and found.inputs.kid.is_significant else PATCHES)
    assert found.as_json()["score_definition"] == definition(found.score_names)
    assert evaluate_images(others, others, inputs, network).score == 1  # type: ignore[arg-type]


def test_it_is_the_mean_squared_ratio_to_the_inputs_and_the_lost_content() -> None:
    halved = score({"swd": 30.0, "lab": 1.0}, {"swd": 60.0, "lab": 4.0}, 0.75)
    assert halved == (0.5**2 + 0.25**2) / 2 + CONTENT * 0.25
    assert score({"kid": 3.0}, {"kid": 6.0}, 1.0, content=9.0) == 0.5


def test_inputs_that_are_the_real_images_have_no_score() -> None:
    assert evaluate_images(noise(4), noise(4, seed=1), noise(4)).score is None
    assert score({"kid": 3.0}, {"kid": -0.1}, 1.0) is None


def test_kid_makes_the_score_where_it_tells_the_domains_apart() -> None:
    inputs, near, far = noise(16), noise(16, seed=1), noise(16, seed=2) // 3
    with_kid, without = evaluate_images(inputs, near, far, features), evaluate_images(inputs, far, near, features)
    assert (with_kid.score_names, without.score_names) == (KERNEL, PATCHES)
    assert with_kid.score == pytest.approx(
        with_kid.translations.kid.value / with_kid.inputs.kid.value + CONTENT * (1 - with_kid.translations.scene)
    )


def test_both_directions_have_the_mean() -> None:
    parts = {"swd": 40.0, "lab": 3.0, "scene": 0.5, "inputs_swd": 80.0, "inputs_lab": 6.0}
    record = {f"{name}_A2B": value for name, value in parts.items()}
    record |= {f"{name}_B2A": value for name, value in (parts | {"scene": 1.0}).items()}
    found = scores_of(record, PATCHES)
    assert found == {"score_A2B": 0.25 + CONTENT / 2, "score_B2A": 0.25, "score": pytest.approx(0.25 + CONTENT / 4)}
    assert scores_of(record, KERNEL) == {}
    assert scores_of(record | {"inputs_lab_A2B": 0.0}, PATCHES) == {}
    assert scores_of({"images": 8, "swd_A2B": 40.0}, PATCHES) == {}
    assert math.isnan(scores_of(record | {"lab_A2B": math.nan}, PATCHES)["score"])


# CIE 1976 values of sRGB colours under D65, as published tables have them.
KNOWN = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (119, 119, 119): (50.03, 0.0, 0.0),
}


def test_colours_are_those_of_cie_1976() -> None:
    measured = to_lab(linear(torch.tensor(list(KNOWN), dtype=torch.uint8)))
    assert measured.flatten().tolist() == pytest.approx([value for lab in KNOWN.values() for value in lab], abs=0.05)


def test_the_distance_of_plain_colours_is_half_of_delta_e() -> None:
    # The mean of |u_1| over the unit sphere of three dimensions is 1/2.
    a, b = plain((255, 0, 0)), plain((119, 119, 119))
    delta_e = (to_lab(linear(a[:, :, 0, 0])) - to_lab(linear(b[:, :, 0, 0]))).norm().item()
    assert lab_distance(a, b) == pytest.approx(delta_e / 2, rel=0.1)
    assert lab_distance(a, a) == 0
    assert lab_distance(plain((255, 0, 0), (119, 119, 119)), b) == pytest.approx(delta_e / 4, rel=0.25)


def test_scales_are_halves_down_to_4_px() -> None:
    assert colour_sides(70) == [70, 35, 17, 8, 4]
    images = noise(3, 64)
    for level, side in enumerate(colour_sides(64)):
        colours = sample(COLOUR, images, level, 0)
        assert colours.shape == (3 * 128, 3)
        there = to_lab(F.avg_pool2d(linear(images), 64 // side).permute(0, 2, 3, 1).flatten(0, 2))
        assert (colours[:, None] - there).abs().sum(dim=2).min(dim=1).values.max() < 1e-3
    both = [sample(COLOUR, each, 1, 0) for each in (images, noise(2, 64, seed=1))]
    assert colour_distance(*both, 1) == colour_distance(*reversed(both), 1)


def test_the_scene_is_compared_at_32_px() -> None:
    a, b = noise(2, 128), noise(2, 128, seed=1)
    small = [F.avg_pool2d(each.double(), 4) for each in (a, b)]
    assert scene_ssim(a, b).tolist() == pytest.approx(ssim(*small).tolist(), rel=1e-5)
    assert scene_ssim(a, a).tolist() == [1, 1]
    assert torch.equal(scene_ssim(a[..., :60, :60], b[..., :60, :60]), ssim(a[..., :60, :60], b[..., :60, :60]))


WORSE = [
    "copy of the input",
    "palette shifted",
    "grey",
    "pixels shuffled",
    "patches of 8 px shuffled",
    "truths of other inputs",
    "one truth for all",
]


def test_true_paintings_are_better_than_what_is_made_of_them() -> None:
    """And true photographs; tests/benchmarks/degradations.py measures more of everything."""
    directions = drawn_sets(64, 8, seed=0)
    scores = {name: sum(measure(each, CHANGES[name], None)[0] for each in directions) / 2 for name in ("truth", *WORSE)}
    assert scores["copy of the input"] == 1
    assert {name: value for name, value in scores.items() if value < scores["truth"] + MARGIN} == {
        "truth": scores["truth"]
    }
