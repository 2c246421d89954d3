"""Refusals: every row of data/refusals.ini, at its step of a session.

The error has the server's words, the exit code of the rule, whose turn it is
and what to do; and the session ends as it should after a refusal.
"""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from support import checks, cli, dialogue, tables
from support.checks import LOGIN, MESSAGE, RECIPIENT, REFUSED
from support.dialogue import BEGINS, EHLO, GREETING, QUIT

ROWS = tables.read('refusals')
MANY = [f'r{number}@example.org' for number in range(15)]
MAILED, ACCEPTED = 'S: 250 2.1.0 Sender OK\n', 'S: 250 2.1.5 Recipient OK\n'
CONNECTED = GREETING + EHLO
AUTH = f'C: AUTH LOGIN {dialogue.USER}\n'
TOO_EARLY = 'S: 503 5.5.1 Not yet\n'


def session(step: str, *lines: str) -> str:
    """Return a session in which these lines are the reply at a step."""
    said = ''.join(f'S: {line}\n' for line in lines)
    before, after = {
        'greeting': ('', ''),
        'ehlo': (GREETING + 'C: EHLO <name>\n', ''),
        'starttls': (CONNECTED + 'C: STARTTLS\n', ''),
        'ehlo2': (BEGINS['tls'] + 'C: EHLO <name>\n', ''),
        # 501 and 504 may mean that the name is not wanted on this line
        'auth': (BEGINS['login'] + AUTH + f'{said}C: AUTH LOGIN\n' * (
            lines[-1][:3] in ('501', '504')), ''),
        'password': (BEGINS['login'] + AUTH
                     + 'S: 334 UGFzc3dvcmQ6\nC: ********\n', ''),
        'mail': (BEGINS['envelope'] + dialogue.ASKED, 2 * TOO_EARLY),
        'rcpt': (BEGINS['envelope'] + dialogue.ASKED + MAILED, TOO_EARLY),
        'data': (BEGINS['envelope'] + dialogue.ASKED + MAILED + ACCEPTED, ''),
        'dot': (BEGINS['dot'], ''),
    }[step]
    if lines[-1].startswith('421'):
        return before + said + '-- closes\n'
    goodbye = 'S: 221 2.0.0 Bye\n' if step == 'dot' else QUIT
    return before + said + after + goodbye


def lines_of(value: str) -> list[str]:
    """Return the lines of a value in the table."""
    return [line for line in value.strip().split('\n') if line]


@pytest.mark.parametrize('row', [row for _, row in ROWS],
                         ids=[name for name, _ in ROWS])
def test_row(row: dict[str, str], play: Any) -> None:
    """The words, the exit code, whose turn it is, and what to do."""
    reply = lines_of(row['reply'])
    result, _ = play(session(row['step'], *reply))
    checks.check(result, int(row['exit']), who=row['who'])
    for word in lines_of(row.get('says', '')):
        assert word.lower() in result.advice.lower(), result.err
    for word in lines_of(row.get('not', '')):
        assert word.lower() not in result.said.lower(), result.err
    said, quoted = ' '.join(result.said.split()), sum(map(len, reply)) < 500
    for line in reply if quoted else [reply[0][:60], reply[-1][-60:]]:
        assert ' '.join(line.split()) in said, result.err
    check_advice(result)


def check_advice(result: cli.Result) -> None:
    """Short lines, three at most, after the reply."""
    found = cli.ADVICE.search(result.said)
    assert found
    advice = result.said[found.start():].rstrip('\n').split('\n')
    assert len(advice) <= 3, result.err
    assert max(map(len, advice)) <= 79, result.err


def test_the_table_has_every_kind() -> None:
    """Every step that smtp.py gives advice for, and everyone who can act."""
    assert {row['step'] for _, row in ROWS} >= {
        'greeting', 'ehlo', 'starttls', 'auth', 'password', 'mail', 'rcpt',
        'dot'}
    assert {row['who'] for _, row in ROWS} == {
        'You', 'Your administrator', 'Wait'}
    assert len(ROWS) > 60


