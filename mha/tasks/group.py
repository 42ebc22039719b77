"""Word problems of finite groups (Merrill et al., 2024, arXiv:2404.08819): the product of the elements so far, at every
element.

    S3:      102 120 120    102 210 021
    Z60:     17 50 9        17 7 16

Groups are S_n (permutations), A_n (even permutations), Z_n (integers modulo n) and direct products of them, such as
A4xZ5, whose elements are written `0231,4`. A permutation p is written p(0) .. p(n-1), and the first one is applied
first. Elements are uniform and independent, so every product is uniform, too.

Merrill et al. compare three groups of 60 elements: Z60 and A4xZ5 are solvable, and A5 is not. Its word problem, like
that of S5, is complete for NC1: if TC0 differs from NC1, no threshold circuits of constant depth solve it.
With `every=False` the product of all is the only answer, for bidirectional models, too.
"""

from mha.tasks._groups import WordProblem


class Group(WordProblem):
    """Elements of the group `name` in, the product so far at `every` element out, or the product of all."""

    def __init__(self, name: str = 'A5', every: bool = True, *, causal: bool = False):
        if every and not causal:
            raise ValueError('every=True is for causal models, which see no later elements - set every=False')
        super().__init__(name, every, causal=causal)
