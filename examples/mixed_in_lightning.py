"""Synthetic images in Lightning in two ways: a mixture by epochs, and a batch transform on the device.

pip install '.[training]'
python examples/mixed_in_lightning.py --output runs/mixed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import synthaug
from synthaug.data import make_long_tailed

TO_TENSOR = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def prepare(row: dict) -> tuple[torch.Tensor, int]:
    """Return the input of the network for a real or a synthetic row."""
    return TO_TENSOR(row["image"]), row["label"]


class SetEpoch(lightning.Callback):
    """Set the epoch of the mixture: Lightning calls set_epoch of samplers only."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_epoch_start(self, trainer, module):
        mixed = trainer.train_dataloader.dataset
        mixed.set_epoch(trainer.current_epoch)
        self.seen.append((mixed.epoch, int(mixed.find_synthetic().sum())))


class Classifier(lightning.LightningModule):
    """A small network; `replace` replaces images of a batch that is already on the device."""

    def __init__(self, replace: nn.Module | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.replace, self.replaced = replace, 0

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.replace is None:
            return batch
        images, labels = self.replace(*batch)
        self.replaced += int((images != batch[0]).flatten(1).any(1).sum())
        return images, labels

    def training_step(self, batch, index):
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def train(model: Classifier, rows, epochs: int, output: Path, callbacks: list) -> None:
    """Run the Lightning trainer without output."""
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, default_root_dir=output,
    )  # fmt: skip
    trainer.fit(model, DataLoader(rows, batch_size=32, shuffle=True))


def main(
    output: Path, *, images: str | int = "200k", epochs: int = 10, imbalance: float = 20, filter: str = "default"
) -> tuple[list[tuple[int, int]], int]:
    """Fit and train twice; return the epochs of the mixture, and the number of images that the transform replaced."""
    real = make_long_tailed(synthaug.open_dataset("digits", "train"), "label", imbalance)
    generator = synthaug.fit(real, "cvae", output=output / "run", images=images)
    mixed = synthaug.MixedDataset(
        real, generator, share=0.5, schedule="cosine", epochs=epochs, transform=prepare, filter=filter
    )
    watch = SetEpoch()
    train(Classifier(), mixed, epochs, output, [watch])
    for epoch, number in watch.seen:
        print(f"epoch {epoch}: {number} of {len(mixed)} images synthetic")

    model = Classifier(synthaug.ReplaceWithSynthetic(generator, p=0.3, filter=filter))
    only_real = synthaug.MixedDataset(real, generator, share=0.0, transform=prepare, filter=filter)
    train(model, only_real, epochs, output, [])
    print(f"the batch transform replaced {model.replaced} of {epochs * len(real)} images")
    return watch.seen, model.replaced


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/mixed"))
    parser.add_argument("--images", default="200k")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    main(given.output, images=given.images, epochs=given.epochs)
