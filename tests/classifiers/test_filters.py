from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from sklearn.datasets import load_digits

import synthaug
from synthaug.balance import per_class_plan
from synthaug.classifiers import AllOf, Density, combine_filters, default_filter, judge_images, likelihood_filter
from synthaug.classifiers.filters import LabelAgreement, LikelihoodFloor, PrototypeDistance
from synthaug.cli import main
from synthaug.core import InputError
from synthaug.data import to_tensor
from synthaug.publishing import drop_local_paths
from tests.toys import ToyGenerator


class ToyJudge:
    """Embeds an image by the means of its two halves; class 0 is bright left, class 1 bright right."""

    prototypes = torch.eye(2)
    radii = torch.tensor([0.5, 0.1])

    def embed(self, images):
        return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], dim=1)

    def logits(self, images):
        return self.embed(images)


def image(left: float, right: float) -> torch.Tensor:
    return torch.cat([torch.full((1, 8, 4), left), torch.full((1, 8, 4), right)], dim=2)


IMAGES = torch.stack([image(1, 0), image(1, 0.3), image(1, 0.8), image(0, 1), image(0.3, 1)])


def test_label_agreement():
    keep = LabelAgreement(ToyJudge().logits)(IMAGES, torch.tensor([0, 1, 0, 1, 0]))
    assert keep.tolist() == [True, False, True, True, False]


def test_distance_is_that_of_unit_vectors_against_the_radius_of_the_class():
    check = PrototypeDistance(ToyJudge().embed, ToyJudge.prototypes, ToyJudge.radii)
    assert check(IMAGES, torch.tensor([0, 0, 0, 1, 1])).tolist() == [True, True, False, True, False]
    assert check(IMAGES * 0.01, torch.tensor([0, 0, 0, 1, 1])).tolist() == [True, True, False, True, False]
    labels = torch.zeros(1, dtype=torch.int64)
    limit = (torch.nn.functional.normalize(ToyJudge().embed(IMAGES[1:2])) - torch.eye(2)[:1]).norm()
    for radius, kept in ((limit + 1e-6, True), (limit - 1e-6, False)):
        check = PrototypeDistance(ToyJudge().embed, torch.eye(2), torch.stack([radius, radius]))
        assert check(IMAGES[1:2], labels).item() is kept


def test_every_rejection_has_one_reason():
    keep, rejected = judge_images(default_filter(ToyJudge()), IMAGES, torch.tensor([0, 1, 0, 1, 1]))
    assert keep.tolist() == [True, False, False, True, False]
    assert rejected["label"].tolist() == [False, True, False, False, False]
    assert rejected["distance"].tolist() == [False, False, True, False, True]
    assert (keep.int() + sum(mask.int() for mask in rejected.values())).tolist() == [1] * 5
    torch.testing.assert_close(default_filter(ToyJudge())(IMAGES, torch.tensor([0, 1, 0, 1, 1])), keep)


def test_none_keeps_everything_and_a_plain_callable_will_do():
    labels = torch.zeros(5, dtype=torch.int64)
    assert judge_images(None, IMAGES, labels)[0].all()
    keep, rejected = judge_images(lambda x, y: x.mean((1, 2, 3)) > 0.6, IMAGES, labels)
    assert keep.tolist() == [False, True, True, False, True] and list(rejected) == ["filter"]


@pytest.mark.parametrize("wrong", [lambda x, y: torch.ones(3), lambda x, y: [True] * 5])
def test_a_filter_must_return_a_mask(wrong):
    with pytest.raises(InputError, match="bool tensor"):
        judge_images(AllOf({"mine": wrong}), IMAGES, torch.zeros(5, dtype=torch.int64))


def test_prototypes_and_radii_must_fit():
    with pytest.raises(InputError, match=r"\(K, F\)"):
        PrototypeDistance(ToyJudge().embed, torch.eye(2), torch.ones(3))


# ------------------------------------------------------------------------------------- a density as the judge


class ToyDensity:
    """Finds an image of class k likely when its left (0) or right (1) half is bright."""

    typical_low = torch.tensor([-0.5, -0.1])

    def log_prob(self, images, labels):
        return ToyJudge().embed(images).gather(1, labels[:, None])[:, 0] - 1

    def class_log_prob(self, images):
        return ToyJudge().embed(images).log_softmax(1)


