"""Kills, full disks and bad numbers: what docs/reliability.md promises of fit and generate.

Children are forked where one process is enough, so that a kill costs no start of Python.
"""

import functools
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState

from synthaug.balance import make_plan
from synthaug.classifiers import fit_judge, judge
from synthaug.cli import main
from synthaug.core import FailedError, RankError, StoppedError, distributed, hold_vote
from synthaug.data import open_dataset
from synthaug.generation import blocks, dataset_folder as folder, export, generate
from synthaug.generation.shards import ShardWriter
from synthaug.generators import CVAE, is_run, load_state, run_folder, save_state
from synthaug.training import completion, fit, fitting, loop, steps
from tests.generation.test_generating import tree
from tests.toys import ToyGenerator, keep_bright_corners

SIZES = {
    "cvae": {"width": 8, "latent_dim": 4, "sampling": "prior"},
    "cgan": {"width": 16},
    "glow": {"dense_steps": 2, "dense_width": 16},
}
POINTS = ((run_folder, "write_tensors"), (run_folder, "hash_file"), (run_folder, "write_file"),
          (run_folder, "remove"), (fitting, "write_file"), (completion, "write_file"), (loop, "hold_vote"),
          (Path, "replace"))  # fmt: skip
"""Calls around which a fit is killed: steps, files of a state, their hashes, and the renames."""


@pytest.fixture(scope="module")
def digits():
    return open_dataset("digits")


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    monkeypatch.setattr(completion, "fit_judge", functools.partial(fit_judge, steps=3))


def fit_small(digits, family, folder):
    options = {"images": 320, "batch_size": 32, "save_every": 64, "limit_per_class": 12, **SIZES[family]}
    return fit(digits, family, output=folder, **options)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Fuse:
    """Counts the calls at POINTS, before and after each, and kills this process at a given one."""

    def __init__(self, kill_at=None):
        self.count, self.kill_at = 0, kill_at

    def burn(self):
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def wrap(self, function):
        @functools.wraps(function)
        def wrapped(*arguments, **options):
            self.burn()
            result = function(*arguments, **options)
            self.burn()
            return result

        return wrapped


def lay(fuse, set_attribute, points=POINTS):
    for owner, name in points:
        set_attribute(owner, name, fuse.wrap(getattr(owner, name)))


