"""Likelihoods and suspicions of rows: `synthaug score`."""
