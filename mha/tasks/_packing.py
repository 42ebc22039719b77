"""Packed rows: documents one after the other until a row is full, as if cut from an endless stream of documents in
random order.

The first byte of a row is uniform over the text, so a row may begin within a document; the documents after it are drawn
uniformly and begin with their first byte; the last one is cut. Draws do not depend on the padding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from mha.datasets import text as dataset
from mha.spec import UserError


class Row(NamedTuple):
    """Bytes of a row, of one piece of text or of several documents."""

    here: Int[Array, 'T']
    after: Int[Array, 'T']
    """Next byte of each."""
    continues: Bool[Array, 'T'] | bool = True
    """Whether the next byte belongs to the same document."""
    segments: Int[Array, 'T'] | None = None
    """Number of each byte's document in the row."""
    pos: Int[Array, 'T'] | None = None
    """Index of each byte in the part of its document that is in the row."""


def read_documents(sha256: str, split: dataset.Split) -> dict[str, Any]:
    """Bytes of all documents of a split [N], and the start of each document [D]. Those of less than two bytes are left
    out, since they have nothing to predict."""
    documents = [content for content in dataset.read_files(sha256, split).values() if content.size > 1]
    if not documents:
        raise UserError(f'the {split} split has no document of two bytes or more')
    start = np.cumsum([0, *(content.size for content in documents[:-1])])
    return dict(content=jnp.asarray(np.concatenate(documents)), start=jnp.asarray(start, jnp.int32))


def packed_row(data: dict[str, Any], key: PRNGKeyArray, max_length: int) -> Row:
    """Row of `max_length` bytes."""
    content, start = data['content'], data['start']
    end = jnp.append(start[1:], content.size)
    # The first byte is any that has a next one, so that every row has something to predict.
    pairs = jnp.cumsum(end - start - 1)
    first_key, key = jax.random.split(key)
    drawn = jax.random.randint(first_key, (), 0, pairs[-1])
    first = jnp.searchsorted(pairs, drawn, side='right')
    number = jnp.arange(1, max_length // 2 + 1)  # a document has two bytes or more
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
