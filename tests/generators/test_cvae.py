import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from synthaug.core import InputError
from synthaug.generators import CVAE
from synthaug.generators.cvae.attributes import shrink_centres
from synthaug.generators.cvae.clearance import Paintings, draw_clear
from synthaug.generators.cvae.ladder import gaussian_kl
from synthaug.generators.cvae.likelihoods import BIN_WIDTH, DiscretizedLogistic, OptimalGaussian, bound_mean
from synthaug.generators.cvae.neighbourhood import CHOICES, draw_between, draw_transferred, store_latents
from synthaug.generators.cvae.sharpness import match_detail, measure_detail, sharpen
from synthaug.generators.layers import ClassEmbedding
from tests.checks import make, rng_for, toy_batch


def test_kl_agrees_with_torch():
    torch.manual_seed(0)
    mu, logvar, prior_mu, prior_logvar = torch.randn(4, 3, 5, dtype=torch.float64)
    q, p = Normal(mu, (logvar / 2).exp()), Normal(prior_mu, (prior_logvar / 2).exp())
    torch.testing.assert_close(gaussian_kl(mu, logvar, prior_mu, prior_logvar), kl_divergence(q, p))


class Still:
    """A source of no noise, for losses that are to be written out by hand."""

    progress, step = 1.0, 1

    def __init__(self, rows, dtype=torch.float64):
        self.rows, self.dtype = rows, dtype

    def normal(self, *shape):
        return torch.zeros(self.rows, *shape, dtype=self.dtype)

    def uniform(self, *shape):
        return torch.full((self.rows, *shape), 0.25, dtype=self.dtype)

    def mean(self, value):
        return value.detach()


def toy_cvae(**arguments):
    torch.manual_seed(0)
    names = [f"class {i}" for i in range(3)]
    tiny = {"width": 8, "latent_dim": 8} | arguments
    return CVAE(class_names=names, image_size=8, channels=1, **tiny)


def test_optimal_sigma_loss_is_the_gaussian_likelihood_at_its_best_sigma():
    """The value and the gradient equal those of log of the mean squared error, written out."""
    generator = make("cvae").double()
    images, labels = toy_batch()
    images = images.double()
    generator.beta = 0.0
    terms = generator.loss(generator.network, images, labels, Still(len(images)))
    (gradient,) = torch.autograd.grad(terms["loss"], generator.network.paint.weight)
    painted, _ = generator.network(images, labels, None)
    expected = 0.5 * ((images - painted.clamp(-1, 1)) ** 2).mean().log() + 0.5 * (1 + math.log(2 * math.pi))
    (expected_gradient,) = torch.autograd.grad(expected, generator.network.paint.weight)
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-4, atol=1e-4)  # and the small latent decay
    torch.testing.assert_close(gradient, expected_gradient)
    density = OptimalGaussian().log_density(images, painted, generator.log_sigma)
    torch.testing.assert_close(-density.mean() / images[0].numel(), expected)


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.1, 1.0])
def test_the_gaussians_density_is_its_mass_in_a_bin(sigma):
    values = torch.arange(256, dtype=torch.float64) * BIN_WIDTH - 1
    painted, log_sigma = torch.full((256, 1, 1, 1), 0.3, dtype=torch.float64), torch.tensor(sigma).double().log()
    densities = OptimalGaussian().log_density(values.view(-1, 1, 1, 1), painted, log_sigma)
    normal = Normal(torch.tensor(0.3, dtype=torch.float64), log_sigma.exp())
    edges = torch.cat([values - BIN_WIDTH / 2, values[-1:] + BIN_WIDTH / 2])
    masses = normal.cdf(edges).diff()
    torch.testing.assert_close(densities.exp() * BIN_WIDTH, masses, rtol=1e-6, atol=1e-12)
    assert densities.isfinite().all() and float((densities.exp() * BIN_WIDTH).max()) <= 1


