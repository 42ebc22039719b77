"""All settings of an experiment with their defaults. A config calls `get_config()` and changes what it needs."""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.task = 'bucket_sort'  # a spec of mha/tasks, "text('notes/*.txt')"

    config.population = ConfigDict()  # train a model per combination in one program: (0, 1, 2), range(10)
    config.population.seed = config_dict.placeholder(tuple)
    config.population.learning_rate = config_dict.placeholder(tuple)
    config.population.weight_decay = config_dict.placeholder(tuple)
    config.population.dropout_rate = config_dict.placeholder(tuple)

    config.model = ConfigDict()  # arguments of mha.Encoder
    config.model.layers = 5
    config.model.dim = 64
    config.model.heads = 8
    config.model.head_dim = config_dict.placeholder(int)  # dim / heads unless set
    config.model.mlp_dim = config_dict.placeholder(int)  # 4 dim unless set
    config.model.position = 'none'  # a spec of mha/positions, or one per layer, comma-separated
    config.model.position_per_layer = False  # layers with equal specs share parameters unless True
    config.model.pattern = 'full'  # a spec of mha/nn/masks.py such as 'window(64)|global(2)', or one per layer
    config.model.causal = False
    config.model.norm = 'post'  # or 'pre'
    config.model.norm_kind = 'layer'  # or 'rms' (mha/model/norms.py)
    config.model.norm_eps = 1e-6  # added to the variance
    config.model.mlp = 'relu'  # a spec of mha/model/mlp.py: 'gelu', 'swiglu(width=170)', 'geglu', 'none'
    config.model.kv_heads = config_dict.placeholder(int)  # heads of keys and values; as many as heads unless set
    config.model.qk_norm = 'none'  # 'layer' or 'rms': of queries and keys
    config.model.readout = 'token'  # or 'pooled'; tasks with two sequences read out pairs
    config.model.tied = False  # read the logits of symbols from their embeddings
    config.model.init = 'default'  # a spec of mha/model/initial.py: 'haiku', as released by Ruoss et al.
    config.model.dropout_rate = 0.1
    config.model.embedding_dropout = True  # dropout behind the embedding, too
    config.model.attention_dropout_rate = 0.0
    config.model.use_bias = False  # of the attention projections
    config.model.core = 'auto'
    config.model.remat = False  # recompute each block in the backward pass: less memory, more time
    config.model.dtype = 'float32'  # of the computation; parameters and softmax are float32 always

    config.train = ConfigDict()
    config.train.steps = 10_000
    config.train.batch_size = 128
    config.train.microbatches = 1  # parts that a batch is computed in, one after the other, to save memory
    config.train.lengths = '1-40'
    config.train.length_per = 'batch'  # or 'example': each draws its own
    config.train.curriculum = (
        'uniform'  # how it is drawn: a spec of mha/training/curricula.py, 'reverse_exponential(tau=0.9)'
    )
    config.train.buckets = 8  # lengths to pad to, each one compiled
    config.train.final_position = config_dict.placeholder(str)  # evaluate under this scheme instead, and train
    config.train.final_steps = 0  # the last so many of the steps under it: dropping, interpolating, scaling positions
    config.train.average = 0.0  # decay of a running mean of the parameters, which is then evaluated; 0: none
    config.train.members = 'auto'  # of a population: 'together' (vectorised) or 'in turn'; auto: in turn on CPUs
    config.train.log_every_steps = 100  # also the steps of one dispatch
    config.train.checkpoint_every_steps = 1000

    config.mesh = ConfigDict()  # devices: data * model; on a CPU, its cores
    config.mesh.data = 0  # over which batches, or members trained together, are spread; 0: all that model leaves
    config.mesh.model = 1  # over which heads and the inner width of feed-forward layers are spread

    config.optimizer = ConfigDict()  # arguments of mha.training.optim.make
    config.optimizer.name = (
        'adam'  # a spec of mha/training/optim.py: 'adamw(b2=0.98)', 'lion', 'muon', 'sgd(momentum=0.9)'
    )
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = 'constant'  # or 'cosine(final=0.1)', 'linear', 'rsqrt', 'warmup(steps=1000)|cosine'
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0  # global norm of the gradient; 0 clips nothing

    config.eval = ConfigDict()
    config.eval.lengths = '5-40:5,50-100:10'  # '10,20', '1-40', '50-500:50'
    config.eval.examples = 512  # per length
    config.eval.batch_size = 64
    config.eval.buckets = 8
    config.eval.every_steps = 0  # evaluate during training, too, every so many steps; 0: only at its end
    config.eval.seed = 0  # of the evaluation examples, the same for all runs
    return config


def is_small(size: str) -> bool:
    """Whether a config that takes a size is asked for its small form, as in `--config=<file>:small`."""
    if size not in ('full', 'small'):
        raise ValueError(f"the size is 'full' or 'small', not {size!r}")
    return size == 'small'
