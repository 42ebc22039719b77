"""Encoder: token embeddings, blocks of attention and feed-forward layers, and a linear read-out.

Post-norm by default, x <- LN(x + f(x)), as in the models of Ruoss et al. (2023, arXiv:2305.16843). Or pre-norm, x <- x
+ f(LN(x)), with a final norm. The encoder owns the position scheme and passes it to every block.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int, Key, Num

from mha import arguments, cores, positions, spec
from mha.arguments import Count, Length, Part, Rate, Size, Width, at_least, at_most
from mha.model import initial, norms
from mha.model.block import Settings
from mha.model.stack import Inputs, Stack
from mha.nn import masks, prng
from mha.nn.products import linear

Layers = Annotated[int, at_least(1), at_most(1024)]
"""Number of blocks."""
Heads = Annotated[int, at_least(1), at_most(2**12)]
"""Number of heads in a layer."""


class Encoder(Stack):
    """Encoder from tokens [B, T] to class logits: [B, T, C] per token or, with `readout='pooled'`, [B, C] from the mean
    over real tokens.

    With `readout='pair'`, the two halves of the tokens are separate sequences, each with positions from 0. They are
    encoded separately into means x and y, and the logits are linear in [x, y, x y, x - y]. These are the features of
    the retrieval task of Long Range Arena (Tay et al., 2021, arXiv:2011.04006), which adds two more layers.

    `position` is a spec (`mha.positions`), or a comma-separated list with one per layer. Layers with equal specs share
    one scheme and its parameters unless `position_per_layer`. `max_len` is the longest sequence in tokens that the
    scheme must support. Weights other than those of the scheme have the same initial values under every scheme.
    `pattern` is a spec of `mha.nn.masks`, or one per layer. It hides keys in addition to `causal` and padding. With
    `prefix_lm`, a causal model sees its question, the `prefix` of a call, in both directions (prefix LM; Raffel et al.,
    2020, arXiv:1910.10683; UniLM; Dong et al., 2019, arXiv:1905.03197).

    Blocks are composed of named parts. `norm` is the order ('post' or 'pre') and `norm_kind` the type of the norms
    (`mha.model.norms`). `mlp` is the spec of the feed-forward layer (`mha.model.mlp`) and `mlp_dim` its inner width, by
    default 4 dim. `kv_heads` is the number of heads of keys and values (grouped-query attention, Ainslie et al., 2023,
    arXiv:2305.13245). `qk_norm` normalises queries and keys (Henry et al., 2020, arXiv:2010.04245).
    `normalizer` is the spec of what turns logits into weights (`mha.normalizers`), `softcap` the bound of the logits or
    0, `gate` whether each 'head' or 'channel' has a sigmoid gate on its output (`MultiHeadAttention`), and `mixing` the
    spec of what mixes heads (`mha.mixing`).
    `embedding_norm` is the type of a norm of the embeddings after those of positions are added, `output` is 'linear' or
    'mlm', for a dense layer, GELU and a norm before the logits; BERT has both (Devlin et al., 2019,
    arXiv:1810.04805). With `tied`, the logit of class c is computed with the embedding of symbol c (Press & Wolf, 2017,
    arXiv:1608.05859). `init` is the spec of the initial values of embeddings and linear layers (`mha.model.initial`),
    `norm_eps` is added to the variance in the norms. `embedding_dropout` is whether `dropout_rate` also applies after
    the embedding.

    `remat` recomputes each block in the backward pass of training (Chen et al., 2016, arXiv:1604.06174), so that the
    activations of only one block are in memory. The CPU compiler undoes this, unless it gets the option
    `xla_disable_hlo_passes=cse_barrier_expander`, as in our training."""

    @arguments.checked
    def __init__(
        self,
        *,
        vocab_size: Count,
        num_classes: Count,
        max_len: Length,
        layers: Layers = 5,
        dim: Width = 64,
        heads: Heads = 8,
        head_dim: Annotated[int, at_least(1), at_most(2**14)] | None = None,
        mlp_dim: Count | None = None,
        position: str = 'none',
        position_per_layer: bool = False,
        pattern: str = 'full',
        causal: bool = False,
        prefix_lm: bool = False,
        norm: Literal['post', 'pre'] = 'post',
        norm_kind: str = 'layer',
        norm_eps: Part = 1e-6,
        mlp: str = 'relu',
        kv_heads: Heads | None = None,
        qk_norm: str = 'none',
        normalizer: str = 'softmax',
        softcap: Size = 0.0,
        gate: Literal['none', 'head', 'channel'] = 'none',
        mixing: str = 'none',
        embedding_norm: str = 'none',
        readout: Literal['token', 'pooled', 'pair'] = 'token',
        tied: bool = False,
        output: Literal['linear', 'mlm'] = 'linear',
        init: str = 'default',
        dropout_rate: Rate = 0.1,
        embedding_dropout: bool = True,
        attention_dropout_rate: Rate = 0.0,
        use_bias: bool = False,
        core: str = 'auto',
        remat: bool = False,
        dtype: Literal['float32', 'bfloat16'] = 'float32',
        rngs: nnx.Rngs,
    ):
        spec.choose(norm_kind, norms.NORMS, 'model.norm_kind')
        spec.choose(qk_norm, ('none', *norms.NORMS), 'model.qk_norm')
        spec.choose(embedding_norm, ('none', *norms.NORMS), 'model.embedding_norm')
        if head_dim is None and dim % heads:
            raise spec.UserError(
                f'{heads} heads do not divide the width {dim} - choose from {_divisors(dim)}, or set model.head_dim'
            )
        if kv_heads is not None and heads % kv_heads:
            raise spec.UserError(f'model.kv_heads={kv_heads} does not divide {heads} heads - choose {_divisors(heads)}')
        if tied and (readout == 'pair' or num_classes > vocab_size):
            raise spec.UserError(
                'model.tied needs a class per symbol, and no pairs of sequences - set model.tied=False'
            )
        if prefix_lm and not (causal and readout == 'token'):
            raise spec.UserError(
                'model.prefix_lm is for causal models with a read-out per token - set model.causal=True'
            )
        with spec.setting('model.pattern'):
            patterns = [masks.make(text, heads) for text in spec.per_layer(pattern, layers, 'pattern')]
        with spec.setting('model.core'):
            attention_core = cores.make(core)
        settings = Settings(
            dim=dim,
            heads=heads,
            head_dim=head_dim or dim // heads,
            mlp_dim=mlp_dim or 4 * dim,
            norm=norm,
            norm_kind=norm_kind,
            norm_eps=norm_eps,
            mlp=mlp,
            kv_heads=kv_heads,
            qk_norm=qk_norm,
            embedding_norm=embedding_norm,
            init=init,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            use_bias=use_bias,
            core=attention_core,
            normalizer=normalizer,
            softcap=softcap,
            gate=gate,
            mixing=mixing,
            dtype=jnp.dtype(dtype),
        )
        self.readout, self.prefix_lm, self.num_classes = readout, prefix_lm, num_classes
        with spec.setting('model.init'):
            start = initial.make(init, dim, layers)
        options: dict[str, Any] = dict(dtype=settings.dtype, rngs=rngs)
        self.embedding = nnx.Embed(vocab_size, dim, embedding_init=start.embedding, **options)
        self.scale = start.scale
        super().__init__(settings, patterns, causal=causal, remat=remat, embedding_dropout=embedding_dropout, rngs=rngs)
        features = 4 * dim if readout == 'pair' else dim
        self.transform = nnx.data(Transform(features, start.kernel, norm_eps, options) if output == 'mlm' else None)
        self.head = nnx.data(None if tied else nnx.Linear(features, num_classes, kernel_init=start.kernel, **options))
        dims = positions.Dims(dim, heads, settings.map_dim, self.context(max_len), causal and not prefix_lm)
        key = rngs.params()  # one draw, so that a scheme's parameters do not change the initial values of other weights
        with spec.setting('model.position'):
            self.add_positions(position, position_per_layer, dims, key)

    def context(self, length: int) -> int:
        """Number of tokens in one sequence, of `length` tokens in total."""
        return length // 2 if self.readout == 'pair' else length

    def quadratic(self, length: int) -> bool:
        """Whether a layer holds the logits of all pairs of `length` tokens in memory."""
        return self.holds_pairs(self.context(length))

    def __call__(
        self,
        tokens: Int[Array, 'B T'],
        *,
        valid: Bool[Array, '#B S'] | None = None,
        pos: Num[Array, '#B T'] | None = None,
        train: bool = False,
        rngs: nnx.Rngs | None = None,
        dropout_rate: Float[Array, ''] | None = None,
        sow_weights: bool = False,
        position_key: Key[Array, '*B'] | None = None,
        decode: bool = False,
        segments: Int[Array, '#B T'] | None = None,
        prefix: Bool[Array, '#B S'] | None = None,
    ) -> Float[Array, 'B T C'] | Float[Array, 'B C']:
        """Class logits. `valid` marks real tokens; padding does not change the result. `pos` are coordinates, by
        default the slot numbers, which suits padding on the right. `rngs` has the streams `dropout`, used in training,
        and `position`, for schemes that draw coordinates. `position_key` replaces that stream by one key for all
        examples or one per example. If a scheme asks for several draws, an evaluation averages the logits over them,
        while `sow_weights` uses a single draw. `dropout_rate` replaces the rate outside attention, so that one program
        can use several rates.

        `segments` are the numbers of documents that share a row: a token sees its own document only. With coordinates
        `pos` that restart in each, logits are those of the documents alone, except under schemes that scale with the
        number of tokens in the row (`ntk(dynamic=True)`, `longrope`).

        With `decode`, after `init_cache`, the tokens continue those of earlier calls: `pos` are their coordinates, and
        `valid` [B, S] marks the real tokens among all slots of the cache (see `mha.model.generation`). `prefix` marks
        the tokens of the question, for `prefix_lm`; other models ignore it."""
        if self.prefix_lm and prefix is None:
            raise spec.UserError(
                'model.prefix_lm needs a task with a question, or its mask as prefix= - set model.prefix_lm=False'
            )
        inputs = Inputs.make(
            tokens,
            position_key,
            rngs,
            valid=valid,
            pos=pos,
            train=train,
            dropout_rate=dropout_rate,
            sow_weights=sow_weights,
            decode=decode,
            segments=segments,
            prefix=prefix if self.prefix_lm else None,
        )
        return averaged(self.logits, inputs, self.schemes)

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Stacks of blocks, that of the input first."""
        return (self,)

    @property
    def schemes(self) -> list[positions.Position]:
        """All position schemes."""
        return [*self.positions]

    def attention_weights(self, tokens: Int[Array, 'B T'], **options: Any) -> Float[Array, 'L B H T T']:
        """Attention weights of every layer, example and head. `options` are passed to `__call__`."""
        _, captured = nnx.capture(self, nnx.Intermediate)(tokens, **options, sow_weights=True)
        blocks = nnx.to_pure_dict(captured)['blocks']
        return jnp.stack([blocks[layer]['attention']['attention_weights'][0] for layer in range(len(self.blocks))])

    def logits(self, inputs: Inputs) -> Float[Array, 'B T C'] | Float[Array, 'B C']:
        """Class logits of one forward pass, in float32."""
        if self.readout == 'token':
            x = self.encode(inputs)
        elif self.readout == 'pooled':
            x = self.pool(inputs)
        else:
            x, y = map(self.pool, inputs.halves())
            x = jnp.concatenate([x, y, x * y, x - y], axis=-1)
        return self.read_out(x)

    def read_out(self, x: Float[Array, '*B F']) -> Float[Array, '*B C']:
        """Class logits of features, in float32."""
        x = x if self.transform is None else self.transform(x)
        logits = self.embedding.attend(x)[..., : self.num_classes] if self.head is None else self.head(x)
        return logits.astype(jnp.float32)

    def pool(self, inputs: Inputs) -> Float[Array, 'B D']:
        """Mean over real tokens."""
        x, shape = self.encode(inputs), inputs.tokens.shape
        real = jnp.ones(shape) if inputs.valid is None else jnp.broadcast_to(inputs.valid, shape)
        total = jnp.einsum('btd,bt->bd', x.astype(jnp.float32), real.astype(jnp.float32))
        return (total / jnp.maximum(real.sum(-1, keepdims=True), 1)).astype(x.dtype)

    def encode(self, inputs: Inputs) -> Float[Array, 'B T D']:
        """Output of the last layer, with coordinates drawn from the key."""
        return self.run(self.embedding(inputs.tokens) * self.scale, inputs)