def test_masses_of_the_discretised_logistic_add_up_to_one_and_integrate_the_density():
    values = torch.arange(256, dtype=torch.float64).view(-1, 1, 1, 1) * BIN_WIDTH - 1
    for raw_mean, raw_scale in ((0.3, 1.0), (-2.0, -4.0), (0.0, 6.0)):
        painted = torch.tensor([raw_mean, raw_scale], dtype=torch.float64).view(1, 2, 1, 1).expand(256, -1, -1, -1)
        log_density = DiscretizedLogistic().log_density(values, painted, torch.zeros(()))
        assert (log_density.exp() * BIN_WIDTH).sum().item() == pytest.approx(1.0, abs=1e-4)
    sharp = torch.tensor([0.0, -30.0]).view(1, 2, 1, 1)
    assert DiscretizedLogistic().log_density(torch.ones(1, 1, 1, 1), sharp, torch.zeros(())).isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"likelihood": "logistic", "spatial_latents": 2},
        {"free_bits": 0.2},
        {"beta": 0.0},
        {"beta": 4.0, "affine": 0.3, "translation": 0.125},
        {"adversarial": 0.05},
        {"adversarial": 0.05, "beta": 0.0, "likelihood": "logistic"},
    ],
    ids=str,
)
def test_every_option_lowers_its_loss_and_moves_all_of_its_own_parameters(arguments):
    generator = toy_cvae(**arguments)
    images, labels = toy_batch()
    objectives = list(generator.objectives())
    assert [o.name for o in objectives] == (["critic", "elbo"] if "adversarial" in arguments else ["elbo"])
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        optimizer = torch.optim.AdamW(objective.module.parameters(), lr=2e-3, betas=objective.betas)
        history = []
        for step in range(40):
            terms = objective.loss(objective.module, images, labels, rng_for(step, stream=index))
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            assert all(p.grad is not None for p in objective.module.parameters())  # what DDP asks for
            optimizer.step()
            history.append(float(terms["loss"].detach()))
        if objective.name == "critic":  # every eighth step carries the penalties
            assert history[-1] < math.log(2)
        else:
            assert sum(history[-8:]) < sum(history[:8])
    generator.memorize([(images, labels)])
    if arguments.get("beta") == 0.0:
        with pytest.raises(InputError, match="knows no likelihood"):
            generator.elbo(images, labels)
    else:
        assert generator.elbo(images, labels).isfinite().all()
    assert generator.sample(torch.tensor([0, 1, 2])).isfinite().all()


def test_free_bits_cost_nothing_below_their_level():
    generator = toy_cvae(free_bits=0.5)
    divergence = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    cost = generator._cost(divergence, Still(2, torch.float32))
    cost.backward()
    assert cost.item() == pytest.approx(0.5 + 3.0)
    assert torch.equal(divergence.grad, torch.tensor([[0.0, 0.5], [0.0, 0.5]]))


def test_augmentation_is_told_to_the_network_and_not_sampled():
    generator = toy_cvae(translation=0.25)
    images, labels = toy_batch()
    changed, condition = generator._augment(images, rng_for())
    still = (condition == 0).all(1)
    assert 4 <= still.sum() <= 20
    assert torch.equal(changed[still], images[still])
    assert any(not torch.equal(a, b) for a, b in zip(changed[~still], images[~still], strict=True))
    generator.network.condition.weight.data.normal_()
    noise = torch.randn(2, *generator.noise_shape)
    before = generator.sample(labels[:2], noise=noise)
    generator.network.condition.weight.data.normal_()
    assert torch.equal(before, generator.sample(labels[:2], noise=noise))


def test_a_deterministic_autoencoder_draws_no_posterior_noise():
    generator = toy_cvae(beta=0.0, sampling="neighbours")
    images, labels = toy_batch()
    first = generator.loss(generator.network, images, labels, rng_for(0))["loss"]
    assert torch.equal(first, generator.loss(generator.network, images, labels, rng_for(1))["loss"])
    generator.memorize([(images, labels)])
    assert (generator.latents["sigma"] == 0).all()


