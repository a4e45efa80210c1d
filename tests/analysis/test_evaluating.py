"""evaluate(): planted copies, wrong labels and lost variety are found; the command; the same rows as generate."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch

import synthaug
import synthaug.analysis.evaluation.evaluating
from synthaug.analysis import Evaluation, evaluate
from synthaug.analysis.evaluation import measurements
from synthaug.analysis.evaluation.cache import NetworkCache
from synthaug.analysis.evaluation.cas import ScoreClassifier, fit_score_classifier
from synthaug.analysis.evaluation.entries import describe_parts
from synthaug.analysis.evaluation.measurements import compare_features, find_copies, score_accuracy
from synthaug.analysis.evaluation.networks import RandomNetwork, count_referee_steps, embed_rows, fit_referee
from synthaug.analysis.evaluation.remarks import write_remarks
from synthaug.analysis.evaluation.samples import Draws, take_draws
from synthaug.analysis.evaluation.splits import ComparedRows, RealRows, take_evenly
from synthaug.balance import per_class_plan
from synthaug.classifiers import ResidualClassifier, default_filter, fit_judge, save_judge
from synthaug.cli import program
from synthaug.core import FailedError, InputError, StoppedError
from synthaug.data import load_images, open_splits, split_validation, to_tensor
from synthaug.generation import generate
from synthaug.generators import CVAE, save_generator
from tests.benchmarks.test_benchmarking import dataset
from tests.toys import ToyGenerator

NAMES = [str(digit) for digit in range(10)]
NOWHERE = {"cache": NetworkCache(None, {}), "on_step": lambda _: None}


@pytest.fixture(scope="module")
def digits():
    """(train, validation, test, spare) rows of the digits; the spare ones play good synthetic rows."""
    splits = open_splits("digits")
    train, validation = split_validation(load_images(splits["train"]))
    test = load_images(splits["test"], class_names=train.class_names, codec=train.codec)
    spare = take_evenly(train.labels, np.full(10, 40))
    rest = np.setdiff1d(np.arange(len(train)), spare)
    return train.take(rest), validation, test, train.take(spare)


@pytest.fixture(scope="module")
def referee(digits):
    train = digits[0]
    return fit_referee(train.pixels, train.labels, 10, steps=60)


def compared_rows(digits, pixels, labels):
    train, validation, test, _ = digits
    return ComparedRows(RealRows(train, validation, test, "clean", ()), Draws(pixels, labels, None))


def appraise(digits, referee, pixels, labels):
    """Every number but the accuracy score, which gets made-up hits."""
    from synthaug.analysis.evaluation.cas import predict_classes
    from synthaug.analysis.evaluation.measurements import Accuracy

    rows = compared_rows(digits, pixels, labels)
    hits = np.ones((2, len(digits[2])), bool)
    found = {"synthetic": predict_classes(referee, pixels), "test": predict_classes(referee, digits[2].pixels)}
    accuracy = Accuracy(hits, hits, np.full(10, 40), None)
    return describe_parts(rows, accuracy, found, compare_features(rows, referee), find_copies(rows))


# ------------------------------------------------------------------------------------------------------- networks


def test_the_fixed_classifier_is_the_one_of_the_protocol():
    network = ScoreClassifier(10, 28, 1)
    kinds = [type(layer).__name__ for layer in network.features]
    assert kinds.count("Conv2d") == 4 and kinds.count("MaxPool2d") == 3
    assert [m.out_channels for m in network.features if isinstance(m, torch.nn.Conv2d)] == [16, 32, 32, 64]
    assert network.head.in_features == 64 * 4 * 4 and network.padding == (2, 2, 2, 2)
    assert ScoreClassifier(3, 13, 3).padding == (1, 2, 1, 2)
    seen = []
    network.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(torch.ones(1, 1, 28, 28))
    assert seen[0].shape[-1] == 32 and seen[0].min() == 0 and seen[0].max() == 1  # black around, values in [0, 1]


def test_the_fixed_training_is_the_one_of_the_protocol_written_out(digits):
    pixels, labels = digits[0].pixels, digits[0].labels
    network = fit_score_classifier(pixels, labels, 10, seed=3, steps=3)
    torch.manual_seed(3)
    other, order = ScoreClassifier(10, 8, 1), np.random.RandomState(3)
    optimizer = torch.optim.AdamW(other.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=3)
    for _ in range(3):
        rows = order.randint(0, len(pixels), 128)
        loss = torch.nn.functional.cross_entropy(
            other(to_tensor(pixels[rows])), torch.from_numpy(labels[rows]), label_smoothing=0.05
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (17, 4), (28, 1), (48, 3), (64, 2)])
def test_both_feature_networks_take_every_size(size, channels):
    images = torch.zeros(2, channels, size, size)
    assert ResidualClassifier(3, size, channels)(images).shape == (2, 3)
    assert RandomNetwork(channels).embed(images).shape == (2, 256)


def test_the_random_network_never_changes():
    network = RandomNetwork(1)
    first = network.layers[0].weight.flatten()[:3]
    expected = (
        torch.from_numpy(synthaug.core.noise.draw_normal(2_020, 0, 0, 32, (1, 3, 3))).flatten()[:3] * (2 / 9) ** 0.5
    )
    torch.testing.assert_close(first, expected)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_referee_learns_and_its_steps_follow_from_the_rows(digits, referee):
    test = digits[2]
    features = embed_rows(referee, test.pixels)
    assert features.shape == (len(test), 80)
    predictions = referee.head(features).argmax(1).numpy()
    assert (predictions == test.labels).mean() > 0.9
    assert [count_referee_steps(rows, 1) for rows in (100, 5_000, 54_000)] == [200, 400, 1_000]
    assert count_referee_steps(50_000, 3) == 2_000


# ---------------------------------------------------------------------------------------------------- planted faults


def test_good_rows_raise_no_alarm(digits, referee):
    spare = digits[3]
    facts = appraise(digits, referee, spare.pixels, spare.labels)
    assert facts["copies"] <= facts["copies_held_out_interval"][1]
    assert abs(facts["copy_test"]["score"]) < 4 and 0.35 < facts["copy_test"]["nearer"] < 0.65
    assert facts["wrong_class"] < 0.1
    coverage = facts["coverage"]["random"]
    assert coverage["value"] > 0.85 and coverage["expected"] == pytest.approx(0.969, abs=0.002)
    low, high = facts["kernel_distance"]["random"]["interval"]
    assert low < 0.02 and high > -0.02
    few = write_remarks({**facts, "acceptance": None, "settings": {"rows": {"synthetic": 5_000, "cas_real": 488}}})[0]
    assert "on the 5,000 synthetic rows" in few and "trained on the 488 real rows there are (at most as many" in few
    even = write_remarks({**facts, "acceptance": None, "settings": {"rows": {"synthetic": 400, "cas_real": 400}}})[0]
    assert "trained on as many real rows," in even
    assert "No sign of copies" in " ".join(write_remarks({**facts, "acceptance": None}))


def test_planted_copies_are_found_in_their_class(digits, referee):
    train, spare = digits[0], digits[3]
    pixels = spare.pixels.copy()
    copied = np.flatnonzero(spare.labels == 7)[:20]
    sources = np.flatnonzero(train.labels == 7)[:20]
    pixels[copied] = np.clip(train.pixels[sources].astype(int) + 3, 0, 255).astype(np.uint8)
    facts = appraise(digits, referee, pixels, spare.labels)
    seven = facts["per_class"][7]
    assert seven["copies"] >= 0.5 and seven["copy_test"]["own_copies"] >= 0.5
    assert facts["copies"] == pytest.approx(0.05, abs=0.02) and facts["copies_interval"][0] > 0.02
    assert seven["copy_test"]["score"] < -2
    assert any("Copies:" in remark and "7 (" in remark for remark in write_remarks({**facts, "acceptance": None}))


def test_copies_point_at_their_training_rows(digits):
    train = digits[0]
    rows = take_evenly(train.labels, np.full(10, 3))
    found = find_copies(compared_rows(digits, train.pixels[rows], train.labels[rows]))
    assert found.overall.copies.value == 1.0 and found.distances.max() == 0.0
    np.testing.assert_array_equal(train.pixels[found.nearest], train.pixels[rows])


def test_shuffled_labels_raise_the_wrong_share(digits, referee):
    spare = digits[3]
    labels = np.random.RandomState(0).permutation(spare.labels)
    order = np.argsort(labels, kind="stable")
    facts = appraise(digits, referee, spare.pixels[order], labels[order])
    assert facts["wrong_class"] == pytest.approx(0.9, abs=0.06)
    assert facts["per_class"][0]["coverage"]["classifier"]["value"] < 0.9
    assert facts["coverage"]["random"]["value"] > 0.85  # all classes together, labels do not matter
    assert "Labels to doubt most" in " ".join(write_remarks({**facts, "acceptance": None}))


def test_a_generator_of_one_picture_a_class_lacks_variety(digits, referee):
    spare = digits[3]
    first = np.concatenate([np.repeat(spare.pixels[spare.labels == c][:1], 40, axis=0) for c in range(10)])
    facts = appraise(digits, referee, first, np.repeat(np.arange(10), 40))
    assert facts["coverage"]["random"]["value"] < 0.4
    assert facts["kernel_distance"]["random"]["interval"][0] > 0
    assert any(remark.startswith("Variety") for remark in write_remarks({**facts, "acceptance": None}))


def test_remarks_do_without_a_measure_of_too_few_rows(digits, referee):
    spare, empty = digits[3], {"value": None, "interval": None, "rows": 3}
    first = np.concatenate([np.repeat(spare.pixels[spare.labels == c][:1], 40, axis=0) for c in range(10)])
    facts = appraise(digits, referee, first, np.repeat(np.arange(10), 40))
    for space in ("classifier", "random"):
        facts["coverage"][space]["validation"] = dict(empty)
        facts["density"][space] |= {"validation": dict(empty), "training": dict(empty)}
    remarks = write_remarks({**facts, "acceptance": None})
    assert any(remark.startswith("Variety") for remark in remarks)  # against the training rows
    assert not any(remark.startswith("Fidelity") for remark in remarks)


def test_the_score_tells_good_rows_from_shuffled_ones_and_takes_a_policy(digits):
    spare = digits[3]
    rows = compared_rows(digits, spare.pixels, np.random.RandomState(0).permutation(spare.labels))
    found = score_accuracy(rows, seeds=1, steps=30, augmentation="affine", device="cpu", **NOWHERE)
    assert found.policy == "affine" and found.real_rows.tolist() == [40] * 10
    assert found.real.mean() > 0.6 > found.synthetic.mean() + 0.3


def test_the_classical_policy_is_chosen_on_validation_rows(digits, monkeypatch):
    calls = []

    def fit(pixels, labels, num_classes, *, policy, **options):
        calls.append((len(pixels), policy))
        return policy

    def predict(policy, pixels):
        labels = digits[1].labels if len(pixels) == len(digits[1]) else digits[2].labels
        return labels if policy == synthaug.core.policies.POLICIES["affine+tone"] else np.zeros_like(labels)

    monkeypatch.setattr(synthaug.analysis.evaluation.measurements, "fit_score_classifier", fit)
    monkeypatch.setattr(synthaug.analysis.evaluation.measurements, "predict_classes", predict)
    spare = digits[3]
    found = score_accuracy(
        compared_rows(digits, spare.pixels[:200], spare.labels[:200]),
        seeds=2,
        steps=3,
        augmentation="classical",
        device="cpu",
        **NOWHERE,
    )
    assert found.policy == "affine+tone" and found.synthetic.all() and found.real.all()
    assert len(calls) == len(synthaug.core.policies.POLICIES) + 4


# ------------------------------------------------------------------------------------------------------- the work


@pytest.fixture(scope="module")
def run_folder(digits, tmp_path_factory):
    """A finished run that nobody fitted, and that says it has seen 20 rows of each class."""
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    folder.mkdir()
    images = load_images(open_splits("digits")["train"], limit_per_class=20)
    train, validation = split_validation(images)
    constructor = {"class_names": NAMES, "image_size": 8, "channels": 1, "width": 8, "latent_dim": 4}
    torch.manual_seed(0)
    source = {
        "dataset": "digits", "split": "train", "limit_per_class": 20, "image_column": "image",
        "label_column": "label", "features": images.dataset.features.to_dict(), "class_names": NAMES,
        "class_counts": images.class_counts, "codec": images.codec.to_dict(),
        "hashes": {"train": train.hashes.tolist(), "validation": validation.hashes.tolist()},
        "corrupt": [], "unlabelled": 0,
    }  # fmt: skip
    (folder / "source.json").write_text(json.dumps(source))
    save_judge(folder, fit_judge(train.pixels, train.labels, class_names=NAMES, steps=4))
    generator = CVAE(**constructor)
    generator.memorize([(to_tensor(train.pixels), torch.from_numpy(train.labels))])
    save_generator(folder, generator, constructor)
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(synthaug.analysis.evaluation.evaluating, "STEPS", 3)
    monkeypatch.setattr(synthaug.analysis.evaluation.evaluating, "count_referee_steps", lambda rows, channels: 3)


def test_the_command_writes_its_folder_and_finds_it_again(run_folder, quick, capsys, monkeypatch):
    words = ["evaluate", str(run_folder), "--test", "digits", "--per-class", "12", "--seeds", "2"]
    assert program._run(words, debug=True) == 0
    out, err = capsys.readouterr()
    folder = run_folder / "evaluation"
    assert out.strip().splitlines()[-1] == str(folder)
    assert "| CAS |" in err and "referee" in err
    content = json.loads((folder / "evaluation.json").read_text())
    for key in ("cas", "cas_interval", "cas_real", "wrong_class", "copies", "density", "coverage", "kernel_distance"):
        assert content[key] is not None, key
    assert [row["name"] for row in content["per_class"]] == NAMES
    assert content["settings"]["rows"] == {
        "train": 160, "validation": 40, "test": 540, "synthetic": 120, "cas_real": 120
    }  # fmt: skip
    assert all(0 <= row["acceptance"] <= 1 for row in content["per_class"])
    page = (folder / "evaluation.md").read_text()
    assert "## Classes" in page and "](closest.png)" in page and "&#" not in page.split("## Classes")[0]
    assert {path.name for path in folder.glob("*.png")} == {"samples.png", "neighbours.png", "closest.png"}
    assert f"synthaug evaluate {run_folder} --test digits --on-bad-image error --per-class 12 --seeds 2" in page
    assert Evaluation.load(folder).to_dict() == content

    monkeypatch.setattr(synthaug.analysis.evaluation.evaluating, "_measure", None)  # nothing is measured again
    assert program._run(words, debug=True) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert program._run([*words, "--seed", "1"], debug=False) == 2
    assert "seed" in (line := capsys.readouterr().err) and "--fresh" in line


def test_the_rows_are_those_that_generate_writes(run_folder):
    generator = synthaug.load_generator(run_folder)
    judge = default_filter(synthaug.classifiers.judge.load_judge(run_folder))
    written = generate(generator, per_class_plan(dict.fromkeys(NAMES, 1), 3), seed=5, filter="none")
    temperature = generator.default_temperature
    draws = take_draws(generator, 3, seed=5, temperature=temperature, check=None, judge=judge)
    assert draws.labels.tolist() == written["label"][:]
    np.testing.assert_array_equal(draws.pixels[..., 0], np.stack([np.asarray(i) for i in written["image"][:]]))
    assert [tally.drawn for tally in draws.acceptance] == [3] * 10


def bright(images, labels):
    return images[:, 0, 0, 0] > images[:, 0, -1, -1]


def test_a_filter_chooses_and_a_hopeless_one_ends_it():
    generator = ToyGenerator()
    written = generate(generator, per_class_plan({"ant": 1, "bee": 1, "cat": 1}, 70), seed=1, filter=bright)
    draws = take_draws(generator, 70, seed=1, temperature=1.0, check=bright, judge=bright)
    np.testing.assert_array_equal(draws.pixels[..., 0], np.stack([np.asarray(i) for i in written["image"][:]]))
    assert all(tally.accepted == 70 and 90 < tally.drawn < 200 for tally in draws.acceptance)
    with pytest.raises(FailedError, match="class 'ant': the filter kept 0 of 1,020 draws"):
        take_draws(generator, 1, seed=1, temperature=1.0, check=lambda i, y: y < 0, judge=None)


def test_seen_test_rows_can_be_left_out(run_folder, quick, tmp_path, capsys):
    words = [
        "evaluate",
        str(run_folder),
        "--test",
        "digits",
        "--test-split",
        "train",
        "--per-class",
        "12",
        "--seeds",
        "1",
    ]
    assert program._run([*words, "--drop-leaks", "--output", str(tmp_path)], debug=True) == 0
    content, page = json.loads((tmp_path / "evaluation.json").read_text()), (tmp_path / "evaluation.md").read_text()
    assert content["settings"]["rows"]["test"] == 1257 - 200 and "--drop-leaks --per-class" in page
    assert "200 test rows that the run has seen were left out." in content["notes"]
    capsys.readouterr()


def test_seen_test_rows_and_unknown_training_rows_are_refused(run_folder, quick):
    splits, generator = open_splits("digits"), synthaug.load_generator(run_folder)
    with pytest.raises(InputError, match=r"test rows are among the train rows of the run.*add drop_leaks=True"):
        evaluate(generator, splits["train"], real=splits["train"])
    with pytest.raises(InputError, match=r"none of the 540 real rows is among the 160 rows.*real=DATASET"):
        evaluate(generator, splits["test"], real=splits["test"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 0}, "per_class is 0; give an integer from 1"),
        ({"seeds": True}, "seeds is True"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"augmentation": "clasical"}, "did you mean 'classical'"),
        ({"filter": "best"}, "filter is 'best'"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_bad_arguments_name_the_remedy(run_folder, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(synthaug.load_generator(run_folder), open_splits("digits")["test"], **options)


def test_a_bare_generator_of_the_users_own_is_evaluated_with_its_rows(digits, quick):
    class Bare(ToyGenerator):
        """Five classes, in no run folder."""

    names = [f"digit {i}" for i in range(5)]
    train, test = (
        dataset(rows.pixels[rows.labels < 5, ..., 0], rows.labels[rows.labels < 5]) for rows in (digits[0], digits[2])
    )
    evaluation = synthaug.evaluate(Bare(class_names=names), test, real=train, per_class=8, seeds=1)
    assert evaluation.acceptance is None and evaluation.settings["leaks"] == "not checked"
    assert evaluation.cas_interval is None and evaluation.settings["held_out"] == "test"
    assert any("row hashes are not known" in note for note in evaluation.notes)
    assert "default filter" not in evaluation.table and "Notes" in evaluation.to_markdown()
    with pytest.raises(InputError, match=r"name them with real=DATASET"):
        synthaug.evaluate(Bare(class_names=names), test, per_class=8)


def test_a_signal_ends_it_with_nothing_written(run_folder, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        synthaug.analysis.evaluation.evaluating,
        "load_real_rows",
        lambda *rows, **options: os.kill(os.getpid(), signal.SIGTERM),
    )
    words = ["evaluate", str(run_folder), "--test", "digits", "--per-class", "2", "--output", str(tmp_path / "out")]
    assert program._run(words, debug=False) == 143
    assert "run the same again: what was trained is kept" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_interrupted_evaluation_goes_on_after_its_last_training(run_folder, quick, monkeypatch, tmp_path):
    words = ["evaluate", str(run_folder), "--test", "digits", "--per-class", "8", "--seeds", "2"]
    assert program._run([*words, "--output", str(tmp_path / "whole")], debug=True) == 0
    trained, train, left = [], measurements.fit_score_classifier, [3]

    def interrupted(*rows, **options):
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError("stopped by signal 15", 15)
        trained.append(options["seed"])
        return train(*rows, **options)

    monkeypatch.setattr(measurements, "fit_score_classifier", interrupted)
    folder = tmp_path / "parts"
    assert program._run([*words, "--output", str(folder)], debug=False) == 143
    assert len(list(folder.glob("trained/*/*.safetensors"))) == 3 and not (folder / "evaluation.json").exists()
    left[0] = 99
    assert program._run([*words, "--output", str(folder)], debug=True) == 0
    assert trained == [0, 1, 0, 1]  # the fourth alone was missing
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )
    whole, parts = (json.loads((path / "evaluation.json").read_text()) for path in (tmp_path / "whole", folder))
    for content in (whole, parts):
        content["settings"].pop("seconds")
        content.pop("command")
    assert whole == parts


def test_other_arguments_and_fresh_begin_anew(tmp_path):
    made = []

    def train():
        made.append(torch.nn.Linear(2, 1))
        return made[-1]

    def fetch(folder, **arguments):
        return NetworkCache(folder, arguments).fetch("net", lambda: torch.nn.Linear(2, 1), train)

    first = fetch(tmp_path, seed=0)
    assert torch.equal(fetch(tmp_path, seed=0).weight, first.weight) and len(made) == 1
    fetch(tmp_path, seed=1)
    fetch(None, seed=0)
    assert len(made) == 3
    NetworkCache(tmp_path, {"seed": 0}).clear()
    fetch(tmp_path, seed=0)
    assert len(made) == 4


def test_a_hub_id_needs_an_output():
    assert program._run(["evaluate", "me/mine", "--test", "digits"], debug=False) == 2
