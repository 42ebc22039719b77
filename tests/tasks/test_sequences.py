"""The tasks of Kazemnejad et al. against plain-Python oracles, which read the prompt as a person does."""

import collections
import functools
import itertools
import re

import jax
import numpy as np
import pytest

from mha import tasks
from mha.spec import UserError
from mha.tasks._scratchpad import MARKS
from mha.tasks.base import Batch

LENGTHS, MAX_LENGTH, BATCH = (1, 2, 3, 4, 7, 20), 20, 64


# --- oracles: the prompt -> the answer, and the steps of its scratchpad (None: the task lacks the field) -------------


def copying(prompt, kind='cmc', doubled=False):
    words = prompt.split()[:-1]
    if kind == 'rdc':
        assert (words[0], words[2], words[4]) == ('replace', 'with', 'in')
        assert {*words[5:]} == {words[1]}
        assert words[1] != words[3]
        words = [words[3]] * (len(words) - 5)
    if kind == 'rsc':
        assert len({*words}) == 1
    between = ['|'] if kind == 'cmc' else []
    return ' '.join([*words, *between, *words] if doubled else words) + ' .', []


def reverse(prompt, variant='mc'):
    words = prompt.split()[:-1]
    more = {'mc': [], 'mc2x': ['|', *words[::-1]], 'mcrv': ['|', *words]}[variant]
    return ' '.join([*words[::-1], *more, '.']), []


def addition(prompt):
    a, b = prompt.rstrip('=').split('+')
    assert all(number == str(int(number)) for number in (a, b))
    carry, steps, left = 0, [], (a, b)
    while any(left) or carry:
        x, y = (int(number[-1:] or 0) for number in left)
        left = tuple(number[:-1] for number in left)
        before, total = carry, x + y + carry
        carry = total // 10
        steps.append((f'{x},{y}', f'{x}+{y}+{before}={total}', str(total % 10), str(carry), '+'.join(left)))
    return f'{int(a) + int(b)}.', steps


def polynomial(prompt):
    x, terms = re.fullmatch(r'x=(-?\d);(.*)=', prompt).groups()
    terms, x, total, steps = terms.split('+'), int(x), 0, []
    for i, term in enumerate(terms):
        c, d = map(int, re.fullmatch(r'(-?[0-3])\*x\^([0-3])', term).groups())
        value, before = c * x**d, total
        total = (total + value) % 10
        computation = f'{c}*{x}^{d}={c}*{x**d}'
        steps.append((term, computation, str(value), f'{before}+{value}={total}', '+'.join(terms[i + 1 :])))
    return f'{total}.', steps


def sorting(prompt, kind='tokens'):
    rank, join = (int, ','.join) if kind == 'integers' else (RANKED.index, ''.join)
    items = prompt[:-1].split(',') if kind == 'integers' else [*prompt[:-1]]
    answer, steps = f'{join(sorted(items, key=rank))}.', []
    while items:
        least = items.index(min(items, key=rank))
        first = items[0]
        items[0], items[least] = items[least], items[0]
        steps.append((first, '<', items[0], None, join(items[1:])))
        items = items[1:]
    return answer, steps


RANKED = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN'


def summation(prompt):
    numbers, total, steps = prompt.rstrip('=').split('+'), 0, []
    for i, number in enumerate(numbers):
        value = total + int(number)
        steps.append((number, f'{number}+{total}', str(value), str(value % 10), '+'.join(numbers[i + 1 :])))
        total = value % 10
    return f'{total}.', steps


def parity(prompt):
    bits, ones, steps = prompt.rstrip('?'), 0, []
    for i, bit in enumerate(bits):
        before, ones = ones % 2, ones + int(bit)
        steps.append((bit, f'{bit}^{before}', str(ones % 2), str(ones % 2), bits[i + 1 :]))
    return f'{"YN"[ones % 2]}.', steps


def lego(prompt):
    *clauses, query = prompt.rstrip('?').split(';')
    left, values, steps = list(clauses), {'1': '+1'}, []
    known = '1'
    while query not in values:
        (clause,) = [clause for clause in left if clause[-len(known) :] == known and clause[-len(known) - 1] in '+-']
        variable, sign = clause.split('=')[0], clause.split('=')[1][0]
        values[variable] = {'+': values[known], '-': {'+1': '-1', '-1': '+1'}[values[known]]}[sign]
        left.remove(clause)
        computation = '' if known == '1' else f'{sign}{known}={sign}{values[known]}'
        steps.append((variable, computation, values[variable], None, ';'.join(left)))
        known = variable
    assert len(clauses) // 2 < len(steps) <= len(clauses)
    return f'{values[query]}.', steps