def test_the_prior_of_a_deterministic_autoencoder_lies_where_its_latents_are():
    generator, (images, labels) = toy_cvae(beta=0.0, sampling="prior"), toy_batch(count=48)
    optimizer = torch.optim.Adam(generator.network.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.zero_grad()
        generator.loss(generator.network, images, labels, rng_for(step, count=48))["loss"].backward()
        optimizer.step()
    context = generator.network.embed(labels)
    prior_mu, prior_logvar, mu, _ = generator.network.top_moments(context, generator.network.encode(images, context))
    distance = (mu - prior_mu) / (0.5 * prior_logvar).exp()
    distance = distance.detach()
    assert 0.5 < float(distance.square().mean().sqrt()) < 2 and float(distance.mean().abs()) < 0.5
    assert (generator.latent_kl(images, labels) >= 0).all()
    centres = torch.stack([images[labels == k].mean(0) for k in range(3)])
    wanted = torch.arange(3).repeat(20)
    drawn = generator.sample(wanted, rng=torch.Generator().manual_seed(0))
    nearest = (drawn[:, None] - centres).flatten(2).square().sum(2).argmin(1)
    assert (nearest == wanted).float().mean() > 0.9


def test_free_bits_of_parts_are_those_of_the_whole_batch():
    generator = toy_cvae(free_bits=0.1)
    divergence = torch.tensor([[0.06, 0.3], [0.06, 0.0], [0.16, 0.0], [0.16, 0.0]], requires_grad=True)
    whole = generator._cost(divergence, Still(4))
    (expected,) = torch.autograd.grad(whole, divergence)
    rng = Still(2)
    rng.mean = lambda value: divergence.detach().mean(0)  # what all processes agree on
    parts = sum(generator._cost(part, rng) / 2 for part in divergence.chunk(2))
    (gradient,) = torch.autograd.grad(parts, divergence)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(gradient, expected)
    assert (expected[:, 0] > 0).all() and (expected[:, 1] == 0).all()  # 0.11 and 0.075 nats on average


def test_latents_encode_decode_and_their_divergences():
    generator = toy_cvae()
    images, labels = toy_batch(count=6)
    latents = generator.encode(images, labels)
    assert latents.shape == (6, 8) and generator.latent_kl(images, labels).shape == (6, 8)
    torch.testing.assert_close(generator.decode(latents, labels), generator.reconstruct(images, labels))


def test_transfer_takes_another_class_and_moves_it():
    mu = torch.cat([torch.randn(5, 8), torch.randn(3, 8) + 100.0])
    labels = torch.tensor([0] * 5 + [2] * 3)
    stored = store_latents(mu, torch.zeros_like(mu), labels, 3)
    wanted = torch.tensor([0, 2] * 50)
    drawn = draw_transferred(stored, torch.randn(100, CHOICES), torch.randn(100, 8), wanted, temperature=1.0)
    assert drawn[wanted == 0].abs().max() < 20 and (drawn[wanted == 2] - 100).abs().max() < 20
    moved = mu[5:] - stored["centres"][2] + stored["centres"][0]
    assert torch.cdist(drawn[wanted == 0], moved).min(1).values.max() < 1e-3  # rows of class 2, moved to class 0
    alone = store_latents(mu[:5], torch.zeros(5, 8), labels[:5], 3)
    assert draw_transferred(
        alone, torch.randn(4, CHOICES), torch.randn(4, 8), torch.zeros(4, dtype=int), temperature=1.0
    ).shape == (4, 8)


def test_wrong_words_name_the_right_ones():
    with pytest.raises(InputError, match="neighbours, prior, transfer"):
        toy_cvae(sampling="neighbors")
    with pytest.raises(InputError, match="gaussian, logistic"):
        toy_cvae(likelihood="normal")


def test_elbo_is_below_the_importance_weighted_bound():
    generator = make("cvae").eval()
    images, labels = toy_batch(count=6)
    generator.loss(generator.network, images, labels, rng_for(count=6))  # sets sigma
    rng = torch.Generator().manual_seed(0)
    draws = torch.stack([generator.elbo(images, labels, rng=rng) for _ in range(64)])
    bound = torch.logsumexp(draws, 0) - math.log(len(draws))
    assert (draws.mean(0) <= bound + 1e-4).all()


def test_temperature_zero_gives_the_class_mean_image():
    generator = make("cvae")
    labels = torch.tensor([1, 1])
    images = generator.sample(labels, temperature=0.0)
    assert torch.equal(images[0], images[1])


def test_neighbours_lie_between_images_of_their_own_class():
    torch.manual_seed(0)
    mu = torch.randn(8, 8) + torch.tensor([0.0] * 5 + [100.0] * 3)[:, None]  # five rows of class 0, three of class 2
    centres = torch.stack([mu[:5].mean(0), torch.zeros(8), mu[5:].mean(0)])
    stored = {"mu": mu, "sigma": torch.zeros(8, 8), "counts": torch.tensor([5, 0, 3]), "centres": centres}
    labels = torch.tensor([0, 2] * 200)
    draws = torch.randn(400, CHOICES), torch.randn(400, 8)
    drawn = draw_between(stored, *draws, labels, spread=0.5, expansion=1.0, temperature=1.0)
    assert (drawn[labels == 0].abs().max() < 20) and ((drawn[labels == 2] - 100).abs().max() < 20)
    nearest = torch.cdist(drawn, mu).min(1).values
    assert (nearest > 1e-3).all()  # nothing is a copy


def test_kin_share_their_shapes_and_keep_their_places():
    """A class of one image draws what its kin of many images have, moved to where it is itself."""
    torch.manual_seed(0)
    mu = torch.cat([torch.randn(40, 4), torch.randn(40, 4) + 50, torch.full((1, 4), 100.0)])
    labels = torch.tensor([0] * 40 + [1] * 40 + [2])
    stored = store_latents(mu, torch.zeros(81, 4), labels, 3, [[0, 0], [1, 0], [0, 1]])
    assert stored["counts"].tolist() == [40, 40, 1]
    wanted = torch.tensor([2, 0, 1] * 60)
    draws = torch.randn(180, CHOICES), torch.randn(180, 4)
    how = {"spread": 0.5, "expansion": 1.0, "temperature": 1.0}
    drawn = draw_between(stored, *draws, wanted, **how, kin=True)
    rare = drawn[wanted == 2]
    assert (rare - 100).abs().max() < 20 and rare.std(0).min() > 0.3  # of one image alone: no spread at all
    shifted = torch.cat([mu[:40] - stored["centres"][0] + 100, mu[80:]])
    assert torch.cdist(rare, shifted).min(1).values.max() < 3
    assert drawn[wanted == 0].abs().max() < 20 and (drawn[wanted == 1] - 50).abs().max() < 20
    own = draw_between(stored, *draws, wanted, **how)
    torch.testing.assert_close(own[wanted == 1], drawn[wanted == 1], atol=1e-3, rtol=0)  # class 1 has no kin
    assert (own[wanted == 2] == 100).all()


def test_centres_of_few_images_lean_on_their_attributes():
    """Ten digits in two colours; of the second colour three images a digit."""
    torch.manual_seed(0)
    attributes = [[digit, colour] for digit in range(10) for colour in range(2)]
    digits, colours = 5 * torch.randn(10, 16), torch.stack([torch.zeros(16), torch.randn(16)])
    truth = torch.stack([digits[digit] + colours[colour] for digit, colour in attributes])
    labels = torch.cat([torch.full((200 if colour == 0 else 3,), k) for k, (_, colour) in enumerate(attributes)])

    def measure(truth):
        mu = truth[labels] + torch.randn(len(labels), 16)
        stored = store_latents(mu, torch.ones_like(mu), labels, 20, attributes)
        rare = torch.arange(20) % 2 == 1
        return [(stored[name] - truth)[rare].square().mean().sqrt().item() for name in ("centres", "kin_centres")]

    plain, shrunk = measure(truth)
    assert plain > 0.5 and shrunk < 0.6 * plain
    plain, shrunk = measure(truth + 4 * torch.randn(20, 16))  # colours that mean another thing for each digit
    assert shrunk < 1.1 * plain


def test_centres_without_anything_to_lean_on_stay():
    points, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    centres = torch.stack([points[labels == label].mean(0) for label in range(3)])
    found = shrink_centres(points, labels, torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
    torch.testing.assert_close(found[:3], centres)  # three centres, three effects: nothing is left over
    torch.testing.assert_close(found[3], centres[1] + centres[2] - centres[0])


def test_a_group_begins_as_the_sum_of_its_attributes():
    embedding = ClassEmbedding(3, 8, [[0, 0], [0, 1], [1, 1]])
    digit, colour = (part.weight for part in embedding.parts)
    torch.testing.assert_close(
        embedding(torch.tensor([2, 1])), torch.stack([digit[1] + colour[1], digit[0] + colour[1]])
    )
    plain = ClassEmbedding(3, 8)
    assert set(plain.state_dict()) == {"weight"} and torch.equal(plain(torch.arange(3)), plain.weight)
    with pytest.raises(InputError, match="attributes has 1 rows; give one for each of the 3 classes"):
        toy_cvae(attributes=[[0, 0]])
    grouped = toy_cvae(attributes=[[0, 0], [0, 1], [1, 0]])
    assert "kin" in grouped.open_choices()["sampling"] and "kin" not in toy_cvae().open_choices()["sampling"]


def test_dark_images_do_not_kill_the_decoder():
    """Nine tenths black: behind a saturated tangent all gradients vanished, and with them the latents."""
    torch.manual_seed(0)
    images = torch.full((32, 3, 16, 16), -1.0)
    places = torch.randint(2, 12, (32, 2)).tolist()
    for image, (row, column) in zip(images, places, strict=True):
        image[0, row : row + 3, column : column + 3] = 1.0
    images, labels = images.requires_grad_(False), torch.zeros(32, dtype=torch.long)
    generator = CVAE(class_names=["a"], image_size=16, channels=3, width=8, latent_dim=8)
    with torch.no_grad():
        generator.network.paint.bias.fill_(-6.0)  # as far out as fast first steps drive it
    loss = generator.loss(generator.network, images, labels, rng_for(count=32))["loss"]
    (gradient,) = torch.autograd.grad(loss, generator.network.paint.bias)
    assert gradient[0] < -1e-3  # brighter red, wanted by the spots, is felt
    assert generator.sample(labels).min() >= -1 and generator.sample(labels).max() <= 1


def test_the_bound_lets_nothing_further_out():
    values = torch.tensor([-3.0, -3.0, 0.5, 3.0, 3.0], requires_grad=True)
    (bound_mean(values) * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])).sum().backward()
    assert bound_mean(values).tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]
    assert values.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0]


