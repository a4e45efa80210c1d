"""Push and pull with the real clients against the server of hub_server.py.

The clients read their environment when they are imported, so they live in another process that is sent code.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from synthaug.core import is_repo_id
from synthaug.data import PROVENANCE
from synthaug.generators import GENERATORS, save_generator
from synthaug.publishing import render_dataset_card, render_model_card
from synthaug.publishing.cards import add_repo_id, read_front_matter
from tests.hub_server import HubServer, Repo

CANARY = "hf_canaryTokenThatNobodyMaySee"

WORKER = """
import contextlib, io, json, sys, traceback
import synthaug.core.retries
synthaug.core.retries.FIRST_WAIT = 0.01
for line in sys.stdin:
    task = json.loads(line)
    out, scope = io.StringIO(), dict(task["given"])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exec(compile(task["code"], "task", "exec"), scope)
            answer = {"result": scope.get("result")}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error), "trace": traceback.format_exc()}
    print(json.dumps(answer | {"output": out.getvalue()}), flush=True)
"""


class Client:
    """A process with the real clients; `run` executes code there and returns its variable `result`."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-c", WORKER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.environment = environment
        self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        self.said: list[str] = []

    def send(self, code: str, **given) -> dict:
        given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
        self.process.stdin.write(json.dumps({"code": textwrap.dedent(code), "given": given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read())
        self.said.append(line)
        return json.loads(line)

    def run(self, code: str, **given):
        answer = self.send(code, **given)
        assert "error" not in answer, answer["trace"]
        return answer["result"]

    def push(self, folder: Path, repo_id: str, **options) -> dict:
        code = "import synthaug; result = synthaug.push(folder, repo_id, **options)"
        return self.send(code, folder=folder, repo_id=repo_id, options=options)


@pytest.fixture(scope="module")
def hub():
    with HubServer({CANARY: "me"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SYNTHAUG"))}
    client = Client({**kept, **hub.environment(home, CANARY), "SYNTHAUG_CACHE": str(home / "cache")})
    yield client
    client.process.stdin.close()
    assert client.process.wait(20) == 0
    said = "".join(client.said) + client.process.stderr.read()
    assert CANARY not in said, "the token was shown"


@pytest.fixture(autouse=True)
def known_routes(hub):
    hub.reset()
    yield
    assert hub.unknown == [], "the clients asked for what the server does not know"


# ------------------------------------------------------------------------------------------ folders to push


def png(value: int) -> bytes:
    file = io.BytesIO()
    PILImage.fromarray(np.full((8, 8), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=["healthy", "ill_1"]),
        "age": Value("int32"),
        "synthetic": Value("bool"),
        "provenance": PROVENANCE,
    }
)


def make_rows(count: int, shift: int = 0) -> Dataset:
    made = {"generator": "cgan@1", "checkpoint": "ab" * 32, "seed": 0}
    rows = [
        {
            "image": {"bytes": png((index + shift) % 256), "path": None},
            "label": index % 2,
            "age": 30 if index < 4 else None,
            "synthetic": index >= 4,
            "provenance": {**made, "draw": index} if index >= 4 else None,
        }
        for index in range(count)
    ]
    return Dataset.from_list(rows, features=FEATURES)


def make_dataset_folder(folder: Path, shards: int = 3, shift: int = 0) -> Path:
    (folder / "data").mkdir(parents=True)
    parts = {f"train-{i:05d}-of-{shards:05d}.parquet": make_rows(6, shift + 10 * i) for i in range(shards)}
    parts["test-00000-of-00001.parquet"] = make_rows(4, 200)
    entries = []
    for name, rows in parts.items():
        path = folder / "data" / name
        rows.to_parquet(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entry = {"file": name, "split": name.split("-")[0], "rows": len(rows), "bytes": path.stat().st_size}
        entries.append(entry | {"sha256": digest, "state": {}})
    (folder / "samples.png").write_bytes(png(7))
    recipe = {"generator": {"family": "cgan"}, "dataset": {"path": "/home/somebody/xrays"}}
    source = {"dataset": "/home/somebody/xrays", "split": "train"}
    record = {"recipe": recipe, "source": source, "plan": {"ill_1": 3}}
    (folder / "synthaug.json").write_text(json.dumps(record))
    splits = {"train": 6 * shards, "test": 4}
    card = {"splits": splits, "real": {"healthy": 2}, "synthetic": {"healthy": 1}, "recipe": recipe}
    (folder / "README.md").write_text(render_dataset_card(card | {"sample_grid": "samples.png"}))
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "shards": entries, "pending": None}))
    (folder / ".synthaug.lock").touch()
    (folder / ".env").write_text("SECRET=1")
    (folder / "notes.txt").write_text("private notes")
    return folder


def make_run_folder(folder: Path) -> Path:
    (folder / "samples").mkdir(parents=True)
    (folder / "state" / "images-000000000000064").mkdir(parents=True)
    (folder / "state" / "images-000000000000064" / "optimizer-0.safetensors").write_bytes(b"state")
    (folder / "samples" / "final.png").write_bytes(png(3))
    (folder / "judge.safetensors").write_bytes(b"judge")
    (folder / "log.jsonl").write_text('{"images": 64}\n')
    (folder / ".README.md.tmp").write_text("half")
    source = {
        "dataset": "/home/somebody/xrays",
        "class_counts": {"a": 5, "b": 3},
        "hashes": {"train": ["00"]},
    }
    (folder / "source.json").write_text(json.dumps(source))
    recipe = "dataset:\n  path: /home/somebody/xrays\n  split: train\ngenerator:\n  family: cvae\noutput: runs/x\n"
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "README.md").write_text(render_model_card({"family": "cvae", "recipe": recipe}))
    config = {"class_names": ["a", "b"], "image_size": 8, "channels": 1}
    generator = GENERATORS["cvae"](**config)
    rng = torch.Generator().manual_seed(0)
    generator.memorize([(torch.rand((8, 1, 8, 8), generator=rng) * 2 - 1, torch.arange(8) % 2)])
    save_generator(folder, generator, config)
    return folder


