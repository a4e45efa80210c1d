"""The loop and the run folder, for every family."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from synthaug.checkpoint import load_generator, load_judge, load_snapshots, read_source
from synthaug.descent import _descend, _make_optimizer
from synthaug.errors import FailedError, InputError, StoppedError
from synthaug.fitting import fit
from synthaug.generators import GENERATORS
from synthaug.generators.base import Objective
from synthaug.tracking import _Alarms

families = pytest.mark.parametrize("family", list(GENERATORS))


def toy_dataset(per_class=24, classes=3, size=8):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for i in range(per_class * classes):
        pixels = rng.integers(0, 60, (size, size)).astype(np.uint8)
        pixels[:, : (i % classes + 1) * size // (classes + 1)] += 180
        images.append(PILImage.fromarray(pixels))
        labels.append(i % classes)
    features = Features({"image": Image(), "label": ClassLabel(names=[f"c{k}" for k in range(classes)])})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def weights(folder):
    return {k: v.clone() for k, v in load_generator(folder).state_dict().items()}


@families
def test_a_run_folder_holds_what_the_contract_says(family, tmp_path):
    generator = fit(toy_dataset(), family, output=tmp_path / "run", images=640)
    folder = tmp_path / "run"
    for name in ("config.json", "model.safetensors", "judge.safetensors", "source.json", "recipe.yaml", "README.md",
                 "log.jsonl", "samples/final.png"):  # fmt: skip
        assert (folder / name).is_file(), name
    assert generator.class_names == ["c0", "c1", "c2"] and generator.run_folder == folder
    source = read_source(folder)
    assert source["class_counts"] == {"c0": 24, "c1": 24, "c2": 24}
    held_out, fitted = source["hashes"]["validation"], source["hashes"]["train"]
    assert len(held_out) >= 12 and not set(held_out) & set(fitted)
    assert load_judge(folder).logits(generator.sample(torch.tensor([0, 1]))).shape == (2, 3)
    json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


@families
def test_bf16_fits_and_keeps_its_weights_in_float32(family, tmp_path):
    generator = fit(toy_dataset(), family, output=tmp_path / "run", images=320, mixed_precision="bf16")
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in generator.parameters())
    assert generator.sample(torch.tensor([0, 1, 2])).isfinite().all()


def test_an_alarm_that_lasts_is_told_once_and_a_passing_one_never(tmp_path, capsys):
    alarms = _Alarms(tmp_path)
    for lines in (["a", "b"], ["a"], ["a", "b"], ["a", "b"], ["a"]):
        alarms.sound(lines)
    assert alarms.told == ["a"]
    assert (tmp_path / "log.jsonl").read_text() == '{"warning": "a"}\n'
    assert capsys.readouterr().err.count("warning: a") == 1


def test_a_step_with_a_gradient_that_is_not_finite_is_left_out(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    module = torch.nn.Module()
    module.weight = parameter
    objective = Objective("o", module, None, learning_rate=0.1, clip_norm=1.0, skip_norm=10.0)
    optimizer = _make_optimizer(objective)
    for loss in (parameter.sum() * 1e6, parameter.sum() * torch.nan):
        optimizer.zero_grad()
        loss.backward()
        _descend(objective, optimizer, 0.5)
        assert torch.equal(parameter.detach(), torch.ones(2))
    optimizer.zero_grad()
    parameter.sum().backward()
    _descend(objective, optimizer, 0.5)
    assert (parameter < 1).all()


def test_a_snapshot_is_kept_when_its_share_of_the_fit_is_done(tmp_path):
    fit(toy_dataset(), "cgan", output=tmp_path / "run", images=320, batch_size=32)
    names = sorted(path.name for path in (tmp_path / "run" / "state").glob("snapshot-*"))
    assert names == ["snapshot-0.safetensors", "snapshot-1.safetensors"]
    kept = load_snapshots(tmp_path / "run")
    last = load_generator(tmp_path / "run").state_dict()
    assert kept["snapshot-0"].keys() == last.keys()
    assert any(not torch.equal(kept["snapshot-0"][name], last[name]) for name in last)


@families
def test_resumed_equals_uninterrupted(family, tmp_path, monkeypatch):
    data = toy_dataset()
    fit(data, family, output=tmp_path / "whole", images=1280, batch_size=32, save_every=320)

    import synthaug.training as training

    class StopsLater:
        """Answers like StopSignals, with a signal after some steps."""

        calls = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        @property
        def received(self):
            StopsLater.calls += 1
            return 15 if StopsLater.calls == 18 else 0

    with monkeypatch.context() as patch:
        patch.setattr(training, "StopSignals", StopsLater)
        with pytest.raises(StoppedError, match="the same command goes on") as caught:
            fit(data, family, output=tmp_path / "cut", images=1280, batch_size=32, save_every=320)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "cut" / "config.json").exists()
    fit(data, family, output=tmp_path / "cut", images=1280, batch_size=32, save_every=320)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_same_call_again_and_other_arguments(tmp_path):
    data, folder = toy_dataset(), tmp_path / "run"
    fit(data, "cvae", output=folder, images=320)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    fit(data, "cvae", output=folder, images=320)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"fit\.images.*fresh=True"):
        fit(data, "cvae", output=folder, images=640)
    with pytest.raises(InputError, match=r"generator\.family"):
        fit(data, "cgan", output=folder, images=320)
    fit(data, "cvae", output=folder, images=640, fresh=True)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"'thesis\.tex' not made by synthaug fit; give another folder"):
        fit(toy_dataset(), "cvae", output=tmp_path, images=320)
    with pytest.raises(InputError, match=r"thesis\.tex"):
        fit(toy_dataset(), "cvae", output=tmp_path, images=320, fresh=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    fit(toy_dataset(), "cvae", output=tmp_path / "run", images=320)
    (tmp_path / "run" / "state" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"'state/thesis\.tex' not made by this command"):
        fit(toy_dataset(), "cvae", output=tmp_path / "run", images=320, fresh=True)
    assert (tmp_path / "run" / "state" / "thesis.tex").exists() and (tmp_path / "run" / "config.json").exists()


def test_other_rows_under_the_same_output_are_refused(tmp_path):
    rows = toy_dataset()
    fit(rows, "cvae", output=tmp_path / "run", images=320)
    renamed = rows.cast_column("label", ClassLabel(names=[f"other {name}" for name in rows.features["label"].names]))
    for other in (rows.select(range(len(rows) - 1)), renamed):
        with pytest.raises(InputError, match=r"other arguments \(rows of the dataset\).*fresh=True"):
            fit(other, "cvae", output=tmp_path / "run", images=320)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 4}, r"unknown key generator\.widht \(did you mean 'width'\?\)"),
        ({"batch_size": 0}, "batch_size"),
        ({"image_size": 4}, "image_size"),
        ({"limit_per_class": 0}, "limit_per_class"),
        ({"seed": -1}, "seed"),
        ({"budget": "5m"}, "not both"),
    ],
)
def test_bad_options_name_the_key(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(toy_dataset(), "cvae", output=tmp_path / "run", images=320, **options)
    assert not (tmp_path / "run" / "config.json").exists()


def test_divergence_is_named_and_the_last_state_stays(tmp_path, monkeypatch):
    original = GENERATORS["cvae"].loss

    def diverge(self, module, images, labels, rng):
        terms = original(self, module, images, labels, rng)
        return {**terms, "loss": terms["loss"] * (float("nan") if rng.step >= 15 else 1.0)}

    monkeypatch.setattr(GENERATORS["cvae"], "loss", diverge)
    with pytest.raises(FailedError, match=r"diverged.*learning_rate"):
        fit(toy_dataset(), "cvae", output=tmp_path / "run", images=3200, batch_size=32, save_every=320)
    assert [p.name for p in (tmp_path / "run" / "state").glob("images-*")] == ["images-000000000000320"]
    assert not (tmp_path / "run" / "config.json").exists()


def run_cli(*words, **environment):
    command = [sys.executable, "-m", "synthaug", *map(str, words)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("family", ["cgan", *(pytest.param(f, marks=pytest.mark.slow) for f in ("cvae", "glow"))])
def test_two_processes_equal_one_up_to_summation_order(family, tmp_path):
    words = ["fit", "digits", "--generator", family, "--images", "640", "--set", "fit.batch_size=64",
             "--limit-per-class", "20"]  # fmt: skip
    # at some strengths a gradient that rounding alone keeps from zero turns its sign, which Adam makes a whole step of
    words += ["--set", "generator.augment_images=1_280_000"] if family == "cgan" else []
    for name, more in (("one", []), ("two", ["--num-processes", "2"])):
        process = run_cli(*words, "--output", tmp_path / name, *more)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in a:
        torch.testing.assert_close(a[name].double(), b[name].double(), atol=2e-3, rtol=2e-2, msg=name)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_tells_how_to_go_on(number, code, tmp_path):
    words = ["fit", "digits", "--generator", "cvae", "--images", "10M", "--output", tmp_path / "run"]
    process = run_cli(*words)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "the same command goes on" in err and "Traceback" not in err
    assert list((tmp_path / "run" / "state").glob("images-*"))


def test_a_judge_of_a_large_set_sees_some_rows_of_every_class(monkeypatch):
    import synthaug.completion as module
    from synthaug.data import load_images

    rows = load_images(toy_dataset(per_class=12))
    assert module._choose_judge_rows(rows, 0) is rows
    monkeypatch.setattr(module, "_JUDGE_BYTES", 3 * 5 * rows.pixels[0].nbytes)
    few = module._choose_judge_rows(rows, 0)
    assert few.class_counts == {"c0": 5, "c1": 5, "c2": 5}
    batches = list(module._read_batches(rows, torch.device("cpu")))
    assert sum(len(labels) for _, labels in batches) == len(rows)


def test_latents_are_sorted_by_class_however_they_come():
    from checks import make, toy_batch

    generator = make("cvae")
    images, labels = toy_batch()
    generator.memorize([(images, labels)])
    whole = generator.latents
    order = labels.argsort(stable=True)
    generator.memorize([(images[order][:9], labels[order][:9]), (images[order][9:], labels[order][9:])])
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, generator.latents[name], msg=name)
