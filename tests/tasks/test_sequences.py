"""The tasks of Kazemnejad et al. against plain-Python oracles, which read the prompt as a person does."""

import itertools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from mha.tasks._scratchpad import MARKS
from tests.tasks.sequences import BATCH, EXAMPLES, ORACLES, make, measure, measured, rows, sample, solve

LENGTHS = (1, 2, 3, 4, 7, 20)

# Fast ones, between them every branch but those of `SLOW`.
FAST = [
    "copying(kind='rsc', doubled=True)",
    "copying(kind='rdc')",
    'copying',
    'copying(duplicate=3)',
    "reverse(variant='mc2x')",
    'addition(scratchpad=True)',
    'addition(scratchpad=True, released=True)',
    'polynomial(scratchpad=True)',
    'sorting(scratchpad=True)',
    "sorting(kind='integers')",
    'summation',
    "parity(scratchpad='remaining, input')",
    'lego(permuted=True, scratchpad=True)',
    'scan',
    'pcfg',
    'copying(symbols=150, distinct=True, bos=True)',
    'sorting(symbols=150, distinct=True, bos=True)',
    "parity(ones='uniform', bos=True)",
    "addition(base=2, measure='prompt', bos=True)",
    'majority',
    'majority(symbols=26)',
    'majority_interleaved',
    'padded_addition(operands=3, fewest=2, scratchpad=True)',
    'padded_addition(hints=26)',
    'multiplication(digits=2)',
]
SLOW = [
    "copying(kind='rsc')",
    'copying(doubled=True)',
    'reverse',
    "reverse(variant='mcrv')",
    'addition',
    'polynomial',
    'sorting',
    "sorting(kind='integers', scratchpad=True)",
    'summation(scratchpad=True)',
    'parity',
    'parity(scratchpad=True)',
    'lego',
    'lego(variables=500)',
    'lego(variables=500, permuted=True)',
    'lego(variables=100, scratchpad=True)',
    'pcfg(letters=26, longest=20)',
    'copying(symbols=2, bos=True)',
    'sorting(distinct=True, scratchpad=True)',
    "parity(ones='uniform', scratchpad=True)",
    "addition(measure='prompt', scratchpad=True, bos=True)",
    'padded_addition(operands=12, equal=0.5, bos=True)',
    'padded_addition(operands=4, fewest=2, hints=52, scratchpad=True)',
    'multiplication(digits=20, bos=True)',
    "addition(measure='prompt', scratchpad=True, released=True)",
]


def check(text, length, *args):
    """Answers, lengths and the protocol of a batch."""
    task, batch = make(text), sample(text, length, *args)
    slots, width = batch.tokens.shape[1], task.num_tokens(length)
    for row in rows(batch):
        prompt, answer = task.readable(row)
        if 'variables' in text:  # names of several characters are read with gaps
            prompt, answer = prompt.replace(' ', ''), answer.replace(' ', '')
        assert answer == solve(text, prompt), prompt
        assert measure(text, prompt) == measured(text, length), prompt
        at = np.flatnonzero(row.metric_mask)
        start, count = at[0] + 1, len(at)
        assert start <= task.bos + task.prompt_length(length)
        assert count <= task.output_length(length)
        assert start + count - 1 <= width
        assert np.array_equal(at, np.arange(start - 1, start + count - 1))
        assert np.array_equal(row.tokens[at[1:]], row.targets[at[:-1]])  # it reads its answer so far
        assert not row.tokens[at[-1] + 1 :].any()
        assert not row.targets[~row.metric_mask].any()
        assert task.alphabet[row.targets[at[-1]]] == '.'
    np.testing.assert_array_equal(batch.loss_mask, batch.metric_mask)
    np.testing.assert_array_equal(batch.valid, np.broadcast_to(np.arange(slots) < width, batch.valid.shape))
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.vocab_size
    assert batch.tokens.dtype == batch.targets.dtype == np.int32


@pytest.mark.parametrize(('text', 'prompt', 'answer'), EXAMPLES)
def test_oracles_agree_with_the_worked_examples(text, prompt, answer):
    assert solve(text, prompt) == answer


@pytest.mark.parametrize('text', FAST)
def test_answers(text):
    for length in LENGTHS:
        check(text, length)


def check_padding(text):
    for length in (1, 4):
        tight, wide = sample(text, length, 0, 4), sample(text, length)
        for leaf, other in zip(jax.tree.leaves(tight), jax.tree.leaves(wide), strict=True):
            np.testing.assert_array_equal(other[:, : leaf.shape[1]], leaf)
            assert not other[:, leaf.shape[1] :].any()


@pytest.mark.parametrize('text', [*{(text.partition('(')[0], 'bos' in text): text for text in FAST}.values()])
def test_the_padding_does_not_change_the_example(text):
    """The same key and length at another `max_length`; one program per task."""
    check_padding(text)


