"""The tasks of Kazemnejad et al. in plain Python, reading the prompt as a person does, and examples of them."""

import collections
import functools
import itertools
import re
import string

import jax

from mha import tasks
from mha.tasks._scratchpad import MARKS

MAX_LENGTH, BATCH = 20, 64


# --- oracles: the prompt -> the answer, and the steps of its scratchpad (None: the task lacks the field) -------------


def copying(prompt, kind='cmc', doubled=False, symbols=100, distinct=False, duplicate=0):
    if symbols <= 10:
        assert {*prompt[:-1]} <= {*map(str, range(symbols))}
        return prompt[:-1] + '.', []
    words = prompt.split()[:-1]
    assert not distinct or len({*words}) == len(words)
    assert not duplicate or occurrences(words, duplicate)
    assert kind == 'rdc' or all(0 <= int(word) < symbols for word in words)
    if kind == 'rdc':
        assert (words[0], words[2], words[4]) == ('replace', 'with', 'in')
        assert {*words[5:]} == {words[1]}
        assert words[1] != words[3]
        words = [words[3]] * (len(words) - 5)
    if kind == 'rsc':
        assert len({*words}) == 1
    between = ['|'] if kind == 'cmc' else []
    return ' '.join([*words, *between, *words] if doubled else words) + ' .', []


def occurrences(words, n):
    """Pairs of places of equal n-grams that do not overlap; any pair if there are too few words for one."""
    places = range(len(words) - n + 1)
    return [(i, j) for i in places for j in places[i + n :] if words[i : i + n] == words[j : j + n]] or len(
        words
    ) < 2 * n


def reverse(prompt, variant='mc'):
    words = prompt.split()[:-1]
    more = {'mc': [], 'mc2x': ['|', *words[::-1]], 'mcrv': ['|', *words]}[variant]
    return ' '.join([*words[::-1], *more, '.']), []


def addition(prompt, base=10, measure='longer', released=False):
    a, b = prompt.rstrip('=').split('+')
    assert all(number == str(int(number)) for number in (a, b))
    if base == 2:
        return f'{int(a, 2) + int(b, 2):b}.', []
    carry, steps, left = 0, [], (a, b)
    while any(left) or carry:
        x, y = (int(number[-1:] or 0) for number in left)
        left = tuple(number[:-1] for number in left)
        shown = tuple(number or '0' for number in left) if released and any(left) else left
        before, total = carry, x + y + carry
        carry = total // 10
        steps.append((f'{x},{y}', f'{x}+{y}+{before}={total}', str(total % 10), str(carry), '+'.join(shown)))
    return f'{int(a) + int(b)}.', steps


def padded_addition(prompt, operands=2, scratchpad=False, hints=0, fewest=None, equal=0.0):
    numbers, names = prompt.rstrip('=').split('+'), ''
    if hints:
        names = numbers[0][::2]
        assert names in string.ascii_letters[:hints]
        assert {number[::2] for number in numbers} == {names}
        numbers = [number[1::2] for number in numbers]
    (width,) = {len(number) for number in numbers}
    assert width == max(len(str(int(number))) for number in numbers) + len(str(operands - 1))
    assert (fewest or operands) <= len(numbers) <= operands
    sums = itertools.accumulate(map(int, numbers), initial=0)
    digits = [f'{total:0{width}d}' for total in sums][0 if scratchpad else -1 :]
    written = [[*map(''.join, zip(names, number, strict=True))] if hints else number for number in digits]
    return '>'.join(''.join(number[::-1]) for number in written) + '.', []


def multiplication(prompt, digits=1):
    a, b = prompt.rstrip('=').split('*')
    assert a == str(int(a))
    assert len(b) == digits
    return f'{int(a) * int(b):0{len(a) + digits}d}'[::-1] + '.', []


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


