"""What every other package builds on, and what knows nothing of images, labels or generators.

Errors that end a command, random numbers that depend on a key alone, files that appear complete or not at all,
processes and their signals, metrics of predictions, classical augmentation of tensors, and access to the Hub.
"""

from __future__ import annotations

from synthaug.core.faces import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.core.distributed import ask_first, explain_failures, hold_vote, make_accelerator
    from synthaug.core.errors import FailedError, GainError, InputError, RankError, StoppedError, suggest
    from synthaug.core.launching import is_launched, launch, local_processes, num_processes, process_number
    from synthaug.core.metrics import (
        MINIMUM_SEEDS,
        TUNING_SEEDS,
        Estimate,
        adjust_holm,
        balance_mean,
        balanced_accuracy,
        balanced_nll,
        calibration_error,
        confusion_matrix,
        estimate_auroc,
        estimate_mean,
        judge_difference,
        macro_f1,
        mean_recalls,
        scaled_losses,
    )
    from synthaug.core.noise import BLOCK_SIZE, BatchRandom, draw_choices, draw_normal, draw_order
    from synthaug.core.output import (
        MARK,
        OutputFolder,
        claim,
        compare_arguments,
        hash_file,
        is_listed,
        list_files,
        move_folder,
        publish,
        remove,
        temporary_name,
        write_file,
    )
    from synthaug.core.pictures import tile_images
    from synthaug.core.policies import BACKENDS, POLICIES, Policy, augment
    from synthaug.core.repositories import Remote, is_repo_id, look_up
    from synthaug.core.retries import retry
    from synthaug.core.signals import StopSignals, end_at_signals, stopped_at_once
    from synthaug.core.tensor_files import Layout, TensorFile, describe_tensors, outline_module, read_tensors
    from synthaug.core.version import __version__
    from synthaug.core.workers import WorkerPool
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
