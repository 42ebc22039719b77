"""Parts of layers: masks, products of matrices, random numbers, dropout. Imports jax alone."""
