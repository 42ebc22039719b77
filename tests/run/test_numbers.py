"""Numbers of a fixed seed under the default config: a change of code must not change them. Those below were made by the
code before blocks, norms and feed-forward layers could be chosen, and were the same to the last bit after."""

import pytest

from configs import common
from mha.run.build import build

NUMBERS = {  # position scheme and norm: loss, accuracy, gradient norm of the third step; losses at lengths 6 and 12
    ('none', 'post'): (1.87412071, 0.24166667, 6.72113609, 1.53488270, 1.59119368),
    ('rope', 'post'): (1.91298199, 0.26666665, 7.03952265, 1.54382388, 1.60829401),
    ('txl', 'pre'): (2.10584259, 0.14166667, 6.52408218, 1.64412117, 1.68107732),
}


QUICK = ('rope', 'post')


@pytest.mark.parametrize(
    ('position', 'norm'), [pytest.param(*case, marks=[pytest.mark.slow] * (case != QUICK)) for case in NUMBERS]
)
def test_numbers_of_a_fixed_seed(position, norm):
    config = common.get_config()
    config.model.update(dict(position=position, norm=norm))
    config.train.update(dict(steps=3, batch_size=8, lengths='1-6', buckets=1))
    config.eval.update(dict(lengths='6,12', examples=16, batch_size=16, buckets=1))
    run = build(config.to_dict())
    state, means = run.chunk()(run.init(), 3)
    rows = run.evaluate(state.params).rows
    measured = [float(means[name][0]) for name in ('loss', 'accuracy', 'gradient_norm')]
    assert [*measured, *(row['loss'] for row in rows)] == pytest.approx(NUMBERS[position, norm], rel=1e-5)