def scan(prompt):
    def sentence(words):
        *words, last = words
        times = {'twice': 2, 'thrice': 3}.get(last, 1)
        verb, *rest = words if times > 1 else [*words, last]
        do = [] if verb == 'turn' else [verb.upper()]
        if rest:
            turn = [{'left': 'LTURN', 'right': 'RTURN'}[rest[-1]]]
            do = {'opposite': 2 * turn + do, 'around': 4 * (turn + do)}.get(rest[0], turn + do)
        return do * times

    first, conjunction, second = re.fullmatch(r'(.*?)(?: (and|after) (.*))? >', prompt).groups()
    done = [sentence(part.split()) for part in (first, second) if part]
    return ' '.join([*itertools.chain(*(reversed(done) if conjunction == 'after' else done)), '.']), []


def pcfg(prompt):
    words = prompt.split()

    def value():
        name = words[0]
        if name not in (*PCFG_UNARY, *PCFG_BINARY):
            letters = [*itertools.takewhile(lambda word: word[0].isupper(), words)]
            del words[: len(letters)]
            assert 1 <= len(letters) <= 5
            return letters
        del words[0]
        x = value()
        if name in PCFG_UNARY:
            return PCFG_UNARY[name](x)
        assert words.pop(0) == ','
        return PCFG_BINARY[name](x, value())

    answer = value()
    assert words == ['>']
    return ' '.join([*answer, '.']), []


PCFG_UNARY = {
    'copy': lambda x: x,
    'reverse': lambda x: x[::-1],
    'shift': lambda x: x[1:] + x[:1],
    'swap_first_last': lambda x: x if len(x) == 1 else [x[-1], *x[1:-1], x[0]],
    'repeat': lambda x: x + x,
    'echo': lambda x: [*x, x[-1]],
}
PCFG_BINARY = {
    'append': lambda x, y: x + y,
    'prepend': lambda x, y: y + x,
    'remove_first': lambda x, y: y,
    'remove_second': lambda x, y: x,
}

ORACLES = dict(
    copying=copying,
    reverse=reverse,
    addition=addition,
    polynomial=polynomial,
    sorting=sorting,
    summation=summation,
    parity=parity,
    lego=lego,
    scan=scan,
    pcfg=pcfg,
)


def solve(text, prompt):
    """What the task ought to answer."""
    name, _, options = text.partition('(')
    options = eval(f'dict({options}') if options else {}  # the test's own words
    shown = options.pop('scratchpad', '')
    shown = [*MARKS] if shown is True else shown.replace(' ', '').split(',') if shown else []
    for other in {'lego': ('permuted', 'variables'), 'pcfg': ('letters', 'longest')}.get(name, ()):
        options.pop(other, None)
    answer, steps = ORACLES[name](prompt, **options)
    if not shown:
        return answer
    fields = [(*mark, content) for step in steps for mark, content in zip(MARKS.items(), step, strict=True)]
    scratch = ''.join(mark + content for field, mark, content in fields if field in shown and content is not None)
    return f'{scratch}!{answer}'


# --- the tasks -------------------------------------------------------------------------------------------------------

