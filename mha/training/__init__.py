"""Training and evaluation: update step, optimisers, curricula, range evaluation. Independent of particular models and
cores."""
