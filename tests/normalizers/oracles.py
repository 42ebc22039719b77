"""Weights of one query over the keys that it sees, in float64, written from the papers."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def sink(z, s):
    """A further key with the logit s, whose weight is dropped."""
    return softmax(np.append(z, s))[:-1]


def sigmoid(z, b):
    return 1 / (1 + np.exp(-z - b))


def softpick(z, epsilon=1e-6):
    return np.maximum(np.expm1(z), 0) / (epsilon + np.abs(np.expm1(z)).sum())


def entmax(z, alpha):
    """Threshold tau by bisection: the mass falls as tau grows, from at least 1 to 0."""
    z = (alpha - 1) * z
    low, high = z.max() - 1, z.max()
    for _ in range(100):
        tau = (low + high) / 2
        mass = (np.maximum(z - tau, 0) ** (1 / (alpha - 1))).sum()
        low, high = (tau, high) if mass >= 1 else (low, tau)
    return np.maximum(z - low, 0) ** (1 / (alpha - 1))


def stickbreaking(z, remainder='zero'):
    """Pieces broken off a stick, from the last key but one backwards; the last key is the query's own."""
    out, stick = np.zeros_like(z), 1.0
    for j in range(len(z) - 2, -1, -1):
        share = 1 / (1 + np.exp(-z[j]))
        out[j], stick = share * stick, (1 - share) * stick
    out[-1] = stick if remainder == 'self' else 0
    return out


def rows(of_row, logits, allowed):
    """Weights [B, H, T, S] from those of `of_row(z, b, h, i)`; zeros for hidden keys."""
    logits, allowed = np.broadcast_arrays(np.asarray(logits, np.float64), allowed)
    out = np.zeros_like(logits)
    for b, h, i in np.ndindex(logits.shape[:-1]):
        if (seen := allowed[b, h, i]).any():
            out[b, h, i, seen] = of_row(logits[b, h, i, seen], b, h, i)
    return out
