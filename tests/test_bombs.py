"""Memory is bounded before anything is read: images, tensors and Parquet files that claim more than they hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from synthaug.classifiers import Judge, load_judge, save_judge
from synthaug.cli import main
from synthaug.core import InputError
from synthaug.data import decode_bytes, load_images, open_splits, scan_images, table_files
from synthaug.generators import load_run, load_snapshots, load_state, save_generator
from tests import bombs
from tests.checks import TINY, make
from tests.toy_rows import png

IMAGES = {
    "16 bits": lambda: bombs.png(9000, 16, 0, 1),
    "alpha": lambda: bombs.png(9000, 8, 6, 4),
    "few rows": lambda: bombs.png(65_000, 8, 2, 3, rows=10),
    "one tile": lambda: bombs.tiff(8, 8, tile=32_768),
    "16 bits, four channels": lambda: bombs.tiff(7000, 7000, bits=(16, 16, 16, 16)),
    "32 bits": lambda: bombs.tiff(9000, 9000, bits=(32,)),
    "jpeg": lambda: bombs.jpeg(9000),
    "bmp": lambda: bombs.bmp(60_000),
    "gif": lambda: bombs.gif(65_000),
    "webp": lambda: bombs.webp(16_000),
}
CONFIG = {"class_names": ["class 0", "class 1", "class 2"], "image_size": 8, "channels": 1}


def measure(code, *arguments):
    """Run code after its imports in a process of its own; return what it prints and the memory it took, in MiB."""
    words = f"""
import sys, torch
import synthaug.data.scan, synthaug.generators.run_folder, synthaug.classifiers.judge, test_bombs

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10

with torch.device("meta"):  # the first one imports more of torch
    synthaug.classifiers.judge.Judge(**test_bombs.ARGUMENTS)
before = peak()
{code}
print(peak() - before)
"""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", words, *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": paths}, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, taken = done.stdout.splitlines()
    return said, int(taken)


# ---------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_refused_by_the_size_that_its_header_declares(name):
    with pytest.raises(ValueError, match="decompression bomb"):
        decode_bytes(IMAGES[name]())


def test_texts_in_an_image_are_unpacked_within_bounds():
    assert decode_bytes(bombs.png(8, 8, 0, 1, bombs.texts(1))).size == (8, 8)
    with pytest.raises(ValueError, match="text"):
        decode_bytes(bombs.png(8, 8, 0, 1, bombs.texts(100)))


def test_hostile_images_in_a_folder_take_little_memory_and_are_listed(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(png(number))
    for number, make_image in enumerate(IMAGES.values()):
        (tmp_path / "dog" / f"bomb{number}.png").write_bytes(make_image())
    code = """
import numpy as np
from synthaug.data import open_splits
rows = open_splits(sys.argv[1])["train"]
for bad in synthaug.data.scan.scan_images(rows, "image", np.arange(len(rows))).corrupt:
    print(bad.reason)
"""
    said, taken = measure(code, tmp_path)
    assert len(said) == len(IMAGES) and taken < 100
    assert all(f"cannot read 'dog/bomb{number}.png': decompression bomb" in "".join(said) for number in range(10))


@pytest.mark.slow
def test_the_largest_images_take_about_a_gigabyte():
    code = """
import bombs, numpy as np
from synthaug.data import Codec, decode_bytes
for arguments in ((7200, 16, 0, 1), (7200, 8, 6, 4)):
    print(Codec(32, 1).encode(decode_bytes(bombs.png(*arguments))).shape)
