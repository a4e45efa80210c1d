"""One table of words says what a split is called, and what only sounds like one."""

import pytest

from synthaug.data.split_names import SPLIT_WORDS, find_split, name_splits, own_names


@pytest.mark.parametrize("word", SPLIT_WORDS)
@pytest.mark.parametrize(
    "form", ["{}", "{}2017", "{}_set", "{}set", "01-{}", "{} images", "{}_1", "{}Data", "my_{}.v2"]
)
def test_every_word_is_found_in_every_form(word, form):
    assert find_split(form.format(word)) == SPLIT_WORDS[word]
    assert find_split(form.format(word.capitalize())) == SPLIT_WORDS[word]


@pytest.mark.parametrize("name", ["cat", "trains", "latest", "contest", "devil", "interval", "evalu", "", "12", "日本"])
def test_a_word_inside_another_word_is_none(name):
    assert find_split(name) is None


def test_training_and_validation_together_are_train_and_other_pairs_are_none():
    assert find_split("train_val") == find_split("trainval") == "train"
    assert find_split("train_test_split") is None and find_split("val-test") is None


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train2017", "val2017"], ["train", "validation"]),
        (["training_set", "test_set"], ["train", "test"]),
        (["TrainImages", "TestImages"], ["train", "test"]),
        (["seg_train", "seg_test", "seg_pred"], ["train", "test", None]),
        (["part1_training_input", "part1_test_input"], ["train", "test"]),
        (["test_tube", "flask"], [None, None]),
        (["steam_train", "bullet_train"], [None, None]),
        (["test_tube", "train_station"], [None, None]),
    ],
)
def test_a_name_with_other_words_is_a_split_only_beside_one_of_the_same_words(names, splits):
    assert list(name_splits(names).values()) == splits


def test_splits_that_share_a_word_keep_their_own_names():
    assert own_names([("training", "train"), ("test", "test")]) == {"training": "train", "test": "test"}
    assert own_names([("test", "test"), ("eval", "test")]) == {"test": "test", "eval": "eval"}
    assert own_names([("train 1", "train"), ("train-1", "train")]) == {"train 1": "train_1_0", "train-1": "train_1_1"}
