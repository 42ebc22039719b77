"""A process of the tests on several devices: draws a batch of every generated task on one device and on all, and prints
the names of those that are equal."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mha import tasks
from mha.machine import parallel
from mha.spec import UserError
from mha.views.catalogue import tasks as task_catalogue

mesh = parallel.make_mesh()
for name in tasks.names():
    try:
        task = task_catalogue.look(tasks.example(name)).task
    except UserError:  # it reads files
        continue

    def draw(key, length, task=task):
        return task.batch(key, 16, length, 7)

    one = jax.jit(draw)(jax.random.key(3), 5)
    split = jax.jit(draw, out_shardings=NamedSharding(mesh, PartitionSpec(parallel.DATA)))(jax.random.key(3), 5)
    assert len(split.tokens.sharding.device_set) == mesh.size
    if jax.tree.all(jax.tree.map(np.array_equal, one, split)):
        print(name)
