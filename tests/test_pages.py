"""Every code block of the documentation is executed at toy size, marked as output, or says why it is not run."""

import pytest
from pages import ROOT, make_small, run_page


@pytest.fixture
def home(tmp_path, monkeypatch):
    make_small(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_loops(home):
    for name in ("transformers", "lightning", "imblearn"):
        pytest.importorskip(name)
    scope = run_page(ROOT / "docs" / "training.md")
    assert scope["numbers"][0] > 100
