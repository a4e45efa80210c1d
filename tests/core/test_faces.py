"""Every package has a face: names that are loaded when they are first used."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import synthaug

PACKAGES = [m.name for m in pkgutil.walk_packages(synthaug.__path__, "synthaug.") if m.ispkg]


@pytest.mark.parametrize("name", ["synthaug", *PACKAGES])
def test_every_name_of_a_face_is_there(name):
    package = importlib.import_module(name)
    assert package.__doc__ and package.__all__ == dir(package)
    for each in package.__all__:
        assert getattr(package, each) is not None
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'absent'"):
        _ = package.absent


@pytest.mark.parametrize("name", ["synthaug", *PACKAGES])
def test_no_name_of_a_face_is_that_of_a_module(name):
    package = importlib.import_module(name)
    assert not set(package.__all__) & {module.name for module in pkgutil.iter_modules(package.__path__)}


def test_a_face_loads_nothing_by_itself():
    code = (
        f"import sys, {', '.join(['synthaug', *PACKAGES])}; print(*sorted(m for m in sys.modules if 'synthaug' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(["synthaug", "synthaug.core.faces", *PACKAGES])
