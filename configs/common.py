"""Default values of all settings. A config calls `get_config()` and changes some of them."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.task = 'bucket_sort'  # spec of a task (mha/tasks), such as "lm('notes/*.txt')"

    config.population = ConfigDict()  # one model per combination of values, such as (0, 1, 2) or range(10)
    config.population.seed = config_dict.placeholder(tuple)
    config.population.learning_rate = config_dict.placeholder(tuple)
    config.population.weight_decay = config_dict.placeholder(tuple)
    config.population.dropout_rate = config_dict.placeholder(tuple)

    config.model = ConfigDict()  # arguments of mha.Encoder and mha.EncoderDecoder
    config.model.layers = 5
    config.model.dim = 64
    config.model.heads = 8
    config.model.head_dim = config_dict.placeholder(int)  # default: dim / heads
    config.model.mlp_dim = config_dict.placeholder(int)  # default: 4 dim
    config.model.position = 'none'  # spec (mha/positions), or one per layer, comma-separated
    config.model.position_per_layer = False  # False: layers with equal specs share parameters
    config.model.pattern = 'full'  # spec (mha/nn/masks.py), 'window(64)|global(2)', 'local(64)', or one per layer
    config.model.causal = False
    config.model.prefix_lm = False  # a causal model sees its question in both directions
    config.model.decoder_layers = 0  # 0: no decoder; otherwise the task has a source and a target
    config.model.decoder_position = ''  # spec of the decoder's position scheme; empty: model.position
    config.model.cross_position = 'none'  # spec of the scheme between target and source
    config.model.pruned = ''  # heads to leave out, layer:heads (mha/model/heads.py), such as '0:1,3;2:0'
    config.model.norm = 'post'  # or 'pre'
    config.model.norm_kind = 'layer'  # or 'rms' (mha/model/norms.py)
    config.model.norm_eps = 1e-6  # added to the variance in the norms
    config.model.mlp = 'relu'  # spec (mha/model/mlp.py): 'gelu', 'gelu_exact', 'swiglu(width=170)', 'geglu', 'none'
    config.model.kv_heads = config_dict.placeholder(int)  # heads of keys and values; default: as many as heads
    config.model.qk_norm = 'none'  # norm of queries and keys: 'layer' or 'rms'
    config.model.normalizer = 'softmax'  # spec (mha/normalizers): 'sink', 'entmax(alpha=1.5)', 'sigmoid', 'softpick'
    config.model.softcap = 0.0  # bound of the logits, softcap tanh(logits / softcap); 0: none
    config.model.gate = 'none'  # sigmoid gate of the output of each 'head' or 'channel'
    config.model.mixing = 'none'  # mixing of heads, a spec (mha/mixing): 'differential', 'talking_heads'
    config.model.embedding_norm = 'none'  # norm of the embeddings with positions: 'layer' or 'rms'
    config.model.readout = 'token'  # or 'pooled'; tasks with two sequences always read out pairs
    config.model.tied = False  # logits from the token embeddings instead of a separate layer
    config.model.output = 'linear'  # or 'mlm': a dense layer, GELU and a norm before the logits, as in BERT
    config.model.init = 'default'  # initial values, a spec (mha/model/initial.py): 'haiku', 'gpt2'
    config.model.dropout_rate = 0.1
    config.model.embedding_dropout = True  # whether dropout also applies after the embedding
    config.model.attention_dropout_rate = 0.0
    config.model.use_bias = False  # biases of the attention projections
    config.model.core = 'auto'  # spec of a core (mha/cores): 'dense', 'blockwise', 'flash', 'linear', 'delta'
    config.model.remat = False  # recompute each block in the backward pass: less memory, more time
    config.model.dtype = 'float32'  # type of the computation; parameters and softmax are always float32

    config.train = ConfigDict()
    config.train.steps = 10_000
    config.train.batch_size = 128
    config.train.microbatches = 1  # parts of a batch, computed one after the other to save memory
    config.train.lengths = '1-40'  # '10,20', '1-40', '50-500:50'
    config.train.length_per = 'batch'  # 'batch': one length for all examples of a batch; 'example': one for each
    config.train.curriculum = 'uniform'  # spec (mha/training/curricula.py), such as 'reverse_exponential(tau=0.9)'
    config.train.buckets = 8  # number of padded lengths; the program of each is compiled
    config.train.final_position = config_dict.placeholder(str)  # position scheme of evaluation and last steps
    config.train.final_steps = 0  # number of last steps trained under train.final_position
    config.train.head_penalty = 0.0  # per head whose learned gate is expected to be open; 0: heads have no gates
    config.train.average = 0.0  # decay of a running mean of the parameters, which is evaluated; 0: no mean
    config.train.non_finite = 'stop'  # at a loss or gradient that is not finite; 'skip': the step changes nothing
    config.train.members = 'auto'  # population trained 'together' (vectorised) or 'in turn'; 'auto': in turn on CPUs
    config.train.log_every_steps = 100  # also the number of steps in one dispatch
    config.train.checkpoint_every_steps = 1000

    config.mesh = ConfigDict()  # data * model devices; the devices of a CPU are its cores
    config.mesh.data = 0  # devices that share a batch, or members trained together; 0: all
    config.mesh.model = 1  # devices that share the heads and the inner width of feed-forward layers

    config.optimizer = ConfigDict()  # arguments of mha.training.optim.make
    config.optimizer.name = 'adam'  # spec (mha/training/optim.py): 'adamw(b2=0.98)', 'lion', 'muon', 'sgd'
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'constant'  # or 'cosine(final=0.1)', 'linear', 'rsqrt', 'warmup(steps=1000)|cosine'
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0  # largest global norm of the gradient; 0: no clipping

    config.eval = ConfigDict()
    config.eval.lengths = '5-40:5,50-100:10'  # '10,20', '1-40', '50-500:50'
    config.eval.examples = 512  # number per length
    config.eval.batch_size = 64
    config.eval.buckets = 8  # number of padded lengths
    config.eval.every_steps = 0  # steps between evaluations during training; 0: evaluate only at the end
    config.eval.seed = 0  # seed of the evaluation examples, the same for all runs
    return config


def is_small(size: str) -> bool:
    """Whether a config is requested in its small form, as in `--config=<file>:small`."""
    if size not in ('full', 'small'):
        raise ValueError(f"the size is 'full' or 'small', not {size!r}")
    return size == 'small'


def of_size(size: str, sizes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Settings of one of the `sizes` of a config, as requested by `--config=<file>:<size>`."""
    if size not in sizes:
        raise ValueError(f'the size is {", ".join(map(repr, sizes))}, not {size!r}')
    return sizes[size]
