"""What is pushed holds no local path, user or host: every kind of folder goes to a Hub, and its bytes are searched."""

import io
import json
import os
import socket
import struct

import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture

from tests.hub_server import HubServer
from tests.publishing.test_pushing import CANARY, Client
from tests.test_examples import small_digits

PLACES = {name: f"{name}-of-canary" for name in ("home", "work", "scratch", "photos", "plans", "judged")}
USER = "canary-user"

JOURNEY = """
import json, os, sys, types
import numpy as np
import synthaug, torch
from datasets import Dataset
from synthaug.training import completion
from synthaug.generation import jobs
from synthaug.cli.program import _run
from synthaug.generation import write_dataset
from synthaug.classifiers import fit_judge
import functools

completion.fit_judge = functools.partial(fit_judge, steps=3)
os.chdir(work)

def run(*words):
    assert _run([str(word) for word in words], debug=True) == 0, words

photos, small = f"{work}/{photos}", ["--set", "generator.width=8", "--set", "generator.latent_dim=4"]
fit = ["--generator", "cvae", "--images", "64", "--on-bad-image", "skip", *small]
run("fit", photos, *fit, "--output", "runs/absolute")
run("fit", os.path.relpath(photos), *fit, "--output", f"{work}/runs/relative")
run("fit", "--recipe", "recipe.yaml", *small, "--output", "runs/recipe")
run("fit", "rows.parquet", *fit, "--output", "runs/parquet")
run("fit", "*.parquet", *fit, "--output", "runs/glob")
rows = synthaug.open_dataset(photos)
synthaug.fit(rows, "cvae", output="runs/python", images=64, on_bad_image="skip", width=8, latent_dim=4)

made = ["--filter", "none", "--on-bad-image", "skip"]
run("generate", "runs/absolute", "--balance", "plan.json", "--mix-with", photos, *made, "--output", "data/mixed")
run("generate", f"{work}/runs/recipe", "--per-class", "2", *made, "--output", f"{work}/data/synthetic")
generator = synthaug.load_generator("runs/absolute")
plan = synthaug.plan_balance({name: 1 for name in generator.class_names}, 3)
named = {"run": f"{work}/runs/absolute", "generate": {"judge": f"{judged}/run", "balance": f"{work}/plan.json"}}
synthaug.generate(generator, plan, output="data/python", filter="none", recipe=named, mix_with=rows,
                  on_bad_image="skip")
run("generate", "runs/parquet", "--per-class", "2", *made, "--output", "data/digits")
run("mix", "clean", "data/digits", "--output", "data/joined")
run("strip", "data/mixed", "--output", "data/stripped")
run("score", "runs/absolute", photos, "--on-bad-image", "skip", "--output", "data/scored")

report = types.SimpleNamespace(verdict="helps", difference=0.1, interval=(0.0, 0.2), table="| a |\\n|---|")
for name in os.listdir("runs"):
    synthaug.push(f"runs/{name}", f"me/run-{name}", include_latents=True)
for name in os.listdir("data"):
    synthaug.push(f"{work}/data/{name}", f"me/data-{name}", report=report)
synthaug.push(synthaug.open_dataset("clean"), "me/object")
result = [json.load(open(f"runs/{name}/source.json"))["corrupt"] for name in ("absolute", "recipe")]
"""

RECIPE = """
dataset: {{path: {photos}, on_bad_image: skip}}
generator: {{family: cvae}}
fit: {{images: 64}}
generate: {{balance: {plans}/plan.json, judge: {judged}/run}}
benchmark: {{test: {{path: {photos}, split: train}}}}
push: {{repo: me/elsewhere}}
output: {work}/out
"""


