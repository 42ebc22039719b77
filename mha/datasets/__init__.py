"""Data sets: TFDS builders and readers that work without TensorFlow."""
