"""Data sets: TFDS builders and their readers, none of which imports TensorFlow."""
