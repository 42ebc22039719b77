"""The word problem of S5 (Merrill et al., 2024, arXiv:2404.08819; Liu et al., 2022, arXiv:2210.10749): the product of
permutations of five elements. It is complete for NC1: if TC0 differs from NC1, no threshold circuits of constant depth
solve it.

    10234 12340 -> 21340

A permutation p is written p(0) .. p(4); the first one is applied first: element 0 goes to 1, and 1 goes on to 2.
Symbols and classes are the 120 permutations in lexicographic order, so that symbol 0 is the identity. With
`steps='all'`, as in Liu et al., a causal model answers at each permutation with the product so far. `group('S5')` is
the same task, and `group` has other groups.
"""

from typing import Literal

from mha.tasks._groups import WordProblem


class S5(WordProblem):
    """Permutations in, their product out; with `steps='all'`, the product so far at every step."""

    def __init__(self, steps: Literal['last', 'all'] = 'last', *, causal: bool = False):
        if steps == 'all' and not causal:
            raise ValueError("steps='all' is for causal models, which see no later permutations")
        super().__init__('S5', every=steps == 'all', causal=causal)
        self.steps = steps