"""
    said, taken = measure(code)
    assert said == ["(32, 32, 1)"] * 2 and taken < 1300


def test_a_file_larger_than_an_image_may_be_is_not_read(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(1))
    os.truncate(path, 2**40)  # takes no room on the disk
    rows = dataset_of([{"bytes": png(0), "path": None}, {"bytes": None, "path": str(path)}])
    assert "more than 200 MiB" in scan_images(rows, "image", np.arange(2)).corrupt[0].reason


def test_images_are_opened_in_one_place():
    package = Path(table_files.__file__).parent
    opening = [path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text()]
    assert opening == ["codec.py"]


def dataset_of(images):
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": [n % 2 for n in range(len(images))]}, features=features)


# --------------------------------------------------------------------------------------------------------- tensors


ARGUMENTS = {"class_names": ["a", "b", "c"], "image_size": 8, "channels": 1, "width": 16}


def judge_file(folder, config, shapes):
    shapes = {"prototypes": (3, 64), "radii": (3,)} if shapes is None else shapes
    config = config if isinstance(config, str) else json.dumps(config)
    (folder / "judge.safetensors").write_bytes(bombs.safetensors(shapes, {"config": config}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 4000}, "config.width"),
        ({"width": True}, "config.width"),
        ({"width": 16.0}, "config.width"),
        ({"width": "16"}, "config.width"),
        ({"width": -1}, "config.width"),
        ({"channels": 5}, "config.channels"),
        ({"image_size": 10**9}, "config.image_size"),
        ({"class_names": ["a", "a"]}, "config.class_names"),
        ({"class_names": [1, 2]}, "config.class_names"),
        ({"class_names": []}, "config.class_names"),
        ({"depth": 1}, "config.depth"),
        ({"width": 1000, "image_size": 1000}, "fewer tensors than the model needs"),
    ],
)
def test_a_judge_whose_arguments_cannot_be_is_refused(tmp_path, change, reason):
    judge_file(tmp_path, {**ARGUMENTS, **change}, None)
    with pytest.raises(InputError, match=r"judge\.safetensors") as caught:
        load_judge(tmp_path)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("config", ["null", "[]", "{", '"x"', "{}", "[" * 100_000])
def test_a_judge_without_arguments_is_refused(tmp_path, config):
    judge_file(tmp_path, config, None)
    with pytest.raises(InputError, match=r"judge\.safetensors.*config"):
        load_judge(tmp_path)


def test_a_judge_that_claims_to_be_large_takes_no_memory(tmp_path):
    names = [str(number) for number in range(1000)]
    judge_file(tmp_path, {**ARGUMENTS, "class_names": names, "width": 1000, "image_size": 512}, None)
    code = """
try:
    synthaug.classifiers.judge.load_judge(sys.argv[1])
except synthaug.core.errors.InputError as error:
    print(error)
"""
    said, taken = measure(code, tmp_path)
    assert "fewer tensors than the model needs" in said[0] and taken < 100


def harm(path, change):
    """Change one tensor of a safetensors file."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    name = sorted(tensors)[0]
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["extra"] = torch.zeros(3)
    elif change == "shape":
        tensors[name] = torch.zeros(5, 5, 5)
    elif change == "type":
        tensors[name] = tensors[name].double() if tensors[name].is_floating_point() else tensors[name].float()
    save_file(tensors, path)
    return "extra" if change == "extra" else name


CHANGES = {"missing": "is missing", "extra": "is not one of", "shape": "has the shape", "type": "is of type"}


def fitted(folder, family="cvae"):
    folder.mkdir(exist_ok=True)
    generator = make(family)
    rng = torch.Generator().manual_seed(0)
    generator.memorize([(torch.rand((9, 1, 8, 8), generator=rng) * 2 - 1, torch.arange(9) % 3)])
    save_generator(folder, generator, {**CONFIG, **TINY[family]})
    return generator


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["model", "latents"])
def test_other_tensors_than_the_model_has_are_named(tmp_path, name, change):
    fitted(tmp_path)
    load_run(tmp_path)
    tensor = harm(tmp_path / f"{name}.safetensors", change)
    with pytest.raises(InputError, match=rf"{name}\.safetensors: tensor '{tensor}' {CHANGES[change]}"):
        load_run(tmp_path)


