"""Refusals: every row of data/refusals.ini, at its step of a session."""

import time

import pytest

from support import checks, cli, dialogue, tables
from support.checks import LOGIN, RECIPIENT, REFUSED
from support.dialogue import BEGINS, EHLO, GREETING, QUIT

MAILED, ACCEPTED = 'S: 250 2.1.0 Sender OK\n', 'S: 250 2.1.5 Recipient OK\n'
AUTH = BEGINS['login'] + f'C: AUTH LOGIN {dialogue.USER}\n'
ASKED = BEGINS['envelope'] + dialogue.ASKED
TOO_EARLY = 'S: 503 5.5.1 Not yet\n'


def session(step, *lines):
    """Return a session in which these lines are the reply at a step."""
    said = ''.join(f'S: {line}\n' for line in lines)
    before, after = {
        'greeting': ('', ''),
        'ehlo': (GREETING + 'C: EHLO <name>\n', ''),
        'starttls': (GREETING + EHLO + 'C: STARTTLS\n', ''),
        'ehlo2': (BEGINS['tls'] + 'C: EHLO <name>\n', ''),
        # 501 and 504 may mean that the name is not wanted on this line
        'auth': (AUTH + f'{said}C: AUTH LOGIN\n' * (
            lines[-1][:3] in ('501', '504')), ''),
        'password': (AUTH + 'S: 334 UGFzc3dvcmQ6\nC: ********\n', ''),
        'mail': (ASKED, 2 * TOO_EARLY),
        'rcpt': (ASKED + MAILED, TOO_EARLY),
        'data': (ASKED + MAILED + ACCEPTED, ''),
        'dot': (BEGINS['dot'], ''),
    }[step]
    if lines[-1].startswith('421'):
        return before + said + '-- closes\n'
    goodbye = 'S: 221 2.0.0 Bye\n' if step == 'dot' else QUIT
    return before + said + after + goodbye


@pytest.mark.parametrize('row', [
    pytest.param(row, id=name) for name, row in tables.read('refusals')])
def test_row(row, play):
    """The words, the exit code, whose turn it is, and what to do."""
    reply, says, never = (row.get(key, '').strip('\n').split('\n')
                          for key in ('reply', 'says', 'not'))
    result, _ = play(session(row['step'], *reply))
    checks.check(result, int(row['exit']), who=row['who'])
    for word in says:
        assert word.lower() in result.advice.lower(), result.err
    for word in filter(None, never):
        assert word.lower() not in result.said.lower(), result.err
    quoted = sum(map(len, reply)) < 500
    for line in reply if quoted else [reply[0][:60], reply[-1][-60:]]:
        assert cli.on_one_line(line) in cli.on_one_line(result.said)
    check_advice(result)


def check_advice(result):
    """Short lines, three at most, after the reply."""
    found = cli.ADVICE.search(result.said)
    assert found
    advice = result.said[found.start():].rstrip('\n').split('\n')
    assert len(advice) <= 3, result.err
    assert max(map(len, advice)) <= 79, result.err


@pytest.mark.parametrize('step, reply, code',
                         tables.rows('replies', 'exit codes'))
def test_exit_code(step, reply, code, play):
    """The first rule that fits: 4yz, login or permission, recipient, size."""
    result, _ = play(session(step, reply))
    checks.check(result, int(code), reply)
    check_advice(result)


@pytest.mark.parametrize('step, lines', [
    *((step, [*(f'550-{number}: {"x" * 90}' for number in range(29)),
              '550 29: the end'])
      for step in ('greeting', 'password', 'rcpt', 'dot')),
    *(('dot', [f'550 0: {"x" * length}29: the end'])
      for length in (3000, 8000))], ids=lambda value: str(value)[:8])
def test_a_long_reply_keeps_both_ends(step, lines, play):
    """The reason often comes last; the whole of it is in the transcript."""
    result, _ = play(session(step, *lines), '-v')
    checks.check(result, result.code, lines[0][:10], '29: the end')
    assert result.code in (REFUSED, LOGIN, RECIPIENT)
    assert 'S: 550-15: ' not in result.said
    assert [line for line in result.lines if ': 550' in line] == [
        f'S: {line}' for line in lines]
    assert len(result.said) < 1400


@pytest.mark.parametrize('word', [
    'blocked using ', 'blocked ', 'quota ', 'mailbox full ', 'password ',
    'user ', 'user unknown ', 'http://', 'a.', '5.7.1 ', '<a@', '[', 'spam ',
    'not logged in ', 'relay ', 'client host [', 'sender address rejected ',
    'try again ', ' ', '-', ';', ': '])
def test_no_reply_costs_time(word, play):
    """64 kB of one word: the patterns look at a piece of it."""
    line = (word * 8000)[:8000]
    begun = time.monotonic()
    for step in ('password', 'rcpt', 'dot'):
        result, _ = play(session(step, *[f'550-{line}'] * 7, f'550 {line}'))
        assert result.code in (REFUSED, LOGIN, RECIPIENT), result.err
    assert time.monotonic() - begun < 2
