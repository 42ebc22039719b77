"""Building blocks of layers: masks, matrix products, random numbers, dropout."""