@pytest.fixture
def dataset_folder(tmp_path):
    return make_dataset_folder(tmp_path / "dataset")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run_folder(tmp_path_factory.mktemp("runs") / "run")


def text(repo: Repo, name: str) -> str:
    return repo.files[name].data.decode()


COMPARE = """
    from datasets import load_dataset
    local, remote = load_dataset(folder), load_dataset(repo_id, download_mode="force_redownload")
    assert dict(local).keys() == dict(remote).keys()
    for split in local:
        assert local[split].features == remote[split].features, remote[split].features
        one, two = (data[split].with_format("arrow")[:].to_pylist() for data in (local, remote))
        assert one == two, split
    result = {split: len(remote[split]) for split in remote}
"""


# ------------------------------------------------------------------------------------------------------- push


def test_a_pushed_dataset_loads_like_the_folder(hub, client, dataset_folder):
    answer = client.push(dataset_folder, "me/xrays")
    assert answer.get("result") == f"{hub.url}/datasets/me/xrays", answer
    repo = hub.repo("dataset", "me/xrays")
    assert repo.private
    assert len(repo.commits) == 2
    shards = {f"data/{path.name}" for path in (dataset_folder / "data").iterdir()}
    assert set(repo.files) == {".gitattributes", "README.md", "synthaug.json", "samples.png", *shards}
    assert text(repo, "README.md") == add_repo_id((dataset_folder / "README.md").read_text(), "me/xrays")
    assert 'load_dataset("me/xrays"' in text(repo, "README.md")
    assert "somebody" not in text(repo, "synthaug.json") and '"ill_1": 3' in text(repo, "synthaug.json")
    assert client.run(COMPARE, folder=dataset_folder, repo_id="me/xrays") == {"train": 18, "test": 4}


def test_a_second_push_replaces_shards_and_keeps_what_a_person_added(hub, client, tmp_path):
    client.push(make_dataset_folder(tmp_path / "long", shards=3), "me/again")
    repo = hub.repo("dataset", "me/again")
    card = text(repo, "README.md").replace("tags:\n", "license: cc-by-4.0\ntags:\n- medical\n", 1)
    repo.put(README__md=card.encode(), NOTES__txt=b"mine", LICENSE=b"mine too")
    short = make_dataset_folder(tmp_path / "short", shards=1, shift=90)
    assert "error" not in client.push(short, "me/again")
    assert sorted(name for name in repo.files if name.startswith("data/")) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert {"NOTES.txt", "LICENSE"} <= set(repo.files)
    data = read_front_matter(text(repo, "README.md"))
    assert data["license"] == "cc-by-4.0" and data["tags"] == ["synthetic", "synthaug", "medical"]
    assert client.run(COMPARE, folder=short, repo_id="me/again") == {"train": 6, "test": 4}
    before = len(repo.commits)
    assert "error" not in client.push(short, "me/again")
    assert len(repo.commits) == before, "nothing changed, nothing is committed"