def stored_points(rows=30):
    torch.manual_seed(0)
    mu = torch.randint(0, 256, (2 * rows, 4)) / 127.5 - 1  # a byte each, as paintings are kept
    return store_latents(mu, torch.zeros_like(mu), torch.arange(2 * rows) % 2, 2)


def paint_points(latents, labels):
    return latents[:, :, None, None]


def test_the_first_draw_that_keeps_its_distance_is_taken():
    paintings = Paintings(stored_points(), paint_points)
    labels = torch.tensor([0, 1] * 50)
    tries = [torch.randn(100, 4, 1, 1) for _ in range(3)]
    tries[1][0], tries[2][0] = 50.0, 60.0
    tries[0][1] = tries[1][1] = tries[2][1] = paintings.of(1)[4, :, None, None] / 127.5 - 1
    far = torch.stack([paintings.measure(part, labels) for part in tries])
    least = float(far[0].median())
    drawn = draw_clear(lambda number, rows: tries[number][rows], paintings, labels, tries=3, least=least)
    for row in range(100):
        clear = [number for number in range(3) if far[number, row] >= least]
        chosen = clear[0] if clear else int(far[:, row].argmax())
        assert torch.equal(drawn[row], tries[chosen][row])
    asked = []
    draw_clear(lambda number, rows: asked.append(len(rows)) or tries[number][rows], paintings, labels, tries=3, least=0)
    assert asked == [100]  # nobody draws again for nothing


