from __future__ import annotations

import pytest
import torch

from synthaug.errors import InputError
from synthaug.filtering import AllOf, LabelAgreement, PrototypeDistance, default_filter, judge_images


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
