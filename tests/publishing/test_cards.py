from __future__ import annotations

import re

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from synthaug.publishing import drop_local_paths, escape_markdown, render_dataset_card, render_model_card
from synthaug.publishing.cards import add_repo_id, add_verdict, read_front_matter, size_category

HOSTILE = "a|b\n<script>alert(1)</script> [x](javascript:y) `c` **d** \u202e---"

DATASET = {
    "title": "xrays",
    "splits": {"train": 1200, "test": 20},
    "real": {"healthy": 1000, "ill_1": 100},
    "synthetic": {"healthy": 0, "ill_1": 100},
    "acceptance": {"ill_1": {"drawn": 160, "accepted": 100}},
    "filter": "default",
    "image_column": "image",
    "label_column": "label",
    "image_size": 32,
    "channels": 1,
    "generator": "cgan@1",
    "checkpoint": "ab" * 32,
    "seed": 0,
    "temperature": 1.0,
    "source": "someone/xrays",
    "sample_grid": "samples.png",
    "notices": ["3 rows without a label pass through uncounted"],
    "recipe": {"dataset": {"path": "someone/xrays"}, "generator": {"family": "cgan"}, "output": "runs/xrays"},
    "synthaug_version": "0.1.0",
}
MODEL = {
    "title": "xrays",
    "family": "cgan",
    "version": "1",
    "constructor": {"class_names": ["healthy", "ill"], "width": 64, "image_size": 32, "channels": 1},
    "class_counts": {"healthy": 1000, "ill": 100},
    "train_rows": 990,
    "validation_rows": 110,
    "source": "someone/xrays",
    "split": "train",
    "image_size": 32,
    "channels": 1,
    "images_seen": 2_000_000,
    "budget": "10m",
    "batch_size": 64,
    "seed": 3,
    "seconds": 599.6,
    "device": "cpu",
    "losses": {"generator": 1.23456},
    "scores": {"bits per dimension": 2.345678},
    "sample_grid": "samples/002000000.png",
    "latents": True,
    "notices": ["2 corrupt rows skipped"],
    "recipe": {"dataset": {"path": "/home/me/xrays"}},
    "synthaug_version": "0.1.0",
}


def rows(card: str, first: str) -> list[str]:
    return [cell.strip() for line in card.splitlines() if line.startswith(f"| {first} |") for cell in line.split("|")]


def test_dataset_front_matter_is_what_the_hub_expects():
    data = DatasetCard(render_dataset_card(DATASET)).data.to_dict()
    assert data["tags"] == ["synthetic", "synthaug"]
    assert data["task_categories"] == ["image-classification"]
    assert data["annotations_creators"] == ["machine-generated"]
    assert data["size_categories"] == ["1K<n<10K"]
    assert data["source_datasets"] == ["extended|someone/xrays"]
    assert "configs" not in data  # see render_dataset_card
    assert "license" not in data


def test_dataset_body_tells_counts_acceptance_and_sources():
    card = render_dataset_card(DATASET)
    assert rows(card, "ill_1")[1:-1] == ["ill_1", "100", "100", "200", "160", "62.5 %"]
    assert rows(card, "healthy")[1:-1] == ["healthy", "1,000", "0", "1,000", "", ""]
    assert "![Synthetic samples](samples.png)" in card
    assert "huggingface.co/datasets/someone/xrays" in card
    assert "ab" * 32 in card and "3 rows without a label" in card
    assert "anyone who has an image can test" in card and "memorise" in card
    assert "are inherited" in card and "No licence is stated" in card
    assert "Not benchmarked" in card
    assert "family: cgan" in card and "runs/xrays" not in card


def test_model_card_has_front_matter_use_and_numbers():
    card = render_model_card(MODEL)
    data = ModelCard(card).data.to_dict()
    assert data["library_name"] == "synthaug" and "synthaug" in data["tags"] and "cgan" in data["tags"]
    assert data["datasets"] == ["someone/xrays"] and "license" not in data
    assert 'synthaug.load_generator("user/name")' in card
    assert rows(card, "healthy")[1:-1] == ["healthy", "1,000"]
    assert "fitted on 990 of these rows; 110 were held out" in card
    assert rows(card, "images seen")[2] == "2,000,000" and rows(card, "seconds")[2] == "600"
    assert rows(card, "generator at the end")[2] == "1.235"
    assert rows(card, "bits per dimension (validation rows)")[2] == "2.346"
    assert "| <code>width</code> | <code>64</code> |" in card and "<code>class_names</code>" not in card
    assert "samples/002000000.png" in card and "latents.safetensors" in card
    assert "/home/me" not in card


def test_model_card_takes_from_recipe_constructor_and_summary_what_is_not_given():
    recipe = "dataset: {path: me/xrays, split: all}\nfit: {budget: 7m, seed: 5, batch_size: 48}\n"
    summary = {"images_seen": 4800, "steps": 100, "seconds": 3.2, "losses": {"loss": 0.5}}
    card = render_model_card({"recipe": recipe, "summary": summary, "constructor": {"image_size": 16, "channels": 3}})
    assert "16 x 16 pixels, RGB" in card and "datasets/me/xrays), split <code>all</code>" in card
    shown = {name: rows(card, name)[2] for name in ("budget", "seed", "images in a batch", "images seen", "steps")}
    assert list(shown.values()) == ["7m", "5", "48", "4,800", "100"]
    assert rows(card, "loss at the end")[2] == "0.5"