def test_distances_are_those_to_the_paintings_of_the_class():
    stored = stored_points()
    paintings = Paintings(stored, paint_points)
    own = [stored["mu"][:30], stored["mu"][30:]]
    images, labels = torch.randn(20, 4, 1, 1), torch.tensor([0, 1] * 10)
    expected = [
        torch.cdist(image.flatten()[None], own[label]).min() for image, label in zip(images, labels, strict=True)
    ]
    torch.testing.assert_close(paintings.measure(images, labels), torch.stack(expected))
    gaps = [torch.cdist(points, points).fill_diagonal_(torch.inf).min(1).values for points in own]
    torch.testing.assert_close(paintings.spacing(), torch.cat(gaps).median(), atol=1e-3, rtol=0)


def test_a_class_of_one_image_is_drawn_once():
    stored = store_latents(torch.randn(3, 4), torch.zeros(3, 4), torch.tensor([0, 0, 1]), 2)
    paintings = Paintings(stored, paint_points)
    images = torch.zeros(3, 4, 1, 1)
    assert torch.isinf(paintings.measure(images, torch.tensor([0, 1, 0]))).tolist() == [False, True, False]
    alone = store_latents(torch.randn(2, 4), torch.zeros(2, 4), torch.tensor([0, 1]), 2)
    assert Paintings(alone, paint_points).spacing() == 0


