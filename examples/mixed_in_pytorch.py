"""New synthetic images in every epoch of a PyTorch loop, none at the end, the same for any number of workers.

python examples/mixed_in_pytorch.py --output runs/mixed
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import synthaug
from synthaug.data import make_long_tailed

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.RandomAffine(10, translate=(0.1, 0.1))])


def prepare(row: dict) -> tuple[torch.Tensor, int]:
    """Return the input of the network for a real or a synthetic row."""
    return TRANSFORM(row["image"]), row["label"]


def fit_generator(output: Path, images: str | int, imbalance: float):
    """Return the long-tailed rows and a generator fitted on them; a second call finds the finished run."""
    real = make_long_tailed(synthaug.open_dataset("digits", "train"), "label", imbalance)
    return real, synthaug.fit(real, "cvae", output=output / "run", images=images)


def digest_epochs(mixed: synthaug.MixedDataset, *, epochs: int, workers: int) -> str:
    """Return a hash of all batches of a loader, in their order."""
    digest = hashlib.sha256()
    shuffled = torch.Generator().manual_seed(0)
    loader = DataLoader(mixed, batch_size=32, shuffle=True, num_workers=workers, generator=shuffled)
    for epoch in range(epochs):
        mixed.set_epoch(epoch)
        for images, labels in loader:
            digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()


def train(mixed: synthaug.MixedDataset, *, epochs: int, workers: int = 0) -> nn.Module:
    """Train a small network: set_epoch is the only additional line."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    loader = DataLoader(mixed, batch_size=32, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(epochs):
        mixed.set_epoch(epoch)
        for images, labels in loader:
            loss = nn.functional.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


def main(
    output: Path, *, images: str | int = "200k", epochs: int = 20, imbalance: float = 20, filter: str = "default"
) -> tuple[nn.Module, dict[int, str]]:
    """Fit, mix and train; return the network, and a hash of two epochs for each number of workers.

    Args:
        output: Folder for the run.
        images: Length of the fit, in images seen.
        epochs: Epochs of the network.
        imbalance: Largest class divided by smallest class.
        filter: "default" keeps what the run's filter classifier accepts, "none" keeps everything.
    """
    real, generator = fit_generator(output, images, imbalance)
    counts = synthaug.plan_balance(real).real
    shares = {name: 1 - 0.5 * count / max(counts.values()) for name, count in counts.items()}  # rare classes get more
    mixed = synthaug.MixedDataset(
        real, generator, share=shares, schedule="off-after:0.8", epochs=epochs, transform=prepare, filter=filter,
        seed_transform=True,
    )  # fmt: skip
    digests = {workers: digest_epochs(mixed, epochs=2, workers=workers) for workers in (0, 2, 4)}
    for workers, digest in digests.items():
        print(f"{workers} workers: {digest[:16]}")
    net = train(mixed, epochs=epochs)
    print(f"trained on {len(mixed)} positions for {epochs} epochs, the last of them on real images only")
    return net, digests


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/mixed"))
    parser.add_argument("--images", default="200k")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    main(given.output, images=given.images, epochs=given.epochs)
