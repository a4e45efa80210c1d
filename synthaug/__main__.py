"""The command `synthaug`, also as `python -m synthaug`, under torchrun and under accelerate launch."""

import os
import sys

from synthaug.core import end_at_signals


def main() -> None:
    """Run the command line; what a signal does is settled before anything large is imported."""
    end_at_signals()
    os.environ["PYTHONSAFEPATH"] = "1"  # whatever starts a Python process imports nothing from the current folder
    from synthaug.cli import main as run

    run()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, where `python -m` looks first
    main()