def test_likelihood_is_bounded_from_below_only():
    check = LikelihoodFloor(ToyDensity().log_prob, ToyDensity.typical_low)
    assert check(IMAGES, torch.tensor([0, 0, 0, 1, 1])).tolist() == [True] * 5
    assert check(IMAGES * 0.7, torch.tensor([0, 0, 0, 1, 1])).tolist() == [True, True, True, False, False]
    assert check(IMAGES * 100, torch.tensor([0, 0, 0, 1, 1])).tolist() == [True] * 5


def test_the_likelihood_filter_asks_bayes_rule_first_and_names_its_reasons():
    assert isinstance(ToyDensity(), Density)
    images = torch.cat([IMAGES, IMAGES[:1] * 0.3])
    keep, rejected = judge_images(likelihood_filter(ToyDensity()), images, torch.tensor([0, 0, 1, 1, 1, 0]))
    assert rejected["posterior"].tolist() == [False, False, True, False, False, False]
    assert rejected["likelihood"].tolist() == [False, False, False, False, False, True]
    assert keep.tolist() == [True, True, False, True, True, False]


def test_filters_combine_and_keep_the_names_of_their_reasons():
    labels = torch.zeros(5, dtype=torch.int64)
    likelihood = likelihood_filter(ToyDensity())
    assert combine_filters(None, None) is None
    assert combine_filters(likelihood, None) is likelihood and combine_filters(None, likelihood) is likelihood
    both = combine_filters(default_filter(ToyJudge()), likelihood)
    assert list(judge_images(both, IMAGES, labels)[1]) == ["label", "distance", "posterior", "likelihood"]
    mine = combine_filters(lambda x, y: x.mean((1, 2, 3)) > 0.6, likelihood)
    assert list(judge_images(mine, IMAGES, labels)[1]) == ["filter", "posterior", "likelihood"]


# ------------------------------------------------------------------------------------- a Glow as the judge

DIGITS = (0, 4, 6)
NAMES = [str(digit) for digit in DIGITS]