def fill(work):
    """Make the datasets of the journey: a folder of images of which some are broken, and the same rows as Parquet."""
    photos = work / PLACES["photos"]
    rows = small_digits(per_class=10)
    for number, row in enumerate(rows):
        file = photos / f"class {row['label']}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        row["image"].save(file)
    whole = (photos / "class 0" / "0.png").read_bytes()
    (photos / "class 1" / "cut.png").write_bytes(whole[:40])
    (photos / "class 1" / "text.png").write_bytes(b"no image")
    (photos / "class 2" / "empty.png").touch()
    (photos / "class 2" / "large.png").touch()
    os.truncate(photos / "class 2" / "large.png", 2**31)
    rows.to_parquet(work / "rows.parquet")
    from synthaug.generation import write_dataset

    write_dataset(rows, work / "clean")
    (work / "plan.json").write_text(json.dumps({f"class {label}": 12 for label in range(3)}))
    for name in ("plans", "judged"):
        (work / PLACES[name] / "run").mkdir(parents=True)
    places = {name: work / PLACES[name] for name in ("photos", "plans")} | {"judged": PLACES["judged"], "work": work}
    (work / "recipe.yaml").write_text(RECIPE.format(**places))


def read_texts(name, data):
    """Return everything readable in a file: text, and the parts of a binary file that are not pixels or weights."""
    if name.endswith(".safetensors"):
        return data[8 : 8 + struct.unpack("<Q", data[:8])[0]]
    if name.endswith(".png"):
        return repr(Picture.open(io.BytesIO(data)).info).encode() + data[:64]
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        shown = [str(pq.read_metadata(io.BytesIO(data)).to_dict()), str(table.schema.metadata)]
        for column in table.column_names:
            values = table.column(column).to_pylist()
            shown += [str(v["path"]) if isinstance(v, dict) and "path" in v else str(v) for v in values]
        footer = data[-8 - struct.unpack("<I", data[-8:-4])[0] :]
        return "\n".join(shown).encode() + footer
    return data


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return the Hub after a journey from local data, and what the runs say of broken rows."""
    root = tmp_path_factory.mktemp("published")
    home, work, scratch = (root / PLACES[name] for name in ("home", "work", "scratch"))
    for folder in (home, work, scratch):
        folder.mkdir()
    fill(work)
    with HubServer({CANARY: "me"}) as hub:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SYNTHAUG"))}
        own = {"HOME": str(home), "TMPDIR": str(scratch), "USER": USER, "LOGNAME": USER, "PWD": str(work)}
        client = Client({**kept, **hub.environment(home / "hub", CANARY), **own})
        corrupt = client.run(JOURNEY, work=work, photos=PLACES["photos"], judged=PLACES["judged"])
        client.process.stdin.close()
        client.process.wait(60)
        yield hub, corrupt


def test_nothing_that_is_pushed_tells_where_it_was_made(published):
    hub, _ = published
    assert len(hub.repos) == 6 + 7 + 1
    host = socket.gethostname()
    needles = [*PLACES.values(), USER, "pytest-of-", "/tmp/", "plan.json", "recipe.yaml:", "runs/", "rows.parquet",
               *([host] if len(host) > 5 else [])]  # fmt: skip
    found = []
    for (_, repo), content in hub.repos.items():
        for name, file in content.files.items():
            text = read_texts(name, file.data)
            found += [(repo, name, needle) for needle in needles if needle.encode() in text]
    assert not found


def test_broken_rows_are_told_by_their_number_and_their_name_in_the_dataset(published):
    for rows in published[1]:
        told = {reason.split(":")[0]: reason for _, reason in rows}
        assert {"cannot read 'class 1/cut.png'", "cannot read 'class 1/text.png'", "cannot read 'class 2/empty.png'",
                "cannot read 'class 2/large.png'"} == set(told)  # fmt: skip


def test_the_files_that_are_pushed_tell_it_before_they_are_pushed_too(published):
    """What needs no path holds none on the disk either; only recipe.yaml does, by which a fit knows itself again."""
    hub, _ = published
    for name in ("absolute", "relative", "recipe", "parquet", "glob"):
        assert b"path:" not in hub.repo("model", f"me/run-{name}").files["recipe.yaml"].data
    repo = hub.repo("model", "me/run-absolute")
    assert json.loads(repo.files["source.json"].data)["dataset"] is None
    assert b"a local dataset" in repo.files["README.md"].data
    record = json.loads(hub.repo("dataset", "me/data-mixed").files["synthaug.json"].data)
    assert record["source"]["dataset"] is None and "mix_with" not in record["recipe"]
    assert any("corrupt rows are left out" in notice for notice in record["notices"])