def test_python_examples_in_the_cards_compile():
    for card in (render_dataset_card(DATASET), render_model_card(MODEL), render_model_card({})):
        for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            compile(block, "card", "exec")


@pytest.mark.parametrize("render", [render_dataset_card, render_model_card])
def test_a_card_of_nothing_still_renders(render):
    card = render({})
    assert "synthaug" in read_front_matter(card)["tags"]
    assert "None" not in card and card.endswith("\n") and "\n\n\n" not in card


@pytest.mark.parametrize("render", [render_dataset_card, render_model_card])
def test_every_fact_may_be_none(render):
    facts = DATASET if render is render_dataset_card else MODEL
    for key in facts:
        assert "None" not in render({**facts, key: None}), key


@pytest.mark.parametrize("render", [render_dataset_card, render_model_card])
def test_an_unknown_fact_is_named(render):
    with pytest.raises(ValueError, match="colour"):
        render({"colour": "red"})


def test_hostile_names_stay_text():
    card = render_dataset_card(
        {
            "title": HOSTILE,
            "splits": {"train": 1},
            "real": {HOSTILE: 1},
            "synthetic": {HOSTILE: 2},
            "acceptance": {HOSTILE: {"drawn": 4, "accepted": 2}},
            "label_column": HOSTILE,
            "image_column": "image",
            "generator": HOSTILE,
            "source": HOSTILE,
            "license": "other\n---\n# injected",
            "model": HOSTILE,
            "sample_grid": "x.png)<script>",
            "notices": [HOSTILE],
            "recipe": {"generate": {"balance": {HOSTILE: 3}}, "note": "```\n</code><script>\n````"},
        }
    )
    outside, recipe = card.split("## Recipe")
    assert "<script" not in outside and "](javascript" not in outside and "\u202e" not in card
    assert [line.count("|") for line in outside.splitlines() if line.startswith("| a&#124;b")] == [7]
    assert read_front_matter(card)["license"] == "other\n---\n# injected"
    fence = re.match(r"\s*(`+)yaml\n(.*)\n(`+)\s*$", recipe, re.DOTALL)
    assert fence and fence[1] == fence[3] and fence[1] not in fence[2]
    assert yaml.safe_load(fence[2])["note"].startswith("```")


def test_a_split_name_that_would_leave_the_path_is_refused():
    with pytest.raises(ValueError, match=r"\.\./x"):
        render_dataset_card({"splits": {"../x": 1}})


def test_a_picture_outside_of_the_folder_is_left_out():
    assert "![" not in render_dataset_card({"sample_grid": "../secret.png"})
    assert "![" not in render_dataset_card({"sample_grid": "/etc/secret.png"})


def test_escape_keeps_harmless_names_readable():
    assert escape_markdown("0_healthy-lung, 1.5 cm: 'left'") == "0_healthy-lung, 1.5 cm: 'left'"
    assert escape_markdown("_x_ https://a www.b.c") == "&#95;x&#95; https&#58;//a www&#46;b.c"
    assert len(escape_markdown("x" * 1000)) == 200


@pytest.mark.parametrize(
    ("verdict", "says"),
    [("helps", "images help"), ("harms", "images harm"), ("no clear change", "No clear change")],
)
def test_verdict_is_put_in_and_replaced(verdict, says):
    facts = {
        "verdict": verdict,
        "difference": -0.01,
        "interval": (-0.03, 0.01),
        "table": "| arm |\n|---|\n| <b>a |",
    }
    card = add_verdict(render_dataset_card(DATASET), facts)
    assert says in card and "-0.0100 (95 % interval -0.0300 to +0.0100)" in card and "| &lt;b>a |" in card
    assert card == render_dataset_card({**DATASET, "verdict": facts})
    assert add_verdict(card, facts) == card
    again = add_verdict(card, {"verdict": "helps"})
    assert again.count("## Does it help?") == 1 and "-0.0100" not in again and "## Provenance" in again


def test_verdict_is_added_to_a_card_without_the_section():
    card = add_verdict("# My own text\n", {"verdict": "helps"})
    assert card.startswith("# My own text\n\n## Benchmark\n") and "images help" in card


def test_repository_replaces_the_placeholder():
    assert 'load_generator("me/xrays")' in add_repo_id(render_model_card(MODEL), "me/xrays")


def test_local_paths_fall_out_of_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "data" / "xrays").mkdir(parents=True)
    recipe = {
        "dataset": {"path": "/home/me/x", "split": "train"},
        "generate": {"balance": "median", "per_class": None},
        "benchmark": {"test": {"path": "~/x", "split": "test"}},
        "push": {"repo": "me/x"},
        "output": "runs/x",
    }
    kept = drop_local_paths(recipe)
    assert kept["dataset"] == {"split": "train"} and kept["benchmark"]["test"] == {"split": "test"}
    assert kept["generate"] == {"balance": "median", "per_class": None} and kept["push"] == {"repo": "me/x"}
    assert "output" not in kept
    for local in ("pictures", "data/xrays", "../x", "C:\\x", "plans/a.json/b"):
        assert drop_local_paths({"path": local}) == {}, local
    for public in ("digits", "someone/xrays", "someone/xrays:small"):
        assert drop_local_paths({"path": public}) == {"path": public}


def test_size_categories():
    assert [size_category(n) for n in (0, 999, 1000, 12_345, 10**9)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "10K<n<100K",
        "n>1B",
    ]


@pytest.mark.parametrize("text", ["", "# x", "---\n: [\n---\n", "---\n- a\n---\n"])
def test_front_matter_that_is_none(text):
    assert read_front_matter(text) == {}
