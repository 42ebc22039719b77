"""Training and evaluation: the update step, optimisers, curricula, range evaluation. No model or core by name."""
