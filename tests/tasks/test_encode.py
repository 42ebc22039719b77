"""Text of prompts and of generated tokens."""

import pytest

from mha import tasks
from mha.spec import UserError


def test_bytes():
    task = tasks.make(f'lm({__file__!r})', causal=True)
    assert task.encode('aé') == [97, 0xC3, 0xA9]
    assert task.decode([97, 0xC3, 0xA9]) == 'aé'
    assert task.decode([97, 0xC3]) == 'a' + chr(0xFFFD)
    assert task.stop == ()
    with pytest.raises(UserError, match='masked language model fills in hidden tokens'):
        tasks.make(f'lm({__file__!r})', causal=False).encode('a')


def test_symbols():
    task = tasks.make('copying(symbols=12, bos=True)', causal=True)
    tokens = task.encode('11 3 >')
    assert [task.alphabet[token] for token in tokens] == ['$', '11', '3', '>']
    assert task.encode('$ 11 3 >') == tokens
    assert task.decode(tokens[1:]) == '11 3 >'
    assert [task.alphabet[token] for token in task.stop] == ['.']
    short = tasks.make('addition', causal=True)
    assert short.decode(short.encode('12+3=')) == short.decode(short.encode('1 2 + 3 =')) == '12+3='
    with pytest.raises(UserError, match="no symbol 'x'"):
        task.encode('x >')
