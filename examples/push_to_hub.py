"""Push a dataset folder and the run that made it to the Hub, privately, and load both back.

python examples/push_to_hub.py runs/folder/run runs/folder/dataset USER

Log in first (hf auth login). The folders are pushed as they are, with their cards, and nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from datasets import load_dataset

import synthaug


def main(
    run: Path, dataset: Path, user: str, *, name: str = "synthaug-example", latents: bool = False
) -> dict[str, int]:
    """Push and load back.

    Args:
        run: A finished run folder.
        dataset: A finished dataset folder.
        user: Your name on the Hub.
        name: Name of both repositories; one is a model, the other a dataset.
        latents: Push latents.safetensors too. It is derived from training images. Without it a cVAE samples from its
            prior, so its images differ.

    Returns:
        Number of rows in each split of the loaded dataset.
    """
    repo = f"{user}/{name}"
    report = synthaug.Report.load(run.parent / "report") if (run.parent / "report" / "report.json").is_file() else None
    print(synthaug.push(dataset, repo, report=report))  # private unless private=False
    print(synthaug.push(run, repo, include_latents=latents))

    loaded = load_dataset(repo)
    generator = synthaug.load_generator(repo)
    images = generator.sample(torch.arange(generator.num_classes))
    print(f"{generator.family} from the Hub draws {tuple(images.shape)} in [{images.min():.2f}, {images.max():.2f}]")
    return {split: rows.num_rows for split, rows in loaded.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("user")
    parser.add_argument("--name", default="synthaug-example")
    parser.add_argument("--include-latents", action="store_true")
    given = parser.parse_args()
    main(given.run, given.dataset, given.user, name=given.name, latents=given.include_latents)
