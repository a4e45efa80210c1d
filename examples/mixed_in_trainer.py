"""Synthetic images in the Hugging Face `Trainer`: a small ViT on digits; the share falls to zero.

pip install '.[training]'
python examples/mixed_in_trainer.py --output runs/mixed
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

import synthaug
from synthaug.data import make_long_tailed


def prepare(row: dict) -> dict:
    """Return the input of the model by name, for a real or a synthetic row."""
    pixels = torch.from_numpy(np.array(row["image"], dtype=np.float32))[None] / 127.5 - 1
    return {"pixel_values": pixels, "labels": row["label"]}


class SetEpoch(TrainerCallback):
    """Set the epoch of the mixture: on several processes the Trainer itself does not reach the dataset."""

    def __init__(self, mixed: synthaug.MixedDataset) -> None:
        self.mixed, self.seen = mixed, []

    def on_epoch_begin(self, args, state, control, **_):
        self.mixed.set_epoch(round(state.epoch or 0))
        self.seen.append((self.mixed.epoch, int(self.mixed.find_synthetic().sum())))


def main(
    output: Path, *, images: str | int = "200k", epochs: int = 10, imbalance: float = 20, filter: str = "default"
) -> list[tuple[int, int]]:
    """Fit, mix and train; return for each epoch its number and its number of synthetic positions."""
    real = make_long_tailed(synthaug.open_dataset("digits", "train"), "label", imbalance)
    generator = synthaug.fit(real, "cvae", output=output / "run", images=images)
    mixed = synthaug.MixedDataset(
        real, generator, share=0.5, schedule="linear", epochs=epochs, transform=prepare, filter=filter
    )
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, num_labels=10,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(output / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=32,
        learning_rate=1e-3, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    watch = SetEpoch(mixed)
    trainer = Trainer(ViTForImageClassification(config), arguments, train_dataset=mixed, callbacks=[watch])
    trainer.train()
    for epoch, number in watch.seen:
        print(f"epoch {epoch}: {number} of {len(mixed)} images synthetic")
    return watch.seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/mixed"))
    parser.add_argument("--images", default="200k")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    main(given.output, images=given.images, epochs=given.epochs)
