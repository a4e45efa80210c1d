"""`python -m synthaug`, also under torchrun and accelerate launch."""

from synthaug.cli import main

if __name__ == "__main__":
    main()
