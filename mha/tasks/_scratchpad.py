"""Scratchpads: answers computed step by step before they are given (Nye et al., 2021, arXiv:2112.00114), in the
unified format of Kazemnejad et al. (2023, arXiv:2305.19466). A step has up to five fields, each behind its mark:

    /input  :computation  |output  ~variables  &remaining

and `!` stands between the last step and the answer. The sum of 7, 5 and 4 modulo 10, with all of them:

    7+5+4=    /7:7+0|7~7&5+4/5:5+7|12~2&4/4:4+2|6~6&!6.

Any fields may be left out: the 2^5 formats of the paper, of which the one without fields is no scratchpad at all.
"""

import jax.numpy as jnp

from mha.tasks.base import EMPTY, Sequence

MARKS = {'input': '/', 'computation': ':', 'output': '|', 'variables': '~', 'remaining': '&'}


def remaining_length(length, width: int, separator: int):
    """Symbols that the `remaining` field takes in all: after step i, `length - i` items of `width` symbols are left,
    with a separator of so many symbols between two."""
    return width * length * (length - 1) // 2 + separator * (length - 1) * (length - 2) // 2


class Scratchpad(Sequence):
    """A sequence whose answer may begin with a scratchpad: `scratchpad=True` shows all fields of the task,
    `'input,output'` those. Exact match asks for every symbol of it. The paper scores the answer behind it alone, which
    takes generation: behind the true scratchpad, which is what the model reads here, that answer is mere copying."""

    fields = tuple(MARKS)
    """Those that the task has."""

    def __init__(self, scratchpad: bool | str = False, *, causal: bool = False):
        chosen = scratchpad.replace(' ', '').split(',') if isinstance(scratchpad, str) else self.fields * scratchpad
        if not {*chosen} <= {*self.fields}:
            raise ValueError(f'scratchpad must be True, False or some of {",".join(self.fields)}, not {scratchpad!r}')
        self.shown = tuple(field for field in self.fields if field in chosen)
        if self.shown:
            self.alphabet = (*self.alphabet, *(MARKS[field] for field in self.shown), '!')
        super().__init__(causal=causal)

    def reply(self, answer, real, **steps):
        """The steps that are `real` [S], each field [S, W], then the answer [A] and its end."""
        if not self.shown:
            return self.concat(answer, '.')
        rows = self.concat(*(part for field in self.shown for part in (MARKS[field], steps[field])))
        return self.concat(jnp.where(real[:, None], rows, EMPTY).ravel(), '!', answer, '.')

    def reply_length(self, answer, steps, **symbols):
        """The most symbols of a reply: of its answer, and of each field over all steps."""
        scratch = sum(symbols[field] + steps for field in self.shown)
        return answer + 1 + scratch + bool(self.shown)