def sorting(prompt, kind='tokens', symbols=50, distinct=False):
    if symbols > 62:
        words = prompt.split()[:-1]
        assert not distinct or len({*words}) == len(words)
        return ' '.join([*sorted(words, key=int), '.']), []
    assert not distinct or len({*prompt}) == len(prompt)
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


def parity(prompt, ones='independent'):
    bits, ones, steps = prompt.rstrip('?'), 0, []
    for i, bit in enumerate(bits):
        before, ones = ones % 2, ones + int(bit)
        steps.append((bit, f'{bit}^{before}', str(ones % 2), str(ones % 2), bits[i + 1 :]))
    return f'{"YN"[ones % 2]}.', steps


def majority(prompt, symbols=2):
    counts = collections.Counter(prompt.rstrip('>'))
    most = max(counts.values())
    (answer,) = (symbol for symbol, count in counts.items() if count == most)
    assert {*counts} <= {*('01' if symbols == 2 else 'abcdefghijklmnopqrstuvwxyz'[:symbols])}
    return f'{answer}.', []


def majority_interleaved(prompt, period=3):
    bits = prompt.rstrip('>')
    assert len(bits) % period == 0
    strings = [bits[first::period] for first in range(period)]
    assert all(string.count('0') != string.count('1') for string in strings)
    return ''.join('01'[string.count('0') < string.count('1')] for string in strings) + '.', []


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
    padded_addition=padded_addition,
    multiplication=multiplication,
    polynomial=polynomial,
    sorting=sorting,
    summation=summation,
    parity=parity,
    majority=majority,
    majority_interleaved=majority_interleaved,
    lego=lego,
    scan=scan,
    pcfg=pcfg,
)


def body(text, prompt):
    """A prompt without `$`, which is there if and only if the task says so."""
    begins = 'bos=True' in text or text.startswith('majority')
    assert begins == prompt.startswith('$')
    return prompt[begins:].lstrip()


def solve(text, prompt):
    """What the task ought to answer."""
    prompt = body(text, prompt)
    name, _, options = text.partition('(')
    options = eval(f'dict({options}') if options else {}  # the test's own words
    shown = options.pop('scratchpad', '') if name != 'padded_addition' else ''
    for other in ('bos', 'coupled'):
        options.pop(other, None)
    shown = [*MARKS] if shown is True else shown.replace(' ', '').split(',') if shown else []
    for other in {'lego': ('permuted', 'variables'), 'pcfg': ('letters', 'longest')}.get(name, ()):
        options.pop(other, None)
    answer, steps = ORACLES[name](prompt, **options)
    if not shown:
        return answer
    fields = [(*mark, content) for step in steps for mark, content in zip(MARKS.items(), step, strict=True)]
    scratch = ''.join(mark + content for field, mark, content in fields if field in shown and content is not None)
    return f'{scratch}!{answer}'


