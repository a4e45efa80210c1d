"""Conditional variational autoencoder with a hierarchy of top-down latents and an optimal-variance likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.errors import InputError
from synthaug.generators.base import ConditionalGenerator, Objective, Preset
from synthaug.generators.layers import Canvas, ResidualBlock
from synthaug.noise import BatchRandom

__all__ = ["CVAE", "gaussian_kl"]

CANDIDATES = 4
"""Images drawn at random from which "neighbours" takes the nearest."""


def gaussian_kl(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    r"""Return KL(q || p) of diagonal Gaussians, elementwise, in nats.

    .. math:: \tfrac12 \left(\log\sigma_p^2 - \log\sigma_q^2
              + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{\sigma_p^2} - 1\right)

    References:
        Kingma, Welling: Auto-encoding variational Bayes (2014), appendix B, with a general prior.
    """
    return 0.5 * (prior_logvar - logvar + (logvar.exp() + (mu - prior_mu) ** 2) / prior_logvar.exp() - 1)


class LatentGroup(nn.Module):
    """One group of latents: prior p(z | h), posterior q(z | h, e), and how z enters h.

    Args:
        width: Channels of the top-down state h and of the encoder features e.
        latents: Channels of z.
    """

    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        self.prior = nn.Conv2d(width, 2 * latents, 1)
        self.posterior = nn.Conv2d(2 * width, 2 * latents, 1)
        self.enter = nn.Conv2d(latents, width, 1)
        for parameter in self.prior.parameters():
            nn.init.zeros_(parameter)

    def moments(self, h: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return prior mean and log-variance, then those of the posterior (of the prior, without features)."""
        prior_mu, prior_logvar = self.prior(h).chunk(2, dim=1)
        prior_logvar = 4 * torch.tanh(prior_logvar / 4)
        if features is None:
            return prior_mu, prior_logvar, prior_mu, prior_logvar
        mu, logvar = self.posterior(torch.cat([h, features], dim=1)).chunk(2, dim=1)
        return prior_mu, prior_logvar, prior_mu + mu, prior_logvar + 6 * torch.tanh(logvar / 6)