# Fast ones, between them every branch but those of `SLOW`.
FAST = [
    "copying(kind='rsc', doubled=True)",
    "copying(kind='rdc')",
    'copying',
    "reverse(variant='mc2x')",
    'addition(scratchpad=True)',
    'polynomial(scratchpad=True)',
    'sorting(scratchpad=True)',
    "sorting(kind='integers')",
    'summation',
    "parity(scratchpad='remaining, input')",
    'lego(permuted=True, scratchpad=True)',
    'scan',
    'pcfg',
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
]
EXAMPLES = [
    ("copying(kind='rsc')", '7 7 7 >', '7 7 7 .'),
    ("copying(kind='rsc', doubled=True)", '7 7 7 >', '7 7 7 7 7 7 .'),
    ("copying(kind='rdc')", 'replace 7 with 4 in 7 7 7 >', '4 4 4 .'),
    ('copying', '31 4 15 >', '31 4 15 .'),
    ('copying(doubled=True)', '31 4 15 >', '31 4 15 | 31 4 15 .'),
    ('reverse', '31 4 15 >', '15 4 31 .'),
    ("reverse(variant='mc2x')", '31 4 15 >', '15 4 31 | 15 4 31 .'),
    ("reverse(variant='mcrv')", '31 4 15 >', '15 4 31 | 31 4 15 .'),
    ('addition', '86+7=', '93.'),
    ('addition(scratchpad=True)', '86+7=', '/6,7:6+7+0=13|3~1&8+/8,0:8+0+1=9|9~0&+!93.'),
    ("addition(scratchpad='output')", '5+7=', '|2|1!12.'),
    ('polynomial', 'x=-2;3*x^2+-1*x^0=', '1.'),
    (
        'polynomial(scratchpad=True)',
        'x=-2;3*x^2+-1*x^0=',
        '/3*x^2:3*-2^2=3*4|12~0+12=2&-1*x^0/-1*x^0:-1*-2^0=-1*1|-1~2+-1=1&!1.',
    ),
    ('sorting', 'c1ac>', '1acc.'),
    ('sorting(scratchpad=True)', 'c1ac>', '/c:<|1&cac/c:<|a&cc/c:<|c&c/c:<|c&!1acc.'),
    ("sorting(kind='integers')", '845,12,3012>', '12,845,3012.'),
    ('summation', '7+5+4=', '6.'),
    ('summation(scratchpad=True)', '7+5+4=', '/7:7+0|7~7&5+4/5:5+7|12~2&4/4:4+2|6~6&!6.'),
    ('parity', '0110?', 'Y.'),
    ('parity(scratchpad=True)', '110?', '/1:1^0|1~1&10/1:1^1|0~0&0/0:0^0|0~0&!Y.'),
    ('lego', 'f=+1;c=-f;k=+c;k?', '-1.'),
    ('lego', 'k=+c;f=+1;c=-f;k?', '-1.'),
    ('lego(scratchpad=True)', 'f=+1;c=-f;k=+c;k?', '/f:|+1&c=-f;k=+c/c:-f=-+1|-1&k=+c/k:+c=+-1|-1&!-1.'),
    ('scan', 'turn left twice after jump opposite right >', 'RTURN RTURN JUMP LTURN LTURN .'),
    ('pcfg', 'echo append C1 A2 , shift remove_second D1 D2 D3 , B5 >', 'C1 A2 D2 D3 D1 D1 .'),
]


@functools.cache
def make(text):
    return tasks.make(text, causal=True)


@functools.cache
def sampler(text, max_length=MAX_LENGTH, count=BATCH):
    """One compiled program, for every length."""
    task = make(text)
    return jax.jit(lambda key, length: task.batch(key, count, length, max_length))


@functools.cache
def sample(text, length, seed=0, max_length=MAX_LENGTH, count=BATCH):
    return jax.device_get(sampler(text, max_length, count)(jax.random.key(seed), length))


def rows(batch):
    for i in range(len(batch.tokens)):
        yield Batch(**{name: leaf[i] for name, leaf in vars(batch).items()})


def read(text, length, *args):
    """Prompts and answers of a batch as a person reads them."""
    return [make(text).readable(row) for row in rows(sample(text, length, *args))]


def measure(text, prompt):
    """The length of a prompt, in the task's own measure."""
    name = text.partition('(')[0]
    if name == 'copying':
        return len(prompt.split()) - (6 if 'rdc' in text else 1)
    if name == 'addition':
        return max(map(len, prompt.rstrip('=').split('+')))
    if name == 'scan':
        return len(scan(prompt)[0].split()) - 1
    if name == 'pcfg':
        return sum(word in (*PCFG_UNARY, *PCFG_BINARY) for word in prompt.split())
    if name == 'sorting' and 'integers' in text:
        return prompt.count(',') + 1
    if name == 'lego':
        return prompt.count('=')
    return {
        'reverse': len(prompt.split()) - 1,
        'polynomial': prompt.count('x') - 1,
        'sorting': len(prompt) - 1,
        'parity': len(prompt) - 1,
        'summation': prompt.count('+') + 1,
    }[name]