def test_kin_are_kept_clear_of_too():
    torch.manual_seed(0)
    mu, labels = torch.cat([0.1 * torch.randn(40, 4) - 0.5, torch.full((2, 4), 0.5)]), torch.tensor([0] * 40 + [1] * 2)
    stored = store_latents(mu, torch.zeros(42, 4), labels, 2, [[0, 0], [0, 1]])
    assert len(Paintings(stored, paint_points).of(1)) == 2
    kin = Paintings(stored, paint_points, kin=True)
    assert len(kin.of(1)) == 42 and kin.of(1).min() > 127 > kin.of(0)[:40].max()  # green ones, where red ones are


def test_samples_keep_clear_of_the_training_images():
    generator = toy_cvae(sampling="neighbours", detail=0.0).eval()
    images, labels = toy_batch()
    generator.memorize([(images, labels)])
    spacing = float(generator.latents["spacing"])
    assert spacing > 0
    wanted, noise = torch.tensor([0, 1, 2] * 20), torch.randn(60, *generator.noise_shape)
    distances = []
    with torch.no_grad():
        for clearance in (0.0, 0.4, 1e9):
            generator.clearance = clearance
            drawn = generator.decode_noise(noise, wanted, 1.0)
            assert torch.equal(drawn, generator.decode_noise(noise, wanted, 1.0))
            distances.append(Paintings(generator.latents, generator.decode).measure(drawn, wanted))
    every, clear, farthest = distances
    close = 1e-3  # rows decoded with others
    assert (farthest >= clear - close).all() and (clear >= every - close).all() and (farthest > every + close).any()
    assert ((clear >= 0.4 * spacing - close) | (clear - farthest).abs().le(close)).all()
    generator.clearance = 0.4
    before = generator.sample(wanted, noise=noise)
    generator.latents = {name: tensor for name, tensor in generator.latents.items() if name != "spacing"}
    torch.testing.assert_close(generator.sample(wanted, noise=noise), before)  # measured when asked for


