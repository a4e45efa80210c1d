import math

import torch
from checks import make, rng_for, toy_batch
from torch.distributions import Normal, kl_divergence

from synthaug.generators.cvae import CANDIDATES, gaussian_kl


def test_kl_agrees_with_torch():
    torch.manual_seed(0)
    mu, logvar, prior_mu, prior_logvar = torch.randn(4, 3, 5, dtype=torch.float64)
    q, p = Normal(mu, (logvar / 2).exp()), Normal(prior_mu, (prior_logvar / 2).exp())
    torch.testing.assert_close(gaussian_kl(mu, logvar, prior_mu, prior_logvar), kl_divergence(q, p))


def test_optimal_sigma_loss_is_the_gaussian_likelihood_at_its_best_sigma():
    """The value and the gradient equal those of log of the mean squared error, written out."""
    generator = make("cvae").double()
    images, labels = toy_batch()
    images = images.double()

    class Rng:
        progress = 1.0

        def normal(self, *shape):
            return torch.zeros(len(images), *shape, dtype=torch.float64)

        def mean(self, value):
            return value.detach()

    generator.beta = 0.0
    terms = generator.loss(generator.network, images, labels, Rng())
    (gradient,) = torch.autograd.grad(terms["loss"], generator.network.paint.weight)
    means, _ = generator.network(images, labels, generator._split(Rng().normal(generator._noise_size)))
    expected = 0.5 * ((images - means) ** 2).mean().log() + 0.5
    (expected_gradient,) = torch.autograd.grad(expected, generator.network.paint.weight)
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(gradient, expected_gradient)


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
    generator = make("cvae")
    torch.manual_seed(0)
    mu = torch.randn(8, 8) + torch.tensor([0.0] * 5 + [100.0] * 3)[:, None]  # five rows of class 0, three of class 2
    centres = torch.stack([mu[:5].mean(0), torch.zeros(8), mu[5:].mean(0)])
    generator.latents = {"mu": mu, "sigma": torch.zeros(8, 8), "counts": torch.tensor([5, 0, 3]), "centres": centres}
    labels = torch.tensor([0, 2] * 200)
    drawn = generator._draw_neighbours(torch.randn(400, 2 + CANDIDATES), torch.randn(400, 8), labels, 1.0)
    assert (drawn[labels == 0].abs().max() < 20) and ((drawn[labels == 2] - 100).abs().max() < 20)
    nearest = torch.cdist(drawn, mu).min(1).values
    assert (nearest > 1e-3).all()  # nothing is a copy


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
