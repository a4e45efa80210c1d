"""Glow: exact densities against brute force, its start, its labels, its loss."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from synthaug.core import BatchRandom, InputError
from synthaug.generators import Glow
from synthaug.generators.glow.model import BIN_WIDTH, TEMPERATURES
from synthaug.generators.glow.typicality import choose_rows, likelihood_floors
from synthaug.generators.glow.whitening import ClassGaussian
from synthaug.training.selection import copy_with


def tiny(image_size=8, channels=1, num_classes=3, seed=0, disturb=0.1, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    arguments = {
        "steps": (0,),
        "principal": 9,
        "width": 8,
        "dense_steps": 2,
        "dense_width": 8,
        "embedding": 4,
    }
    arguments |= options
    names = [f"c{i}" for i in range(num_classes)]
    model = Glow(class_names=names, image_size=image_size, channels=channels, **arguments).to(dtype)
    for parameter in model.parameters():
        parameter.data += disturb * torch.randn_like(parameter)
    return model


def batch(model, number=6):
    dtype = next(model.parameters()).dtype
    images = torch.rand(number, model.channels, model.image_size, model.image_size, dtype=dtype) * 2 - 1
    return images, torch.arange(number) % model.num_classes


SHAPES = [
    (8, 1, {"steps": (1, 0)}),
    (9, 1, {}),
    (8, 1, {"additive": True}),
    (8, 1, {"dense_steps": 0}),
    (8, 1, {"steps": (), "principal": 16}),
    (8, 1, {"checkerboard": 2}),
    (8, 1, {"checkerboard": 3, "additive": True, "steps": (1,)}),
    (9, 1, {"checkerboard": 1, "additive": True, "steps": (0, 1)}),
    (8, 1, {"dequantization": "variational", "checkerboard": 1, "steps": ()}),
]


@pytest.mark.parametrize(("size", "channels", "options"), SHAPES)
def test_log_prob_is_the_brute_force_density(size, channels, options):
    model = tiny(size, channels, **options)
    images, labels = batch(model, 2)
    for row in range(2):
        x, y = images[row : row + 1], labels[row : row + 1]

        def encode(v, y=y, x=x):
            return model.encode(v.view_as(x), y)[0]

        jacobian = torch.autograd.functional.jacobian(encode, x.flatten(), vectorize=True)
        base = torch.distributions.Normal(0.0, 1.0).log_prob(model.encode(x, y)).sum()
        torch.testing.assert_close(model.log_prob(x, y)[0], base + torch.linalg.slogdet(jacobian)[1])


OPTIONS = [
    {"additive": additive, "checkerboard": checkerboard, "dequantization": dequantization}
    for additive in (False, True)
    for checkerboard in (0, 3)
    for dequantization in ("uniform", "variational")
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_inverted_and_bounds_the_likelihood_of_pixels(options):
    model = tiny(9, 2, noise_level=0.0, steps=(1,), **options)
    images, labels = batch(model)
    torch.testing.assert_close(model.decode(model.encode(images, labels), labels), images, atol=1e-8, rtol=0)
    noise = torch.rand_like(images)
    spent, placed = torch.zeros(6).double(), noise
    if model.dequantiser is not None:
        placed, spent = model.dequantiser(noise, images, model.flow.embedding(labels))
        assert spent.abs().min() > 1e-3
    dimensions = math.prod(model.noise_shape)
    expected = model.log_prob(images, labels, noise=placed) - spent + dimensions * math.log(BIN_WIDTH)
    torch.testing.assert_close(model.log_prob_bound(images, labels, noise=noise), expected)
    uniform = BatchRandom(0, 0, start=0, count=6).uniform(2, 9, 9).double()
    bits = model.loss(model, images, labels, BatchRandom(0, 0, start=0, count=6))["bits_per_dim"]
    bound = model.log_prob_bound(images, labels, noise=uniform).mean()
    torch.testing.assert_close(bits, -bound / dimensions / math.log(2))


def test_additive_couplings_change_no_volume():
    model = tiny(9, additive=True, checkerboard=2, steps=(1, 0), disturb=0.3)
    images, labels = batch(model)
    _, logdet = model.flow(images, labels)
    torch.testing.assert_close(logdet[:3], logdet[3:])  # rows i and i + 3 have one class and nothing else in common


def test_variational_dequantisation_learns_where_in_the_bin_a_pixel_lies():
    torch.manual_seed(0)
    model = tiny(8, 1, 1, dtype=torch.float32, disturb=0.0, noise_level=0.0, dequantization="variational", width=4)
    images, labels = torch.zeros(16, 1, 8, 8), torch.zeros(16, dtype=torch.int64)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.dequantiser.requires_grad_(True)
    model.prior.mean.data.fill_(0.5 * BIN_WIDTH)  # the flow is a rotation, so this is no pixel's centre
    model.prior.log_scale.data.fill_(math.log(0.2 * BIN_WIDTH))
    before = model.log_prob_bound(images, labels, noise=torch.rand_like(images)).mean()
    optimiser = torch.optim.Adam(model.dequantiser.parameters(), lr=0.1)
    for _ in range(10):
        loss = -model.log_prob_bound(images, labels, noise=torch.rand_like(images)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert -loss.detach() > before + 32  # half a nat a pixel


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 4), (11, 3), (28, 1), (30, 2), (64, 3)])
def test_encode_and_decode_are_inverse_at_every_size(size, channels):
    model = tiny(size, channels, disturb=0.02)
    images, labels = batch(model)
    latents = model.encode(images, labels)
    assert latents.shape == (len(images), *model.noise_shape)
    torch.testing.assert_close(model.decode(latents, labels), images, atol=1e-8, rtol=0)


def test_single_precision_inverts_within_a_pixel():
    model = tiny(28, dtype=torch.float32, disturb=0.05)
    images, labels = batch(model)
    assert (model.decode(model.encode(images, labels), labels) - images).abs().max() < 0.5 * BIN_WIDTH


def test_density_of_the_class_gaussian_integrates_to_one():
    prior = ClassGaussian(2, 1).double()
    prior.mean.data = torch.tensor([[0.5], [-1.0]]).double()
    prior.log_scale.data = torch.tensor([[0.3], [-0.5]]).double()
    grid = torch.linspace(-15, 15, 20001, dtype=torch.float64)[:, None]
    mass = torch.trapezoid(prior.class_log_density(grid).exp(), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones(2, dtype=torch.float64))


def test_class_densities_agree_with_whitening():
    model = tiny()
    _, labels = batch(model)
    z = torch.randn(6, *model.noise_shape, dtype=torch.float64)
    noise, logdet = model.prior.whiten(z, labels)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1) + logdet
    density = model.prior.class_log_density(z).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(density, expected)
    torch.testing.assert_close(model.prior.colour(noise, labels), z)


def test_class_posterior_is_bayes_rule():
    model = tiny()
    images, _ = batch(model)
    posterior = model.class_log_prob(images)
    torch.testing.assert_close(posterior.exp().sum(1), torch.ones(6, dtype=torch.float64))
    joint = torch.stack([model.log_prob(images, torch.full((6,), k)) for k in range(3)], 1)
    torch.testing.assert_close(posterior, joint - joint.logsumexp(1, keepdim=True))


def test_dequantisation_noise_moves_a_pixel_within_its_bin():
    model = tiny()
    images, labels = batch(model)
    centre = model.log_prob(images, labels, noise=torch.full_like(images, 0.5))
    torch.testing.assert_close(centre, model.log_prob(images, labels))
    edge = model.log_prob(images, labels, noise=torch.ones_like(images))
    torch.testing.assert_close(edge, model.log_prob(images + 1 / 255, labels))


def test_start_normalises_and_survives_constant_images():
    model = tiny(12, 3, disturb=0.0, dtype=torch.float32, noise_level=0.0)
    images = torch.full((16, 3, 12, 12), -1.0)
    images[:, 0] = torch.randn(16, 12, 12).clamp(-1, 1)
    labels = torch.arange(16) % 3
    model.initialize(images, labels)
    assert all(p.isfinite().all() for p in model.parameters())
    latents = model.encode(images, labels)
    assert latents.isfinite().all() and model.log_prob(images, labels).isfinite().all()
    assert 0.2 < float(latents.detach().pow(2).mean()) < 5.0


def test_start_is_deterministic():
    first, (images, labels) = tiny(disturb=0.0), batch(tiny(), 12)
    second = copy.deepcopy(first)
    first.initialize(images, labels)
    torch.rand(5)
    second.initialize(images, labels)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_temperature_zero_forgets_the_noise_and_labels_matter():
    model = tiny(dtype=torch.float32)
    labels = torch.tensor([0, 0, 1])
    mode = model.sample(labels, noise=torch.randn(3, *model.noise_shape), temperature=0.0)
    assert mode.shape == (3, 1, 8, 8) and mode.dtype == torch.float32
    torch.testing.assert_close(mode[0], mode[1])
    noise = torch.randn(1, *model.noise_shape).expand(3, -1)
    images = model.sample(labels, noise=noise, temperature=0.7)
    assert (images[0] - images[2]).abs().max() > 1e-3
    assert torch.equal(images, model.sample(labels, noise=noise, temperature=0.7))


def test_denoising_moves_along_the_score():
    model = tiny(noise_level=0.1, denoise_steps=1, fine_temperature=1.0)
    noise, labels = torch.randn(2, *model.noise_shape, dtype=torch.float64), torch.tensor([0, 1])
    noisy = model.decode(0.5 * noise, labels)
    clean = model.decode_noise(noise, labels, 0.5)
    step, small = (clean - noisy) / 0.01, 1e-6
    direction = torch.randn_like(noisy)
    with torch.no_grad():
        ahead, behind = (model.log_prob(noisy + sign * small * direction, labels) for sign in (1, -1))
    slope = (ahead - behind) / (2 * small)
    torch.testing.assert_close((step * direction).flatten(1).sum(1), slope, rtol=1e-4, atol=1e-4)


def test_temperature_is_left_to_the_fit_unless_it_is_given():
    sizes = {"class_names": ["a", "b"], "image_size": 8, "channels": 1, "width": 8, "dense_width": 8}
    glow = Glow(**sizes)
    assert glow.open_choices() == {"temperature": TEMPERATURES}
    assert glow.default_temperature == TEMPERATURES[0]
    chosen = copy_with(glow, temperature=TEMPERATURES[-1])
    assert chosen.default_temperature == TEMPERATURES[-1] != glow.default_temperature
    given = Glow(**sizes, temperature=0.7)
    assert given.open_choices() == {} and given.default_temperature == 0.7


def test_fine_latents_are_cooler_than_the_top():
    model = tiny(noise_level=0.0, fine_temperature=0.5)
    noise, labels = torch.randn(2, *model.noise_shape, dtype=torch.float64), torch.tensor([0, 1])
    latents = model.encode(model.decode_noise(noise, labels, 0.8), labels)
    torch.testing.assert_close(latents[:, -9:], 0.8 * noise[:, -9:])
    torch.testing.assert_close(latents[:, :-9], 0.4 * noise[:, :-9])


def test_sampling_needs_no_gradient_and_leaves_none():
    model = tiny(dtype=torch.float32).requires_grad_(False)
    model.sample(torch.tensor([0, 1]))
    assert all(p.grad is None for p in model.parameters())


def test_loss_is_bits_per_dimension():
    model = tiny(noise_level=0.0, class_weight=0.0)
    images, labels = batch(model)
    (objective,) = model.objectives()
    values = objective.loss(objective.module, images, labels, BatchRandom(0, 0, start=0, count=6))
    uniform = BatchRandom(0, 0, start=0, count=6).uniform(1, 8, 8)
    nats = model.log_prob(images, labels, noise=uniform.double()) + 64 * math.log(BIN_WIDTH)
    torch.testing.assert_close(values["bits_per_dim"], (-nats / 64 / math.log(2)).mean())
    torch.testing.assert_close(values["loss"], values["bits_per_dim"])


def test_a_few_steps_lower_the_loss_and_reach_every_parameter():
    model = tiny(10, dtype=torch.float32, disturb=0.0)
    images = 0.2 * torch.randn(32, 1, 1, 1).clamp(-1, 1) * torch.linspace(-1, 1, 10).expand(32, 1, 10, 10)
    labels = torch.arange(32) % 3
    (objective,) = model.objectives()
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for step in range(12):
        rng = BatchRandom(0, step, start=0, count=32)
        loss = objective.loss(objective.module, images, labels, rng)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_configuration_rebuilds_the_model():
    model = tiny(9, dtype=torch.float32)
    twin = tiny(9, dtype=torch.float32, seed=5)
    twin.load_state_dict(model.state_dict())
    labels, noise = torch.tensor([0, 1]), torch.randn(2, *model.noise_shape)
    assert torch.equal(model.sample(labels, noise=noise), twin.sample(labels, noise=noise))


def constant(labels, channels, size):
    return torch.full((len(labels), channels, size, size), -1.0)


def alike_but_for_the_class(labels, channels, size):
    return (labels[:, None, None, None] / 4 - 0.5).expand(-1, channels, size, size).contiguous()


def opaque(labels, channels, size):
    images = torch.rand(len(labels), channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[:, -1] = 1.0  # alpha
    return images


EXTREMES = {
    "constant": (constant, [8, 8, 8], 1, 12),
    "all alike": (alike_but_for_the_class, [5, 5], 3, 8),
    "one image a class": (opaque, [1, 1, 1], 4, 9),
    "a class of one, a class of none": (opaque, [30, 1, 0], 2, 8),
}


@pytest.mark.parametrize("noise_level", [None, 0.0])
@pytest.mark.parametrize(("paint", "counts", "channels", "size"), EXTREMES.values(), ids=EXTREMES.keys())
def test_extreme_data_gives_finite_numbers(paint, counts, channels, size, noise_level):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = paint(labels, channels, size)
    images = ((images + 1) * 127.5).round() / 127.5 - 1
    preset = Glow.preset(counts, size, channels)
    options = preset.constructor | {"dense_steps": 3, "dense_width": 16}
    options |= {} if noise_level is None else {"noise_level": noise_level}
    torch.manual_seed(0)
    model = Glow(class_names=[str(k) for k in range(len(counts))], image_size=size, channels=channels, **options)
    model.initialize(images, labels)
    (objective,) = model.objectives()
    optimiser = torch.optim.AdamW(model.parameters(), lr=objective.learning_rate, betas=objective.betas)
    for step in range(8):
        rows = torch.arange(16) % len(labels)
        loss = objective.loss(model, images[rows], labels[rows], BatchRandom(0, step, start=0, count=16))["loss"]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), objective.clip_norm, error_if_nonfinite=True)
        optimiser.step()
    model.eval().memorize([(images, labels)])
    with torch.no_grad():
        assert model.log_prob(images, labels).isfinite().all() and model.class_log_prob(images).isfinite().all()
    assert model.decode_noise(torch.randn(6, *model.noise_shape), torch.arange(6) % len(counts), 0.8).isfinite().all()
    assert torch.equal(model.typical_low.isfinite(), torch.tensor(counts) > 0) and not model.typical_low.isnan().any()


# -------------------------------------------------------------------------------------- how likely real rows are


def test_floors_fall_with_the_gap_between_known_and_moved_rows():
    known, labels = np.linspace(100.0, 200.0, 101), np.zeros(101, dtype=np.int64)
    floors = [likelihood_floors(known, known - gap, labels, 1)[0] for gap in (-10.0, 0.0, 10.0)]
    assert floors == [76.5, 76.5, 31.5]


def test_floors_of_small_classes_are_drawn_down_to_the_others_and_never_up():
    rng = np.random.default_rng(0)
    large, small = rng.normal(0.0, 10.0, 2000), np.array([100.0, 101.0])
    labels = np.repeat([0, 2], [2000, 2])
    values = np.concatenate([large, small])
    floors = likelihood_floors(values, values, labels, 4)
    assert np.isneginf(floors[[1, 3]]).all()
    assert -37.5 < floors[0] < -33.0  # 1.5 times the 2.3 deviations at which a normal's 1 % quantile lies
    assert 30.0 < floors[2] < 60.0  # its rows alone would say 100
    low = np.concatenate([large, small - 500.0])
    assert likelihood_floors(low, low, labels, 4)[2] <= -400.0


def test_large_classes_are_looked_at_all_over_but_ever_more_thinly():
    kept = np.flatnonzero(choose_rows(np.arange(6000), 256))
    assert kept[:256].tolist() == list(range(256)) and 800 < len(kept) < 1100 and kept[-1] > 5900


def test_memorize_takes_the_rows_by_class_however_they_are_batched():
    model, twin = tiny(dtype=torch.float32), tiny(dtype=torch.float32)
    images, labels = batch(model, 60)
    assert np.isneginf(model.typical_low.numpy()).all()
    model.train().memorize([(images, labels)])
    assert model.training and model.typical_low.isfinite().all() and "typical_low" in model.state_dict()
    with torch.no_grad():
        assert (model.log_prob(images, labels) >= model.typical_low[labels]).all()
    twin.memorize([])
    assert np.isneginf(twin.typical_low.numpy()).all()
    twin.memorize([(images[labels == 1], labels[labels == 1])])
    assert twin.typical_low.isfinite().tolist() == [False, True, False]


def test_dropout_works_in_training_only():
    model = tiny(dropout=0.5, disturb=0.3)
    images, labels = batch(model)
    assert not torch.equal(*(model.train().log_prob(images, labels) for _ in range(2)))
    assert torch.equal(*(model.eval().log_prob(images, labels) for _ in range(2)))
    torch.testing.assert_close(model.decode(model.encode(images, labels), labels), images)


def test_augmentation_moves_its_share_of_the_images():
    model = tiny(16, dtype=torch.float32, noise_level=0.0, augmentation=0.3)
    images, labels = torch.rand(200, 1, 16, 16) * 2 - 1, torch.zeros(200, dtype=torch.int64)
    seen = []

    def prepared(x, y, uniform, normal):
        seen.append(x)
        return model(x, y, uniform, normal)

    model.loss(prepared, images, labels, BatchRandom(0, 0, start=0, count=200))
    moved = (seen[0] != images).flatten(1).any(1).float().mean()
    assert 0.2 < moved < 0.4


# ------------------------------------------------------------------------------------------------------- presets

DATASETS = {
    "20 a class": ([20] * 10, 28, 1),
    "200 a class": ([200] * 10, 28, 1),
    "6,000 a class": ([6000] * 10, 28, 1),
    "100 to 1": ([500, 300, 180, 108, 65, 39, 23, 14, 8, 5], 32, 3),
    "two classes of five": ([5, 5], 16, 4),
    "64 pixels": ([500] * 10, 64, 4),
    "a thousand classes": ([50] * 1000, 32, 3),
}


@pytest.mark.parametrize(("counts", "size", "channels"), DATASETS.values(), ids=DATASETS.keys())
def test_presets_build_models_that_fit(counts, size, channels):
    preset = Glow.preset(counts, size, channels)
    names = [str(i) for i in range(len(counts))]
    with torch.device("meta"):
        model = Glow(class_names=names, image_size=size, channels=channels, **preset.constructor)
    assert isinstance(model, nn.Module) and model.noise_shape == (channels * size * size,)
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("prior"))
    assert own < 6e6  # the prior has two numbers for each latent of each class


def test_presets_regularise_what_is_small():
    small, middle, large = (Glow.preset([n] * 10, 28, 1).constructor for n in (20, 200, 6000))
    assert small["principal"] < middle["principal"] <= large["principal"]
    assert small["augmentation"] > middle["augmentation"] == large["augmentation"] == 0.0
    assert small["log_scale"] < large["log_scale"]


def test_presets_clean_samples_of_many_grey_images_less():
    small, large, colour = (Glow.preset([n] * 10, 28, c).constructor for n, c in ((20, 1), (6000, 1), (6000, 3)))
    assert large["temperature"] > small["temperature"] == colour["temperature"] == TEMPERATURES[0]
    assert large["denoise_steps"] < small["denoise_steps"] == colour["denoise_steps"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": (0, 0, 0, 0)},
        {"checkerboard": -1},
        {"steps": [-1]},
        {"principal": 0},
        {"log_scale": 0},
        {"noise_level": -1},
        {"augmentation": 3},
        {"learning_rate": -1},
        {"dropout": 1.0},
        {"dequantization": "varational"},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "warm"},
    ],
)
def test_arguments_out_of_range_are_input_errors(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        Glow(class_names=["a"], image_size=8, channels=1, **wrong)


def test_levels_down_to_a_single_grey_pixel():
    glow = Glow(
        class_names=["a", "b"], image_size=8, channels=1, steps=[0, 0, 0], width=8, dense_steps=1, dense_width=8
    )
    images = 0.5 * torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    labels = torch.arange(64) % 2
    glow.eval().initialize(images, labels)
    assert glow.log_prob(images, labels).isfinite().all()
    assert torch.allclose(glow.decode(glow.encode(images, labels), labels), images, atol=1e-3)
