"""Scratchpads: answers computed step by step before they are given (Nye et al., 2021, arXiv:2112.00114), in the
unified format of Kazemnejad et al. (2023, arXiv:2305.19466). A step has up to five fields, each preceded by its mark:

    /input  :computation  |output  ~variables  &remaining

and `!` separates the last step from the answer. The sum of 7, 5 and 4 modulo 10, with all five fields:

    7+5+4=    /7:7+0|7~7&5+4/5:5+7|12~2&4/4:4+2|6~6&!6.

Any field may be left out. This gives the 2^5 formats of the paper; the one without fields has no scratchpad.
"""

import jax.numpy as jnp

from mha.tasks.base import EMPTY, Sequence

MARKS = {'input': '/', 'computation': ':', 'output': '|', 'variables': '~', 'remaining': '&'}


def remaining_length(length, width: int, separator: int):
    """Number of symbols of the `remaining` field, summed over all steps. After step i, `length - i` items of `width`
    symbols are left, with `separator` symbols between two items."""
    return width * length * (length - 1) // 2 + separator * (length - 1) * (length - 2) // 2


class Scratchpad(Sequence):
    """Sequence whose answer may begin with a scratchpad. `scratchpad=True` shows all fields of the task,
    `scratchpad='input,output'` only these two. Exact match counts every symbol of the scratchpad, too. The paper scores
    only the answer after it, which requires generation: here the model reads the true scratchpad, after which the
    answer is mere copying."""

    fields = tuple(MARKS)
    """Scratchpad fields that the task has."""

    def __init__(self, scratchpad: bool | str = False, *, bos: bool = False, causal: bool = False):
        chosen = scratchpad.replace(' ', '').split(',') if isinstance(scratchpad, str) else self.fields * scratchpad
        if not {*chosen} <= {*self.fields}:
            raise ValueError(f'scratchpad must be True, False or some of {",".join(self.fields)}, not {scratchpad!r}')
        self.shown = tuple(field for field in self.fields if field in chosen)
        if self.shown:
            self.alphabet = (*self.alphabet, *(MARKS[field] for field in self.shown), '!')
        super().__init__(bos=bos, causal=causal)

    def reply(self, answer, real, **steps):
        """Symbols of the `real` [S] steps, each with fields [S, W], then the answer [A] and the end symbol."""
        if not self.shown:
            return self.concat(answer, '.')
        rows = self.concat(*(part for field in self.shown for part in (MARKS[field], steps[field])))
        return self.concat(jnp.where(real[:, None], rows, EMPTY).ravel(), '!', answer, '.')

    def reply_length(self, answer, steps, **symbols):
        """Largest number of symbols of a reply, given those of its answer and of each field over all steps."""
        scratch = sum(symbols[field] + steps for field in self.shown)
        return answer + 1 + scratch + bool(self.shown)
