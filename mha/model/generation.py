"""Generation: a causal model continues sequences of tokens, greedily, by sampling, or by beam search.

Keys and values of earlier tokens are cached, so that a step costs the work of one token; a layer with a window keeps
those in its window. Where that is not possible, as under schemes that place all tokens of a sequence together, every
step computes the sequence anew.
"""

import dataclasses
import functools
import itertools
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mha.model.encoder import Encoder
from mha.model.seq2seq import Conditional, EncoderDecoder
from mha.nn import masks
from mha.spec import SIZES, UserError

ENDED = -1
"""Marker of the tokens after the end of a sequence."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Choice of the next token. At temperature 0 it is the most likely one; otherwise it is drawn from the softmax
    of logits / temperature, of which `top_k` keeps the k most likely tokens, and `top_p` the fewest tokens whose
    probabilities sum to p or more (nucleus sampling; Holtzman et al., 2020, arXiv:1904.09751)."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature != 0 and not SIZES[0] <= self.temperature <= SIZES[1]:
            raise UserError(f'temperature must be 0, or from {SIZES[0]} to {SIZES[1]}, not {self.temperature}')
        if self.temperature == 0 and (self.top_k, self.top_p) != (None, None):
            raise UserError('top_k and top_p limit what is drawn - set a temperature above 0 too')
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f'top_k must be at least 1, not {self.top_k}')
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f'top_p must be above 0 and at most 1, not {self.top_p}')

    def kept(self, logits: Float[Array, 'B C']) -> Float[Array, 'B C']:
        """Scaled logits, -inf for those that are not kept."""
        logits = logits / self.temperature
        ordered = jnp.sort(logits, axis=-1)[:, ::-1]
        if self.top_k is not None:
            logits = jnp.where(logits >= ordered[:, [min(self.top_k, logits.shape[-1]) - 1]], logits, -jnp.inf)
        if self.top_p is not None:
            chances = jax.nn.softmax(ordered)
            before = jnp.cumsum(chances, axis=-1) - chances
            least = jnp.where(before < self.top_p, ordered, jnp.inf).min(-1, keepdims=True)
            logits = jnp.where(logits >= least, logits, -jnp.inf)
        return logits

    def choose(self, logits: Float[Array, 'B C'], key: Key[Array, '']) -> Int[Array, 'B']:
        if self.temperature == 0:
            return logits.argmax(-1)
        return jax.random.categorical(key, self.kept(logits))


GREEDY = Sampling()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """Sequences in the making. All are filled up to the same slot, so that shorter prompts have padding on the left."""

    tokens: Any
    """Tokens [B, S]: padding, prompt, generated tokens, and room for more."""
    log_probs: Any
    """Log-probabilities [B, S] of the generated tokens under the model."""
    padding: Any
    """Number of slots [B] before each prompt."""
    prompt: Any
    """Slot in which all prompts have ended."""
    filled: Any
    """Number of filled slots."""
    ended: Any
    """Mask [B] of the sequences that have ended."""
    logits: Any
    """Logits [B, C] of the next token."""
    cache: Any
    """Keys and values of the filled slots that later tokens may see; empty without a cache."""


def stream(
    model: Encoder | Conditional,
    prompts: Sequence[Sequence[int]],
    steps: int,
    *,
    sampling: Sampling = GREEDY,
    stop: Sequence[int] = (),
    key: Key[Array, ''] | None = None,
    cache: bool | None = None,
    every: int = 16,
) -> Iterator[tuple[Int[np.ndarray, 'B N'], Float[np.ndarray, 'B N']]]:
    """Generated tokens and their log-probabilities, in pieces of up to `every` steps, until `steps` are done or all
    sequences have ended. A sequence ends with a token in `stop`; after it, tokens are ENDED. Prompts may differ in
    length. With `cache` None, there is a cache if the model allows it. Raises `UserError` for models that cannot
    generate."""
    graphdef, params, progress, key, cache = _start(model, prompts, steps, key, cache)
    size = progress.tokens.shape[1]
    for start in range(size - steps, size, every):
        end = min(start + every, size)
        progress = _continue(graphdef, params, progress, end, key, sampling=sampling, stop=tuple(stop), cache=cache)
        yield np.asarray(progress.tokens[:, start:end]), np.asarray(progress.log_probs[:, start:end])
        if progress.ended.all():
            return


def beam_search(
    model: Encoder | Conditional,
    prompts: Sequence[Sequence[int]],
    steps: int,
    beams: int,
    *,
    stop: Sequence[int] = (),
    length_penalty: float = 1.0,
    key: Key[Array, ''] | None = None,
    cache: bool | None = None,
) -> tuple[Int[np.ndarray, 'B N'], Float[np.ndarray, 'B N']]:
    """Continuations of high probability and the log-probabilities of their tokens, by beam search: at every step, the
    `beams` most likely continuations of each prompt are kept. Of those at the end, the one with the largest sum of
    log-probabilities / tokens^`length_penalty` is returned. Other arguments are those of `stream`."""
    if beams < 1:
        raise UserError(f'beams must be at least 1, not {beams}')
    repeated = [prompt for prompt in prompts for _ in range(beams)]
    graphdef, params, progress, key, cache = _start(model, repeated, steps, key, cache)
    progress = _search(graphdef, params, progress, key, beams=beams, stop=tuple(stop), cache=cache)
    tokens, log_probs = (np.asarray(x[:, -steps:]) for x in (progress.tokens, progress.log_probs))
    tokens, log_probs = (x.reshape(len(prompts), beams, steps) for x in (tokens, log_probs))
    scores = log_probs.sum(-1) / np.maximum((tokens != ENDED).sum(-1), 1) ** length_penalty
    best = scores.argmax(1)[:, None, None]
    return np.take_along_axis(tokens, best, 1)[:, 0], np.take_along_axis(log_probs, best, 1)[:, 0]


def _start(model, prompts, steps, key, cache):
    """Structure and parameters of the model, progress after the prompts, the key, and whether there is a cache."""
    check(model)
    refusal = uncacheable(model, equal=len({*map(len, prompts)}) < 2)
    if cache and refusal:
        raise UserError(f'{refusal} - generate with cache=False')
    cache = not refusal if cache is None else cache
    if not prompts or not all(map(len, prompts)) or steps < 1:
        raise UserError('generation needs prompts of at least one token, and at least one step')
    symbols = model.embedding.num_embeddings
    for token in itertools.chain(*prompts):
        if not (isinstance(token, numbers.Integral) and 0 <= int(token) < symbols):
            raise UserError(f'tokens are whole numbers from 0 to {symbols - 1}, not {token!r}')
    longest = max(map(len, prompts))
    tokens = np.full((len(prompts), longest + steps), ENDED, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[:longest] = [*[0] * (longest - len(prompt)), *prompt]
    if refusal := _refusal(model, longest + steps):
        most = next((count for count in range(steps - 1, 0, -1) if not _refusal(model, longest + count)), 0)
        fewer = f'generate at most {most} tokens (max_length={most})' if most else 'shorten the prompts'
        raise UserError(f'{refusal}; or {fewer}')
    if cache:
        model = nnx.clone(model)
        model.init_cache(*tokens.shape)
    graphdef, caches, params = nnx.split(model, nnx.Cache, ...)
    key = jax.random.key(0) if key is None else key
    padding = jnp.array([longest - len(prompt) for prompt in prompts])
    progress = _read(graphdef, params, caches, jnp.asarray(tokens), padding, key, longest=longest, cache=cache)
    return graphdef, params, progress, key, cache


def _refusal(model: Any, length: int) -> str:
    """Why a position scheme does not reach sequences of `length` tokens; empty if all do."""
    for scheme in model.positions:
        try:
            scheme.extent(length - 1)  # the last token is not read
        except ValueError as error:
            return f'position {scheme.name!r}: {error}'
    return ''


@functools.partial(jax.jit, static_argnames=('graphdef', 'longest', 'cache'))
def _read(graphdef, params, caches, tokens, padding, key, *, longest, cache):
    """Progress after the prompts."""
    progress = Progress(
        tokens=tokens,
        log_probs=jnp.zeros(tokens.shape),
        padding=padding,
        prompt=jnp.int32(longest),
        filled=jnp.int32(longest),
        ended=jnp.zeros(len(tokens), bool),
        logits=None,
        cache=caches,
    )
    logits, caches = _logits(graphdef, params, progress, tokens[:, :longest], key, cache)
    return dataclasses.replace(progress, logits=logits, cache=caches)


@functools.partial(jax.jit, static_argnames=('graphdef', 'sampling', 'stop', 'cache'))
def _continue(graphdef, params, progress, end, key, *, sampling, stop, cache):
    """Progress until `end` slots are filled, or all sequences have ended."""

    def step(progress):
        chosen = sampling.choose(progress.logits, jax.random.fold_in(key, progress.filled))
        return _append(graphdef, params, progress, chosen, key, stop, cache)

    return jax.lax.while_loop(lambda progress: (progress.filled < end) & ~progress.ended.all(), step, progress)


@functools.partial(jax.jit, static_argnames=('graphdef', 'beams', 'stop', 'cache'))
def _search(graphdef, params, progress, key, *, beams, stop, cache):
    """Progress of the beams, which stand in neighbouring rows, when all slots are filled or all beams have ended."""
    (rows, size), classes = progress.tokens.shape, progress.logits.shape[1]
    alone = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # all beams of a prompt are equal at first
    firsts = jnp.arange(0, rows, beams)[:, None]
    ending = jnp.where(jnp.arange(classes) == 0, 0.0, -jnp.inf)  # an ended beam has one continuation, itself

    def step(state):
        progress, scores = state
        chances = jnp.where(progress.ended[:, None], ending[None], jax.nn.log_softmax(progress.logits))
        scores = (scores.reshape(-1)[:, None] + chances).reshape(-1, beams * classes)
        scores, best = jax.lax.top_k(scores, beams)
        parents = (firsts + best // classes).reshape(-1)
        progress = jax.tree.map(lambda x: x[parents] if x.ndim else x, progress)
        return _append(graphdef, params, progress, (best % classes).reshape(-1), key, stop, cache), scores

    start = progress, jnp.broadcast_to(alone, (rows // beams, beams))
    return jax.lax.while_loop(lambda state: (state[0].filled < size) & ~state[0].ended.all(), step, start)[0]


def _append(graphdef, params, progress, chosen, key, stop, cache):
    """Progress with the `chosen` tokens [B] in the next slot."""
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(progress.logits), chosen[:, None], axis=1)[:, 0]
    grown = dataclasses.replace(
        progress,
        tokens=progress.tokens.at[:, progress.filled].set(jnp.where(progress.ended, ENDED, chosen)),
        log_probs=progress.log_probs.at[:, progress.filled].set(jnp.where(progress.ended, 0, log_probs)),
        filled=progress.filled + 1,
        ended=progress.ended | jnp.isin(chosen, jnp.array(stop, jnp.int32)),
    )
    logits, caches = _logits(graphdef, params, grown, jnp.where(progress.ended, 0, chosen)[:, None], key, cache)
    return dataclasses.replace(grown, logits=logits, cache=caches)


def _logits(graphdef, params, progress, new, key, cache):
    """Logits after the last filled slot, and the caches with the `new` tokens in it and before it."""
    model, slots = nnx.merge(graphdef, progress.cache, params), jnp.arange(progress.tokens.shape[1])[None]
    padding = progress.padding[:, None]

    def question(end):
        return {'prefix': slots < end} if model.prefix_lm else {}

    if cache:
        pos = jnp.maximum(progress.filled - new.shape[1] + jnp.arange(new.shape[1])[None] - padding, -1)
        logits = model(new, pos=pos, valid=slots >= padding, decode=True, **question(progress.prompt))[:, -1]
        return logits, nnx.state(model, nnx.Cache)
    # Padding moves to the right, where it changes no coordinate.
    moved = jnp.take_along_axis(progress.tokens, (slots + padding) % slots.size, axis=1)
    moved, slots = moved[:, :-1], slots[:, :-1]  # no token follows the last one, which may be beyond a table
    count = progress.filled - padding
    whole = question(progress.prompt - padding)
    logits = model(jnp.maximum(moved, 0), valid=slots < count, position_key=key, **whole)
    last = jnp.minimum(count, slots.size)[:, :, None] - 1
    return jnp.take_along_axis(logits, last, axis=1)[:, 0], progress.cache


def check(model: Any) -> None:
    """Raises `UserError` if a model cannot generate."""
    if isinstance(model, EncoderDecoder):
        raise UserError('an encoder-decoder needs a source to translate - generate with model.given(sources)')
    if not model.causal or model.readout != 'token':
        raise UserError('only causal models with a read-out per token generate - train with model.causal=True')
    if model.num_classes > model.embedding.num_embeddings:
        raise UserError('the classes of this model are not its tokens, so it cannot continue a text')


def uncacheable(model: Encoder | Conditional, equal: bool = True) -> str:
    """Why a model has no cache, for prompts that are of `equal` length or not; empty if it has one."""
    if names := [scheme.name for scheme in model.positions if not scheme.cacheable]:
        return f'position {", ".join(names)} needs the whole sequence at once'
    if cores := [str(block.attention.core) for block in model.blocks if not block.attention.core.cacheable]:
        return f'core {cores[0]} keeps no keys'
    if mixers := [block.attention.mixing for block in model.blocks if not block.attention.mixing.cacheable]:
        return f'mixing {mixers[0].name!r} relates queries'
    if not equal and any(_absolute(block.mask) for block in model.blocks):
        return 'a pattern with fixed slots (prefix, global, random) needs prompts of equal length'
    return ''


def _absolute(mask: masks.Mask) -> bool:
    """Whether a mask depends on slots and not only on their offset."""
    if isinstance(mask, masks.And | masks.Or):
        return _absolute(mask.first) or _absolute(mask.second)
    return not isinstance(mask, masks.OffsetMask | masks.full)