def in_child(work):
    """Run `work` in a forked child and return how it ended, as os.waitpid says."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(300)
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
            work()
            os._exit(0)
        except BaseException as error:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(getattr(error, "exit_code", 1))
    return os.waitpid(child, 0)[1]


def kill_fit(digits, family, folder, kill_at):
    def work():
        lay(Fuse(kill_at), setattr)
        fit_small(digits, family, folder)

    return in_child(work)


def count_points(digits, family, folder, monkeypatch):
    """Fit without interruption; return how many points there were."""
    fuse = Fuse()
    with monkeypatch.context() as patch:
        lay(fuse, patch.setattr)
        fit_small(digits, family, folder)
    return fuse.count


def test_a_killed_fit_ends_with_the_same_bytes(digits, tmp_path, monkeypatch):
    points = count_points(digits, "cvae", tmp_path / "whole", monkeypatch)
    for share in (0.02, 0.4, 0.45):
        assert kill_fit(digits, "cvae", tmp_path / "cut", int(share * points)) == signal.SIGKILL
    fit_small(digits, "cvae", tmp_path / "cut")
    for name in ("model.safetensors", "judge.safetensors", "config.json"):
        assert digest(tmp_path / "cut" / name) == digest(tmp_path / "whole" / name), name
    assert not list((tmp_path / "cut" / "state").glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_ten_kills_anywhere_in_a_fit_change_nothing(family, digits, tmp_path, monkeypatch):
    points, kills = count_points(digits, family, tmp_path / "whole", monkeypatch), 0
    chance = random.Random(family)
    for number in range(40):
        folder = tmp_path / "cut" / str(number // 4)  # a folder meets up to four kills, then it is finished
        kill_at = chance.randrange(points if number % 4 == 0 else points // 3)  # less is left after a resume
        kills += kill_fit(digits, family, folder, kill_at) == signal.SIGKILL
        if number % 4 == 3 or kills == 10:
            fit_small(digits, family, folder)
            assert digest(folder / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")
        if kills == 10:
            break
    assert kills == 10


def start_on_two(family, folder, launcher="synthaug"):
    """Start a command that fits on two processes, as the leader of a process group; its stderr goes to FOLDER.err."""
    words = ["-m", "synthaug", "fit", "digits", "--generator", family, "--images", "960", "--set", "fit.batch_size=32",
             "--set", "fit.save_every=64", "--limit-per-class", "12", "--output", str(folder)]  # fmt: skip
    words += [word for key, value in SIZES[family].items() for word in ("--set", f"generator.{key}={value}")]
    if launcher == "torchrun":
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *words]
    else:
        words += ["--num-processes", "2"]
    with folder.with_suffix(".err").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, *words], stderr=errors, stdout=subprocess.DEVNULL, start_new_session=True
        )


@pytest.mark.slow
@pytest.mark.parametrize("family", SIZES)
def test_killed_on_two_processes(family, tmp_path, request):
    def start(name):
        process = start_on_two(family, tmp_path / name)
        request.addfinalizer(process.kill)  # a test that fails leaves no fit behind; ranks end with their launcher
        return process

    assert start("whole").wait(600) == 0
    for kill in range(2):
        process, states = start("cut"), tmp_path / "cut" / "state"
        before = sorted(states.glob("images-*"))
        wait_until(lambda states=states, before=before: sorted(states.glob("images-*")) != before)
        if kill == 0:  # a rank dies: the launcher ends the other
            os.kill(int(subprocess.check_output(["pgrep", "-P", str(process.pid)]).split()[-1]), signal.SIGKILL)
            assert process.wait(300) == 137
        else:  # the launcher dies: its ranks save and end by themselves
            process.kill()
            process.wait()
            wait_until(lambda: not (tmp_path / "cut" / ".synthaug.lock").exists())
    assert start("cut").wait(600) == 0
    assert digest(tmp_path / "cut" / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")


@pytest.fixture(scope="module")
def whole_on_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "whole"
    assert start_on_two("cvae", folder).wait(600) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["synthaug", "torchrun"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["training", "finish"])
def test_a_signal_to_the_command_that_fits_on_two_processes(moment, number, launcher, whole_on_two, tmp_path, request):
    folder, errors = tmp_path / "cut", tmp_path / "cut.err"
    process = start_on_two("cvae", folder, launcher)
    request.addfinalizer(process.kill)
    if moment == "training":
        wait_until(lambda: states(folder))
    else:
        wait_until(lambda: "fitting the judge" in errors.read_text())
    if number == signal.SIGINT:  # as a terminal sends it
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(300) == (1 if launcher == "torchrun" else 128 + number)
    said = errors.read_text()
    assert said.count("error: stopped") == 1 and "the same command" in said
    assert launcher == "torchrun" or "Traceback" not in said
    assert not re.search(r'File ".*synthaug/\w+\.py"', said)  # torchrun shows frames of its own only
    assert states(folder) and not is_run(folder)
    again = start_on_two("cvae", folder, launcher)
    request.addfinalizer(again.kill)
    assert again.wait(600) == 0
    assert digest(folder / "model.safetensors") == digest(whole_on_two / "model.safetensors")


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------ two ranks, forked


def on_two_ranks(work):
    """Run `work(rank)` in two forked children that find each other; return exit code and message of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ends = []
    for rank in range(2):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os._exit(_end_of(work, rank, port, writing))
        os.close(writing)
        ends.append((child, reading))
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in ends]
    texts = []
    for _, reading in ends:
        with open(reading) as pipe:  # noqa: PTH123
            texts.append(pipe.read())
    return codes, texts


def _end_of(work, rank, port, writing):
    signal.alarm(300)
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        work(rank)
        return 0
    except BaseException as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode())
        return getattr(error, "exit_code", 99)


def states(folder):
    return [path.name for path in sorted((folder / "state").glob("images-*"))]