def digits(rows=slice(None)):
    """Pixels (N, 8, 8, 1) uint8 and labels (N,) of rows of each of three digits."""
    data = load_digits()
    chosen = [np.flatnonzero(data.target == digit)[rows] for digit in DIGITS]
    pixels = np.round(data.images[np.concatenate(chosen)] * 255 / 16).astype(np.uint8)[..., None]
    return pixels, np.repeat(np.arange(3), [len(part) for part in chosen])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run folder of a small Glow fitted on the first 100 rows of each digit."""
    pixels, labels = digits(slice(100))
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    real = Dataset.from_dict({"image": [p[..., 0] for p in pixels], "label": labels}, features=features)
    folder = tmp_path_factory.mktemp("judge") / "run"
    options = {"dense_steps": 4, "dense_width": 48, "denoise_steps": 2, "validation": 0}
    synthaug.fit(real, "glow", output=folder, images=2_560, **options)
    return folder


@pytest.fixture(scope="module")
def held_out():
    pixels, labels = digits(slice(100, None))
    return to_tensor(pixels), torch.from_numpy(labels)


def test_real_rows_that_it_never_saw_are_kept(run, held_out):
    judge, (images, labels) = synthaug.load_generator(run), held_out
    assert judge.typical_low.isfinite().all() and len(labels) > 200
    keep, rejected = judge_images(likelihood_filter(judge), images, labels)
    assert keep.float().mean() >= 0.95
    assert (~rejected["likelihood"]).float().mean() >= 0.96  # 98 % are meant to pass; 240 rows tell that to 1 %


def test_wrong_classes_noise_and_ruins_are_rejected(run, held_out):
    check, (images, labels) = likelihood_filter(synthaug.load_generator(run)), held_out
    assert judge_images(check, images, (labels + 1) % 3)[0].float().mean() < 0.03
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert not judge_images(check, noise, labels)[0].any()
    assert judge_images(check, images.roll(4, 2), labels)[0].float().mean() < 0.2  # lower half on top


class Forger(ToyGenerator):
    """Gives real digits of the class, real ones of the next class, or noise, by the sign of two numbers."""

    def __init__(self, *, class_names=NAMES, image_size=8, channels=1):
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        self.pixels, self.labels = digits(slice(100, None))

    def decode_noise(self, noise, labels, temperature):
        images = torch.tanh(noise)
        for row, (label, numbers) in enumerate(zip(labels.tolist(), noise[:, 0, 0].tolist(), strict=True)):
            digit = (label + (numbers[1] > 0)) % 3
            pool = np.flatnonzero(self.labels == digit)
            if numbers[0] > 0:
                images[row] = to_tensor(self.pixels[pool[int(1000 * abs(numbers[2])) % len(pool)]][None])[0]
        return images


def test_generate_with_a_judge_keeps_its_own_counts_and_is_recorded(run, tmp_path):
    forger, plan = Forger(), per_class_plan(dict.fromkeys(NAMES, 0), 20)
    options = {"filter": "none", "judge": run}
    made = synthaug.generate(forger, plan, output=tmp_path / "out", **options)
    assert np.bincount(made["label"]).tolist() == [20, 20, 20]
    record = json.loads((tmp_path / "out" / "synthaug.json").read_text())
    judge = synthaug.load_generator(run)
    assert record["filter"] == "none" and record["judge"]["generator"] == "glow@1"
    assert len(record["judge"]["checkpoint"]) == 64
    for tally in record["acceptance"].values():
        assert 0.1 < tally["accepted"] / tally["drawn"] < 0.4  # a quarter of the draws are real digits of the class
        assert set(tally["rejected"]) == {"posterior", "likelihood"}
    for reason in ("posterior", "likelihood"):
        assert sum(tally["rejected"][reason] for tally in record["acceptance"].values()) > 0
    images = to_tensor(np.stack([np.asarray(image)[..., None] for image in made["image"]]))
    known = {p.tobytes() for p, label in zip(forger.pixels, forger.labels, strict=True)}
    assert all(np.asarray(image).tobytes() in known for image in made["image"])
    assert (judge.class_log_prob(images).argmax(1).numpy() == np.array(made["label"])).all()
    assert "likelihood by glow" in (tmp_path / "out" / "README.md").read_text()
    assert len(synthaug.generate(forger, plan, output=tmp_path / "out", **options)) == 60  # finished
    with pytest.raises(InputError, match="judge"):
        synthaug.generate(forger, plan, output=tmp_path / "out", filter="none")
    assert made[:]["label"] == synthaug.generate(forger, plan, filter="none", judge=judge)["label"][:]


def test_the_command_adds_the_judge_to_the_default_filter(run, tmp_path, capsys):
    command = ["generate", str(run), "--output", str(tmp_path / "out"), "--per-class", "4", "--judge", str(run)]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0 and capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "synthaug.json").read_text())
    reasons = {reason for tally in record["acceptance"].values() for reason in tally["rejected"]}
    assert record["filter"] == "default" and reasons == {"label", "distance", "posterior", "likelihood"}
    assert "judge" not in record["recipe"]["generate"]  # a local path is not written down
    assert drop_local_paths({"judge": "me/glow"}) == {"judge": "me/glow"}
    with pytest.raises(SystemExit) as stop:
        main(command[:-2])
    assert stop.value.code == 2 and "judge" in capsys.readouterr().err


def test_a_judge_that_does_not_fit_is_refused_in_one_line(run):
    plan = per_class_plan(dict.fromkeys(NAMES, 0), 1)
    wrong = [
        (ToyGenerator(class_names=NAMES), run, "no_family"),
        (Forger(class_names=["6", "4", "0"]), run, "class_names"),
        (Forger(image_size=9), run, "image_size"),
        (Forger(channels=3), run, "channels"),
    ]
    for generator, judge, message in wrong:
        judge, message = (generator, "no exact likelihood") if message == "no_family" else (judge, message)
        with pytest.raises(InputError, match=message) as caught:
            synthaug.generate(generator, plan, filter="none", judge=judge)
        assert "\n" not in str(caught.value)
    untold = synthaug.Glow(class_names=NAMES, image_size=8, channels=1, dense_steps=1, dense_width=8)
    with pytest.raises(InputError, match="how likely real images are"):
        synthaug.generate(Forger(), plan, filter="none", judge=untold)
    with pytest.raises(InputError, match="not a finished run"):
        synthaug.generate(Forger(), plan, filter="none", judge="no/such/run")