@pytest.mark.parametrize("change", CHANGES)
def test_other_tensors_than_the_judge_has_are_named(tmp_path, change):
    save_judge(tmp_path, Judge(**ARGUMENTS))
    path = tmp_path / "judge.safetensors"
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensor = harm(path, change)
    save_file(load(path), path, metadata=metadata)
    with pytest.raises(InputError, match=rf"judge\.safetensors: tensor '{tensor}' {CHANGES[change]}"):
        load_judge(tmp_path)


def load(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize("change", CHANGES)
def test_other_tensors_in_what_a_fit_goes_on_from_are_named(tmp_path, change):
    from synthaug.generators import save_snapshot, save_state

    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_snapshot(tmp_path, 0, model)
    save_state(tmp_path, images_seen=1, modules={"model": model}, optimizers=[optimizer], progress={})
    assert set(load_snapshots(tmp_path, model)["snapshot-0"]) == {"weight", "bias"}
    harm(tmp_path / "state" / "snapshot-0.safetensors", change)
    with pytest.raises(InputError, match=rf"snapshot-0\.safetensors: tensor .* {CHANGES[change]}"):
        load_snapshots(tmp_path, model)
    state = next((tmp_path / "state").glob("images-*"))
    for name in ("model", "optimizer-0"):
        if (name, change) == ("optimizer-0", "missing"):
            continue  # an optimiser has no moments before its first step
        before = (state / f"{name}.safetensors").read_bytes()
        harm(state / f"{name}.safetensors", change)
        note_hashes(state)
        with pytest.raises(InputError, match=rf"{name}\.safetensors: tensor .* {CHANGES[change]}"):
            load_state(tmp_path, modules={"model": model}, optimizers=[optimizer])
        (state / f"{name}.safetensors").write_bytes(before)


def note_hashes(state):
    from synthaug.core import hash_file

    manifest = json.loads((state / "manifest.json").read_text())
    manifest["files"] = {name: hash_file(state / name) for name in manifest["files"]}
    (state / "manifest.json").write_text(json.dumps(manifest))


def test_a_state_names_no_file_elsewhere(tmp_path):
    from synthaug.generators import save_state

    model = torch.nn.Linear(3, 2)
    save_state(tmp_path, images_seen=1, modules={"model": model}, optimizers=[], progress={})
    state = next((tmp_path / "state").glob("images-*"))
    for name in ("../../secret", "/etc/hostname"):
        manifest = json.loads((state / "manifest.json").read_text())
        manifest["files"][name] = "0" * 64
        (state / "manifest.json").write_text(json.dumps(manifest))
        found, rejected = load_state(tmp_path, modules={"model": model}, optimizers=[])
        assert found is None and "a file elsewhere" in rejected[0]


def test_latents_that_count_other_rows_are_refused(tmp_path):
    fitted(tmp_path)
    tensors = load(tmp_path / "latents.safetensors")
    for counts in ([10**12, 0, 0], [-1, 5, 5], [3, 3, 2], [2**62, 2**62, 9]):
        save_file({**tensors, "counts": torch.tensor(counts)}, tmp_path / "latents.safetensors")
        with pytest.raises(InputError, match="cannot be loaded: the latents count"):
            load_run(tmp_path)


LARGE = [
    ("cvae", {"depth": 10**9}),
    ("cvae", {"width": 10**5}),
    ("cvae", {"latent_dim": 10**7}),
    ("cvae", {"tries": 10**9}),
    ("cgan", {"width": 10**5}),
    ("glow", {"dense_steps": 10**9}),
    ("glow", {"dense_width": 10**7}),
]


def test_a_config_that_claims_a_large_model_takes_little_memory_and_ends(tmp_path):
    for number, (family, change) in enumerate(LARGE):
        fitted(tmp_path / str(number), family)
        path = tmp_path / str(number) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    code = """
from pathlib import Path
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        synthaug.generators.run_folder.load_run(folder)
    except synthaug.core.errors.InputError as error:
        print(error)
"""
    said, taken = measure(code, tmp_path)
    assert len(said) == len(LARGE) and taken < 400  # of which 160 for parts of torch that are imported then


def test_damaged_headers_are_one_line(tmp_path):
    fitted(tmp_path)
    path = tmp_path / "model.safetensors"
    good = path.read_bytes()
    length = int.from_bytes(good[:8], "little")
    half = json.loads(good[8 : 8 + length])
    half[next(key for key in half if key != "__metadata__")]["data_offsets"] = [0, 10**15]
    words = json.dumps(half).encode()
    for bad in (b"", b"x", good[:100], good[:-1], good + b"x", (2**62).to_bytes(8, "little") + good[8:],
                (17 * 2**20).to_bytes(8, "little") + bytes(18 * 2**20),
                len(words).to_bytes(8, "little") + words + good[8 + length :]):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"cannot be loaded: model\.safetensors: ") as caught:
            load_run(tmp_path)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- Parquet and Arrow


