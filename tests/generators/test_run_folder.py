import json
import shutil

import pytest
import torch
from torch import nn

from synthaug.core import InputError
from synthaug.generators import (
    checkpoint_hash,
    find_family,
    load_run,
    load_state,
    read_source,
    save_generator,
    save_state,
)
from tests.checks import TINY, make

CONFIG = {"class_names": ["class 0", "class 1", "class 2"], "image_size": 8, "channels": 1, **TINY["cvae"]}


def trained_pair():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).pow(2).sum().backward()
    optimizer.step()


def save(folder, model, optimizer, n):
    save_state(folder, images_seen=n, modules={"model": model}, optimizers=[optimizer], progress={"images_seen": n})


def test_state_goes_on_to_the_bit(tmp_path):
    model, optimizer = trained_pair()
    for _ in range(3):
        step(model, optimizer)
    save(tmp_path, model, optimizer, 30)
    step(model, optimizer)
    other, other_optimizer = trained_pair()
    counters, rejected = load_state(tmp_path, modules={"model": other}, optimizers=[other_optimizer])
    assert counters == {"images_seen": 30} and rejected == []
    step(other, other_optimizer)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer-0.safetensors", "manifest.json"])
def test_a_harmed_state_is_passed_over_and_named(tmp_path, harm, name):
    model, optimizer = trained_pair()
    step(model, optimizer)
    save(tmp_path, model, optimizer, 10)
    step(model, optimizer)
    save(tmp_path, model, optimizer, 20)
    path = sorted((tmp_path / "state").glob("images-*"))[-1] / name
    content = path.read_bytes()
    if harm == "delete":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:middle] if harm == "truncate" else flipped)
    counters, rejected = load_state(tmp_path, modules={"model": model}, optimizers=[optimizer])
    assert counters == {"images_seen": 10}
    unfinished = name == "manifest.json" and harm == "delete"  # as a kill leaves it
    assert [line.split(":")[0] for line in rejected] == ([] if unfinished else ["images-000000000000020"])


def test_a_state_of_another_fit_is_refused(tmp_path):
    model, optimizer = trained_pair()
    step(model, optimizer)
    parts = {"modules": {"model": model}, "optimizers": [optimizer]}
    save_state(tmp_path, images_seen=10, progress={"images_seen": 10}, fit="seed 2", **parts)
    assert load_state(tmp_path, fit="seed 2", **parts)[0] == {"images_seen": 10}
    with pytest.raises(InputError, match=r"images-0*10.*another recipe or other rows.*remove it"):
        load_state(tmp_path, fit="seed 1", **parts)
    (tmp_path / "state" / "images-000000000000010" / "manifest.json").write_text('{"model.safetensors": "0"}')
    with pytest.raises(InputError, match="an earlier version"):
        load_state(tmp_path, fit="seed 1", **parts)


def test_files_that_a_user_lays_beside_the_states_are_no_states(tmp_path):
    model, optimizer = trained_pair()
    save(tmp_path, model, optimizer, 10)
    shutil.copytree(tmp_path / "state" / "images-000000000000010", tmp_path / "state" / "images-backup")
    (tmp_path / "state" / "images-notes.txt").write_text("mine")
    for number in (20, 30, 40):
        save(tmp_path, model, optimizer, number)
    counters, _ = load_state(tmp_path, modules={"model": model}, optimizers=[optimizer])
    assert counters == {"images_seen": 40}
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["images-000000000000030", "images-000000000000040", "images-backup", "images-notes.txt"]


def test_what_a_killed_save_left_goes_once_it_is_no_longer_needed(tmp_path):
    model, optimizer = trained_pair()
    for number in (10, 20):
        save(tmp_path, model, optimizer, number)
    killed = tmp_path / "state" / "images-000000000000030"
    killed.mkdir()
    (killed / ".model.safetensors.tmp").write_text("half")
    save(tmp_path, model, optimizer, 25)  # after a budget in seconds the next state is at another number
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["images-000000000000020", "images-000000000000025"]


def test_only_the_newest_states_stay_and_no_temporary_ones(tmp_path):
    model, optimizer = trained_pair()
    step(model, optimizer)
    for n in (10, 20, 30, 40):
        save(tmp_path, model, optimizer, n)
    names = sorted(path.name for path in (tmp_path / "state").iterdir())
    assert names == ["images-000000000000030", "images-000000000000040"]


def test_an_unfinished_or_foreign_folder_is_no_run(tmp_path):
    with pytest.raises(InputError, match="not a finished run"):
        load_run(tmp_path)
    with pytest.raises(InputError, match=r"source\.json"):
        read_source(tmp_path)
    (tmp_path / "state").mkdir()
    with pytest.raises(InputError, match="same fit again"):
        load_run(tmp_path)


def test_hash_follows_the_weights(tmp_path):
    generator = make("cvae")
    save_generator(tmp_path, generator, CONFIG)
    before = checkpoint_hash(tmp_path)
    assert len(before) == 64
    with torch.no_grad():
        next(generator.parameters()).add_(1)
    save_generator(tmp_path, generator, CONFIG)
    assert checkpoint_hash(tmp_path) != before


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1_000_000_000},
        {"family": "diffusion"},
        {"image_size": 10_000},
        {"unknown": 1},
        {"width": 16},
        {"class_names": ["x"] * 200_000},
        {"version": "1"},
        {"attributes": [[0], [-1], [10**12]]},
    ],
)
def test_a_hostile_config_is_refused_with_one_line(tmp_path, change):
    save_generator(tmp_path, make("cvae"), CONFIG)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_unknown_family_is_suggested():
    with pytest.raises(InputError, match=r"did you mean 'cgan'"):
        find_family("cgn")
