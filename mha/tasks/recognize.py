"""Recognition of answers, after FLaRe (Butoi et al., 2025, arXiv:2411.07107): is the answer to a question right?

    011101#101110 -> 1        011101#101010 -> 0        recognize('reverse_string')

A question of another task, `#` and an answer of the same size as the true one. With probability 1/2 it is the true one,
label 1. Otherwise one of its symbols is another one, label 0: a uniform symbol at a uniform place, up to the terminator
if the answer has one. FLaRe has languages instead, whose members are also questions and answers, such as w#w reversed.
Half of its negative strings are uniform ones; the others are members with k edits, insertions, deletions and
replacements, and P(k) = 2^-k. Here it is one replacement, which a model must find.
"""

import jax
import jax.numpy as jnp

from mha import tasks
from mha.spec import UserError
from mha.tasks.base import Task


class Recognize(Task):
    """Questions of `task` with an answer in, whether it is right out. Any task may be recognised that is not for causal
    models only and reads no files. Lengths are those of the task."""

    num_classes = 2
    answers = '01'
    example_arguments = "'reverse_string'"

    def __init__(self, task: str, *, causal: bool = False):
        super().__init__(causal=causal)
        try:
            self.task = tasks.make(task)
        except UserError:
            tasks.make(task, causal=True)  # or a mistake that has nothing to do with the direction
            raise UserError(
                f'recognize: {task} is for causal models only - choose a task for both directions'
            ) from None
        if self.task.level == 'language':
            raise UserError(f'recognize: {task} reads files - choose a task that is generated')
        self.level, self.shortest = self.task.level, self.task.shortest
        symbols = [*self.task.alphabet[: self.task.inputs]]
        symbols += [name for name in self.task.classes if name not in symbols]
        self.symbols = tuple(symbols.index(name) for name in self.task.classes)
        mark = next(mark for mark in '#|%' if mark not in symbols)
        self.alphabet = (*symbols, mark)
        self.inputs = len(self.alphabet)

    def input_length(self, length):
        return self.task.input_length(length) + 1 + self.task.output_length(length)

    def output_length(self, length):
        return 1

    def num_tokens(self, length):
        self.task.num_tokens(length)  # which raises the errors of lengths that the task does not have
        return super().num_tokens(length)

    def sample(self, key, length, max_length):
        key, label_key, place_key, symbol_key = jax.random.split(key, 4)
        question, answer = self.task.sample(key, length, max_length)
        start, size = self.task.input_length(length), self.task.output_length(length)
        index = jnp.arange(answer.size)
        if self.task.terminator is not None:
            size = jnp.minimum(size, jnp.argmax(answer == self.task.terminator) + 1)
        label = jax.random.randint(label_key, (), 0, 2)
        other = answer + jax.random.randint(symbol_key, (), 1, self.task.num_classes)
        changed = (label == 0) & (index == jax.random.randint(place_key, (), 0, size))
        answer = jnp.array(self.symbols)[jnp.where(changed, other % self.task.num_classes, answer)]

        slot = jnp.arange(self.input_length(max_length))
        behind = answer[jnp.clip(slot - start - 1, 0, answer.size - 1)]
        before = question[jnp.clip(slot, 0, question.size - 1)]
        return jnp.where(slot < start, before, jnp.where(slot == start, self.inputs - 1, behind)), label[None]
