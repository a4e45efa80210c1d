"""Generated images in a plain PyTorch training loop.

python examples/in_a_training_loop.py --output runs/loop
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader

import synthaug
from synthaug.data import make_long_tailed


def train(rows: Dataset, *, epochs: int, seed: int = 0) -> nn.Module:
    """Train a small network as you train yours: the mixed dataset is an ordinary `datasets.Dataset`."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, rows.features["label"].num_classes))
    # `provenance` is null on real rows, and the default collate function cannot stack it: select the needed columns
    batches = DataLoader(rows.select_columns(["image", "label"]).with_format("torch"), batch_size=64, shuffle=True)
    net(next(iter(batches))["image"] / 127.5 - 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in batches:  # mix() never shuffles, so the loader must
            loss = nn.functional.cross_entropy(net(batch["image"] / 127.5 - 1), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net


@torch.no_grad()
def balanced_accuracy(net: nn.Module, rows: Dataset) -> float:
    """Return the mean recall over the classes."""
    data = rows.with_format("torch")[:]
    hits = net(data["image"] / 127.5 - 1).argmax(1) == data["label"]
    return float(torch.stack([hits[data["label"] == label].float().mean() for label in data["label"].unique()]).mean())


def main(
    output: Path,
    *,
    images: str | int = "200k",
    epochs: int = 20,
    imbalance: float = 20,
    balance: str | int = "majority",
) -> dict[str, float]:
    """Fit, generate, mix, train twice and return the balanced accuracy without and with generated rows.

    Args:
        output: Folder for the run.
        images: Length of the fit, in images seen.
        epochs: Epochs of the network.
        imbalance: Largest class divided by smallest class.
        balance: Total of every class, as a name or a number.
    """
    real = make_long_tailed(synthaug.open_dataset("digits", "train"), "label", imbalance)
    test = synthaug.open_dataset("digits", "test")

    generator = synthaug.fit(real, "cvae", output=output / "run", images=images)
    plan = synthaug.plan_balance(real, balance)
    print(plan.table())
    synthetic = synthaug.generate(generator, plan, filter="none")
    augmented = synthaug.mix(real, synthetic)

    # This shows how to train. It does not show whether it helps: there is one seed, and the steps are unequal.
    # synthaug.benchmark measures that, with equal steps in every method, paired seeds and an interval.
    scores = {
        "real": balanced_accuracy(train(real, epochs=epochs), test),
        "real and synthetic": balanced_accuracy(train(augmented, epochs=epochs), test),
    }
    for name, score in scores.items():
        print(f"{name}: balanced accuracy {score:.3f}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/loop"))
    parser.add_argument("--images", default="200k")
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    main(given.output, images=given.images, epochs=given.epochs)
