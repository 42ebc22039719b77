"""No position information (NoPE; Haviv et al., 2022, arXiv:2203.16634; Kazemnejad et al., 2023, arXiv:2305.19466).

A causal mask reveals the order of tokens, so decoders can do without a scheme. A bidirectional encoder becomes
permutation-equivariant.
"""

from mha.positions.base import Position


class NoPosition(Position):
    """Scheme without any effect: every hook keeps its default."""
