"""Softmax, A_ij = e^(z_ij) / sum_l e^(z_il), over the visible keys (Vaswani et al., 2017, arXiv:1706.03762)."""

from mha.nn.products import softmax
from mha.normalizers.base import Normalizer


class Softmax(Normalizer):
    """Weights that sum to one."""

    form = 'softmax'

    def weights(self, logits, mask, level):
        return softmax(logits, mask)