@pytest.mark.parametrize("signalled", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_one_rank_stops_both_with_the_state_saved(signalled, digits, tmp_path):
    def interrupted(rank):
        calls = iter(range(1000))

        def vote(*arguments):
            if next(calls) == 5 and rank == signalled:
                os.kill(os.getpid(), signal.SIGTERM)
            return hold_vote(*arguments)

        def save_slowly(*arguments, **options):
            time.sleep(0.3)
            save_state(*arguments, **options)

        loop.hold_vote, loop.save_state = vote, save_slowly
        try:
            fit_small(digits, "cvae", tmp_path / "cut")
        finally:
            assert states(tmp_path / "cut")[-1] == "images-000000000000192"  # neither ends before it is saved

    codes, texts = on_two_ranks(interrupted)
    assert codes == [143, 143], texts
    assert all("the same command goes on" in text for text in texts)
    assert len(states(tmp_path / "cut")) == 2
    for name in ("cut", "whole"):
        assert on_two_ranks(lambda rank, name=name: fit_small(digits, "cvae", tmp_path / name))[0] == [0, 0]
    assert digest(tmp_path / "cut" / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")


def test_a_loss_that_is_not_finite_on_one_rank_stops_both_at_once(digits, tmp_path):
    def poisoned(rank):
        original = CVAE.loss

        def loss(self, module, images, labels, rng):
            terms = original(self, module, images, labels, rng)
            factor = float("nan") if rank == 1 and rng.step == 4 else 1.0
            return {**terms, "loss": terms["loss"] * factor}

        CVAE.loss = loss
        fit_small(digits, "cvae", tmp_path / "run")

    codes, texts = on_two_ranks(poisoned)
    assert codes == [1, 1] and texts[0] == texts[1]
    assert "not finite on process 1 at 160 images" in texts[0]
    assert states(tmp_path / "run") == ["images-000000000000064", "images-000000000000128"]


@pytest.mark.slow
def test_one_rank_without_memory_gives_advice_and_ends_the_other(digits, tmp_path):
    def starved(rank):
        original = CVAE.loss

        def loss(self, module, images, labels, rng):
            if rank == 1 and rng.step == 4:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return original(self, module, images, labels, rng)

        CVAE.loss = loss
        fit_small(digits, "cvae", tmp_path / "run")

    codes, texts = on_two_ranks(starved)
    assert codes == [1, 1], texts
    assert "another process of this fit ended" in texts[0]
    assert "out of memory on process 1" in texts[1] and "fit.accumulation=2" in texts[1]
    assert states(tmp_path / "run") == ["images-000000000000064", "images-000000000000128"]


@pytest.mark.slow
def test_the_first_may_finish_longer_than_a_collective_waits(digits, tmp_path):
    def slow_finish(rank):
        original = fitting.finish_run
        distributed._TIMEOUT = timedelta(seconds=4)

        def finish(*arguments):
            time.sleep(8)
            original(*arguments)

        fitting.finish_run = finish
        fit_small(digits, "cvae", tmp_path / "run")

    assert on_two_ranks(slow_finish)[0] == [0, 0]


def test_weights_that_are_not_finite_are_never_saved(digits, tmp_path, monkeypatch):
    original = steps._descend

    def poison(objective, optimizer, progress):
        original(objective, optimizer, progress)
        if progress >= 0.55:  # the losses of this step were finite
            next(iter(objective.module.parameters())).data.fill_(float("nan"))

    monkeypatch.setattr(steps, "_descend", poison)
    monkeypatch.setattr(loop, "_find_bad", lambda losses: 0)
    with pytest.raises(FailedError, match=r"diverged: weight .* is not finite.*last good state"):
        fit_small(digits, "cvae", tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "state").glob("images-*"))
    assert names == ["images-000000000000128", "images-000000000000192"]


def test_a_signal_while_the_run_is_finished_costs_no_training(digits, tmp_path):
    def interrupted():
        fitting.finish_run = lambda *arguments: os.kill(os.getpid(), signal.SIGTERM)
        fit_small(digits, "cvae", tmp_path / "cut")

    assert os.waitstatus_to_exitcode(in_child(interrupted)) == 143
    assert states(tmp_path / "cut")[-1] == "images-000000000000320" and not is_run(tmp_path / "cut")
    log = (tmp_path / "cut" / "log.jsonl").read_bytes()
    fit_small(digits, "cvae", tmp_path / "cut")
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == log  # no step was taken
    fit_small(digits, "cvae", tmp_path / "whole")
    assert digest(tmp_path / "cut" / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_in_the_finish_on_two_processes_costs_no_training(number, digits, tmp_path):
    def interrupted(rank):
        original = fitting.is_run

        def save_judge(*arguments):  # the first process, in the middle of its files
            judge.save_judge(*arguments)
            os.kill(os.getpid(), number)

        def look(folder):  # the other one, while it waits
            if rank == 1 and states(folder)[-1:] == ["images-000000000000320"]:
                os.kill(os.getpid(), number)
            return original(folder)

        completion.save_judge, fitting.is_run = save_judge, look
        fit_small(digits, "cvae", tmp_path / "cut")

    codes, texts = on_two_ranks(interrupted)
    assert codes == [128 + number] * 2, texts
    assert all("the same command finishes the run" in text for text in texts)
    assert (tmp_path / "cut" / "judge.safetensors").exists() and not is_run(tmp_path / "cut")
    log = (tmp_path / "cut" / "log.jsonl").read_bytes()
    for name in ("cut", "whole"):
        assert on_two_ranks(lambda rank, name=name: fit_small(digits, "cvae", tmp_path / name))[0] == [0, 0]
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == log  # no step was taken
    assert digest(tmp_path / "cut" / "model.safetensors") == digest(tmp_path / "whole" / "model.safetensors")


def test_a_process_that_is_stopped_as_the_run_is_finished_harms_no_other(digits, tmp_path):
    def interrupted(rank):
        def look(folder):
            if rank == 1 and is_run(folder):
                os.kill(os.getpid(), signal.SIGTERM)
            return is_run(folder)

        fitting.is_run = look
        fit_small(digits, "cvae", tmp_path / "run")

    assert on_two_ranks(interrupted)[0] == [0, 143]
    assert is_run(tmp_path / "run")


def test_a_signal_while_the_last_state_is_saved_ends_before_the_finish(digits, tmp_path, monkeypatch):
    def save_late(*arguments, images_seen, **options):
        save_state(*arguments, images_seen=images_seen, **options)
        if images_seen == 320:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", save_late)
        patch.setattr(fitting, "finish_run", lambda *arguments: pytest.fail("the signal was lost"))
        with pytest.raises(StoppedError, match="stopped at 320 images") as caught:
            fit_small(digits, "cvae", tmp_path / "run")
    assert caught.value.exit_code == 143
    fit_small(digits, "cvae", tmp_path / "run")
    assert is_run(tmp_path / "run")


def test_no_token_in_anything_that_fit_and_generate_say_or_leave(tmp_path, monkeypatch, capfd):
    token = "hf_canaryTokenThatNobodyMaySee"
    monkeypatch.setenv("HF_TOKEN", token)
    words = ["fit", "digits", "--generator", "cvae", "--images", "64", "--limit-per-class", "6", "--set",
             "generator.width=8", "--output", str(tmp_path / "run")]  # fmt: skip
    generated = ["generate", str(tmp_path / "run"), "--per-class", "2", "--filter", "none", "--output",
                 str(tmp_path / "out")]  # fmt: skip
    commands = [[*words, "--dry-run"], words, generated, [*generated, "--seed", "5"], [*words, "--set", "fit.seed=x"]]
    codes = []
    for command in commands:
        try:
            codes.append(main(command) or 0)
        except SystemExit as ended:
            codes.append(ended.code or 0)
    assert codes == [0, 0, 0, 2, 2]
    out, err = capfd.readouterr()
    assert "run" in out and token not in out + err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if token.encode() in path.read_bytes()]


def make_player():
    module = torch.nn.Linear(64, 64)
    return module, torch.optim.AdamW(module.parameters())


def save(folder, images, player):
    module, optimizer = player
    save_state(folder, images_seen=images, modules={"model": module}, optimizers=[optimizer], progress={"n": images})


def test_a_full_disk_leaves_the_state_before_and_nothing_half_written(tmp_path):
    player = make_player()
    save(tmp_path, 10, player)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(RankError, match=r"cannot save to .*free space and run the same command again") as caught:
            save(tmp_path, 20, player)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["images-000000000000010"]
    save(tmp_path, 20, player)
    counters, rejected = load_state(tmp_path, modules={"model": player[0]}, optimizers=[player[1]])
    assert counters == {"n": 20} and rejected == []


def test_what_a_killed_save_left_is_written_anew_by_the_next(tmp_path):
    player = make_player()
    save(tmp_path, 20, player)
    whole = tree(tmp_path)
    (tmp_path / "state" / "images-000000000000020" / "manifest.json").unlink()
    (tmp_path / "state" / "images-000000000000020" / "model.safetensors").write_bytes(b"half")
    save(tmp_path, 20, player)
    assert tree(tmp_path) == whole


# ------------------------------------------------------------------------------------------------------- generate

PLAN = make_plan({"ant": 900, "bee": 20, "cat": 3})
SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from tests.test_reliability import generate_small
if __name__ == "__main__":
    generate_small({output!r}, {check!r}, {processes}, {kill_at!r})
"""
WRITING = ((blocks.BlockPool, "get"), (ShardWriter, "write"), (pq.ParquetWriter, "write_table"), (folder, "hash_file"),
           (folder, "publish"), (folder, "write_file"), (export, "write_file"), (Path, "rename"),
           (Path, "replace"))  # fmt: skip
"""Calls around which a generation is killed: blocks, rows, row groups, hashes, and the files that appear."""


def generate_small(output, check, processes, kill_at=None):
    if kill_at is not None:
        lay(Fuse(kill_at), setattr, WRITING)
    check = keep_bright_corners if check == "corners" else "none"
    generate(ToyGenerator(), PLAN, output=output, filter=check, num_processes=processes, rows_per_shard=200)


def test_a_full_disk_stops_a_generation_with_one_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, before[1]))
    try:
        with pytest.raises(FailedError, match=r"cannot write .*free space and run it again") as caught:
            generate_small(tmp_path / "out", "none", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "data").exists()
    generate_small(tmp_path / "out", "none", 1)
    generate_small(tmp_path / "whole", "none", 1)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def run_generation(output, check, processes, threads, kill_at=None):
    """Generate in a process of its own, killed at a point of WRITING; return its exit code."""
    arguments = {"output": str(output), "check": check, "processes": processes, "kill_at": kill_at}
    script = output.with_suffix(f".{processes}.py")
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent.parent), **arguments))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL, timeout=200,
                          check=False).returncode  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("check", ["none", "corners"])
def test_kills_processes_and_threads_change_no_byte(check, tmp_path, monkeypatch):
    fuse, chance = Fuse(), random.Random(check)
    with monkeypatch.context() as patch:
        lay(fuse, patch.setattr, WRITING)
        generate_small(tmp_path / "whole", check, 1)
    for processes, threads, wanted in ((1, 2, 1), (2, 1, 2), (4, 2, 2)):  # five kills, ten with both halves
        output, kills = tmp_path / f"on-{processes}", 0
        while kills < wanted:
            kill_at = chance.randrange(fuse.count // (1 + 2 * bool(kills)))  # less is left after a resume
            code = run_generation(output, check, processes, threads, kill_at)
            assert code in (0, -signal.SIGKILL)
            kills += code == -signal.SIGKILL
            if code == 0:  # done before that point: anew
                shutil.rmtree(output)
                kills = 0
        assert run_generation(output, check, processes, threads) == 0
        assert tree(output) == tree(tmp_path / "whole")


@pytest.mark.slow
def test_torchrun_generates_once_with_the_bytes_of_one(tmp_path):
    generate_small(tmp_path / "whole", "corners", 1)
    script = tmp_path / "script.py"
    arguments = {"output": str(tmp_path / "out"), "check": "corners", "processes": 1, "kill_at": None}
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent.parent), **arguments))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_only_the_first_of_several_processes_works_and_the_others_end_well(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as caught:
        main(["generate", "nowhere", "--output", "nowhere", "--per-class", "1"])
    assert caught.value.code == 0
    monkeypatch.setenv("RANK", "0")
    for command in ("run", "recommend", "quickstart"):
        with pytest.raises(SystemExit) as caught:
            main([command])
        assert caught.value.code == 2
    assert "start only fit or generate with a launcher" in capsys.readouterr().err


def test_the_others_wait_for_the_folder_of_the_first(tmp_path, monkeypatch):
    generate_small(tmp_path / "out", "none", 1)
    before = tree(tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    generate_small(tmp_path / "out", "none", 1)
    assert tree(tmp_path / "out") == before
