"""The network of a conditional VAE: bottom-up encoder, top-down decoder, the label in both and in every prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synthaug.generators.layers import Canvas, ClassEmbedding, ResidualBlock

__all__ = ["LadderNetwork", "gaussian_kl", "latent_penalty"]


def gaussian_kl(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    r"""Return KL(q || p) of diagonal Gaussians, elementwise, in nats.

    .. math:: \tfrac12 \left(\log\sigma_p^2 - \log\sigma_q^2
              + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{\sigma_p^2} - 1\right)

    References:
        Kingma, Welling: Auto-encoding variational Bayes (2014), appendix B, with a general prior.
    """
    return 0.5 * (prior_logvar - logvar + (logvar.exp() + (mu - prior_mu) ** 2) / prior_logvar.exp() - 1)


def latent_penalty(mu: Tensor, logvar: Tensor, prior_mu: Tensor, prior_logvar: Tensor) -> Tensor:
    r"""Return what stands for the KL term where latents are points, elementwise, in nats; `logvar` is unused.

    .. math:: \tfrac12 \mu^2 - \log p(\mathrm{sg}(\mu))

    The first term keeps the latents near zero. The second fits the prior to where they are, and does not move them.

    References:
        Ghosh et al.: From variational to deterministic autoencoders (2020), eq. 10 and section 4 (a density
        fitted to the latents afterwards; here a Gaussian, on the way).
    """
    return 0.5 * (mu**2 + prior_logvar + (mu.detach() - prior_mu) ** 2 / prior_logvar.exp())


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


class LadderNetwork(nn.Module):
    """Bottom-up encoder and top-down decoder with the label in both and in every prior.

    The encoder halves the canvas down to its base; the decoder starts from a 1x1 group of latents, then
    adds spatial groups at the base and above, and paints the parameters of the likelihood.

    Args:
        canvas: Pyramid on which the network works.
        channels: Channels of the images.
        painted: Channels painted: `channels` for a mean, twice as many for a mean and a log-scale.
        num_classes: Number of classes.
        width: Channels at half resolution; doubled at each coarser level, up to four times.
        latent_dim: Size of the top group.
        spatial_latents: Channels of each spatial group; 0 leaves only the top group.
        depth: Residual blocks per level, in the encoder and in the decoder.
        condition_size: Length of a further condition besides the label; 0 for none.
        attributes: (K, A) attributes of each class, see `ClassEmbedding`.
        deterministic: The top latents are points, which do not know of the prior: their cost is `latent_penalty`
            instead of `gaussian_kl`. Without spatial groups only.

    References:
        Sonderby et al.: Ladder variational autoencoders (2016), eq. 8 (top-down inference).
        Vahdat, Kautz: NVAE (2020), eq. 2 (posterior relative to the prior).
    """

    def __init__(
        self,
        canvas: Canvas,
        *,
        channels: int,
        painted: int,
        num_classes: int,
        width: int,
        latent_dim: int,
        spatial_latents: int,
        depth: int,
        condition_size: int = 0,
        attributes: Sequence[Sequence[int]] | None = None,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        self.deterministic = deterministic
        context = 2 * width
        widths = [width * min(2**level, 4) for level in range(canvas.levels)]  # fine to coarse
        self.canvas, self.latent_dim, self.spatial_latents = canvas, latent_dim, spatial_latents
        self.embedding = ClassEmbedding(num_classes, context, attributes)
        self.condition = nn.Linear(condition_size, context, bias=False) if condition_size else None

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
        self.paint = nn.ConvTranspose2d(widths[0], painted, 4, stride=2, padding=1)
        self.widths = widths

    def noise_sizes(self) -> list[tuple[int, ...]]:
        """Return the shape of each group's noise, in top-down order."""
        shapes: list[tuple[int, ...]] = [(self.latent_dim,)]
        if self.spatial_latents:
            for level in reversed(range(len(self.widths))):
                size = self.canvas.base * 2 ** (len(self.widths) - 1 - level)
                shapes.append((self.spatial_latents, size, size))
        return shapes

    def embed(self, labels: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the context (N, 2 width) of labels (N,) and of a further condition (zero when None)."""
        context = self.embedding(labels)
        if self.condition is not None and condition is not None:
            context = context + self.condition(condition)
        return torch.as_tensor(context)

    def encode(self, images: Tensor, context: Tensor) -> list[Tensor]:
        """Return the features of each level, fine to coarse."""
        # channels last saves a sixth of the time on a CPU; weights stay contiguous, as safetensors wants them
        h = self.stem(self.canvas.pad(images).contiguous(memory_format=torch.channels_last))
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
        centre = torch.zeros_like(prior_mu) if self.deterministic else prior_mu
        return prior_mu, prior_logvar, centre + shift, prior_logvar + 6 * torch.tanh(logvar / 6)

    def forward(
        self,
        images: Tensor | None,
        labels: Tensor,
        noise: Sequence[Tensor] | None,
        temperature: float = 1.0,
        top: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Reconstruct `images` (or sample, when None).

        Args:
            images: (N, C, H, W) in [-1, 1], or None to draw every group from its prior.
            labels: (N,) int64.
            noise: Standard normal noise of each group, in the order of `noise_sizes`; None takes the means.
            temperature: Scale of the noise.
            top: (N, latent_dim) values of the top group to use instead of drawing it.
            condition: (N, condition_size) further condition; zero when None.

        Returns:
            What is painted (N, painted, H, W), and per group the KL terms (N, latents of the group) in nats,
            summed over positions; the penalty where latents are points.
        """
        context = self.embed(labels, condition)
        features = None if images is None else self.encode(images, context)
        prior_mu, prior_logvar, mu, logvar = self.top_moments(context, features)
        cost = latent_penalty if self.deterministic else gaussian_kl
        divergences = [cost(mu, logvar, prior_mu, prior_logvar)]
        z = _draw(mu, logvar, noise, 0, temperature) if top is None else top
        h = self.top_enter(torch.cat([z, context], dim=1))
        h = h.view(len(labels), self.widths[-1], self.canvas.base, self.canvas.base)
        h = h.contiguous(memory_format=torch.channels_last)

        for level in reversed(range(len(self.widths))):
            if self.spatial_latents:
                group = cast(LatentGroup, self.groups[level])
                moments = group.moments(F.silu(h), None if features is None else F.silu(features[level]))
                prior_mu, prior_logvar, mu, logvar = moments
                z = _draw(mu, logvar, noise, len(divergences), temperature)
                divergences.append(gaussian_kl(mu, logvar, prior_mu, prior_logvar).flatten(2).sum(2))
                h = h + group.enter(z)
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                h = block(h, context)
            if level:
                h = self.ups[level - 1](F.silu(h))
        return self.canvas.crop(self.paint(F.silu(h))), divergences


def _draw(mu: Tensor, logvar: Tensor, noise: Sequence[Tensor] | None, group: int, temperature: float) -> Tensor:
    """Return the mean, moved by the group's noise if there is any."""
    if noise is None:
        return mu
    return mu + temperature * (0.5 * logvar).exp() * noise[group]
