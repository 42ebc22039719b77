"""Page that shows what the heads of a model do, made only from the arrays of a probe."""
