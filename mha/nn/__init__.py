"""What layers are made of: masks, products of matrices, random numbers, dropout. Imports jax alone."""