@pytest.mark.parametrize('step, reply, code', [
    ('greeting', '554 5.3.2 No mail service here', REFUSED),
    ('ehlo', '502 5.5.2 Command not implemented', REFUSED),
    ('ehlo2', '550 5.7.1 Not you', LOGIN),
    ('ehlo2', '421 4.3.0 Busy', checks.LATER),
    ('starttls', '571 No', REFUSED),
    ('auth', '500 5.5.1 What?', LOGIN),
    ('password', '554 5.0.0 No', LOGIN),
    ('password', '599 No', LOGIN),
    ('mail', '530 Log in first', LOGIN),
    ('mail', '538 Encrypt first', LOGIN),
    ('mail', '535 No', LOGIN),
    ('mail', '552 Too much', MESSAGE),
    ('mail', '552 5.2.2 Your mailbox is full', REFUSED),
    ('mail', '550 5.17.0 No', REFUSED),
    ('rcpt', '534 No', LOGIN),
    ('rcpt', '550 5.7.1 No', LOGIN),
    ('rcpt', '552 5.3.4 Too much', RECIPIENT),
    ('rcpt', '599 No', RECIPIENT),
    ('rcpt', '471 5.7.1 Not now', checks.LATER),
    ('data', '554 5.5.1 No', REFUSED),
    ('data', '451 4.3.0 Not now', checks.LATER),
    ('dot', '552 5.3.4 Too much', MESSAGE),
    ('dot', '552 4.2.2 Full', REFUSED),
    ('dot', '552 5.2.2 Full', REFUSED),
    ('dot', '550 5.7.26 Not authenticated', LOGIN),
    ('dot', '400 5.7.0 Not now', checks.LATER),
])
def test_exit_code(step: str, reply: str, code: int, play: Any) -> None:
    """The first rule that fits: 4yz, login or permission, recipient, size."""
    result, _ = play(session(step, reply))
    checks.check(result, code, reply)
    check_advice(result)


@pytest.mark.parametrize('step', ['greeting', 'password', 'rcpt', 'dot'])
def test_a_long_reply_keeps_both_ends(step: str, play: Any) -> None:
    """The reason often comes last; the whole of it is in the transcript."""
    lines = [f'550{"-" if number < 29 else " "}{number}: ' + 'x' * 90
             for number in range(30)]
    result, _ = play(session(step, *lines), '-v')
    checks.check(result, result.code, '550-0: xxx', '550 29: xxx')
    assert result.code in (REFUSED, LOGIN, RECIPIENT)
    assert 'S: 550-15: ' not in result.said
    assert [line for line in result.lines if ': 550' in line] == [
        f'S: {line}' for line in lines]
    assert len(result.said) < 1400


@pytest.mark.parametrize('length', [3000, 8000])
def test_a_long_line_keeps_both_ends(length: int, play: Any) -> None:
    """The same within one line."""
    result, _ = play(session('dot', f'550 The beginning{"x" * length}the end'))
    checks.check(result, REFUSED, '550 The beginning', 'the end')
    assert len(result.said) < 1400


def test_of_many_refused_recipients_ten_are_listed(play: Any) -> None:
    """The others are counted."""
    told = BEGINS['envelope'] + (
        'C: MAIL FROM:<alice@example.com> SIZE=<size>\n'
        + ''.join(f'C: RCPT TO:<{to}>\n' for to in MANY) + 'C: DATA\n'
        + MAILED + ''.join(f'S: 550 5.1.1 {to} is unknown\n' for to in MANY)
        + TOO_EARLY + QUIT)
    result, _ = play(told)
    checks.check(result, RECIPIENT, r'\b5 (more|others)\b', who='You')
    for to in MANY[:10]:
        assert f'550 5.1.1 {to} is unknown' in result.said
    assert MANY[10] not in result.said


@pytest.mark.parametrize('word', [
    'blocked using ', 'blocked ', 'quota ', 'mailbox full ', 'password ',
    'user ', 'user unknown ', 'http://', 'a.', '5.7.1 ', '<a@', '[', 'spam ',
    'not logged in ', 'relay ', 'client host [', 'sender address rejected ',
    'try again ', ' ', '-', ';', ': '])
def test_no_reply_costs_time(word: str, play: Any) -> None:
    """64 kB of one word: the patterns look at a piece of it."""
    line = (word * 8000)[:8000]
    begun = time.monotonic()
    for step in ('password', 'rcpt', 'dot'):
        result, _ = play(session(step, *[f'550-{line}'] * 7, f'550 {line}'))
        assert result.code in (REFUSED, LOGIN, RECIPIENT), result.err
    assert time.monotonic() - begun < 2


def test_all_recipients_are_listed_with_their_replies(play: Any) -> None:
    """The accepted one is not among them, and nothing went to it."""
    told = BEGINS['envelope'] + (
        'C: MAIL FROM:<alice@example.com> SIZE=<size>\n'
        'C: RCPT TO:<bob@example.org>\nC: RCPT TO:<carol@example.org>\n'
        'C: RCPT TO:<dave@example.org>\nC: DATA\n' + MAILED
        + 'S: 450-4.2.0 Busy\nS: 450 4.2.0 See you\n' + ACCEPTED
        + 'S: 550 5.1.1 No such user\nS: 354 Go on\n')
    result, player = play(told)
    checks.check(result, RECIPIENT, 'bob@example.org.*450-4.2.0 Busy',
                 '450 4.2.0 See you', 'dave@example.org.*550 5.1.1 No such',
                 absent=['carol', 'Wait:'], who='You')
    assert not player.dot_received
    assert not re.search('C: QUIT', '\n'.join(result.lines))