def test_a_pushed_run_has_no_state_no_latents_and_no_local_paths(hub, client, run_folder):
    assert "error" not in client.push(run_folder, "me/generator")
    repo = hub.repo("model", "me/generator")
    assert repo.private and len(repo.commits) == 2
    assert set(repo.files) == {
        ".gitattributes",
        *("README.md", "config.json", "model.safetensors", "judge.safetensors", "source.json", "recipe.yaml"),
        *("log.jsonl", "samples/final.png"),
    }
    assert text(repo, "recipe.yaml") == "dataset:\n  split: train\ngenerator:\n  family: cvae\n"
    assert json.loads(text(repo, "source.json")) == {
        "dataset": None,
        "class_counts": {"a": 5, "b": 3},
        "hashes": {"train": ["00"]},
    }
    assert 'load_generator("me/generator")' in text(repo, "README.md")
    assert repo.files["model.safetensors"].data == (run_folder / "model.safetensors").read_bytes()
    assert not any(b"somebody" in stored.data for stored in repo.files.values())


def test_latents_go_along_only_when_asked_and_leave_again(hub, client, run_folder):
    client.push(run_folder, "me/latents", include_latents=True)
    latents = (run_folder / "latents.safetensors").read_bytes()
    assert hub.repo("model", "me/latents").files["latents.safetensors"].data == latents
    assert "include_latents" in client.push(run_folder, "me/latents")["output"]
    assert "latents.safetensors" not in hub.repo("model", "me/latents").files


def test_a_report_puts_its_verdict_in_the_card(hub, client, dataset_folder):
    client.run(
        """
        import synthaug, types
        found = {"verdict": "helps", "difference": 0.02, "interval": (0.01, 0.03), "table": "| a |\\n|---|"}
        report = types.SimpleNamespace(**found)
        result = synthaug.push(folder, "me/judged", report=report)
        """,
        folder=dataset_folder,
    )
    card = text(hub.repo("dataset", "me/judged"), "README.md")
    assert "The synthetic images help" in card and "+0.0200 (95 % interval +0.0100 to +0.0300)" in card
    assert "Not benchmarked" in (dataset_folder / "README.md").read_text()


def test_a_dataset_in_memory_is_written_and_pushed(hub, client, tmp_path):
    parts = {name: tmp_path / f"{name}.parquet" for name in ("train", "test")}
    for shift, path in enumerate(parts.values()):
        make_rows(8, 50 * shift).to_parquet(path)
    code = """
        import synthaug
        from datasets import DatasetDict, Dataset, load_dataset
        data = DatasetDict({name: Dataset.from_parquet(path) for name, path in parts.items()})
        synthaug.push(data["train"], "me/memory")
        synthaug.push(data, "me/memories")
        for name, remote in load_dataset("me/memories").items():
            assert remote.features == data[name].features
            one, two = (rows.with_format("arrow")[:].to_pylist() for rows in (data[name], remote))
            assert one == two
        result = [load_dataset("me/memory", split="train").num_rows, remote[0]["image"].size]
    """
    assert client.run(code, parts={name: str(path) for name, path in parts.items()}) == [8, [8, 8]]
    card = text(hub.repo("dataset", "me/memory"), "README.md")
    assert card.count("# memory\n") == 1 and "| ill_1 | 2 | 2 | 4 |" in card
    assert "/tmp" not in text(hub.repo("dataset", "me/memories"), "synthaug.json")
    answer = client.send("import synthaug; synthaug.push([1], 'me/list')")
    assert answer["error"] == "InputError" and "list" in answer["message"]


def test_public_has_to_be_asked_for(hub, client, dataset_folder):
    assert "error" not in client.push(dataset_folder, "me/public", private=False)
    assert not hub.repo("dataset", "me/public").private
    answer = client.push(dataset_folder, "me/public")
    assert answer["error"] == "InputError" and "private=False" in answer["message"]
    client.push(dataset_folder, "me/private")
    answer = client.push(dataset_folder, "me/private", private=False)
    assert "stays private" in answer["output"] and hub.repo("dataset", "me/private").private