def write_parquet(path, images, **options):
    parts = [pa.array(images, pa.binary()), pa.nulls(len(images), pa.string())]
    column = pa.StructArray.from_arrays(parts, ["bytes", "path"])
    pq.write_table(pa.table({"image": column, "label": pa.array([n % 2 for n in range(len(images))])}), path, **options)


def test_a_parquet_file_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "zeros.parquet", [bytes(50 << 20)] * 2, compression="zstd", use_dictionary=False)
    assert (tmp_path / "zeros.parquet").stat().st_size < 1 << 20
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "zeros.parquet")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "decompression bomb" in error
    assert not list((tmp_path / "cache").glob("*"))


def test_one_value_that_stands_for_many_rows_fills_no_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(table_files, "_SLACK", 1 << 20)
    image = np.random.default_rng(0).bytes(10_000)
    write_parquet(tmp_path / "few.parquet", [image] * 90, compression="none")
    assert len(open_splits(str(tmp_path / "few.parquet"))["train"]) == 90
    write_parquet(tmp_path / "many.parquet", [image] * 100_000, compression="none")
    with pytest.raises(InputError, match="decompression bomb"):
        open_splits(str(tmp_path / "many.parquet"))
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_saved_dataset_with_compressed_rows_is_refused(tmp_path, compression):
    rows = dataset_of([{"bytes": png(number), "path": None} for number in range(4)])
    rows.save_to_disk(tmp_path / "saved")
    assert len(open_splits(str(tmp_path / "saved"))["train"]) == 4
    file = next((tmp_path / "saved").glob("*.arrow"))
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, rows.data.schema, options=options) as writer:
        writer.write_table(rows.data.table)
    with pytest.raises(InputError, match="compressed rows"):
        open_splits(str(tmp_path / "saved"))
    table = pa.table({"image": pa.array(["a"] * 4).dictionary_encode(), "label": pa.array([0, 1, 0, 1])})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="compressed rows"):
        open_splits(str(tmp_path / "saved"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a saved dataset, and the bytes of its Arrow file."""
    folder = tmp_path_factory.mktemp("damaged") / "saved"
    dataset_of([{"bytes": png(number), "path": None} for number in range(4)]).save_to_disk(folder)
    return folder, next(folder.glob("*.arrow")).read_bytes()


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 2000), noise=st.binary(min_size=1, max_size=12))
def test_a_damaged_arrow_file_is_one_line(saved, position, noise):
    folder, data = saved
    position %= len(data)
    next(folder.glob("*.arrow")).write_bytes(data[:position] + noise + data[position + len(noise) :])
    try:
        load_images(open_splits(str(folder))["train"], on_bad_image="skip")
    except InputError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Return a Parquet file, and its bytes."""
    path = tmp_path_factory.mktemp("damaged") / "rows.parquet"
    write_parquet(path, [png(number) for number in range(6)], compression="snappy")
    return path, path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 5000), noise=st.binary(min_size=1, max_size=8))
def test_a_damaged_parquet_file_is_one_line(packed, position, noise):
    path, data = packed
    position %= len(data)
    path.write_bytes(data[:position] + noise + data[position + len(noise) :])
    try:
        load_images(open_splits(str(path))["train"], on_bad_image="skip")
    except InputError as error:
        assert "\n" not in str(error)
