from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from sklearn.datasets import load_digits

import synthaug.benchmarks.tuning
from synthaug.benchmarks.arms import default_arms, parse_arm
from synthaug.benchmarks.benchmarking import benchmark
from synthaug.benchmarks.cells import Cell, CellData, Rows, run_cell
from synthaug.benchmarks.contest import load_contest
from synthaug.benchmarks.material import collect_material
from synthaug.benchmarks.schedules import schedule_rows
from synthaug.classical import POLICIES
from synthaug.columns import PROVENANCE
from synthaug.data import load_images
from synthaug.errors import InputError, StoppedError
from synthaug.neighbours import find_near_duplicates, nearest_rows
from synthaug.report import Report

NAMES = [f"digit {i}" for i in range(5)]
PAIR = ("oversampled+classical", "oversampled+classical+synthetic")
FIXED = (PAIR[0], f"{PAIR[1]}@0.75")
"""With a share that validation rows do not choose."""


def encode(pixels):
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def dataset(pixels, labels, **columns):
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    made = Dataset.from_dict({"image": [encode(p) for p in pixels], "label": [int(y) for y in labels]}, features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


@pytest.fixture(scope="module")
def digits():
    data = load_digits(n_class=5)
    pixels, labels = (data.images / 16 * 255).round().astype(np.uint8), data.target
    order = np.random.RandomState(0).permutation(len(labels))
    return pixels[order], labels[order]


@pytest.fixture(scope="module")
def rows(digits):
    """Four to twelve real rows a class, 60 more a class that play the synthetic ones, 300 test rows."""
    pixels, labels = digits
    test, rest = np.arange(300), np.arange(300, len(labels))
    real = np.concatenate([rest[labels[rest] == c][: 12 - 2 * c] for c in range(5)])
    extra = np.concatenate([rest[labels[rest] == c][12:72] for c in range(5)])
    return {name: (pixels[index], labels[index]) for name, index in (("real", real), ("extra", extra), ("test", test))}


@pytest.fixture
def quick(monkeypatch):
    """One tuning seed and one policy: the smallest benchmark that does everything."""
    monkeypatch.setattr(synthaug.benchmarks.tuning, "TUNING_SEEDS", (1_000,))
    monkeypatch.setattr(synthaug.benchmarks.tuning, "POLICIES", {"affine": POLICIES["affine"]})


@pytest.fixture
def tiny_cells(rows):
    real, synthetic, test = ((pixels[..., None], labels) for pixels, labels in rows.values())
    few = Rows(real[0][:6], real[1][:6]), Rows(test[0][:20], test[1][:20])
    data = CellData(5, Rows(*real), *few, {"synthetic": Rows(*synthetic)})
    return data, Cell(PAIR[1], 0, 3, 8, "affine+flip+tone", 6e-3, share=0.5, test=True)


# ------------------------------------------------------------------------------------------------------- verdicts


def test_more_real_rows_are_found_to_help(rows, quick, tmp_path):
    report = benchmark(
        dataset(*rows["real"]), dataset(*rows["extra"]), test=dataset(*rows["test"]),
        arms=FIXED, steps=40, num_processes=1, output=tmp_path / "report",
    )  # fmt: skip
    assert report.verdict == "helps", report.table
    assert report.difference > 0.01 and report.interval[0] > 0
    assert [arm["role"] for arm in report.arms] == ["opponent", "synthetic"]
    assert report.comparison["detectable"] > 0
    assert report.leaks["run"] == "not checked" and "Not checked" in report.to_markdown()
    assert {row["name"] for row in report.classes} == set(NAMES)
    assert set(report.pictures) == {"samples", "neighbours"}
    assert report.curves[PAIR[0]][-1][0] == 40
    assert "one fit of each generator" in report.to_html()
    assert Report.load(tmp_path / "report").to_dict() == report.to_dict()


def test_shuffled_labels_are_found_to_harm(rows, quick):
    pixels, labels = rows["extra"]
    shuffled = (labels + 1 + np.random.RandomState(0).randint(0, 4, len(labels))) % 5
    report = benchmark(
        dataset(*rows["real"]), dataset(pixels, shuffled), test=dataset(*rows["test"]),
        arms=FIXED, steps=40, num_processes=1,
    )  # fmt: skip
    assert report.verdict == "harms", report.table
    assert report.interval[1] < 0


def test_no_share_of_synthetic_rows_is_exactly_the_arm_beneath(rows, quick, monkeypatch):
    monkeypatch.setattr(synthaug.benchmarks.tuning, "MIXTURES", ((0.0, 0.0),))
    report = benchmark(
        dataset(*rows["real"]), dataset(*rows["extra"]), test=dataset(*rows["test"]),
        arms=PAIR, seeds=2, steps=3, num_processes=1,
    )  # fmt: skip
    assert report.difference == 0 and report.interval == (0, 0) and report.verdict == "no clear change"
    assert "none is recommended" in report.sentence and PAIR[0] in report.sentence
    arms = {arm["name"]: arm for arm in report.arms}
    assert arms[PAIR[1]]["per_seed"] == arms[PAIR[0]]["per_seed"]
    assert "no exchanged row" in arms[PAIR[1]]["options"]
    assert report.comparison["detectable"] is None and "trained the same" in report.comparison["method"]


def test_few_seeds_never_earn_a_verdict_and_all_arms_run(rows, quick):
    report = benchmark(
        dataset(*rows["real"]), dataset(*rows["extra"]), test=dataset(*rows["test"]),
        seeds=2, steps=4, num_processes=1,
    )  # fmt: skip
    assert report.verdict == "no clear change"
    assert "at least 5 paired seeds" in report.sentence
    names = [arm["name"] for arm in report.arms]
    asked = default_arms([12, 10, 8, 6, 4])
    assert len(names) == len(asked) and [n.split("+")[-1] for n in names] == [n.split("+")[-1] for n in asked]
    plain = [arm["name"] for arm in report.arms if arm["side"] == "classical" and "smote" not in arm["name"]]
    rested = [name for name, given in zip(names, asked, strict=True) if given.startswith("best")]
    assert len(rested) == 3 and len({name.rpartition("+")[0] for name in rested}) == 1  # all on the same best arm
    assert rested[0].rpartition("+")[0] in plain
    trials = [trial["arm"] for trial in report.tuning if trial["stage"] == "options"]
    assert {trials.count(name) for name in names} == {synthaug.benchmarks.tuning.TRIALS}
    assert all(sum(t["chosen"] for t in report.tuning if t["arm"] == name and t["stage"] == "options") == 1
               for name in names)  # fmt: skip


# ------------------------------------------------------------------------------------------------- equal work, pairs


def test_arms_are_paired_position_by_position():
    real, synthetic = np.array([0] * 30 + [1] * 5), np.array([0] * 10 + [1] * 30)

    def schedule(name, share=0.5, seed=3):
        return schedule_rows(parse_arm(name), real, synthetic, length=400, seed=seed, share=share)

    assert (schedule("real") == schedule("real+classical")).all()
    opponent, mixed = schedule("oversampled+classical"), schedule("oversampled+classical+synthetic")
    kept = mixed < len(real)
    assert (mixed[kept] == opponent[kept]).all()
    classes = np.concatenate([real, synthetic])
    assert (classes[mixed] == classes[opponent]).all()
    share = 1 - np.array([kept[real[opponent] == c].mean() for c in (0, 1)])
    assert abs(share[0] - 0.25) < 0.08 and abs(share[1] - 0.5) < 0.08  # class 0: 10 of 40 rows are synthetic
    few = schedule("oversampled+classical+synthetic", share=0.1)
    assert set(np.flatnonzero(few >= len(real))) <= set(np.flatnonzero(~kept))
    only = schedule("synthetic")
    assert only.min() >= len(real) and np.bincount(classes[only]).tolist() == [200, 200]
    assert (schedule("real", seed=4) != schedule("real")).any()


def test_a_cell_is_reproducible_and_test_rows_stay_untouched_while_tuning(tiny_cells):
    data, cell = tiny_cells
    first, second = run_cell(cell, data), run_cell(cell, data)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert len(first["test"]["predictions"]) == 20
    assert run_cell(replace(cell, test=False), data)["test"] is None


SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from synthaug.benchmarks.cellpool import CellPool
from synthaug.benchmarks.cells import Cell, CellData
from synthaug.errors import FailedError

cells = [Cell(**cell) for cell in json.loads(sys.argv[1])]
with CellPool(CellData.load(Path("arrays")), num_processes=2) as pool:
    pool.run(cells, lambda cell, result: print(json.dumps([asdict(cell), result])))
    try:
        pool.run([Cell(**{**asdict(cell), "policy": "nowhere"}) for cell in cells], print)
    except FailedError as error:
        print(error, file=sys.stderr)
assert all(worker.process.poll() is not None for worker in pool._workers)
"""


def test_workers_of_a_plain_script_give_the_same_results_as_this_process(tiny_cells, tmp_path):
    data, cell = tiny_cells
    cells = [cell, replace(cell, seed=1), replace(cell, arm="real")]
    (tmp_path / "arrays").mkdir()
    data.save(tmp_path / "arrays")
    (tmp_path / "script.py").write_text(SCRIPT)  # without a __main__ guard
    answer = subprocess.run(
        [sys.executable, "script.py", json.dumps([asdict(cell) for cell in cells])],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(synthaug.__file__).parent.parent)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "nowhere" in answer.stderr
    results = {Cell(**made): result for made, result in map(json.loads, answer.stdout.splitlines())}
    for cell in cells:
        assert {**results[cell], "seconds": 0} == json.loads(json.dumps({**run_cell(cell, data), "seconds": 0}))


def test_a_worker_whose_parent_was_killed_ends_quietly(tiny_cells, tmp_path):
    data, cell = tiny_cells
    data.save(tmp_path)
    worker = subprocess.Popen(
        [sys.executable, "-m", "synthaug.benchmarks.cellpool", str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(synthaug.__file__).parent.parent)},
    )  # fmt: skip
    worker.stdout.close()
    worker.stdin.write(json.dumps(asdict(replace(cell, policy="nowhere"))) + "\n")
    worker.stdin.close()
    assert worker.wait(timeout=300) == 1 and "BrokenPipe" not in worker.stderr.read()


def test_albumentations_trains_too(tiny_cells):
    data, cell = tiny_cells
    assert run_cell(replace(cell, backend="albumentations"), data)["test"]["predictions"]


# ------------------------------------------------------------------------------------------------------ the folder


def test_interrupted_resumed_finished_and_other_arguments(rows, quick, tmp_path, monkeypatch):
    folder, data = tmp_path / "report", [dataset(*rows[name]) for name in ("real", "extra", "test")]

    def run(**options):
        return benchmark(
            data[0], data[1], test=data[2], arms=PAIR, num_processes=1, output=folder,
            **{"seeds": 1, "steps": 3, **options},
        )  # fmt: skip

    import synthaug.benchmarks.cellpool as cellpool

    done = []

    def interrupted(cell, data, **_):
        if len(done) == 3:
            raise InterruptedError
        done.append(cell)
        return run_cell(cell, data)

    monkeypatch.setattr(cellpool, "run_cell", interrupted)
    with pytest.raises(StoppedError, match="run the same again"):
        run()
    assert len(list((folder / "cells").glob("*.json"))) == 3 and not (folder / "report.json").exists()

    again = []
    monkeypatch.setattr(cellpool, "run_cell", lambda cell, data, **_: again.append(cell) or run_cell(cell, data))
    report = run()
    assert len(again) == report.cost["cells"] - 3 and not set(again) & set(done)
    again.clear()
    assert run().to_dict() == report.to_dict() and not again
    with pytest.raises(InputError, match=r"other arguments \(seeds, steps\); use them again or add fresh=True"):
        run(steps=4, seeds=2)
    (folder / "mine.txt").write_text("stays")
    with pytest.raises(InputError, match=r"'mine\.txt' not made by this command"):
        run(steps=4, fresh=True)
    assert (folder / "mine.txt").read_text() == "stays" and (folder / "report.json").exists()
    (folder / "mine.txt").unlink()
    run(steps=4, fresh=True)
    assert len(list((folder / "cells").glob("*.json"))) == len(again)


# ----------------------------------------------------------------------------------------------------------- leaks


def test_leaks_are_refused_or_dropped_but_never_what_the_run_has_seen(rows):
    real, extra, test = (dataset(*rows[name]) for name in ("real", "extra", "test"))
    leaky = dataset(*(np.concatenate([rows["real"][i], rows["test"][i][:7]]) for i in (0, 1)))
    with pytest.raises(
        InputError, match=r"7 are among the real rows \(test rows 0, 1, 2, 3, 4 and 2 more\).*drop_leaks=True"
    ):
        load_contest(leaky, {"synthetic": extra}, test)
    contest = load_contest(leaky, {"synthetic": extra}, test, drop_leaks=True)
    assert contest.leaks.dropped == {"real": 7, "synthetic": 0}
    assert len(contest.train) + len(contest.validation) == len(real) and len(contest.test) == len(test)
    with pytest.raises(InputError, match="among the synthetic rows"):
        load_contest(real, {"synthetic": leaky}, test.select(range(10)), drop_leaks=False)

    hashes = load_images(test).hashes
    for part in ("train", "validation"):
        source = {"hashes": {"train": [], "validation": [], part: [hashes[4]]}}
        with pytest.raises(
            InputError, match=rf"1 of 300 test rows are among the {part} rows of the run \(test rows 4\)"
        ):
            load_contest(leaky, {"synthetic": extra}, test, drop_leaks=True, source=source)


def test_the_rows_that_the_run_held_out_choose(rows):
    real, extra, test = (dataset(*rows[name]) for name in ("real", "extra", "test"))
    hashes = load_images(real).hashes
    source = {"hashes": {"train": hashes[3:].tolist(), "validation": hashes[:3].tolist()}}
    contest = load_contest(real, {"synthetic": extra}, test, source=source)
    assert sorted(contest.validation.hashes) == sorted(hashes[:3])
    assert not set(contest.validation.hashes) & set(contest.train.hashes)
    assert contest.leaks.run == "clean"
    seen = load_contest(
        real, {"synthetic": extra}, test, source={"hashes": {"train": hashes.tolist(), "validation": []}}
    )
    assert any("favours the synthetic arm" in note for note in seen.notes)


def test_only_rows_marked_as_synthetic_are_taken(rows):
    pixels, labels = rows["extra"]
    marks = [i % 3 == 0 for i in range(len(labels))]
    marked = dataset(pixels, labels, synthetic=marks)
    marked = marked.add_column("provenance", [None] * len(labels), feature=PROVENANCE)
    contest = load_contest(dataset(*rows["real"]), {"synthetic": marked}, dataset(*rows["test"]))
    assert len(contest.synthetic) == sum(marks)
    with pytest.raises(InputError, match="marked as synthetic"):
        load_contest(dataset(*rows["real"]), {"synthetic": marked.select([1, 2])}, dataset(*rows["test"]))


def test_near_duplicates_are_noted(rows):
    pixels, labels = rows["real"]
    changed = pixels.copy()
    changed[0, 0, 0] ^= 3
    contest = load_contest(
        dataset(changed, labels), {"synthetic": dataset(*rows["extra"])}, dataset(pixels[:1], labels[:1])
    )
    assert contest.near_duplicates[0][:3] == ("real", 0, 0)
    copies = load_contest(dataset(pixels, labels), {"synthetic": dataset(pixels, labels)}, dataset(*rows["test"]))
    assert any("validation rows look nearly like a synthetic row" in note for note in copies.notes)


def test_near_duplicates_and_nearest_rows():
    random = np.random.RandomState(0)
    known = random.randint(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    noisy = (known[7].astype(int) + random.randint(-3, 4, known[7].shape)).clip(0, 255).astype(np.uint8)
    asked = np.stack([random.randint(0, 256, (16, 16, 3), dtype=np.uint8), noisy, np.zeros((16, 16, 3), np.uint8)])
    found = find_near_duplicates(asked, known, threshold=0.1)
    assert [item[:2] for item in found] == [(1, 7)]
    assert nearest_rows(asked, known, 2)[1, 0] == 7


# ----------------------------------------------------------------------------------------------------------- input


def test_arguments_out_of_range(rows):
    real, extra, test = (dataset(*rows[name]) for name in ("real", "extra", "test"))
    for options, message in (
        ({"seeds": 0}, "seeds is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"classifier": "big"}, "allowed are small"),
        ({"backend": "torhc"}, "did you mean 'torch'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"arms": ["real", "oversampeld+classical"]}, "did you mean 'oversampled\\+classical'"),
        ({"arms": ["real"]}, "a comparison needs"),
        ({"arms": ["synthetic", "real+synthetic"]}, "a comparison needs"),
        ({"arms": ["real", "real", "real+synthetic"]}, "name each arm once"),
    ):
        with pytest.raises(InputError, match=message):
            benchmark(real, extra, test=test, **options)
    with pytest.raises(InputError, match="digit 4"):
        benchmark(real.filter(lambda row: row["label"] < 4), extra, test=test)


@pytest.mark.parametrize("name", ["best", "oracle", "smote", "weighted", "shuffled", "Big", "a+b", "a@1", ""])
def test_names_of_sources_that_would_be_parts_of_arms(rows, name):
    real, extra, test = (dataset(*rows[kind]) for kind in ("real", "extra", "test"))
    with pytest.raises(InputError, match="cannot be used in the name of an arm"):
        benchmark(real, {name: extra, "other": extra}, test=test)


def test_all_sources_together_have_a_name_that_no_single_one_may_take(rows):
    real, extra, test = (dataset(*rows[kind]) for kind in ("real", "extra", "test"))
    with pytest.raises(InputError, match="cannot be used in the name of an arm"):
        benchmark(real, {"synthetic": extra, "other": extra}, test=test)


# ------------------------------------------------------------------------------------- rows besides real and synthetic


def test_every_kind_of_rows_is_collected_with_the_counts_of_the_synthetic_rows(rows):
    pixels, labels = rows["extra"]
    contest = load_contest(
        dataset(*rows["real"]),
        {"odd": dataset(pixels[::2], labels[::2]), "even": dataset(pixels[1::2], labels[1::2])},
        dataset(*rows["test"]),
        oracle=dataset(*rows["extra"]),
    )
    kinds = ("synthetic", "odd", "smote", "duplicated", "gaussian", "shuffled", "oracle", "oracle/4")
    arms = [parse_arm(f"best+{kind}", ("odd", "even")) for kind in kinds]
    data = collect_material(contest, [*arms, parse_arm("real")])
    assert set(data.others) == set(kinds)
    counts = {kind: np.bincount(rows.labels, minlength=5) for kind, rows in data.others.items()}
    for kind in ("smote", "duplicated", "gaussian", "shuffled", "oracle"):
        assert (counts[kind] == counts["synthetic"]).all(), kind
    assert (counts["oracle/4"] == np.ceil(counts["synthetic"] / 4)).all()
    assert len(data.others["odd"]) == len(labels[::2])
    assert (data.others["shuffled"].pixels == data.others["synthetic"].pixels).all()
    assert 0.6 < (data.others["shuffled"].labels != data.others["synthetic"].labels).mean() < 1


def test_an_oracle_is_never_a_row_that_trains_or_judges(rows):
    real, test = rows["real"], rows["test"]
    further = [np.concatenate([rows["extra"][i], real[i], test[i][:30]]) for i in (0, 1)]
    contest = load_contest(
        dataset(*real), {"synthetic": dataset(*rows["extra"])}, dataset(*test), oracle=dataset(*further)
    )
    known = {*contest.train.hashes, *contest.validation.hashes, *contest.test.hashes}
    assert not known & set(contest.oracle.hashes) and len(contest.oracle) == len(rows["extra"][1])
    limited = load_contest(dataset(*real), {"synthetic": dataset(*rows["extra"])}, dataset(*test), limit_per_class=4)
    assert len(limited.oracle) + len(limited.train) + len(limited.validation) == len(real[1])


@pytest.mark.parametrize(("kind", "message"), [("oracle", "--oracle"), ("latent-smote", "needs a generator")])
def test_rows_that_are_not_at_hand(rows, kind, message):
    contest = load_contest(*(dataset(*rows["real"]), {"synthetic": dataset(*rows["extra"])}, dataset(*rows["test"])))
    with pytest.raises(InputError, match=message):
        collect_material(contest, [parse_arm(f"best+{kind}")])


def test_cell_data_comes_back_from_its_folder(tiny_cells, tmp_path):
    data, _ = tiny_cells
    data.save(tmp_path)
    again = CellData.load(tmp_path)
    for name in ("real", "validation", "test"):
        assert (getattr(again, name).pixels == getattr(data, name).pixels).all()
    assert (again.others["synthetic"].labels == data.others["synthetic"].labels).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"arm": "real+strong", "policy": "trivial+flip", "mix": "cutmix"},
        {"arm": "oversampled+strong+balanced-softmax+synthetic", "policy": "trivial", "mix": "mixup"},
        {"arm": "real+classical+weighted"},
        {"arm": "synthetic"},
        {"arm": "real+synthetic", "share": 0.5, "finish": 0.5},
    ],
)
def test_every_part_of_an_arm_trains_and_counts(tiny_cells, changes):
    data, cell = tiny_cells
    found = run_cell(replace(cell, **changes), data)["validation"]
    assert np.isfinite(found["scaled_nll"]) and 0 <= found["calibration_error"] <= 1
    assert found["scaled_nll"] <= found["nll"] + 1e-6
    assert found["nll"] != run_cell(cell, data)["validation"]["nll"]


# ------------------------------------------------------------------------------------------------------- schedules


def test_the_finish_is_real_and_changes_nothing_before():
    real, others = np.repeat([0, 1], 20), np.repeat([0, 1], 40)
    arm = parse_arm("real+synthetic")
    whole, finished = (
        schedule_rows(arm, real, others, length=400, seed=0, share=0.5, finish=finish) for finish in (0.0, 0.25)
    )
    assert (finished[300:] < 40).all() and (whole[300:] >= 40).any()
    assert ((finished[:300] >= 40) == (whole[:300] >= 40)).all()


def test_no_share_is_the_schedule_of_the_arm_beneath():
    real, others = np.repeat([0, 1], [30, 5]), np.repeat([0, 1], 40)
    mixed, plain = (
        schedule_rows(parse_arm(name), real, others, length=200, seed=1, share=0.0)
        for name in ("oversampled+synthetic", "oversampled")
    )
    assert (mixed == plain).all()


def test_an_oracle_is_shown_as_if_it_were_among_the_rows():
    real, others = np.zeros(30, dtype=np.int64), np.zeros(10, dtype=np.int64)
    rows = schedule_rows(parse_arm("real+oracle"), real, others, length=40_000, seed=0, share=1.0)
    assert abs((rows >= 30).mean() - 0.25) < 0.01
