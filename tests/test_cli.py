"""Bad input through the command line: exit 2, one line on stderr, nothing that looks finished."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as PillowImage

from synthaug import cli
from synthaug.checkpoint import is_run, save_generator
from synthaug.columns import PROVENANCE
from synthaug.folder import is_finished
from synthaug.generators import CVAE
from synthaug.output import OutputFolder
from synthaug.recipe import dump_recipe, parse_recipe

NAMES = ["cat", "dog"]


def png(seed=0, size=8):
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed=0):
    return {"bytes": png(seed), "path": None}


def write_parquet(path, columns, **features):
    kinds = {"image": Image(), "label": ClassLabel(names=NAMES), **features}
    schema = Features({name: kinds[name] for name in columns}).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), path)
    return path


@pytest.fixture
def good(tmp_path):
    """A Parquet file with two classes of ten rows."""
    images = [picture(seed) for seed in range(20)]
    return write_parquet(tmp_path / "good.parquet", {"image": images, "label": [0] * 10 + [1] * 10})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run whose weights nobody fitted."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    folder.mkdir()
    constructor = {"class_names": NAMES, "image_size": 8, "channels": 1, "width": 8, "latent_dim": 4}
    torch.manual_seed(0)
    save_generator(folder, CVAE(**constructor).eval(), constructor)
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    source = {
        "dataset": "good.parquet", "split": "train", "limit_per_class": None, "image_column": "image",
        "label_column": "label", "features": features.to_dict(), "class_names": NAMES,
        "class_counts": {"cat": 10, "dog": 4}, "codec": {"image_size": 8, "channels": 1, "value_range": None},
        "hashes": {"train": [], "validation": []}, "corrupt": [], "unlabelled": 0,
    }  # fmt: skip
    (folder / "source.json").write_text(json.dumps(source))
    (folder / "README.md").write_text("---\ntags: [synthaug]\n---\n")
    return folder


@pytest.fixture
def refuse(capsys, tmp_path):
    """Run a command that must be refused; `{out}` in its words is a folder that must not look finished."""

    def check(match, *words):
        out = tmp_path / "out"
        capsys.readouterr()
        code = cli._run([str(word).replace("{out}", str(out)) for word in words], debug=False)
        printed = capsys.readouterr()
        assert code == 2, printed
        assert printed.out == ""
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
        assert "Traceback" not in printed.err
        assert re.search(match, printed.err), printed.err
        assert not is_run(out) and not is_finished(out) and not (out / "report.json").exists()
        return printed.err

    return check


def fit_words(dataset, *more):
    return ("fit", dataset, "--generator", "cvae", "--images", "64", "--output", "{out}", *more)


# ---------------------------------------------------------------------------------------------- datasets


@pytest.mark.parametrize("command", ["inspect", "fit"])
def test_paths_that_are_not_there(command, refuse, tmp_path):
    more = () if command == "inspect" else ("--generator", "cvae", "--output", "{out}")
    refuse("no such file or folder: .*give 'digits'", command, tmp_path / "a" / "b" / "none", *more)
    refuse("no Parquet file matches", command, tmp_path / "*.parquet", *more)
    refuse("no such file or folder", command, tmp_path / "none.parquet", *more)
    (tmp_path / "notes.txt").write_text("hello")
    refuse("not a Parquet file", command, tmp_path / "notes.txt", *more)
    (tmp_path / "fake.parquet").write_text("hello")
    refuse("not a Parquet file", command, tmp_path / "fake.parquet", *more)
    refuse("name of the dataset is empty|no DATASET given", command, "", *more)


def test_paths_that_are_not_there_for_the_other_commands(refuse, tmp_path, run_folder, good):
    none = tmp_path / "a" / "none"
    refuse("no such file or folder", "generate", run_folder, "--output", "{out}", "--mix-with", none)
    refuse("neither a folder nor a Hub id", "generate", none, "--output", "{out}")
    refuse("no such file or folder", "mix", none, good, "--output", "{out}")
    refuse("no such file or folder", "mix", good, none, "--output", "{out}")
    refuse("no such file or folder", "strip", none, "--output", "{out}")
    for real, synthetic, test in ((none, good, good), (good, none, good), (good, good, none)):
        words = ("--real", real, "--synthetic", synthetic, "--test", test, "--output", "{out}")
        refuse("no such file or folder", "benchmark", *words)
    refuse("is not a file", "run", none)
    refuse("is not a file", "fit", good, "--recipe", none, "--output", "{out}")


def test_folders_without_classes(refuse, tmp_path):
    (tmp_path / "empty").mkdir()
    refuse("holds no images and no Parquet files", *fit_words(tmp_path / "empty"))
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "0.png").write_bytes(png())
    refuse("only one folder of images, 'cat'", *fit_words(tmp_path / "one"))


def test_one_class_in_a_table(refuse, tmp_path):
    file = write_parquet(tmp_path / "d.parquet", {"image": [picture(i) for i in range(4)], "label": [1] * 4})
    refuse("only one class, 'dog'", *fit_words(file))


def test_columns_that_are_missing_or_ambiguous(refuse, tmp_path):
    images = [picture(seed) for seed in range(4)]
    file = write_parquet(tmp_path / "a.parquet", {"image": images})
    refuse("no label column", *fit_words(file))
    file = write_parquet(tmp_path / "b.parquet", {"label": [0, 1]})
    refuse("no image column", *fit_words(file))
    columns = {"image": images, "label": [0, 1, 0, 1], "other": [0, 0, 1, 1]}
    file = write_parquet(tmp_path / "c.parquet", columns, other=ClassLabel(names=["x", "y"]))
    refuse("2 columns may hold the labels: 'label', 'other'; name one with --label-column", *fit_words(file))
    refuse("no column 'labell'.*did you mean 'label'", *fit_words(file, "--label-column", "labell"))
    refuse("holds no images", *fit_words(file, "--image-column", "label"))


def test_rows_without_a_label(refuse, tmp_path):
    file = write_parquet(tmp_path / "d.parquet", {"image": [picture(i) for i in range(3)], "label": [-1, None, -1]})
    refuse("none of the 3 rows has a label", *fit_words(file))


def test_corrupt_images_are_named_with_row_and_reason(refuse, tmp_path):
    images = [picture(0), {"bytes": b"junk", "path": None}, picture(2), {"bytes": png()[:40], "path": None}]
    file = write_parquet(tmp_path / "d.parquet", {"image": images, "label": [0, 1, 1, 0]})
    refuse("2 of 4 images in 'image' are corrupt .row 1: .*; row 3: .*on_bad_image", *fit_words(file))


@pytest.mark.parametrize("outside", ["/etc/hostname", "../secret.png"])
def test_rows_that_name_a_file_outside(outside, refuse, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    images = [picture(0), {"bytes": None, "path": outside}]
    file = write_parquet(tmp_path / "set" / "d.parquet", {"image": images, "label": [0, 1]})
    for spec in (file, file.parent):
        line = refuse("row 1 of .* names the file", *fit_words(spec))
        assert outside in line


@pytest.mark.parametrize("command", ["fit", "mix", "benchmark", "inspect"])
def test_foreign_columns_of_our_names(command, refuse, tmp_path, good):
    columns = {"image": [picture(i) for i in range(4)], "label": [0, 1, 0, 1], "synthetic": ["yes"] * 4}
    file = write_parquet(tmp_path / "d.parquet", columns, synthetic=Value("string"))
    words = {
        "fit": fit_words(file),
        "mix": ("mix", file, good, "--output", "{out}"),
        "benchmark": ("benchmark", "--real", file, "--synthetic", good, "--test", good, "--output", "{out}"),
        "inspect": ("inspect", file),
    }
    refuse("own column 'synthetic'.*rename or drop it", *words[command])


def test_only_synthetic_rows(refuse, tmp_path):
    made = {"generator": "cvae@1", "checkpoint": "0" * 64, "seed": 0, "draw": 0}
    columns = {
        "image": [picture(i) for i in range(2)],
        "label": [0, 1],
        "synthetic": [True] * 2,
        "provenance": [made] * 2,
    }
    file = write_parquet(tmp_path / "d.parquet", columns, synthetic=Value("bool"), provenance=dict(PROVENANCE))
    refuse("all 2 rows are synthetic", *fit_words(file))


def test_strip_wants_a_mixed_dataset(refuse, good):
    refuse("only a mixed one can be stripped", "strip", good, "--output", "{out}")


# ------------------------------------------------------------------------------------------ options and numbers


def test_unknown_names(refuse, good, run_folder):
    refuse("unknown generator 'cvea' .did you mean 'cvae'", "fit", good, "--generator", "cvea", "--output", "{out}")
    refuse("no split 'tran'; there are 'train' .did you mean 'train'", *fit_words(good, "--split", "tran"))
    refuse(
        "balance is 'majorty' .did you mean 'majority'", "generate", run_folder, "--balance", "majorty", "-o", "{out}"
    )
    refuse("generate.filter.*'none' or 'default'", "generate", run_folder, "--filter", "strict", "--output", "{out}")
    refuse("dataset.on_bad_image", *fit_words(good, "--on-bad-image", "ignore"))
    refuse(r"No such command 'fitt'.*\?; see synthaug --help", "fitt")
    refuse("No such option", "inspect", good, "--colour")
    words = ("benchmark", "--real", good, "--synthetic", good, "--test", good, "--output", "{out}")
    refuse("arm 'reel' is unknown.*did you mean 'real'", *words, "--arms", "reel")
    refuse("classifier is 'huge'", *words, "--classifier", "huge")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--image-size", "0"), r"generator\.image_size.*got 0"),
        (("--image-size", "-8"), r"generator\.image_size.*got -8"),
        (("--image-size", "65"), r"generator\.image_size.*got 65"),
        (("--image-size", "big"), "--image-size"),
        (("--limit-per-class", "0"), r"dataset\.limit_per_class.*got 0"),
        (("--images", "0"), "images is '0'"),
        (("--images=-5",), "images is '-5'"),
        (("--budget", "5m"), "budget or images, not both"),
        (("--seed", "-1"), "--seed"),
        (("--num-processes", "0"), "--num-processes"),
        (("--set", "fit.batch_size=0"), r"fit\.batch_size.*got 0"),
        (("--set", "fit.bach_size=8"), r"unknown key fit\.bach_size .did you mean 'batch_size'"),
        (("--set", "generator.widht=8"), r"unknown key generator\.widht .did you mean 'width'"),
        (("--set", "generator.width=wide"), r"generator\.width is .wide"),
        (("--set", "generator.width=0"), "width is 0"),
        (("--set", "fit.seed"), r"section\.key=value"),
        (("--set", "fit.seed=["), "not valid YAML"),
        (("--set", "dataset.validation=1.5"), r"dataset\.validation"),
        (("--set", "dataset.path.x=1"), "'path' is a value, not a section"),
    ],
)
def test_numbers_of_fit_out_of_range(words, match, refuse, good):
    refuse(match, *fit_words(good, *words))


@pytest.mark.parametrize("budget", ["0", "-5m", "soon"])
def test_budgets_that_are_none(budget, refuse, good):
    refuse("positive duration", "fit", good, "--generator", "cvae", f"--budget={budget}", "--output", "{out}")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--per-class", "0"), r"generate\.per_class.*got 0"),
        (("--per-class", "2", "--balance", "median"), "per_class or balance, not both"),
        (("--balance", "0"), "balance is 0"),
        (("--balance", "none.json"), "cannot read 'none.json' as JSON"),
        (("--max-synthetic-fraction", "1"), r"max_synthetic_fraction.*got 1"),
        (("--max-synthetic-fraction", "-0.5"), r"max_synthetic_fraction.*got -0\.5"),
        (("--temperature", "-1"), r"temperature.*got -1"),
        (("--max-draws", "0"), r"max_draws.*got 0"),
        (("--num-processes", "0"), "--num-processes"),
        (("--seed", "-1"), "--seed"),
        (("--filter", "default"), "judge"),
    ],
)
def test_numbers_of_generate_out_of_range(words, match, refuse, run_folder):
    refuse(match, "generate", run_folder, "--output", "{out}", *words)


def test_totals_in_a_file(refuse, run_folder, tmp_path):
    for totals, match in (({"cow": 20}, "balance names the class 'cow'"), ({"cat": 2}, "below its 10 real rows")):
        (tmp_path / "totals.json").write_text(json.dumps(totals))
        refuse(match, "generate", run_folder, "--balance", tmp_path / "totals.json", "--output", "{out}")


@pytest.mark.parametrize("option", ["--seeds", "--steps", "--num-processes", "--limit-per-class"])
def test_numbers_of_benchmark_out_of_range(option, refuse, good):
    words = ("benchmark", "--real", good, "--synthetic", good, "--test", good, "--output", "{out}")
    refuse(option.strip("-").replace("-", "."), *words, option, "0")


def test_what_must_be_named(refuse, good, run_folder):
    refuse("no DATASET given", "fit", "--generator", "cvae", "--output", "{out}")
    refuse("no generator given", "fit", good, "--output", "{out}")
    refuse("no --output given", "fit", good, "--generator", "cvae")
    refuse("Missing option '--output' / '-o'; see synthaug generate --help", "generate", run_folder)
    refuse("Missing option '--test'", "benchmark", "--real", good, "--synthetic", good, "--output", "{out}")
    refuse("no Hub id", "push", run_folder, "name-without-user")


# ----------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("dataset: {path: [", "not valid YAML"),
        ("- a\n- b\n", "no mapping"),
        ("dataset: digits\ngenerator: {family: cvae}\n", "dataset"),
        ("dataset: {path: digits}\n", "generator is missing"),
        ("dataset: {path: digits}\ngenerator: {family: cvae}\nfitt: {}\n", "unknown key fitt .did you mean 'fit'"),
        (
            "dataset: {path: digits, spilt: train}\ngenerator: {family: cvae}\n",
            "unknown key dataset.spilt .did you mean",
        ),
        ("dataset: {path: digits}\ngenerator: {family: cvea}\noutput: x\n", "unknown generator 'cvea'"),
        ("dataset: {path: digits}\ngenerator: {family: cvae}\n", "no `output`"),
        ("dataset: !!python/object:os.system {}\n", "not valid YAML"),
    ],
)
def test_recipes_that_cannot_be_run(text, match, refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(text)
    refuse(match, "run", tmp_path / "r.yaml")


def test_a_recipe_whose_section_is_a_word_is_refused_under_flags_too(refuse, tmp_path):
    (tmp_path / "r.yaml").write_text("dataset: digits\n")
    refuse("dataset", "fit", "--recipe", tmp_path / "r.yaml", "--generator", "cvae", "--output", "{out}")
    refuse("dataset", "fit", "digits", "--recipe", tmp_path / "r.yaml", "--generator", "cvae", "--output", "{out}")


def test_flags_and_set_reach_the_recipe(capsys, tmp_path, good):
    (tmp_path / "r.yaml").write_text("dataset: {path: elsewhere}\ngenerator: {family: glow}\nfit: {budget: 3m}\n")
    words = ["fit", good, "--recipe", tmp_path / "r.yaml", "--generator", "cvae", "--set", "fit.save_every=2000"]
    words += ["--set", "generator.width=8", "--set", "fit.seed=7", "--dry-run"]
    assert cli._run([str(word) for word in words], debug=False) == 0
    printed = capsys.readouterr().out
    text, _, described = printed.partition("\ncvae: ")
    resolved = yaml.safe_load(text)
    assert resolved["dataset"]["path"] == str(good) and resolved["generator"]["family"] == "cvae"
    assert resolved["generator"]["width"] == 8 and resolved["fit"]["save_every"] == 2000
    assert resolved["fit"]["seed"] == 7 and resolved["fit"]["budget"] == "3m"
    assert "16 to fit on, 4 held out, 2 classes" in described


def test_a_flag_replaces_the_other_target_of_the_recipe(capsys, tmp_path, run_folder):
    smallest = {"dataset": {"path": "digits"}, "generator": {"family": "cvae"}}
    (tmp_path / "r.yaml").write_text(dump_recipe(parse_recipe(smallest)))  # holds balance: majority
    words = ["generate", run_folder, "--recipe", tmp_path / "r.yaml", "--filter", "none", "--per-class", "2"]
    assert cli._run([str(word) for word in [*words, "--output", tmp_path / "out"]], debug=False) == 0
    assert json.loads((tmp_path / "out" / "synthaug.json").read_text())["plan"]["missing"] == {"cat": 2, "dog": 2}


# ------------------------------------------------------------------------------------------------- folders


def test_folders_that_are_no_run(refuse, tmp_path, good):
    (tmp_path / "folder").mkdir()
    refuse("is not a finished run", "generate", tmp_path / "folder", "--output", "{out}")
    refuse("is not a finished run|no such file|neither", "generate", good, "--output", "{out}")


def test_folders_that_are_nothing_to_push(refuse, tmp_path, monkeypatch, run_folder):
    refuse("HF_HUB_OFFLINE is set; unset it", "push", run_folder, "me/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    (tmp_path / "folder").mkdir()
    refuse("neither a finished run nor a finished dataset folder", "push", tmp_path / "folder", "me/name")
    refuse("is no folder", "push", tmp_path / "none", "me/name")


def test_alone_it_prints_its_help(capsys):
    assert cli._run([], debug=False) == 0
    printed = capsys.readouterr()
    assert "Usage: synthaug" in printed.out and "quickstart" in printed.out and not printed.err


def test_generate_counts_the_rows_that_a_limited_fit_took(capsys, tmp_path, run_folder, good, refuse):
    words = ["generate", run_folder, "--balance", "7", "--filter", "none", "--limit-per-class", "5"]
    refuse("--limit-per-class speaks of the rows of --mix-with", *words, "--output", "{out}")
    words += ["--mix-with", good, "--output", tmp_path / "mixed"]
    assert cli._run([str(word) for word in words], debug=False) == 0
    record = json.loads((tmp_path / "mixed" / "synthaug.json").read_text())
    assert record["plan"]["real"] == {"cat": 5, "dog": 5} and record["plan"]["missing"] == {"cat": 2, "dog": 2}


def test_a_device_that_is_not_there_is_refused(refuse, run_folder):
    words = ["generate", run_folder, "--per-class", "1", "--output", "{out}", "--device"]
    for device in ("cuda:7", "toaster"):
        refuse(f"device '{device}' cannot be used here.*give 'cpu'", *words, device)


def test_a_push_without_a_token_is_refused_before_anything_is_made(refuse, tmp_path, monkeypatch, run_folder):
    words = ["generate", run_folder, "--per-class", "2", "--filter", "none", "--output", "{out}", "--push-to"]
    refuse("HF_HUB_OFFLINE is set", *words, "me/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("synthaug.hub.get_token", lambda: None)
    refuse("no Hub id", *words, "name")
    refuse("needs a token, and there is none; log in by `hf auth login`", *words, "me/name")
    recipe = {"dataset": {"path": "digits"}, "generator": {"family": "cvae"}, "push": {"repo": "me/name"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**recipe, "output": str(tmp_path / "made")}))
    refuse("needs a token", "run", tmp_path / "r.yaml")
    assert not (tmp_path / "made").exists()


def test_a_run_is_no_dataset(refuse, run_folder):
    refuse("run folder, not a dataset", *fit_words(run_folder))


def test_other_arguments_on_an_output(refuse, tmp_path, good, run_folder, capsys):
    made = tmp_path / "made"
    words = ["generate", run_folder, "--output", made, "--filter", "none", "--per-class", "3"]
    assert cli._run([str(word) for word in words], debug=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(made)
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    refuse("made with other arguments .*seed.*--fresh", *words, "--seed", "1")
    refuse("plan", *words[:-1], "4")
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    assert cli._run([str(word) for word in words], debug=False) == 0
    assert capsys.readouterr().out == f"{made}\n"

    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("mine")
    words = ("fit", good, "--generator", "cvae", "--output", run, "--images", "256")
    refuse("'recipe.yaml' not made by synthaug fit; give another folder", *words)
    refuse("'recipe.yaml' not made by synthaug fit, which --fresh does not remove", *words, "--fresh")
    assert [path.name for path in run.iterdir()] == ["recipe.yaml"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    refuse("'thesis.tex' not made by synthaug fit", "fit", good, "--generator", "cvae", "--output", tmp_path / "thesis")
    refuse("is a file", "fit", good, "--generator", "cvae", "--output", good)


def test_a_locked_output(refuse, tmp_path, good, run_folder):
    with OutputFolder(tmp_path / "out", "fit", {}):
        refuse("locked|another|in use|being written", *fit_words(good))
        refuse("locked|another|in use|being written", "generate", run_folder, "--filter", "none", "--output", "{out}")


# ---------------------------------------------------------------------------------------------- other codes


def test_what_went_wrong_inside_is_one_line_and_exit_1(capsys, monkeypatch, good):
    import synthaug.inspection

    def break_down(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(synthaug.inspection, "inspect_dataset", break_down)
    assert cli._run(["inspect", str(good)], debug=False) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "RuntimeError: two lines; add --debug" in printed.err
    with pytest.raises(RuntimeError, match="two"):
        cli._run(["inspect", str(good)], debug=True)


def test_env_names_the_versions(capsys):
    assert cli._run(["env"], debug=False) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("synthaug ") and "torch " in printed and "devices: " in printed


def test_help_is_quick_and_imports_neither_torch_nor_datasets():
    code = """
import resource, sys
sys.argv = ["synthaug", "--help"]
from synthaug.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in ("torch", "datasets", "numpy", "pyarrow", "PIL", "pydantic") if name in sys.modules]
print(used.ru_utime + used.ru_stime, *heavy, file=sys.stderr)
"""
    seconds = []
    for _ in range(3):  # CPU time of a busy machine still varies: the best of three
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        spent, *heavy = done.stderr.split()
        assert heavy == []
        seconds.append(float(spent))
        if seconds[-1] < 0.3:
            break
    assert min(seconds) < 0.3
    for command in ("quickstart", "inspect", "fit", "generate", "mix", "strip", "benchmark", "push", "run", "env"):
        assert re.search(rf"^\s+{command}\s", done.stdout, re.MULTILINE), command


def test_an_interrupt_outside_any_loop_is_one_line(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("synthaug.inspection.inspect_dataset", stop)
    assert cli._run(["inspect", "digits"], debug=False) == 130
    assert capsys.readouterr().err == "error: stopped; run the same command again\n"
