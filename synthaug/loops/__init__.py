"""Synthetic images inside a training loop of the user's own: mixtures, a batch transform, a resampler."""