# -------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("card", [None, b"# My data\n", b"---\ntags: synthaug-like\n---\n", b"---\n: [\n---\n"])
def test_a_foreign_repository_is_left_alone(hub, client, dataset_folder, card):
    name = f"me/foreign{hashlib.sha256(card or b'').hexdigest()[:8]}"
    repo = hub.create("dataset", name, private=True)
    repo.put(data__csv=b"a,b\n", **({"README__md": card} if card else {}))
    before = len(repo.commits)
    answer = client.push(dataset_folder, name)
    assert answer["error"] == "InputError" and "force=True" in answer["message"] and "\n" not in answer["message"]
    assert len(repo.commits) == before
    if card == b"# My data\n":
        assert "error" not in client.push(dataset_folder, name, force=True)
        assert "data.csv" in repo.files and "synthaug" in read_front_matter(text(repo, "README.md"))["tags"]
        assert client.run(COMPARE, folder=dataset_folder, repo_id=name) == {"train": 18, "test": 4}


def test_an_empty_repository_is_taken(hub, client, dataset_folder):
    hub.create("dataset", "me/empty", private=True)
    assert "error" not in client.push(dataset_folder, "me/empty")


def test_unfinished_folders_are_refused(hub, client, tmp_path, run_folder):
    def refused(folder: Path, words: str) -> None:
        answer = client.push(folder, "me/unfinished")
        assert answer["error"] == "InputError" and words in answer["message"] and "\n" not in answer["message"], answer

    refused(tmp_path / "nowhere", "no folder")
    (tmp_path / "pictures").mkdir()
    refused(tmp_path / "pictures", "neither a finished run nor a finished dataset")
    (make_dataset_folder(tmp_path / "no-manifest") / "manifest.json").unlink()
    refused(tmp_path / "no-manifest", "not finished")
    (make_dataset_folder(tmp_path / "short") / "data" / "train-00001-of-00003.parquet").unlink()
    refused(tmp_path / "short", "train-00001-of-00003.parquet")
    with (make_dataset_folder(tmp_path / "torn") / "data" / "train-00002-of-00003.parquet").open("ab") as file:
        file.write(b"x")
    refused(tmp_path / "torn", "train-00002-of-00003.parquet")
    unfinished = make_run_folder(tmp_path / "run")
    (unfinished / "config.json").unlink()
    refused(unfinished, "neither a finished run")
    linked = make_dataset_folder(tmp_path / "linked")
    (linked / "samples.png").unlink()
    (linked / "samples.png").symlink_to(run_folder / "samples" / "final.png")
    refused(linked, "samples.png")
    leaking = make_dataset_folder(tmp_path / "leaking")
    (leaking / "synthaug.json").write_text(json.dumps({"recipe": {"note": CANARY}}))
    refused(leaking, "synthaug.json")
    assert ("dataset", "me/unfinished") not in hub.repos and not hub.requests


@pytest.mark.parametrize("name", ["xrays", "a/b/c", "me/", "/x", "../x", "me/x--y", "", "me/x y"])
def test_what_is_no_repository_name_is_refused(client, dataset_folder, name):
    assert not is_repo_id(name)
    answer = client.push(dataset_folder, name)
    assert answer["error"] == "InputError" and "user/name" in answer["message"]


def test_repository_names():
    assert is_repo_id("me/xrays") and is_repo_id("my-org/x.rays_2")
    assert not is_repo_id(None) and not is_repo_id(Path("me/xrays"))


def test_a_wrong_or_missing_token_is_one_line_about_the_login(hub, client, dataset_folder):
    code = """
        import os, synthaug
        kept = os.environ.pop("HF_TOKEN")
        if token:
            os.environ["HF_TOKEN"] = token
        try:
            result = synthaug.push(folder, repo_id)
        finally:
            os.environ["HF_TOKEN"] = kept
    """
    for token in (None, "hf_wrong"):
        answer = client.send(code, folder=dataset_folder, repo_id="me/unauthorised", token=token)
        assert answer["error"] == "InputError" and "hf auth login" in answer["message"], answer
        assert "\n" not in answer["message"] and "hf_wrong" not in answer["message"]
    answer = client.push(dataset_folder, "somebody/else")
    assert answer["error"] == "InputError" and "403" in answer["message"] and "hf auth login" in answer["message"]