def check(text, length, *args):
    """Answers, lengths and the protocol of a batch."""
    task, batch = make(text), sample(text, length, *args)
    slots, width = batch.tokens.shape[1], task.num_tokens(length)
    for row in rows(batch):
        prompt, answer = task.readable(row)
        if 'variables' in text:  # names of several characters are read with gaps
            prompt, answer = prompt.replace(' ', ''), answer.replace(' ', '')
        assert answer == solve(text, prompt), prompt
        assert measure(text, prompt) == length, prompt
        at = np.flatnonzero(row.metric_mask)
        start, count = at[0] + 1, len(at)
        assert start <= task.prompt_length(length)
        assert count <= task.output_length(length)
        assert start + count - 1 <= width
        np.testing.assert_array_equal(at, np.arange(start - 1, start + count - 1))
        np.testing.assert_array_equal(row.tokens[at[1:]], row.targets[at[:-1]])  # it reads its answer so far
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
        for name, leaf in vars(tight).items():
            other = getattr(wide, name)
            np.testing.assert_array_equal(other[:, : leaf.shape[1]], leaf, err_msg=name)
            assert not other[:, leaf.shape[1] :].any(), name


@pytest.mark.parametrize('text', [*{text.partition('(')[0]: text for text in FAST}.values()])
def test_the_padding_does_not_change_the_example(text):
    """The same key and length at another `max_length`; one program per task."""
    check_padding(text)


