"""Conditional variational autoencoder: label everywhere, latents top-down, samples drawn near training images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from synthaug.core import BatchRandom, InputError, Layout
from synthaug.generators.augmentation import DRAWS, Augmentation
from synthaug.generators.base import ConditionalGenerator, Objective, Preset, check_range
from synthaug.generators.cvae.clearance import Paintings, draw_clear
from synthaug.generators.cvae.ladder import LadderNetwork
from synthaug.generators.cvae.likelihoods import DiscretizedLogistic, Likelihood, OptimalGaussian
from synthaug.generators.cvae.neighbourhood import (
    CHOICES,
    check_stored,
    describe_stored,
    draw_between,
    draw_transferred,
    store_latents,
)
from synthaug.generators.cvae.sharpness import match_detail, measure_detail, sharpen
from synthaug.generators.discriminator import Discriminator, gradient_penalty, relativistic_loss
from synthaug.generators.layers import Canvas

__all__ = ["CVAE"]

LIKELIHOODS: dict[str, type[Likelihood]] = {"gaussian": OptimalGaussian, "logistic": DiscretizedLogistic}
SAMPLINGS = ("neighbours", "prior", "transfer")
_KIN = "kin"
"""A way of sampling more, where classes are joint groups."""
_MOST_TRIES = 1_000
"""Draws for a sample at most; the noise of each lies in memory."""
_GAMMA, _PENALTY_EVERY = 1.0, 8
_LATENT_DECAY = 1e-3
"""Weight of `latent_penalty` in a deterministic autoencoder, whose latents nothing else keeps near zero."""
_MEASURED, _PART = 256, 32
"""Samples on which the detail is measured, and images that are encoded or drawn at a time."""


class _Row(NamedTuple):
    """What holds for up to so many training images in all."""

    images: float
    batch_size: int
    affine: float
    translation: float


_PRESETS = (
    _Row(1_000, batch_size=64, affine=0.5, translation=0.1),
    _Row(2_000, batch_size=64, affine=0.3, translation=0.1),
    _Row(math.inf, batch_size=128, affine=0.0, translation=0.0),
)
_TINY = 16
"""Below so many pixels a side training images are not augmented: turned, they would be mostly blur."""


class CVAE(ConditionalGenerator):
    """Conditional VAE: label in encoder, prior and decoder; top-down latents; several likelihoods and draws.

    Args:
        class_names: Names of the classes.
        image_size: Size of the images, 8 to 64.
        channels: Channels of the images, 1 to 4.
        width: Channels at half resolution; doubled at each coarser level, up to four times.
        latent_dim: Size of the top group of latents (one vector an image).
        spatial_latents: Channels of each spatial group; 0 leaves only the top group.
        depth: Residual blocks per level, in the encoder and in the decoder.
        likelihood: "gaussian" with its variance at the optimum, or "logistic", discretised, whose scale the
            decoder paints: the better compression, for bits per dimension.
        beta: Weight of the KL term after its warm-up; above 1 disentangles, 0 gives a deterministic
            autoencoder, without `spatial_latents` and without a likelihood.
        free_bits: Nats that each latent channel may hold without cost.
        warmup: Fraction of the training over which the KL term rises from a fifth of its weight to all of it.
        adversarial: Weight of a discriminator's opinion of the reconstructions (VAE-GAN); 0 for none.
        color: Strength of a tint of the training images, see `Augmentation`.
        affine: Strength of their rotation and scaling.
        translation: Their largest shift as a fraction of the side. The network is told what was done to an
            image, and samples are drawn with "nothing", so that augmentation does not leak into them.
        sampling: "neighbours" draws the top latents between two training images of the class, "transfer"
            takes those of an image of another class, "prior" draws them from the prior, and "kin", where
            classes are joint groups, draws between images of all groups with the same label. "auto" is what a
            fit finds best on validation rows, and until then "kin" or, without groups, "neighbours". Without
            stored latents the prior is used.
        spread: In "neighbours", how far the draw may go from the first image towards the second, as an
            angle in units of a right angle, in (0, 1]; at 0.5 both count alike.
        tries: In "neighbours", so many draws are made for a sample at most.
        clearance: In "neighbours", the first draw is taken whose image is at least so far from every training
            image of its class, in typical distances between such images, all as the network paints them; where
            none of the draws is, the farthest. 0 takes every draw.
        detail: In "neighbours", samples are sharpened until they hold this share of the detail of training images:
            between two images a decoder averages it away. 0 leaves them as painted.
        expansion: In "neighbours", factor on the distance from the centre of the class. Above 1 samples vary
            more than the training images and come less near to any of them; fewer of them look like their class.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.

    Raises:
        InputError: If a choice is unknown or a number is out of range.

    Example:
        >>> generator = CVAE(class_names=["a", "b"], image_size=8, channels=1, width=8, latent_dim=4)
        >>> generator.sample(torch.tensor([0, 1, 1])).shape
        torch.Size([3, 1, 8, 8])

    References:
        Kingma, Welling: Auto-encoding variational Bayes (2014), eq. 3.
        Kingma et al.: Improved variational inference with inverse autoregressive flow (2016), eq. 15 (free bits).
        Higgins et al.: beta-VAE (2017), eq. 4. Ghosh et al.: From variational to deterministic autoencoders
        (2020), eq. 10. Larsen et al.: Autoencoding beyond pixels using a learned similarity metric (2016).
        Jun et al.: Distribution augmentation for generative modeling (2020), section 3.
    """

    family = "cvae"
    version = "3"

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
        likelihood: str = "gaussian",
        beta: float = 1.0,
        free_bits: float = 0.0,
        warmup: float = 0.1,
        adversarial: float = 0.0,
        color: float = 0.0,
        affine: float = 0.0,
        translation: float = 0.0,
        sampling: str = "auto",
        spread: float = 0.5,
        tries: int = 16,
        clearance: float = 0.4,
        detail: float = 1.0,
        expansion: float = 1.0,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        attributes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__(class_names=class_names, image_size=image_size, channels=channels, attributes=attributes)
        _check_word("sampling", sampling, ("auto", *self._samplings()))
        _check_word("likelihood", likelihood, LIKELIHOODS)
        counts = {"width": (width, 1), "latent_dim": (latent_dim, 1), "depth": (depth, 0)}
        weights = {"beta": (beta, 0), "free_bits": (free_bits, 0), "adversarial": (adversarial, 0)}
        weights |= {
            "warmup": (warmup, 0),
            "weight_decay": (weight_decay, 0),
            "clearance": (clearance, 0),
            "detail": (detail, 0),
        }
        for name, (value, least) in {**counts, "spatial_latents": (spatial_latents, 0), **weights}.items():
            check_range(name, value, least)
        check_range("tries", tries, 1, _MOST_TRIES)
        for name, value in {"color": color, "affine": affine, "translation": translation}.items():
            check_range(name, value, 0, 1)
        check_range("learning_rate", learning_rate, 0, above=True)
        check_range("spread", spread, 0, 1, above=True)
        check_range("expansion", expansion, 0, above=True)
        if not beta and spatial_latents:
            raise InputError(
                f"beta is 0 and spatial_latents {spatial_latents}: without a KL term all would lie in latents that "
                "nothing can draw; set spatial_latents to 0 or beta above 0"
            )
        self.beta, self.free_bits, self.warmup, self.adversarial = beta, free_bits, warmup, adversarial
        self.sampling, self.spread, self.expansion = sampling, spread, expansion
        self.tries, self.clearance, self.detail = tries, clearance, detail
        self.latent_dim = latent_dim
        self._painted: tuple[dict[str, Tensor], tuple[bool, torch.device], Paintings] | None = None
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.likelihood: Likelihood = LIKELIHOODS[likelihood]()
        self.augmentation = Augmentation(color=color, affine=affine, translation=translation)
        self.network = LadderNetwork(
            Canvas(image_size),
            channels=channels,
            painted=channels * self.likelihood.painted,
            num_classes=self.num_classes,
            width=width,
            latent_dim=latent_dim,
            spatial_latents=spatial_latents,
            depth=depth,
            condition_size=DRAWS if any((color, affine, translation)) else 0,
            attributes=attributes,
            deterministic=not beta,
        )
        self.critic: Discriminator | None = None
        if adversarial:
            self.critic = Discriminator(
                self.num_classes, image_size, channels=channels, width=32, depth=1, patch=2 if image_size >= 16 else 1
            )
        self.register_buffer("log_sigma", torch.zeros(()))
        self.log_sigma: Tensor

    # -------------------------------------------------------------------------------------------------- training

    def objectives(self) -> Sequence[Objective]:
        """Return the negative evidence lower bound and, with an adversarial term, the critic."""
        elbo = Objective(
            name="elbo",
            module=self.network,
            loss=self.loss,
            learning_rate=self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            clip_norm=1.0,
            skip_norm=100.0,
        )
        if self.critic is None:
            return [elbo]
        critic = Objective("critic", self.critic, self.critic_loss, learning_rate=1e-3, betas=(0.0, 0.99))
        return [critic, elbo]

    def loss(self, module: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        r"""Return the negative ELBO in nats per dimension.

        .. math:: L = -\log p(x | z, y) / D + w \beta \sum_j \max(\mathrm{KL}_j, \lambda) / D
                  \;[+\; a\,E\,\mathrm{softplus}(C(x) - C(\hat x))]

        KL_j is the mean over the batch of all processes, and so is the error behind the Gaussian's variance.
        """
        noise = self._split(rng.normal(self._noise_size)) if self.beta else None
        images, condition = self._augment(images, rng)
        painted, divergences = module(images, labels, noise, condition=condition)
        means, pixels = self.likelihood.mean(painted), images[0].numel()
        overall = rng.mean(((images - means) ** 2).mean()).clamp_min(1e-6)
        self.log_sigma.copy_(0.5 * overall.log())
        reconstruction = self.likelihood.loss(images, painted, self.log_sigma, overall)
        divergence = torch.cat(divergences, dim=1)
        total = divergence.sum(1).mean()
        logs = {"sigma": overall.sqrt(), "kl" if self.beta else "penalty": total}
        if self.beta:
            weight = min(1.0, 0.2 + 0.8 * rng.progress / max(self.warmup, 1e-9)) * self.beta
            loss = reconstruction + weight * self._cost(divergence, rng) / pixels
        else:
            loss = reconstruction + _LATENT_DECAY * total / pixels
        if self.critic is not None:
            with torch.no_grad():
                real, _ = self.critic(images, labels)
            fooling = relativistic_loss(self.critic(means, labels)[0], real)
            loss, logs["fooling"] = loss + self.adversarial * fooling, fooling
        return {"loss": loss, **{name: value.detach() for name, value in logs.items()}}

    def _cost(self, divergence: Tensor, rng: BatchRandom) -> Tensor:
        """Return the KL term of a batch, each channel free up to `free_bits`."""
        each = divergence.mean(0)
        if not self.free_bits:
            return each.sum()
        return torch.where(rng.mean(each) > self.free_bits, each, self.free_bits).sum()

    def critic_loss(self, module: nn.Module, images: Tensor, labels: Tensor, rng: BatchRandom) -> dict[str, Tensor]:
        """Return the loss that ranks images above their reconstructions, with penalties on every 8th step."""
        with torch.no_grad():
            noise = self._split(rng.normal(self._noise_size)) if self.beta else None
            images, condition = self._augment(images, rng)
            painted, _ = self.network(images, labels, noise, condition=condition)
            both = torch.cat([images, self.likelihood.mean(painted)])
        penalized = rng.step % _PENALTY_EVERY == 0
        scores, terms = module(both.requires_grad_(penalized), labels.repeat(2))
        real, fake = scores.chunk(2)
        # the projection's logits are not used here; a zero weight keeps every parameter in the graph
        loss = relativistic_loss(real, fake) + 0.0 * terms.sum()
        if penalized:
            loss = loss + 0.5 * _PENALTY_EVERY * _GAMMA * gradient_penalty(scores, both).view(2, -1).mean(1).sum()
        return {"loss": loss, "accuracy": (real > fake).float().mean().detach()}

    def _augment(self, images: Tensor, rng: BatchRandom) -> tuple[Tensor, Tensor | None]:
        """Return half of the images changed, and what was done to each, (N, DRAWS) in [-1, 1], 0 for nothing."""
        if self.network.condition is None:
            return images, None
        draws = rng.uniform(DRAWS + 1).to(images.dtype)
        draws = torch.where(draws[:, -1:] < 0.5, draws[:, :-1], 0.5)  # one half is the neutral draw
        return self.augmentation.apply(images, draws), 2 * draws - 1

    def diagnose(self, losses: dict[str, float], progress: float) -> list[str]:
        """Return what the logged losses say is going wrong."""
        if self.beta and progress > 0.3 and losses.get("elbo.kl", 1.0) < 0.5:
            return [
                "the latents carry nothing (posterior collapse): lower generator.beta or set generator.free_bits=0.1"
            ]
        return []

    # ------------------------------------------------------------------------------------- densities and latents

    @torch.no_grad()
    def elbo(self, images: Tensor, labels: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """Return a one-sample evidence lower bound of each image, (N,) in nats (density on [-1, 1]).

        Args:
            images: (N, C, H, W) float in [-1, 1].
            labels: (N,) int64.
            rng: Source of the posterior noise; torch's global one when None.

        Raises:
            InputError: If this is a deterministic autoencoder.
        """
        if not self.beta:
            raise InputError("with beta 0 a cvae is a deterministic autoencoder and knows no likelihood; fit one with "
                             "beta 1, or a glow")  # fmt: skip
        noise = torch.randn((len(images), self._noise_size), generator=rng).to(images.device)
        painted, divergences = self.network(images, labels, self._split(noise))
        divergence = torch.cat(divergences, dim=1).sum(1)
        return self.likelihood.log_density(images, painted, self.log_sigma) - divergence

    @torch.no_grad()
    def encode(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the posterior means (N, latent_dim) of the top group."""
        context = self.network.embed(labels)
        return self.network.top_moments(context, self.network.encode(images, context))[2]

    @torch.no_grad()
    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) of top latents (N, latent_dim); other groups at their prior's mean."""
        return self.likelihood.mean(self.network(None, labels, None, top=latents)[0])

    @torch.no_grad()
    def reconstruct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the images (N, C, H, W) painted from the posterior means of all groups."""
        return self.likelihood.mean(self.network(images, labels, None)[0])

    @torch.no_grad()
    def latent_kl(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return what each top latent says about each image, (N, latent_dim) in nats.

        This is the KL term; of a deterministic autoencoder, half the squared distance from the prior's mean in its
        standard deviations.
        """
        if self.beta:
            return torch.as_tensor(self.network(images, labels, None)[1][0])
        context = self.network.embed(labels)
        prior_mu, prior_logvar, mu, _ = self.network.top_moments(context, self.network.encode(images, context))
        return torch.as_tensor(0.5 * (mu - prior_mu) ** 2 / prior_logvar.exp())

    # -------------------------------------------------------------------------------------------------- sampling

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Numbers that choose training images, then all groups' noise, as one flat vector."""
        return (self.tries * CHOICES + self._noise_size,)

    @property
    def _noise_size(self) -> int:
        return sum(math.prod(shape) for shape in self.network.noise_sizes())

    def _split(self, noise: Tensor) -> list[Tensor]:
        shapes = self.network.noise_sizes()
        parts = torch.split(noise, [math.prod(shape) for shape in shapes], dim=1)
        return [part.reshape(len(noise), *shape) for part, shape in zip(parts, shapes, strict=True)]

    @torch.no_grad()
    def memorize(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Keep the top posterior of every training image, sorted by class, and what draws between them need."""
        means, sigmas, seen = [], [], []
        details = torch.zeros(self.num_classes, device=self.log_sigma.device)
        parts = (zip(*(torch.split(tensor, _PART) for tensor in batch), strict=True) for batch in batches)
        for images, labels in itertools.chain.from_iterable(parts):
            context = self.network.embed(labels)
            _, _, mu, logvar = self.network.top_moments(context, self.network.encode(images, context))
            means.append(mu)
            sigmas.append((0.5 * logvar).exp() if self.beta else torch.zeros_like(mu))
            seen.append(labels)
            details.index_add_(0, labels, measure_detail(images))
        self.latents = store_latents(
            torch.cat(means), torch.cat(sigmas), torch.cat(seen), self.num_classes, self.attributes
        )
        if self.clearance:
            self.latents["spacing"] = self._paintings(self.latents, kin=False).spacing()
        if self.detail:
            self.latents["sharpening"] = self._measure_sharpening(details)
        self._painted = None  # the judge that is fitted next needs the memory; painted anew when asked for

    def latent_layout(self) -> Layout:
        """Return the layout of what `memorize` keeps."""
        layout = describe_stored(self.num_classes, self.latent_dim, kin=self.attributes is not None)
        single = {"spacing": self.clearance, "sharpening": self.detail}
        return {**layout, **{name: (torch.float32, ()) for name, kept in single.items() if kept}}

    def recall(self, latents: Mapping[str, Tensor]) -> None:
        """Take what `memorize` has kept.

        Raises:
            ValueError: The rows that the classes count are not those that are there.
        """
        check_stored(latents)
        super().recall(latents)

    def _measure_sharpening(self, details: Tensor) -> Tensor:
        """Return (), how much samples are to be sharpened to look as sharp as training images of the same classes.

        Args:
            details: (K,) sum of the detail of the training images of each class.
        """
        counts = self.latents["counts"]
        present = torch.nonzero(counts)[:, 0]
        wanted = present[torch.linspace(0, len(present) - 1e-3, _MEASURED, device=counts.device).long()]
        noise = torch.randn((_MEASURED, *self.noise_shape), generator=torch.Generator().manual_seed(0))
        parts = zip(torch.split(noise.to(counts.device), _PART), torch.split(wanted, _PART), strict=True)
        drawn = torch.cat([self._draw_neighbours(*part, 1.0) for part in parts]).clamp(-1.0, 1.0)
        real = (details / counts.clamp_min(1))[wanted].mean()
        return details.new_tensor(match_detail(drawn, self.detail * float(real)))

    def open_choices(self) -> dict[str, tuple[Any, ...]]:
        """Return the ways of sampling, where the user left the choice to the fit."""
        return {"sampling": self._samplings()} if self.sampling == "auto" else {}

    def _samplings(self) -> tuple[str, ...]:
        return (_KIN, *SAMPLINGS) if self.attributes else SAMPLINGS

    def decode_noise(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Draw the top group as `sampling` says, the others from their priors."""
        if not self.latents or self.sampling == "prior":
            _, parts = self._parts(noise)
            return self._paint(parts, labels, temperature, None)
        if self.sampling == "transfer":
            choices, parts = self._parts(noise)
            top = draw_transferred(self._stored(noise), choices[0], parts[0], labels, temperature=temperature)
            return self._paint(parts, labels, temperature, top)
        images = self._draw_neighbours(noise, labels, temperature)
        amount = float(self.latents["sharpening"]) if "sharpening" in self.latents else 0.0
        return sharpen(images, amount) if amount else images

    def _draw_neighbours(self, noise: Tensor, labels: Tensor, temperature: float) -> Tensor:
        """Return the first draws that are clear of the training images, as they are painted."""
        choices, parts = self._parts(noise)
        stored = self._stored(noise)
        kin = bool(self.attributes) and self.sampling in (_KIN, "auto")

        def draw(number: int, rows: Tensor) -> Tensor:
            own = [part[rows] for part in parts]
            how = {"spread": self.spread, "expansion": self.expansion, "temperature": temperature}
            top = draw_between(stored, choices[number][rows], own[0], labels[rows], **how, kin=kin)
            return self._paint(own, labels[rows], temperature, top)

        if not self.clearance:
            return draw(0, torch.arange(len(labels), device=noise.device))
        paintings = self._paintings(stored, kin=kin)
        spacing = stored["spacing"] if "spacing" in stored else paintings.spacing()
        return draw_clear(draw, paintings, labels, tries=self.tries, least=self.clearance * float(spacing))

    def _parts(self, noise: Tensor) -> tuple[Sequence[Tensor], list[Tensor]]:
        """Return the numbers that choose training images, for each try, and the noise of each group."""
        choices, rest = torch.split(noise, [self.tries * CHOICES, self._noise_size], dim=1)
        return torch.split(choices, CHOICES, dim=1), self._split(rest)

    def _stored(self, noise: Tensor) -> dict[str, Tensor]:
        return {name: tensor.to(noise.device) for name, tensor in self.latents.items()}

    def _paint(self, noise: list[Tensor], labels: Tensor, temperature: float, top: Tensor | None) -> Tensor:
        return self.likelihood.mean(self.network(None, labels, noise, temperature, top)[0])

    def _paintings(self, stored: Mapping[str, Tensor], *, kin: bool) -> Paintings:
        """Return the paintings of what is stored, from the call before where nothing has changed."""
        device, known = stored["mu"].device, self._painted
        if known is None or known[0] is not self.latents or known[1] != (kin, device):
            known = self._painted = self.latents, (kin, device), Paintings(stored, self.decode, kin=kin)
        return known[2]

    @classmethod
    def preset(cls, class_counts: Sequence[int], image_size: int, channels: int) -> Preset:
        """Return the defaults for a dataset with these training counts per class."""
        wide = image_size * channels**0.5 > 40  # more detail than digits need
        row = next(row for row in _PRESETS if sum(class_counts) <= row.images)
        if image_size < _TINY:
            row = row._replace(affine=0.0, translation=0.0)
        constructor = {
            "width": 32 if wide else 24,
            "latent_dim": 64 if wide else 32,
            "affine": row.affine,
            "translation": row.translation,
        }
        return Preset(constructor=constructor, batch_size=row.batch_size, ema_images=20_000, class_power=0.5)


def _check_word(name: str, value: str, allowed: Iterable[str]) -> None:
    words = list(allowed)
    if value not in words:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(words)}")
