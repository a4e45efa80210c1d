"""Looking into a latent space: `synthaug explore`."""
