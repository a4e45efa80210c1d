import math

import torch
from checks import make, rng_for, toy_batch
from torch.distributions import Normal, kl_divergence

from synthaug.generators.cvae import gaussian_kl


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
