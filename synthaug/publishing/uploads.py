"""What goes to the Hub: the files of a finished folder, its card made ready, local paths dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import get_token

from synthaug.core import InputError, hash_file
from synthaug.generators import LATENTS, RUN_FILES, is_run
from synthaug.publishing.cards import add_repo_id, add_verdict, drop_local_paths, name_public
from synthaug.publishing.facts import VerdictFacts

__all__ = ["Upload", "prepare"]

DATASET_FILES = (
    "README.md",
    "synthaug.json",
    "recipe.yaml",
    "data/*.parquet",
    "samples.png",
    "samples/*.png",
    "scores.json",
    "suspects.png",
)
USER_FILES = ("LICENSE*", "NOTICE*")
"""What a user may lay beside it; pushed too, and never deleted from a repository."""


@dataclass(frozen=True)
class Upload:
    """What goes to the Hub.

    Args:
        kind: "model" or "dataset".
        files: Path in the repository -> the file on disk, or its bytes.
        own: Patterns of the files that a push writes, and so removes when they are no longer there.
        notes: What the user should know before it goes.
    """

    kind: str
    files: Mapping[str, Path | bytes]
    own: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def card(self) -> str:
        """Text of README.md."""
        return _read(self.files["README.md"]).decode("utf-8")


def prepare(folder: Path, repo_id: str, verdict: VerdictFacts | None, include_latents: bool) -> Upload:
    """Collect the files of a finished folder; the card gets its verdict, and local paths fall out.

    Raises:
        InputError: If the folder is nothing finished.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; give a run folder or a dataset folder")
    own: tuple[str, ...]
    notes: tuple[str, ...] = ()
    if is_run(folder):
        kind, own = "model", (*RUN_FILES, LATENTS)
        if not include_latents and (folder / LATENTS).is_file():
            why = "it is derived from training images, and without it other images are drawn"
            notes = (f"{LATENTS} stays here ({why}); ask for include_latents to push it",)
    elif (folder / "synthaug.json").is_file():
        kind, own = "dataset", DATASET_FILES
        _check_shards(folder)
    else:
        raise InputError(f"{str(folder)!r} is neither a finished run nor a finished dataset folder; finish it first")
    files: dict[str, Path | bytes] = dict(_collect(folder, (*own, *USER_FILES), () if include_latents else (LATENTS,)))
    if "README.md" not in files:
        raise InputError(f"{str(folder)!r} has no README.md; finish it by running the same command again")
    card = add_repo_id(_read(files["README.md"]).decode("utf-8"), repo_id)
    files["README.md"] = (add_verdict(card, verdict) if verdict is not None else card).encode()
    for name in ("recipe.yaml", "source.json", "synthaug.json"):
        if name in files:
            files[name] = _without_local_paths(name, _read(files[name]))
    _check_no_token(folder, files)
    return Upload(kind, files, own, notes)


def _check_shards(folder: Path) -> None:
    """Raise unless the folder was finished and its shards are those of its manifest."""
    try:
        shards = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["shards"]
    except (OSError, ValueError, KeyError):
        raise InputError(f"{str(folder)!r} is not finished; run the command that made it again") from None
    listed = {str(shard["file"]): shard["sha256"] for shard in shards}
    present = {path.name: hash_file(path) for path in (folder / "data").glob("*.parquet")}
    if differing := sorted(name for name in {*listed, *present} if listed.get(name) != present.get(name)):
        where = f"{differing[0]} in {str(folder)!r}"
        raise InputError(f"{where} is not what its manifest says; make the folder again with fresh=True")


def _collect(folder: Path, patterns: tuple[str, ...], left_out: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield (path in the repository, file) for what matches, hidden files aside."""
    root = folder.resolve()
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.name.startswith(".") and name not in left_out:
                if not path.resolve().is_relative_to(root):
                    raise InputError(f"{name} in {str(folder)!r} is a link out of the folder; replace it by the file")
                yield name, path


def _without_local_paths(name: str, data: bytes) -> bytes:
    """Return a JSON or YAML file without the paths of this machine, unchanged if it has none."""
    before = yaml.safe_load(data) if name.endswith(".yaml") else json.loads(data)
    after = drop_local_paths(before) if name == "recipe.yaml" else dict(before)
    if name == "source.json":
        after["dataset"] = None if before.get("dataset") is None else name_public(str(before["dataset"]))
    elif name == "synthaug.json":
        sections = {key: before[key] for key in ("recipe", "source") if isinstance(before.get(key), Mapping)}
        after |= {key: drop_local_paths(section) for key, section in sections.items()}
    if after == before:
        return data
    return (yaml.safe_dump(after, sort_keys=False, allow_unicode=True) if name == "recipe.yaml"
            else json.dumps(after, indent=2, ensure_ascii=False) + "\n").encode()  # fmt: skip


def _check_no_token(folder: Path, files: Mapping[str, Path | bytes]) -> None:
    """Refuse to publish the token that publishes."""
    token = (get_token() or "").encode()
    for name, file in files.items():
        if token and not name.endswith((".parquet", ".safetensors", ".png")) and token in _read(file):
            raise InputError(f"{name} in {str(folder)!r} contains your Hub token; remove it there and revoke it")


def _read(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()
