"""--explain: a step in the words of its docstring, a reply in plain ones."""

import inspect
import re

import pytest

import smtp
from support import dialogue
from support.cli import on_one_line
from support.dialogue import GREETING, LOGIN, ONE_BY_ONE, QUIT

# The functions beside the session in the module docstring.
STEPS = set(re.findall(r'(?m)^    \S.*? {2,}([a-z]+_[a-z_]+)\b',
                       (smtp.__doc__ or '').partition('Contents')[0]))
IMPLICIT = '-- TLS begins\n' + GREETING + dialogue.SECOND_EHLO + LOGIN \
    + ONE_BY_ONE[len(dialogue.BEGINS['envelope']):]


@pytest.mark.parametrize('name', sorted(STEPS - {'open_socket'} | {
    'encrypt'}))
def test_it_is_the_docstring(name, play):
    """Right before the first line of its step, and with its RFC."""
    result, _ = play(IMPLICIT if name == 'encrypt' else ONE_BY_ONE,
                     '--explain')
    document = inspect.getdoc(getattr(smtp, name, None)
                              or getattr(smtp.Connection, name))
    text = on_one_line(re.split('\n\n(?:[CS]: |Args:|Raises:)', document)[0])
    assert re.search(r'RFC \d{4},? sections? \d', text)
    _, *told = on_one_line(result.err.replace('\n--', '')).split(text)
    assert len(told) == (2 if name == 'say_hello' else 1)
    first, = re.findall('(?m)^([CS]: [A-Z0-9]+)', document)[:1] or ['TLS']
    assert all(each.strip().startswith(first) for each in told)


def test_words_of_the_server(play):
    """What extensions mean, in any case, and the digits of replies; once."""
    replies = {
        '251 2.1.5': 'X.1.X: about an address',
        '450 4.2.1': '4yz: not now X.2.X: about a mailbox',
        '451 4.3.0': 'X.3.X: about the mail system',
        '452 4.4.5': 'X.4.X: about the network',
        '501 5.5.4': '5yz: no x0z: about the syntax X.5.X: about the protocol',
        '530 5.7.0': 'x3z: about the login X.7.X: about security or policy',
        '554 5.6.0': 'X.6.X: about the message itself', '571 5.0.0': ''}
    session = GREETING + dialogue.ehlo(
        'SIZE 0', '8BITMIME', 'smtputf8', 'DSN', 'AUTH=LOGIN',
        'X-ANONYMOUSTLS') + (
            'C: MAIL FROM:<alice@example.com> SIZE=<size>\n'
            'S: 250 Without a status\n')
    for reply in replies:
        session += f'C: RCPT TO:<x{reply[:3]}@example.org>\nS: {reply} x\n'
    result, _ = play(session + QUIT, '--explain', '--tls', 'none')

    def told(after):
        part = result.err[result.err.index(after):].partition('\nC: ')[0]
        return on_one_line(' '.join(re.findall('(?m)^--(.*)', part)))
    for words in ('SIZE: .*octets', '8BITMIME: .*ASCII', 'SMTPUTF8: .*ASCII',
                  'DSN: .*not used', 'AUTH: .*log in'):
        assert re.search(f'(?m)^-- {words}', result.err), words
    assert 'X-ANONYMOUSTLS:' not in result.err
    for reply, meaning in replies.items():
        assert told(f'S: {reply}').partition('Close')[0].strip() == meaning