def test_the_command_ends_with_one_line_and_no_token(hub, client, dataset_folder):
    environment = {**client.environment, "HF_TOKEN": f"{CANARY}-expired"}
    command = [sys.executable, "-m", "synthaug", "push", str(dataset_folder), "me/command"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "hf auth login" in done.stderr and CANARY not in done.stderr + done.stdout


def test_offline_is_one_line(hub, client, dataset_folder):
    answer = client.send(
        """
        import synthaug
        from huggingface_hub import constants
        constants.HF_HUB_OFFLINE = True
        try:
            synthaug.push(folder, "me/offline")
        finally:
            constants.HF_HUB_OFFLINE = False
        """,
        folder=dataset_folder,
    )
    assert answer["error"] == "InputError" and "HF_HUB_OFFLINE" in answer["message"]
    assert not hub.requests


# ---------------------------------------------------------------------------------------------------- faults

FAULTS = {
    "busy-look": ("GET", "/api/datasets/me/busy-look$", 503),
    "limited-create": ("POST", "/api/repos/create", (429, {"Retry-After": "0"})),
    "busy-create": ("POST", "/api/repos/create", 500),
    "gateway-yaml": ("POST", "/api/validate-yaml", 504),
    "lost-yaml": ("POST", "/api/validate-yaml", "drop"),
    "busy-preupload": ("POST", "/preupload/", 502),
    "busy-batch": ("POST", "/objects/batch", 503),
    "lost-put": ("PUT", "/storage/", "drop"),
    "conflict-commit": ("POST", "/commit/", 409),
    "busy-commit": ("POST", "/commit/", 500),
    "lost-commit": ("POST", "/commit/", "drop"),
    "unheard-commit": ("POST", "/commit/", "lose"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_passing_faults_are_tried_again(hub, client, dataset_folder, name):
    hub.fail(*FAULTS[name])
    answer = client.push(dataset_folder, f"me/{name}")
    assert "error" not in answer, answer
    repo = hub.repo("dataset", f"me/{name}")
    assert len(repo.commits) == 2, "the same twice is one commit"
    assert {f"data/{path.name}" for path in (dataset_folder / "data").iterdir()} < set(repo.files)


def test_blobs_that_arrived_are_not_sent_again(hub, client, dataset_folder):
    hub.blobs.clear()
    hub.fail("POST", "/commit/", 500, 503)
    assert "error" not in client.push(dataset_folder, "me/resumed")
    assert sum(request.startswith("PUT") for request in hub.requests) == len(hub.blobs) == 5


def test_a_race_is_won_on_top_of_the_other_commit(hub, client, dataset_folder):
    client.push(dataset_folder, "me/race")
    repo = hub.repo("dataset", "me/race")
    make_dataset_folder(dataset_folder.parent / "new", shards=1, shift=50)
    hub.fail("POST", "/commit/", lambda: repo.put(LICENSE=b"added meanwhile"))
    answer = client.push(dataset_folder.parent / "new", "me/race")
    assert "error" not in answer and "412" in answer["output"]
    assert "LICENSE" in repo.files and "data/train-00000-of-00001.parquet" in repo.files


def test_a_repository_that_turns_foreign_in_a_race_is_left_alone(hub, client, dataset_folder):
    repo = hub.create("dataset", "me/turned", private=True)
    hub.fail("POST", "/commit/", lambda: repo.put(data__csv=b"somebody's"))
    answer = client.push(dataset_folder, "me/turned")
    assert answer["error"] == "InputError" and "data.csv" in repo.files and "README.md" not in repo.files


def test_a_lasting_fault_ends_after_six_tries_with_one_line(hub, client, dataset_folder):
    hub.fail("POST", "/commit/", *[503] * 50)
    answer = client.push(dataset_folder, "me/down")
    assert answer["error"] == "FailedError" and "6 tries" in answer["message"] and "503" in answer["message"]
    assert "\n" not in answer["message"]
    assert sum("/commit/" in request for request in hub.requests) == 6
    assert len(hub.repo("dataset", "me/down").commits) == 1


def test_a_very_long_wait_is_not_waited_for(hub, client, dataset_folder):
    hub.fail("POST", "/commit/", (429, {"Retry-After": "86400"}))
    answer = client.push(dataset_folder, "me/limited")
    assert answer["error"] == "FailedError" and "86400 s" in answer["message"]


def test_what_does_not_pass_is_not_tried_again(hub, client, dataset_folder):
    hub.fail("POST", "/commit/", 413)
    answer = client.push(dataset_folder, "me/large")
    assert answer["error"] == "FailedError" and "413" in answer["message"] and "\n" not in answer["message"]
    assert sum("/commit/" in request for request in hub.requests) == 1


# ------------------------------------------------------------------------------------------------------- pull


def test_a_pushed_run_comes_back_and_samples_the_same(hub, client, run_folder):
    client.push(run_folder, "me/round-trip", include_latents=True)
    hub.repo("model", "me/round-trip").put(evil__pkl=b"pickle", evil__py=b"import os")
    pulled = client.run(
        """
        import synthaug, torch
        from synthaug.generators.pulling import pull
        labels = torch.tensor([0, 1, 1])
        images = [
            synthaug.load_generator(source).sample(labels, rng=torch.Generator().manual_seed(0))
            for source in (folder, "me/round-trip")
        ]
        assert torch.equal(*images)
        run = pull("me/round-trip")
        result = sorted(str(path.relative_to(run)) for path in run.rglob("*"))
        """,
        folder=run_folder,
    )
    assert "model.safetensors" in pulled and not any("evil" in name for name in pulled)
    offline = """
        import synthaug
        from huggingface_hub import constants
        constants.HF_HUB_OFFLINE = True
        try:
            result = synthaug.load_generator(repo_id).family
        finally:
            constants.HF_HUB_OFFLINE = False
    """
    assert client.run(offline, repo_id="me/round-trip") == "cvae"
    answer = client.send(offline, repo_id="me/never-seen")
    assert answer["error"] == "InputError" and "HF_HUB_OFFLINE" in answer["message"]


@pytest.mark.slow
def test_a_fitted_run_and_its_dataset_make_the_journey(hub, client, tmp_path):
    import synthaug

    real = synthaug.open_dataset("digits").select(range(200))
    generator = synthaug.fit(real, "cvae", output=tmp_path / "run", images=256)
    plan = synthaug.plan_balance(real, 40)
    synthaug.generate(generator, plan, output=tmp_path / "dataset", mix_with=real, filter="none")
    client.push(tmp_path / "run", "me/fitted", include_latents=True)
    client.push(tmp_path / "dataset", "me/generated")
    assert client.run(COMPARE, folder=tmp_path / "dataset", repo_id="me/generated") == {"train": 400}
    client.run(
        """
        import synthaug, torch
        sources = [synthaug.load_generator(name) for name in (folder, "me/fitted")]
        labels = torch.arange(10)
        one, two = (g.sample(labels, rng=torch.Generator().manual_seed(0)) for g in sources)
        assert torch.equal(one, two)
        plan = synthaug.plan_balance({"3": 5, "4": 2}, 6)
        assert synthaug.generate(sources[1], plan, filter="none").num_rows == 5
        """,
        folder=tmp_path / "run",
    )


def test_what_is_no_run_is_not_pulled(hub, client, tmp_path):
    def refused(name: str, words: str) -> None:
        answer = client.send("import synthaug; synthaug.load_generator(name)", name=name)
        assert answer["error"] == "InputError" and words in answer["message"] and "\n" not in answer["message"], answer

    hub.create("model", "me/pickled").put(config__json=b"{}", pytorch_model__bin=b"pickle")
    refused("me/pickled", "pytorch_model.bin is a pickle")
    hub.create("model", "me/text").put(README__md=b"# hello")
    refused("me/text", "config.json and model.safetensors missing")
    refused("me/nothing", "no model 'me/nothing'")
    refused("no such folder", "neither a folder nor a Hub id")
    assert not any("resolve" in request for request in hub.requests)


def test_a_busy_hub_is_asked_again_on_pull(hub, client, run_folder):
    client.push(run_folder, "me/busy-pull")
    hub.fail("GET", "/api/models/me/busy-pull$", 503)
    hub.fail("HEAD", "/resolve/", "drop")
    assert client.run("import synthaug; result = synthaug.load_generator('me/busy-pull').family") == "cvae"
