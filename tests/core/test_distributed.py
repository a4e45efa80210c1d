"""What a launcher may ask for, what processes agree on, and what a failure says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import synthaug
from synthaug.core import FailedError, InputError, RankError, explain_failures, hold_vote
from synthaug.core.distributed import check_launcher

ROOT = Path(synthaug.__file__).parent.parent


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, r"'fp16'.*bf16"),
        ({"ACCELERATE_MIXED_PRECISION": "fp8"}, r"'fp8'.*bf16"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP.*data-parallel"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed.*data-parallel"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "Megatron"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "dynamo_backend inductor.*start it with no"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, r"fit\.accumulation to 4"),
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, "one process.*--num-processes N"),
    ],
)
def test_what_a_fit_cannot_honour_is_refused(environment, words):
    with pytest.raises(InputError, match=words) as caught:
        check_launcher(environment)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no"},
        {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "x", "WORLD_SIZE": "2", "RANK": "0"},
        {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "false"},
    ],
)
def test_what_a_fit_can_do_is_let_through(environment):
    check_launcher(environment)


class Several:
    """Stands for an Accelerator of three processes whose votes are given."""

    num_processes, process_index, device = 3, 1, torch.device("cpu")

    def __init__(self, *others):
        self.others = others

    def gather(self, mine):
        return torch.cat([torch.tensor([self.others[0]]).double(), mine, torch.tensor([self.others[1]]).double()])


def test_processes_follow_the_first_clock_any_signal_and_any_bad_loss():
    vote = hold_vote(Several([0.25, 0, 1, 0], [0.75, 15, 0, 3]), 0.5, 0, False, 0)
    assert (vote.progress, vote.received, vote.due, vote.bad, vote.process) == (0.25, 15, True, 3, 2)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), RankError, "process 1.* accumulation=2"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), RankError, "a smaller batch_size="),
        (MemoryError(), RankError, "last saved state stays"),
        (RuntimeError("[gloo] Connection closed by peer"), FailedError, "another process.*goes on"),
    ],
)
def test_failures_become_one_line_of_advice(error, kind, words, tmp_path):
    with pytest.raises(kind, match=words), explain_failures(Several(), tmp_path, "batches of 64 images"):
        raise error


def test_other_errors_pass_as_they_are(tmp_path):
    for error in (RuntimeError("shape mismatch"), FailedError("diverged"), InputError("bad")):
        with pytest.raises(type(error), match=str(error)), explain_failures(Several(), tmp_path, "x"):
            raise error


def test_the_recipe_decides_on_the_precision_and_not_the_launcher():
    code = """
import torch
from synthaug.core import make_accelerator
model = torch.nn.Linear(4, 4)
prepared, rows = make_accelerator().prepare(model), torch.randn(4, 4)
assert torch.equal(prepared(rows), torch.nn.functional.linear(rows, model.weight, model.bias))
"""
    environment = {**os.environ, "ACCELERATE_MIXED_PRECISION": "bf16", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "started with mixed_precision bf16; what counts is fit.mixed_precision" in done.stderr