@pytest.mark.slow
@pytest.mark.parametrize('text', [*FAST, *SLOW])
def test_answers_of_long_examples(text):
    if text in SLOW:
        for length in LENGTHS:
            check(text, length)
    check_padding(text)
    longest = {'scan': 40, 'lego': 26}.get(text.partition('(')[0], 100 if 'scratchpad' in text else 500)
    if match := re.search(r'variables=(\d+)', text):
        longest = int(match[1])
    for length in sorted({min(41, longest), min(100, longest), longest}):
        for seed in range(1000 // 50 if text in FAST else 1):
            check(text, length, seed, length, 50)


@pytest.mark.slow
@pytest.mark.parametrize('shown', [*itertools.product([False, True], repeat=5)])
def test_all_formats_of_scratchpads(shown):
    fields = ','.join(itertools.compress(MARKS, shown))
    for length in (1, 7):
        check(f'summation(scratchpad={fields or False!r})', length, 0, 7)


# --- what is drawn ---------------------------------------------------------------------------------------------------


def draws(text, length, seeds=8):
    return [pair for seed in range(seeds) for pair in read(text, length, seed)]


def uniform(found, choices):
    """Every choice is drawn, each within five standard errors of a uniform share."""
    counts, share = collections.Counter(found), 1 / len(choices)
    assert {*counts} == {*choices}
    error = np.sqrt(share * (1 - share) / counts.total())
    assert max(abs(count / counts.total() - share) for count in counts.values()) <= 5 * error


def test_tokens_are_uniform():
    for text in ('copying', "copying(kind='rdc')"):
        tokens = make(text).symbols
        names = [str(i) for i in range(tokens)]
        prompts = [prompt.split() for prompt, _ in draws(text, 4, 16)]
        if text == 'copying':
            uniform([word for words in prompts for word in words[:-1]], names)
        else:
            uniform([words[1] for words in prompts], names)
            uniform([(int(words[3]) - int(words[1])) % tokens for words in prompts], range(1, tokens))
    uniform([symbol for prompt, _ in draws('sorting(scratchpad=True)', 7) for symbol in prompt[:-1]], RANKED)


def test_integers_are_uniform():
    numbers = [int(n) for prompt, _ in draws("sorting(kind='integers')", 7) for n in prompt[:-1].split(',')]
    assert 10 <= min(numbers) < 30
    assert 9980 < max(numbers) <= 9999
    assert abs(np.mean(numbers) - (10 + 9999) / 2) < 5 * 9990 / np.sqrt(12 * len(numbers))


def test_answers_are_balanced():
    uniform([answer[-2] for _, answer in draws("parity(scratchpad='remaining, input')", 7)], 'YN')
    uniform([answer[-3:-1] for _, answer in draws('lego(permuted=True, scratchpad=True)', 4)], ['+1', '-1'])
    uniform([answer[0] for _, answer in draws('summation', 20)], '0123456789')
    uniform([digit for prompt, _ in draws('summation', 3) for digit in prompt[::2]], '123456789')


def test_pairs_of_numbers_are_uniform():
    """Of all pairs of numbers of digits with that maximum; numbers do not begin with 0, but 0 itself does."""
    text = 'addition(scratchpad=True)'
    numbers = [prompt.rstrip('=').split('+') for prompt, _ in draws(text, 4)]
    uniform([(len(a), len(b)) for a, b in numbers], [(4, n) for n in (1, 2, 3, 4)] + [(n, 4) for n in (1, 2, 3)])
    uniform([n[0] for pair in numbers for n in pair if len(n) > 1], '123456789')
    uniform([n[-1] for pair in numbers for n in pair], '0123456789')
    uniform([n for prompt, _ in draws(text, 1) for n in prompt.rstrip('=').split('+')], '0123456789')


def test_terms_are_uniform():
    prompts = [prompt for prompt, _ in draws('polynomial(scratchpad=True)', 3)]
    uniform([prompt[2:].split(';')[0] for prompt in prompts], ['-2', '-1', '0', '1', '2'])
    terms = [term for prompt in prompts for term in re.findall(r'(-?\d)\*x\^(\d)', prompt)]
    uniform(terms, [(str(c), str(d)) for c in range(-3, 4) for d in range(4)])


@pytest.mark.parametrize(('length', 'depths'), [(1, [1]), (2, [2]), (3, [3]), (7, [5, 6, 7])])
def test_queries_of_lego(length, depths):
    """The second half of the chain; with permuted clauses, in any order."""
    pairs = draws('lego(permuted=True, scratchpad=True)', length)
    uniform([answer.count('/') for _, answer in pairs], depths)
    places = [[clause[-1] == '1' for clause in prompt.split(';')].index(True) for prompt, _ in pairs]
    uniform(places, range(length))
    uniform([prompt.split(';')[-1][0] for prompt, _ in pairs], 'abcdefghijklmnopqrstuvwxyz')


def test_lego_in_order():
    for prompt, _ in read('lego', 4, 0, 4):
        *clauses, _ = prompt.split(';')
        assert [clause[-1] for clause in clauses] == ['1', *(clause[0] for clause in clauses[:-1])]


def test_scan_has_all_commands():
    """As published: 20,910 commands, of which 16,990 have up to 22 actions and 3,920 have 24 or more."""
    task = make('scan')
    table, starts, ends = jax.device_get(task.data)
    found = {}
    for row in table.tolist():
        words = [task.alphabet[symbol] for symbol in row if symbol >= 0]
        do = [word for word in words if word.isupper()]
        command = ' '.join(word for word in words if word.islower())
        found[command] = len(do)
        assert ' '.join([*do, '.']) == scan(f'{command} >')[0]
    assert len(found) == len(table) == 20_910
    sizes = np.array([*found.values()])
    assert ((sizes <= 22).sum(), (sizes >= 24).sum(), sizes.max()) == (16_990, 3_920, 48)
    for length in range(1, 49):
        longest = sizes[sizes <= length].max()
        assert {*sizes[starts[length] : ends[length]]} == {longest}
        assert ends[length] - starts[length] == (sizes == longest).sum()
    uniform([prompt for prompt, _ in draws('scan', 1)], [c + ' >' for c, size in found.items() if size == 1])


def test_functions_of_pcfg():
    """Every function and every depth occurs; values stay within bounds."""
    words = collections.Counter(word for prompt, _ in draws('pcfg', 7, 4) for word in prompt.split())
    assert all(words[name] > 20 for name in (*PCFG_UNARY, *PCFG_BINARY, ','))
    sizes = [len(answer.split()) - 1 for _, answer in draws('pcfg', 20, 4)]
    assert 40 < max(sizes) <= 64
    uniform([prompt.split()[0] for prompt, _ in draws('pcfg', 1) if ',' not in prompt], PCFG_UNARY)


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
        ('sorting(symbols=63)', 'symbols must be 2 to 62, not 63'),
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
    assert {leaf.shape for leaf in vars(example).values()} == {(make(text).num_tokens(3),)}


@pytest.mark.parametrize('name', ORACLES)
def test_sequences_are_for_causal_models(name):
    with pytest.raises(UserError, match=r'set model\.causal=True'):
        tasks.make(name)


@pytest.mark.parametrize(
    ('text', 'length', 'message'),
    [('scan', 49, 'scan has at most 48 actions, not 49'), ('lego', 27, 'lego has 26 variables - set variables=27')],
)
def test_lengths_end(text, length, message):
    with pytest.raises(UserError, match=message):
        make(text).example(jax.random.key(0), length, length)
