"""Which split a folder, a file or a value names: one table of words for every layout."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["SPLIT_COLUMNS", "SPLIT_WORDS", "find_split", "name_splits", "own_names"]

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
}
"""Word -> split."""

SPLIT_COLUMNS = frozenset(
    {"split", "subset", "partition", "set", "phase", "usage", "fold", "data_split", "dataset_split"}
)
"""Names of columns whose values may be splits, in lower case."""

_ADDED = ("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "folder", "split")
"""Words that may hang on a split word: trainset, testdata."""

_NEUTRAL = frozenset(
    {*_ADDED, "picture", "pictures", "photo", "photos", "pics", "splits", "subset", "part", "partition", "files"}
    | {"full", "all", "final", "original", "raw", "clean", "cleaned", "resized", "cropped", "small", "large"}
    | {"labels", "labelled", "labeled", "unlabelled", "unlabeled", "extra", "mask", "masks"}
)
"""Words beside a split word that say nothing of a class: training_set, test_images."""

_COMPOUND = re.compile(f"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})({'|'.join(_ADDED)})?")


@dataclass(frozen=True)
class _Name:
    """A name taken apart: the split that it names, if any, and its other words."""

    split: str | None
    rest: tuple[str, ...]

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the split is named."""
        return self.split is not None and _NEUTRAL.issuperset(self.rest)


def _take_apart(name: str) -> _Name:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TestImages
    words = re.findall(r"[^\W\d_]+", spaced.lower())
    found = {word: SPLIT_WORDS[match[1]] for word in words if (match := _COMPOUND.fullmatch(word))}
    splits = set(found.values())
    if splits == {"train", "validation"}:  # train_val
        splits = {"train"}
    rest = tuple(word for word in words if word not in found)
    return _Name(splits.pop() if len(splits) == 1 else None, rest)


def find_split(name: str) -> str | None:
    """Return the split that a word of a name stands for, None where there is none or several.

    Example:
        >>> find_split("seg_train"), find_split("train2017"), find_split("cat")
        ('train', 'train', None)
    """
    return _take_apart(name).split


def name_splits(names: Iterable[str]) -> dict[str, str | None]:
    """Return for names that stand side by side the split that each names, None for one that may be a class.

    A name stands for a split where it says nothing else (``training_set``, ``train2017``), or where another one differs
    from it in the split alone (``seg_train`` beside ``seg_test``). ``test_tube`` is a class.
    """
    parts = {name: _take_apart(name) for name in names}
    splits_of: dict[tuple[str, ...], set[str]] = {}
    for part in parts.values():
        if part.split is not None:
            splits_of.setdefault(part.rest, set()).add(part.split)
    return {
        name: part.split if part.is_plain or len(splits_of.get(part.rest, ())) > 1 else None
        for name, part in parts.items()
    }


def own_names(splits: Collection[tuple[str, str]]) -> dict[str, str]:
    """Return what the split of each name is called: the split's word, or the name itself where several share the word.

    Args:
        splits: Pairs of a name and the split that it stands for.

    Example:
        >>> own_names([("training_set", "train"), ("test", "test"), ("eval", "test")])
        {'training_set': 'train', 'test': 'test', 'eval': 'eval'}
    """
    words = [split for _, split in splits]
    called = {name: split if words.count(split) == 1 else re.sub(r"\W+", "_", name) for name, split in splits}
    if len(set(called.values())) < len(called):  # "train 1" beside "train-1"
        called = {name: f"{word}_{number}" for number, (name, word) in enumerate(called.items())}
    return called
