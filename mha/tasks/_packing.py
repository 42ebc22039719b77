"""Packed rows: documents one after the other until a row is full, as if cut from an endless stream of documents in
random order.

The first token of a row is uniform over the text, so a row may begin within a document; the documents after it are
drawn uniformly and begin with their first token; the last one is cut. Draws do not depend on the padding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int64, PRNGKeyArray, Shaped

from mha.spec import UserError


class Row(NamedTuple):
    """Tokens of a row, of one piece of text or of several documents."""

    here: Int[Array, 'T']
    after: Int[Array, 'T']
    """Next token of each."""
    asked: Bool[Array, 'T'] | bool = True
    """Whether the next token is to be predicted, which it is not across documents."""
    segments: Int[Array, 'T'] | None = None
    """Number of each token's document in the row."""
    pos: Int[Array, 'T'] | None = None
    """Index of each token in the part of its document that is in the row."""


def documents_of(content: Shaped[np.ndarray, 'N'], start: Int64[np.ndarray, '_'], split: str) -> dict[str, Any]:
    """Tokens of the documents of a split [N], and the start of each [D]. Those of less than two tokens are left out,
    since they have nothing to predict. The input has all documents, and `start` its size too, [D + 1]."""
    size = np.diff(start)
    kept = size > 1
    if not kept.any():
        raise UserError(f'the {split} split has no document of two tokens or more')
    begins = np.cumsum([0, *size[kept][:-1]])
    return dict(content=jnp.asarray(content[np.repeat(kept, size)]), start=jnp.asarray(begins, jnp.int32))


def packed_row(data: dict[str, Any], key: PRNGKeyArray, max_length: int) -> Row:
    """Row of `max_length` tokens."""
    content, start = data['content'], data['start']
    end = jnp.append(start[1:], content.size)
    # The first token is any that has a next one, so that every row has something to predict.
    pairs = jnp.cumsum(end - start - 1)
    first_key, key = jax.random.split(key)
    drawn = jax.random.randint(first_key, (), 0, pairs[-1])
    first = jnp.searchsorted(pairs, drawn, side='right')
    number = jnp.arange(1, max_length // 2 + 1)  # a document has two tokens or more
    others = jax.vmap(lambda i: jax.random.randint(jax.random.fold_in(key, i), (), 0, start.size))(number)
    document = jnp.append(first, others)
    begins = start[document].at[0].add(drawn - pairs[first] + end[first] - start[first] - 1)
    # Sums that stop at `max_length` do not overflow.
    edges = jax.lax.associative_scan(lambda a, b: jnp.minimum(a + b, max_length), end[document] - begins)
    slot = jnp.arange(max_length)
    segments = jnp.searchsorted(edges, slot, side='right')
    pos = slot - jnp.append(0, edges)[segments]
    index = begins[segments] + pos
    here, after = (content.at[i].get(mode='clip').astype(jnp.int32) for i in (index, index + 1))
    return Row(here, after, index + 1 < end[document[segments]], segments, pos)