class Transform(nnx.Module):
    """Layer before the logits of a masked language model, LN(gelu(x W + b)) (Devlin et al., 2019, arXiv:1810.04805)."""

    def __init__(self, features: int, kernel: Initializer, epsilon: float, options: dict[str, Any]):
        self.dense = nnx.Linear(features, features, kernel_init=kernel, dot_general=linear, **options)
        self.norm = norms.make('layer', features, epsilon=epsilon, **options)

    def __call__(self, x: Float[Array, '*B F']) -> Float[Array, '*B F']:
        return self.norm(jax.nn.gelu(self.dense(x), approximate=False))


def averaged(logits: Callable[[Inputs], Array], inputs: Inputs, schemes: Iterable[positions.Position]) -> Array:
    """Logits of a forward pass; in an evaluation with a key, their mean over as many draws as `schemes` ask for."""
    draws = max(scheme.draws for scheme in schemes)
    if draws <= 1 or inputs.train or inputs.sow_weights or inputs.key is None:
        return logits(inputs)
    keys = prng.split(inputs.key, draws)
    return jax.lax.map(lambda key: logits(dataclasses.replace(inputs, key=key, rngs=None)), keys).mean(0)


def _divisors(number: int) -> str:
    return ', '.join(str(n) for n in range(1, number + 1) if number % n == 0)