class Network(nn.Module):
    """Bottom-up encoder and top-down decoder with the label in both and in every prior.

    The encoder halves the canvas down to its base; the decoder starts from a 1x1 group of latents, then
    adds spatial groups at the base and above, and paints the mean image.
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        channels: int,
        num_classes: int,
        width: int,
        latent_dim: int,
        spatial_latents: int,
        depth: int,
    ) -> None:
        super().__init__()
        context = 2 * width
        widths = [width * min(2**level, 4) for level in range(canvas.levels)]  # fine to coarse
        self.canvas, self.latent_dim, self.spatial_latents = canvas, latent_dim, spatial_latents
        self.embedding = nn.Embedding(num_classes, context)

        self.stem = nn.Conv2d(channels, widths[0], 4, stride=2, padding=1)
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.ups, self.groups = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, w in enumerate(widths):
            self.encoder.append(nn.ModuleList(ResidualBlock(w, context) for _ in range(depth)))
            self.decoder.append(nn.ModuleList(ResidualBlock(w, context) for _ in range(depth)))
            self.groups.append(LatentGroup(w, spatial_latents) if spatial_latents else nn.Identity())
            if level + 1 < len(widths):
                self.downs.append(nn.Conv2d(w, widths[level + 1], 4, stride=2, padding=1))
                self.ups.append(nn.ConvTranspose2d(widths[level + 1], w, 4, stride=2, padding=1))
        flat = widths[-1] * canvas.base**2
        self.top_posterior = nn.Linear(flat + context, 2 * latent_dim)
        self.top_prior = nn.Linear(context, 2 * latent_dim)
        nn.init.zeros_(self.top_prior.weight)
        nn.init.zeros_(self.top_prior.bias)
        self.top_enter = nn.Linear(latent_dim + context, flat)
        self.paint = nn.ConvTranspose2d(widths[0], channels, 4, stride=2, padding=1)
        self.widths = widths

    def noise_sizes(self) -> list[tuple[int, ...]]:
        """Return the shape of each group's noise, in top-down order."""
        shapes: list[tuple[int, ...]] = [(self.latent_dim,)]
        if self.spatial_latents:
            for level in reversed(range(len(self.widths))):
                size = self.canvas.base * 2 ** (len(self.widths) - 1 - level)
                shapes.append((self.spatial_latents, size, size))
        return shapes

    def encode(self, images: Tensor, context: Tensor) -> list[Tensor]:
        """Return the features of each level, fine to coarse."""
        h = self.stem(self.canvas.pad(images))
        features = []
        for level, blocks in enumerate(self.encoder):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, context)
            features.append(h)
            if level < len(self.downs):
                h = self.downs[level](F.silu(h))
        return features

    def top_moments(self, context: Tensor, features: list[Tensor] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return prior mean and log-variance of the top group, then those of its posterior (or prior again)."""
        prior_mu, prior_logvar = self.top_prior(context).chunk(2, dim=1)
        if features is None:
            return prior_mu, prior_logvar, prior_mu, prior_logvar
        flat = F.silu(features[-1]).flatten(1)
        shift, logvar = self.top_posterior(torch.cat([flat, context], dim=1)).chunk(2, dim=1)
        return prior_mu, prior_logvar, prior_mu + shift, prior_logvar + 6 * torch.tanh(logvar / 6)

    def forward(
        self,
        images: Tensor | None,
        labels: Tensor,
        noise: Sequence[Tensor],
        temperature: float = 1.0,
        top: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Reconstruct `images` (or sample, when None).

        Args:
            images: (N, C, H, W) in [-1, 1], or None to draw every group from its prior.
            labels: (N,) int64.
            noise: Standard normal noise of each group, in the order of `noise_sizes`.
            temperature: Scale of the noise.
            top: (N, latent_dim) values of the top group to use instead of drawing it.

        Returns:
            The mean image (N, C, H, W) in [-1, 1] and, per group, the KL terms (N,) in nats.
        """
        context = self.embedding(labels)
        features = None if images is None else self.encode(images, context)
        prior_mu, prior_logvar, mu, logvar = self.top_moments(context, features)
        divergences = [gaussian_kl(mu, logvar, prior_mu, prior_logvar).flatten(1).sum(1)]
        z = mu + temperature * (0.5 * logvar).exp() * noise[0] if top is None else top
        h = self.top_enter(torch.cat([z, context], dim=1))
        h = h.view(len(labels), self.widths[-1], self.canvas.base, self.canvas.base)

        for level in reversed(range(len(self.widths))):
            if self.spatial_latents:
                group = cast(LatentGroup, self.groups[level])
                moments = group.moments(F.silu(h), None if features is None else F.silu(features[level]))
                prior_mu, prior_logvar, mu, logvar = moments
                divergences.append(gaussian_kl(mu, logvar, prior_mu, prior_logvar).flatten(1).sum(1))
                z = mu + temperature * (0.5 * logvar).exp() * noise[len(divergences) - 1]
                h = h + group.enter(z)
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(h, context)
            if level:
                h = self.ups[level - 1](F.silu(h))
        return self.canvas.crop(torch.tanh(self.paint(F.silu(h)))), divergences


class CVAE(ConditionalGenerator):
    """Conditional VAE: label in encoder, prior and decoder; top-down latents; optimal-variance Gaussian.

    Args:
        class_names: Names of the classes.
        image_size: Size of the images, 8 to 64.
        channels: Channels of the images, 1 to 4.
        width: Channels at half resolution; doubled at each coarser level, up to four times.
        latent_dim: Size of the top group of latents (one vector an image).
        spatial_latents: Channels of each spatial group; 0 leaves only the top group.
        depth: Residual blocks per level, in the encoder and in the decoder.
        beta: Weight of the KL term after its warm-up.
        sampling: "neighbours" draws the top latents between two training images of the class, "prior" from
            the prior; without stored latents the prior is used.
        spread: In "neighbours", how far the draw may go from the first image towards the second, as an
            angle in units of a right angle, in (0, 1]; at 0.5 both count alike.
        learning_rate: Peak learning rate.

    References:
        Kingma, Welling: Auto-encoding variational Bayes (2014), eq. 3.
        Sonderby et al.: Ladder variational autoencoders (2016), eq. 8 (top-down inference).
        Rybkin, Daniilidis, Levine: Simple and effective VAE training with calibrated decoders (2021), eq. 6.
    """

    family = "cvae"

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        image_size: int,
        channels: int,
        width: int = 32,
        latent_dim: int = 32,
        spatial_latents: int = 0,
        depth: int = 1,
        beta: float = 1.0,
        sampling: str = "neighbours",
        spread: float = 0.5,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        if sampling not in ("neighbours", "prior"):
            raise InputError(f"sampling is {sampling!r}; choose neighbours or prior")
        counts = (("width", width, 1), ("latent_dim", latent_dim, 1), ("depth", depth, 0))
        for name, value, least in (*counts, ("spatial_latents", spatial_latents, 0)):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        if not 0 < spread <= 1:
            raise InputError(f"spread is {spread}; it must lie in (0, 1], where 0.5 counts both neighbours alike")
        self.beta, self.learning_rate, self.sampling, self.spread = beta, learning_rate, sampling, spread
        self.network = Network(
            Canvas(image_size),
            channels=channels,
            num_classes=self.num_classes,
            width=width,
            latent_dim=latent_dim,
            spatial_latents=spatial_latents,
            depth=depth,
        )
        self.register_buffer("log_sigma", torch.zeros(()))
        self.log_sigma: Tensor

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Numbers that choose neighbours, then all groups' noise, as one flat vector."""
        return (2 + CANDIDATES + self._noise_size,)

    @property
    def _noise_size(self) -> int:
        return sum(math.prod(shape) for shape in self.network.noise_sizes())

    def _split(self, noise: Tensor) -> list[Tensor]:
        shapes = self.network.noise_sizes()
        parts = torch.split(noise, [math.prod(shape) for shape in shapes], dim=1)
        return [part.reshape(len(noise), *shape) for part, shape in zip(parts, shapes, strict=True)]

    def objectives(self) -> Sequence[Objective]:
        """Return the negative evidence lower bound."""
        return [
            Objective(
                name="elbo",
                module=self.network,
                loss=self.loss,
                learning_rate=self.learning_rate,
                betas=(0.9, 0.99),
                weight_decay=0.01,
                clip_norm=1.0,
            )
        ]

    def loss(self, module: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        r"""Return the negative ELBO per pixel with the likelihood's variance at its optimum.

        .. math:: \log\sigma^* = \tfrac12 \log \overline{(x - \hat x)^2}, \qquad
                  L = \log\sigma^* + \tfrac12 + \beta\,\mathrm{KL} / D

        The mean under the logarithm is over all processes; its gradient is taken through the ratio of the
        local error to that mean, which averages to the gradient of the global loss.
        """
        noise = self._split(rng.normal(self._noise_size))
        means, divergences = module(images, labels, noise)
        error = ((images - means) ** 2).mean()
        overall = rng.mean(error).clamp_min(1e-6)
        reconstruction = 0.5 * (error / overall - 1) + 0.5 * overall.log() + 0.5
        divergence = torch.stack(divergences).sum(0).mean()
        warmup = min(1.0, 0.2 + rng.progress / 0.1)
        loss = reconstruction + warmup * self.beta * divergence / images[0].numel()
        self.log_sigma.copy_(0.5 * overall.log())
        return {"loss": loss, "sigma": overall.sqrt(), "kl": divergence.detach()}

    @torch.no_grad()
    def elbo(self, images: Tensor, labels: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Return a one-sample evidence lower bound of each image, (N,) in nats (density on [-1, 1]).

        Args:
            images: (N, C, H, W) float in [-1, 1].
            labels: (N,) int64.
            rng: Source of the posterior noise; torch's global one when None.
        """
        noise = torch.randn((len(images), self._noise_size), generator=rng).to(images.device)
        means, divergences = self.network(images, labels, self._split(noise))
        squared = ((images - means) ** 2).flatten(1).sum(1)
        pixels = images[0].numel()
        log_likelihood = -0.5 * squared / (2 * self.log_sigma).exp() - pixels * (
            self.log_sigma + 0.5 * math.log(2 * math.pi)
        )
        return cast(Tensor, log_likelihood - torch.stack(divergences).sum(0))

    @torch.no_grad()
    def memorize(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Keep the top posterior of every training image, sorted by class, for "neighbours"."""
        moments, seen = [], []
        for images, labels in batches:
            context = self.network.embedding(labels)
            _, _, mu, logvar = self.network.top_moments(context, self.network.encode(images, context))
            moments.append(torch.stack([mu, (0.5 * logvar).exp()]))
            seen.append(labels)
        order = torch.cat(seen).argsort(stable=True)
        targets = torch.cat(seen)[order]
        mu, sigma = torch.cat(moments, dim=1)[:, order]
        counts = torch.bincount(targets, minlength=self.num_classes)
        sums = torch.zeros(self.num_classes, mu.shape[1], device=mu.device).index_add(0, targets, mu)
        centres = sums / counts.clamp_min(1)[:, None]
        self.latents = {"mu": mu, "sigma": sigma, "counts": counts, "centres": centres}

    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Draw the top group near training images or from the prior, the others from their priors."""
        choices, noise = noise[:, : 2 + CANDIDATES], noise[:, 2 + CANDIDATES :]
        parts = self._split(noise)
        top = self._draw_neighbours(choices, parts[0], labels, temperature) if self.latents else None
        if self.sampling == "prior":
            top = None
        means, _ = self.network(None, labels, parts, temperature, top)
        return torch.as_tensor(means)

    def _draw_neighbours(self, choices: Tensor, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        r"""Draw between two training images i, j of the class, keeping the spread of the class.

        .. math:: z = m_y + \cos\theta\,(\mu_i - m_y) + \sin\theta\,(\mu_j - m_y) + T \sigma_i \epsilon,
                  \qquad \theta \sim U(0.7, 1) \cdot \texttt{spread} \cdot \pi / 2

        i is any image of the class and j the nearest to it of a few drawn at random, so that what lies
        between them is an image too. The weights' squares add up to one: draws keep the covariance that a
        straight line would shrink. theta stays away from zero, where a draw would be a copy of i.

        Args:
            choices: (N, 2 + CANDIDATES) standard normal: i, the candidates for j, theta.
            noise: (N, latent_dim) standard normal.
            labels: (N,) int64.
            temperature: T.

        References:
            Chadebec et al.: Data augmentation in high dimensional low sample size setting using a geometry-based
            variational autoencoder (2022), section 3 (sampling near the training posteriors).
        """
        stored = {name: tensor.to(noise.device) for name, tensor in self.latents.items()}
        mu, counts = stored["mu"], stored["counts"]
        starts = counts.cumsum(0) - counts
        uniform = torch.special.ndtr(choices.double()).clamp(0, 1 - 1e-12)
        rows = starts[labels, None] + (uniform[:, :-1] * counts[labels, None]).long()
        first, candidates = rows[:, 0], rows[:, 1:]
        distances = (mu[first, None] - mu[candidates]).square().sum(2)
        distances = distances.masked_fill(candidates == first[:, None], torch.inf)
        second = candidates.gather(1, distances.argmin(1, keepdim=True))[:, 0]
        theta = ((0.7 + 0.3 * uniform[:, -1:]) * self.spread * (math.pi / 2)).to(mu.dtype)
        centre = stored["centres"][labels]
        drawn = centre + theta.cos() * (mu[first] - centre) + theta.sin() * (mu[second] - centre)
        return cast(Tensor, drawn + temperature * stored["sigma"][first] * noise)

    @classmethod
    def preset(cls, class_counts: Sequence[int], image_size: int, channels: int) -> Preset:
        """Return the defaults for a dataset with these training counts per class."""
        wide = image_size * channels**0.5 > 40  # more detail than digits need
        return Preset(
            constructor={"width": 32 if wide else 24, "latent_dim": 64 if wide else 32},
            batch_size=64 if sum(class_counts) < 2_000 else 128,
            ema_images=20_000,
            class_power=0.5,
        )