@pytest.mark.slow
@pytest.mark.parametrize('text', [*FAST, *SLOW])
def test_a_thousand_answers(text):
    for length, seed in itertools.product(LENGTHS, range(1000 // BATCH + 1)):
        check(text, length, seed)
    check_padding(text)
    longest = {'scan': 40, 'lego': 26}.get(text.partition('(')[0], 100 if 'scratchpad' in text else 500)
    longest = 25 if 'hints' in text else longest
    if match := re.search(r'variables=(\d+)|symbols=(\d+), distinct|distinct', text):
        longest = int(match[1] or match[2] or 50)
    for length in sorted({min(41, longest), min(100, longest), longest}):
        for seed in range(1000 // 50):
            check(text, length, seed, length, 50)


@pytest.mark.slow
@pytest.mark.parametrize('shown', [*itertools.product([False, True], repeat=5)])
def test_all_formats_of_scratchpads(shown):
    fields = ','.join(itertools.compress(MARKS, shown))
    for length in (1, 7):
        check(f'summation(scratchpad={fields or False!r})', length, 0, 7)


def test_examples_of_a_batch_differ():
    for text in FAST:
        assert len(np.unique(sample(text, 20).tokens, axis=0)) > BATCH // 2
        assert not np.array_equal(sample(text, 20).tokens, sample(text, 20, 1).tokens)


# --- names and arguments ---------------------------------------------------------------------------------------------


def test_description():
    for text in FAST:
        task = make(text)
        assert task.vocab_size == task.num_classes == len(task.alphabet) == len({*task.alphabet})
        assert task.metric == 'exact_match'
        leaves, tree = jax.tree.flatten(task)
        assert vars(jax.tree.unflatten(tree, leaves)) == {**vars(task), 'data': task.data}
    assert make('copying').vocab_size == 102
    assert make('summation(scratchpad=True)').vocab_size == make('summation').vocab_size + 6


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("copying(kind='rdc', doubled=True)", "doubled must be False for kind='rdc', not True"),
        ("copying(kind='all')", "kind must be 'rsc' or 'rdc' or 'cmc', not 'all'"),
        ('copying(symbols=1)', 'symbols must be at least 2, not 1'),
        ("reverse(variant='cm')", "variant must be 'mc' or 'mc2x' or 'mcrv', not 'cm'"),
        ('reverse(symbols=1)', 'symbols must be at least 2, not 1'),
        ('sorting(symbols=1)', 'symbols must be from 2 to 10,000, not 1'),
        ("sorting(kind='integers', distinct=True)", "distinct must be False for kind='integers', not True"),
        ("copying(kind='rsc', distinct=True)", "distinct must be False for kind='rsc', not True"),
        ("copying(kind='rsc', duplicate=3)", "duplicate must be 0 unless kind='cmc' and distinct=False, not 3"),
        ("parity(ones='even')", "ones must be 'independent' or 'uniform', not 'even'"),
        ('addition(base=11)', 'base must be from 2 to 10, not 11'),
        ('addition(scratchpad=True, base=2)', 'scratchpad must be False for base=2, not True'),
        ("addition(measure='all')", "measure must be 'longer' or 'prompt', not 'all'"),
        ('padded_addition(fewest=3)', 'fewest must be at most operands=2, not 3'),
        ('padded_addition(hints=26, coupled=True)', 'hints must be 0 for coupled=True, not 26'),
        ('multiplication(digits=0)', 'digits must be from 1 to 100, not 0'),
        ('majority(symbols=27)', 'symbols must be from 2 to 26, not 27'),
        ('majority_interleaved(period=1)', 'period must be at least 2, not 1'),
        ("summation(scratchpad='inputs')", 'scratchpad must be True, False or some of input,computation,output,'),
        ("summation(scratchpad='')", 'scratchpad must be True, False or some of input,computation,output,'),
        ('summation(scratchpad=2)', 'scratchpad must be True or False or a quoted word, not 2'),
        ("sorting(scratchpad='variables')", "some of input,computation,output,remaining, not 'variables'"),
        ('lego(variables=0)', 'variables must be at least 1, not 0'),
        ('pcfg(letters=1)', 'letters must be at least 2, not 1'),
        ('pcfg(longest=4)', 'longest must be at least 5, not 4'),
    ],
)
def test_errors(text, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        tasks.make(text, causal=True)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', FAST)
def test_lengths_may_be_plain_integers(text):
    example = jax.eval_shape(lambda key: make(text).example(key, 3, 3), jax.random.key(0))
    assert {leaf.shape for leaf in jax.tree.leaves(example)} == {(make(text).num_tokens(3),)}


@pytest.mark.parametrize('name', ORACLES)
def test_sequences_are_for_causal_models(name):
    with pytest.raises(UserError, match=r'set model\.causal=True'):
        tasks.make(name)


@pytest.mark.parametrize(
    ('text', 'length', 'message'),
    [
        ('scan', 49, 'scan has at most 48 actions, not 49'),
        ('lego', 27, 'lego has 26 variables - set variables=27'),
        ('padded_addition(hints=26)', 26, 'padded_addition has 26 hints - set hints=27 for numbers of 27 digits'),
        ('copying(symbols=9, distinct=True)', 10, 'there are 9 distinct symbols - set symbols=10'),
        ('sorting(distinct=True)', 51, 'there are 50 distinct symbols - set symbols=51'),
    ],
)
def test_lengths_end(text, length, message):
    with pytest.raises(UserError, match=message):
        make(text).example(jax.random.key(0), length, length)
