from __future__ import annotations

import json
import re

import pytest

from synthaug.benchmarks import Report
from synthaug.core import InputError, tile_images
from synthaug.publishing import percent, points

EVIL = "</td><script>alert(1)</script>|`\n\"'"


def make_report(**changes):
    import numpy as np

    arm = {
        "name": "oversampled+classical", "description": "real rows", "side": "classical", "role": "opponent",
        "options": "learning rate 1",
        "balanced_accuracy": 0.9, "interval": (0.88, 0.92), "per_seed": [0.89, 0.9, 0.91], "macro_f1": 0.9, "nll": 0.3,
        "calibration_error": 0.04, "validation_loss": 0.25, "difference": None,
        "worst_recall": 0.8, "validation": None, "rows": {"real": 10, "added": 0}, "seconds": 1.0,
    }  # fmt: skip
    values = {
        "verdict": "helps",
        "sentence": f"Better than {EVIL}.",
        "difference": 0.02,
        "interval": (0.01, 0.03),
        "arms": [
            arm,
            {**arm, "name": "oversampled+classical+synthetic", "side": "synthetic", "role": "synthetic",
             "rows": {"real": 10, "added": 7},
             "difference": {"value": 0.02, "interval": [0.01, 0.03], "p": 0.0004, "p_holm": 0.0008}},
            {**arm, "name": "oversampled+classical+shuffled", "side": "control", "role": "",
             "difference": {"value": -0.01, "interval": [-0.03, 0.01], "p": 0.4, "p_holm": 0.412}},
        ],
        "comparison": {
            "synthetic": "oversampled+classical+synthetic", "opponent": "oversampled+classical",
            "per_seed": [0.01, 0.02, 0.03], "standard_error": 0.004, "seed_error": 0.003, "row_error": 0.002,
            "degrees": 4.0, "detectable": 0.02, "method": "Student's t.",
        },
        "groups": [
            {"name": "tail", "classes": [EVIL, "plain"], "train": 6, "opponent": 0.4, "synthetic": 0.55}
        ],
        "worth": {"rows": 120.0, "low": 60.0, "high": 300.0, "beyond": True, "per_synthetic_row": 12.0,
                  "points": [[0, 0.0], [30, 0.01], [120, 0.02]]},
        "classes": [
            {"name": EVIL, "train": 5, "synthetic": 5, "test": 5, "opponent_recall": 0.8, "synthetic_recall": 0.9,
             "change": 0.1, "size": 0.1},
            {"name": "plain", "train": 5, "synthetic": 5, "test": 0, "opponent_recall": None, "synthetic_recall": None,
             "change": None, "size": 0.0},
        ],
        "confusions": [{"true": EVIL, "predicted": "plain", "opponent": 0.2, "synthetic": 0.1, "change": -0.1}],
        "curves": {"oversampled+classical": [[10, 0.5], [20, 0.9]]},
        "tuning": [
            {"stage": "policy", "arm": "oversampled+classical", "options": "policy affine", "balanced_accuracy": 0.9,
             "nll": 0.2, "chosen": True}
        ],
        "leaks": {"run": "clean", "dropped": {}, "near_duplicates": [], "lines": ["No test row was seen."]},
        "settings": {
            "version": "0", "seeds": [0, 1, 2], "steps": 20, "batch_size": 4, "trials": 3,
            "rows": {"train": 10, "validation": 2, "synthetic": 10, "test": 5},
            "captions": {"samples": f"classes: {EVIL}", "neighbours": "nearest"},
        },
        "cost": {"seconds": 2.0, "cells": 6, "processes": 1, "device": "cpu"},
        "not_varied": ["one fit"],
        "notes": [f"class {EVIL}"],
        "command": f"synthaug benchmark {EVIL}",
        "pictures": {"samples": tile_images([np.zeros((2, 8, 8, 1), dtype=np.uint8)])},
    }  # fmt: skip
    return Report(**{**values, **changes})


def test_saved_and_loaded_again(tmp_path):
    report = make_report()
    report.save(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert {"verdict", "arms", "difference", "interval"} <= set(content)
    assert not list(tmp_path.rglob("*.tmp"))
    loaded = Report.load(tmp_path)
    assert loaded.verdict == "helps" and loaded.interval == (0.01, 0.03)
    assert loaded.pictures == report.pictures
    assert loaded.to_html() == report.to_html()


def test_what_the_page_shows_is_escaped_and_needs_no_other_file():
    page = make_report().to_html()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", page)
    assert "url(" not in page and "@import" not in page
    assert "They help" in page and "data:image/png;base64," in page


def test_markdown_keeps_names_in_their_cell():
    text = make_report().to_markdown()
    shown = [line for line in text.splitlines() if not line.startswith("    ")]  # the command is a code block
    assert not any("<script" in line for line in shown)
    rows = [line for line in text.splitlines() if line.startswith("|") and "alert" in line]
    assert rows and all(line.replace("\\|", "").count("|") in (6, 8) for line in rows)


def test_table_and_numbers():
    lines = make_report().table.splitlines()
    assert len(lines) == 5 and "90.00 %" in lines[2] and "(synthetic)" in lines[3]
    assert len({line.count("|") for line in lines}) == 1
    assert "+2.00 (+1.00 to +3.00)" in lines[3] and "< 0.001" in lines[3]
    assert "−1.00" in lines[4] and "0.412" in lines[4]
    assert points(-0.0123) == "−1.23" and points(1e-9) == "0.00" and percent(None) == "–"


def test_groups_and_worth_are_shown_where_there_are_any():
    for text in (make_report().to_html(), make_report().to_markdown()):
        assert "Head, medium and tail" in text and "tail" in text and "+15.00" in text
        assert "more than 120" in text and "12.00" in text and "60 to 300" in text
    for text in (make_report(groups=[], worth={}).to_html(), make_report(groups=[], worth={}).to_markdown()):
        assert "Head, medium" not in text and "were worth" not in text


def test_the_page_shows_every_arm_with_its_corrected_difference():
    page = make_report().to_html()
    assert "0.412" in page and "&lt; 0.001" in page
    assert '<span class="role">control</span>' in page and "10 real rows and 7 others" in page


def test_a_report_of_one_seed_has_no_interval(tmp_path):
    report = make_report()
    bare = {"standard_error": None, "seed_error": None, "row_error": None, "detectable": None, "per_seed": [0.02]}
    single = make_report(
        interval=None,
        comparison={**report.comparison, **bare},
        arms=[{**arm, "interval": None, "per_seed": [0.9], "difference": None} for arm in report.arms],
        curves={},
        pictures={},
    )
    single.save(tmp_path)
    assert Report.load(tmp_path).interval is None
    assert "no interval with one seed" in single.to_html()


def test_numbers_that_json_cannot_hold_become_null(tmp_path):
    make_report(difference=float("nan")).save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["difference"] is None


def test_no_report_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no report can be read"):
        Report.load(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(InputError, match="no report can be read"):
        Report.load(tmp_path)


def test_long_sentences_keep_their_end_in_markdown():
    sentence = "Balanced accuracy differs by little. " * 9 + "The real rows alone are enough."
    text = make_report(sentence=sentence, notes=[sentence], not_varied=[sentence]).to_markdown()
    assert text.count("The real rows alone are enough.") == 3