def test_detail_is_what_a_blur_takes_away():
    flat = torch.full((1, 1, 6, 6), 0.5)
    spot = flat.clone()
    spot[0, 0, 3, 3] = 1.0
    # the spot misses 8/9 of its height, each of the nine pixels' means a ninth
    expected = ((0.5 * 8 / 9) ** 2 + 8 * (0.5 / 9) ** 2) / 36
    torch.testing.assert_close(measure_detail(torch.cat([flat, spot])), torch.tensor([0.0, expected]))
    assert torch.equal(sharpen(spot, 0.0), spot) and sharpen(spot, 0.5)[0, 0, 3, 3] == 1.0
    torch.testing.assert_close(sharpen(spot, 0.5)[0, 0, 3, 2], torch.tensor(0.5 - 0.5 * 0.5 / 9))


def test_sharpening_reaches_the_detail_asked_for():
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(40, 1, 6, 6) - 0.5, size=24, mode="bilinear")
    known = float(measure_detail(sharpen(images, 0.37)).mean())
    assert match_detail(images, known) == pytest.approx(0.37, abs=1e-3)
    assert match_detail(images, 0.5 * float(measure_detail(images).mean())) == 0.0  # sharp enough as they are
    assert match_detail(images, 1e3) == pytest.approx(1.0, abs=1e-3)  # there is a limit


def test_samples_are_as_sharp_as_the_training_images():
    generator = toy_cvae(sampling="neighbours").eval()
    torch.manual_seed(1)
    images, labels = torch.rand(60, 1, 8, 8) * 2 - 1, torch.arange(60) % 3
    generator.memorize([(images, labels)])
    amount = float(generator.latents["sharpening"])
    assert amount == pytest.approx(1.0, abs=1e-3)  # an untrained decoder paints no detail at all
    noise, wanted = torch.randn(9, *generator.noise_shape), torch.arange(9) % 3
    sharp = generator.sample(wanted, noise=noise)
    del generator.latents["sharpening"]
    torch.testing.assert_close(sharp, sharpen(generator.sample(wanted, noise=noise), amount))
    generator.detail = 0.0
    generator.memorize([(images, labels)])
    assert "sharpening" not in generator.latents
    generator.detail = 0.5 * float(measure_detail(generator.sample(wanted)).mean() / measure_detail(images).mean())
    generator.memorize([(images, labels)])
    assert generator.latents["sharpening"] == 0.0


def test_sampling_from_the_prior_needs_no_latents():
    generator = make("cvae")
    images, labels = toy_batch()
    noise = torch.randn(4, *generator.noise_shape)
    before = generator.sample(torch.tensor([0, 1, 2, 0]), noise=noise)
    generator.memorize([(images[:10], labels[:10]), (images[10:], labels[10:])])
    near = generator.sample(torch.tensor([0, 1, 2, 0]), noise=noise)
    generator.sampling = "prior"
    assert torch.equal(before, generator.sample(torch.tensor([0, 1, 2, 0]), noise=noise))
    assert not torch.equal(before, near)


def test_presets_regularise_few_images_and_leave_tiny_ones_alone():
    few, some, many = (CVAE.preset([count] * 10, 28, 1).constructor for count in (20, 200, 2_000))
    assert few["affine"] > some["affine"] > many["affine"] == 0.0
    tiny = CVAE.preset([20] * 10, 8, 1).constructor
    assert tiny["affine"] == tiny["translation"] == 0.0
    for counts in ([5, 5], [6_000, 60], [1]):
        preset = CVAE.preset(counts, 64, 4)
        CVAE(class_names=[str(k) for k in counts], image_size=64, channels=4, **preset.constructor)
