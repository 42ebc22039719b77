"""Similarity between heads: heads that look at the same keys, and heads that add the same.

    divergence      JS(A, B) = H((A + B) / 2) - (H(A) + H(B)) / 2 of the two rows of weights, mean over rows, in bits:
                    0 for equal maps, 1 for maps without a common key       Clark et al. (2019, arXiv:1906.04341)
    linear CKA      |Y^T X|^2 / (|X^T X| |Y^T Y|) of the centred outputs X and Y of the two heads [rows, D]: 1 for equal
                    ones up to a rotation and a factor                      Kornblith et al. (2019, arXiv:1905.00414)

Redundant heads have a small divergence and a large CKA. Only heads of the same stack are compared. Negative weights, of
heads that are mixed, count by their size in the divergence.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from mha.arguments import Seed, at_least, checked
from mha.probes.recording import Attention, Recording, probe
from mha.probes.statistics import BLOCK, attentions
from mha.run.finished import Finished
from mha.spec import UserError

Head = tuple[int, int]
"""Layer and head."""


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Similarity of the n heads of a stack to each other."""

    stack: str
    heads: list[Head]
    divergence: Float[np.ndarray, 'n n']
    """Mean Jensen-Shannon divergence between rows of weights, in bits."""
    cka: Float[np.ndarray, 'n n']
    """Linear CKA of outputs; 0 for a head whose output is constant."""

    @property
    def tree(self) -> Float[np.ndarray, 'm 4']:
        """Hierarchical clustering by mean divergence, as scipy writes it (`scipy.cluster.hierarchy.linkage`)."""
        return hierarchy.linkage(squareform(self.divergence, checks=False), 'average', optimal_ordering=True)

    @property
    def order(self) -> list[int]:
        """Indices of the heads in the order of a cluster map: similar heads are neighbours."""
        return hierarchy.leaves_list(self.tree).tolist() if len(self.heads) > 1 else [0]

    def clusters(self, limit: float = 0.05) -> list[list[Head]]:
        """Groups of heads with a mean divergence of at most `limit` bits, in the order of a cluster map."""
        if len(self.heads) == 1:
            return [self.heads]
        labels = hierarchy.fcluster(self.tree, limit, 'distance')
        names = dict.fromkeys(labels[self.order])
        return [[self.heads[i] for i in self.order if labels[i] == name] for name in names]

    def redundancy(self, limit: float = 0.05) -> dict[str, Any]:
        """Summary: numbers of `heads` and `clusters`; the `pairs` of heads with a divergence of at most `limit`, the
        closest first; the mean divergence of heads of the `same_layer` and of `other_layers`."""
        upper = np.triu_indices(len(self.heads), 1)
        layers = np.array([layer for layer, _ in self.heads])
        same, values = layers[upper[0]] == layers[upper[1]], self.divergence[upper]
        close = [(values[i], *(self.heads[side[i]] for side in upper)) for i in np.flatnonzero(values <= limit)]
        return {
            'heads': len(self.heads),
            'clusters': len(self.clusters(limit)),
            'pairs': [pair for _, *pair in sorted(close)],
            'same_layer': float(values[same].mean()) if same.any() else float('nan'),
            'other_layers': float(values[~same].mean()) if (~same).any() else float('nan'),
        }


@checked
def head_similarity(
    run: Finished,
    *,
    length: Annotated[int, at_least(1)] | None = None,
    examples: Annotated[int, at_least(1)] = 16,
    seed: Seed = 0,
) -> list[Similarity]:
    """Similarity of the heads of a run on held-out examples of one length, by default the longest trained one: one
    table per stack."""
    length = run.experiment.train_lengths[-1] if length is None else length
    return similarity_of(probe(run, length=length, examples=examples, seed=seed))


@checked
def similarity_of(seen: Recording) -> list[Similarity]:
    """Similarity of the heads in a recording: one table per stack."""
    stacks: dict[str, dict[int, list[tuple[Attention, Array]]]] = {}
    for attention, query, _ in attentions(seen):
        stacks.setdefault(attention.stack, {}).setdefault(attention.layer, []).append((attention, query.valid))
    return [_similarity(stack, list(layers.values())) for stack, layers in stacks.items()]


def _similarity(stack: str, layers: list[list[tuple[Attention, Array]]]) -> Similarity:
    """Similarity of the heads of layers; each has several attentions if it reads several sequences."""
    _, _, queries, keys = layers[0][0][0].shape
    places = [(first.layer, head) for (first, _), *_ in layers for head in first.heads]

    def of_all(read: Callable[[Attention], Array]) -> Array:
        """What `read` gives for every attention [B, H, ..], as one array [n, B, ..] of all heads."""
        return jnp.concatenate([jnp.concatenate([read(one) for one, _ in layer]).swapaxes(0, 1) for layer in layers])

    real = jnp.concatenate([valid for _, valid in layers[0]])
    if not real.any():
        raise UserError(f'the {stack} has no real tokens, on which heads could be compared')
    size = max(1, BLOCK // (len(places) * len(real) * keys))
    outputs, total, number = [], 0.0, 0
    for start in range(0, queries, size):
        rows = min(size, queries - start)
        weights = abs(of_all(lambda one, start=start, rows=rows: one.weights(start, rows)))
        counts = (weights > 0).any(-1) & real[None, :, start : start + rows]
        found, rows_of = jax.device_get(_divergences(weights, counts))
        total, number = total + np.float64(found), number + rows_of
        outputs.append(of_all(lambda one, start=start, rows=rows: one.outputs(start, rows).swapaxes(1, 2)))
    z = jnp.concatenate(outputs, axis=2)[:, real]
    out = jnp.concatenate([layer[0][0].out for layer in layers])
    divergence = np.maximum(total / np.maximum(number, 1) / np.log(2), 0)
    return Similarity(stack, places, divergence, _cka(*(np.asarray(x, np.float64) for x in (z, out))))


@jax.jit
def _divergences(weights: Float[Array, 'n B R S'], counts: Bool[Array, 'n B R']) -> tuple[Array, Array]:
    """Sums over rows of the divergences of all pairs of heads, in nats, and the numbers of these rows [n, n]."""
    entropy = jax.scipy.special.entr(weights).sum(-1)

    def of_one(inputs):
        one, its_entropy, its_counts = (x[None] for x in inputs)
        both = counts & its_counts
        mean = jax.scipy.special.entr((one + weights) / 2).sum(-1)
        return jnp.where(both, mean - (its_entropy + entropy) / 2, 0).sum((1, 2)), both.sum((1, 2))

    return jax.lax.map(of_one, (weights, entropy, counts))


def _cka(z: Float[np.ndarray, 'n N K'], out: Float[np.ndarray, 'n K D']) -> Float[np.ndarray, 'n n']:
    """Linear CKA of the projected outputs z W of N rows, from products in the K channels of a head."""
    z = z - z.mean(1, keepdims=True)
    cross = np.einsum('gnk,hnl->gkhl', z, z, optimize=True)
    gram = np.einsum('hkd,hld->hkl', out, out)
    left, right = np.einsum('gik,gkhl->gihl', gram, cross), np.einsum('gkhl,hlm->gkhm', cross, gram)
    product = np.einsum('gihl,gihl->gh', left, right)
    norm = np.sqrt(np.diag(product))
    scale = np.outer(norm, norm)
    return np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