EXAMPLES = [
    ("copying(kind='rsc')", '7 7 7 >', '7 7 7 .'),
    ("copying(kind='rsc', doubled=True)", '7 7 7 >', '7 7 7 7 7 7 .'),
    ("copying(kind='rdc')", 'replace 7 with 4 in 7 7 7 >', '4 4 4 .'),
    ('copying', '31 4 15 >', '31 4 15 .'),
    ('copying(doubled=True)', '31 4 15 >', '31 4 15 | 31 4 15 .'),
    ('copying(symbols=150, distinct=True, bos=True)', '$ 31 4 15 >', '31 4 15 .'),
    ('copying(symbols=2, bos=True)', '$0111>', '0111.'),
    ('copying(duplicate=2)', '31 4 15 9 31 4 26 >', '31 4 15 9 31 4 26 .'),
    ('reverse', '31 4 15 >', '15 4 31 .'),
    ("reverse(variant='mc2x')", '31 4 15 >', '15 4 31 | 15 4 31 .'),
    ("reverse(variant='mcrv')", '31 4 15 >', '15 4 31 | 31 4 15 .'),
    ('addition', '86+7=', '93.'),
    ('addition(scratchpad=True)', '86+7=', '/6,7:6+7+0=13|3~1&8+/8,0:8+0+1=9|9~0&+!93.'),
    ('addition(scratchpad=True, released=True)', '86+7=', '/6,7:6+7+0=13|3~1&8+0/8,0:8+0+1=9|9~0&+!93.'),
    ("addition(scratchpad='output')", '5+7=', '|2|1!12.'),
    ("addition(base=2, measure='prompt', bos=True)", '$11+1=', '100.'),
    ('padded_addition', '086+007=', '390.'),
    ('padded_addition(operands=3)', '0086+0007+0912=', '5001.'),
    ('padded_addition(scratchpad=True)', '086+007=', '000>680>390.'),
    ('padded_addition(hints=26)', 'c0d8e6+c0d0e7=', 'e3d9c0.'),
    ('multiplication(digits=2)', '307*25=', '57670.'),
    ('multiplication(digits=2)', '7*04=', '820.'),
    ('polynomial', 'x=-2;3*x^2+-1*x^0=', '1.'),
    (
        'polynomial(scratchpad=True)',
        'x=-2;3*x^2+-1*x^0=',
        '/3*x^2:3*-2^2=3*4|12~0+12=2&-1*x^0/-1*x^0:-1*-2^0=-1*1|-1~2+-1=1&!1.',
    ),
    ('sorting', 'c1ac>', '1acc.'),
    ('sorting(scratchpad=True)', 'c1ac>', '/c:<|1&cac/c:<|a&cc/c:<|c&c/c:<|c&!1acc.'),
    ("sorting(kind='integers')", '845,12,3012>', '12,845,3012.'),
    ('sorting(symbols=150, distinct=True, bos=True)', '$ 31 104 15 >', '15 31 104 .'),
    ('summation', '7+5+4=', '6.'),
    ('summation(scratchpad=True)', '7+5+4=', '/7:7+0|7~7&5+4/5:5+7|12~2&4/4:4+2|6~6&!6.'),
    ('parity', '0110?', 'Y.'),
    ('parity(scratchpad=True)', '110?', '/1:1^0|1~1&10/1:1^1|0~0&0/0:0^0|0~0&!Y.'),
    ("parity(ones='uniform', bos=True)", '$0110?', 'Y.'),
    ('majority', '$11010>', '1.'),
    ('majority(symbols=26)', '$cazc>', 'c.'),
    ('majority_interleaved', '$100101011>', '101.'),
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
        yield jax.tree.map(lambda leaf, i=i: leaf[i], batch)


def read(text, length, *args):
    """Prompts and answers of a batch as a person reads them."""
    return [make(text).readable(row) for row in rows(sample(text, length, *args))]


def measure(text, prompt):
    """The length of a prompt, in the task's own measure."""
    name, prompt = text.partition('(')[0], body(text, prompt)
    if name == 'copying':
        return len(prompt.split() if ' ' in prompt else prompt) - (6 if 'rdc' in text else 1)
    if "measure='prompt'" in text:
        return len(prompt)
    if name == 'sorting' and ' ' in prompt:
        return len(prompt.split()) - 1
    if name == 'addition':
        return max(map(len, prompt.rstrip('=').split('+')))
    if name == 'padded_addition':
        return max(len(str(int(number))) for number in re.sub('[a-zA-Z=]', '', prompt).split('+'))
    if name == 'multiplication':
        return prompt.index('*')
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
        'majority': len(prompt) - 1,
        'majority_interleaved': len(prompt) - 1,
        'summation': prompt.count('+') + 1,
    }[name]


def measured(text, length):
    """The length that a prompt has, if one of `length` is asked for."""
    if text.startswith('majority_interleaved'):
        return max(length // 3 * 3, 3)
    return max(length, 4) if "measure='prompt'" in text else length
