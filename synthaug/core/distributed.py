"""Accelerate, started so that a fit is right, or refused with one line; and failures of one process of several."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from synthaug.core.errors import FailedError, InputError, RankError

__all__ = ["Vote", "ask_first", "check_launcher", "explain_failures", "hold_vote", "make_accelerator"]

_TIMEOUT = timedelta(hours=1)
"""The others wait so long in a collective while the first process saves."""

_ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed (one model for each engine; a GAN has two)",
    "ACCELERATE_USE_FSDP": "FSDP (the models are far smaller than what it shards)",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM (which is made for language models)",
}


def check_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse what Accelerate was asked for but a fit cannot honour.

    Args:
        environment: Variables that `accelerate launch` has set.

    Raises:
        InputError: For DeepSpeed, FSDP, Megatron-LM, fp16, fp8, a compiler, accumulation outside the recipe, and for
            ``accelerate launch --cpu --num_processes N``, which starts a single process.
    """
    for variable, engine in _ENGINES.items():
        if environment.get(variable, "").lower() in ("true", "1"):
            raise InputError(
                f"Accelerate was started with {engine}; start it without, as plain data-parallel processes"
            )
    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", "bf16"):
        raise InputError(
            f"Accelerate was started with mixed_precision {precision!r}; penalties and flows "
            "overflow in it: start it with no or bf16, or set fit.mixed_precision to bf16"
        )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise InputError(
            f"Accelerate was started with dynamo_backend {backend}; a fit compiles nothing (the penalties need second "
            "derivatives): start it with no"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise InputError(
            f"Accelerate was started with gradient_accumulation_steps {steps}; leave it at 1 and set "
            f"fit.accumulation to {steps}: the batch stays that of the recipe, computed in so many parts"
        )
    alone = not any(name in environment for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"))
    if alone and "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment:
        raise InputError(
            "accelerate launch --cpu starts one process, whatever --num_processes says; use "
            "synthaug fit ... --num-processes N, or torchrun --nproc_per_node N -m synthaug fit ..."
        )


def make_accelerator() -> Accelerator:
    """Return an Accelerator for this process.

    Raises:
        InputError: See `check_launcher`.
    """
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    check_launcher()
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=_TIMEOUT),
        ],
    )
    # the loop casts by itself, as the recipe says: Accelerate's precision cannot change within a process
    accelerator.native_amp = False
    if accelerator.mixed_precision != "no" and accelerator.is_main_process:
        print(
            f"note: Accelerate was started with mixed_precision {accelerator.mixed_precision}; what counts is "
            "fit.mixed_precision",
            file=sys.stderr,
        )
    kind = accelerator.distributed_type.value
    if kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):  # chosen from Python, by a plugin
        raise InputError(f"Accelerate runs {kind}; a fit needs plain data-parallel processes")
    return accelerator


def ask_first(accelerator: Accelerator, question: Callable[[], bool]) -> bool:
    """Return the answer of the first process on all of them.

    Args:
        accelerator: One process or many.
        question: What the first process answers.

    Raises:
        InputError: On all processes, if the first one raises it.
    """
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [False, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = question()
        except InputError as error:
            outcome[1] = error
    if accelerator.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return bool(outcome[0])


@dataclass(frozen=True)
class Vote:
    """What all processes agree on before a step.

    Args:
        progress: Fraction of the training done, by the first process.
        received: Number of a stop signal that any process received, else 0.
        due: Whether the state is to be saved, by the first process.
        bad: 1 + index of a loss that was not finite on any process, else 0.
        process: The process on which it was.
    """

    progress: float
    received: int
    due: bool
    bad: int
    process: int


def hold_vote(accelerator: Accelerator, progress: float, received: int, due: bool, bad: int) -> Vote:
    """Return the same vote on every process; one collective, none where there is one process."""
    if accelerator.num_processes == 1:
        return Vote(progress, received, due, bad, 0)
    mine = torch.tensor([[progress, received, float(due), bad]], dtype=torch.float64, device=accelerator.device)
    votes: Any = accelerator.gather(mine).cpu()
    process = int(votes[:, 3].argmax())
    first, worst = votes[0], votes[process]
    return Vote(float(first[0]), int(votes[:, 1].max()), bool(first[2]), int(worst[3]), process)


@contextmanager
def explain_failures(accelerator: Accelerator, folder: Path, batch: str) -> Iterator[None]:
    """Context that turns running out of memory, and the end of another process, into one line with advice.

    Args:
        accelerator: One process or many.
        folder: The run folder.
        batch: The batch, for the message.

    Raises:
        RankError: Out of memory on this process.
        FailedError: Another process ended.
    """
    state = f"the last saved state stays in {folder / 'state'}"
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, FailedError):
            raise
        if _is_memory(error):
            where = f" on process {accelerator.process_index}" if accelerator.num_processes > 1 else ""
            raise RankError(
                f"out of memory{where} with {batch}; {state}. The same fit in less memory: fresh=True with "
                "accumulation=2 (or 4, 8; the same batch in parts), a smaller batch_size=, or "
                "more processes"
            ) from error
        if accelerator.num_processes > 1 and _is_connection(error):
            raise FailedError(
                f"another process of this fit ended, so this one stops; {state}: the same command goes on"
            ) from error
        raise


def _is_memory(error: BaseException) -> bool:
    text = str(error).lower()
    kinds = (MemoryError, torch.cuda.OutOfMemoryError)
    return isinstance(error, kinds) or "out of memory" in text or "can't allocate memory" in text


def _is_connection(error: BaseException) -> bool:
    text = str(error).lower()
    return any(word in text for word in ("connection closed", "connection reset", "gloo", "nccl", "timed out"))
