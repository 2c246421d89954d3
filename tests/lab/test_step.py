"""--step: the user may type the next command, and nothing is sent before."""

import re
import time

import pytest

import smtp
from support import checks, cli, dialogue
from support.dialogue import BEGINS, EHLO, GREETING, LOGIN, ONE_BY_ONE, TLS

PROMPT = ('-- Next command? (Enter: smtp.py sends it, ?: explain, q: quit) '
          '> ')
LETTER = dialogue.parse('').arguments()
MAIL = BEGINS['envelope'] + (
    'C: MAIL FROM:<alice@example.com> SIZE=<size>\nS: 250 2.1.0 Sender OK\n')
TO_MESSAGE = ONE_BY_ONE.partition('C: <')[0]
TO_QUIT = ONE_BY_ONE.partition('C: QUIT')[0]
CTRL_C, CTRL_D = '\x03', '\x04'
NOOP, LATER = 'C: NOOP\nS: 250 2.0.0 OK\n', 'S: 421 4.4.2 Idle\n-- closes\n'
# What is asked for: eight commands, the message, and QUIT.
ASKED = 'EHLO STARTTLS EHLO AUTH *** MAIL RCPT DATA From QUIT'.split()


@pytest.fixture
def at_step(sit, ca_file, server_context):
    """A function that types at each prompt; a number: so often Enter."""
    def at_step(told, *typed, options=(), slow=(), **more):
        lines = [line for each in typed for line in (
            [each] if isinstance(each, str) else [''] * each)]
        with dialogue.playing(told, server_context) as player:
            person = sit(*cli.reach(player.port, ca_file, 0.5 if slow else 10),
                         '--step', *LETTER, *options,
                         password=dialogue.PASSWORD, **more)
            for number, line in enumerate(lines):
                person.sees(re.escape(PROMPT))
                if number in slow:
                    played = list(player.played)
                    time.sleep(0.6)     # the user thinks
                    assert player.played == played
                if line in (CTRL_C, CTRL_D):
                    person.is_read()
                    person.child.send(line)
                else:
                    person.enters(line)
            result = person.ends()
        blocks = result.err.split(PROMPT)
        assert not player.mismatch, player.difference() + '\n' + result.err
        assert len(blocks) == len(lines) + 1, result.err
        checks.hidden([result.err], dialogue.PASSWORD)
        assert cli.VERDICT.findall(blocks[-1]) == [
            'Sent to ' if player.dot_received else 'smtp.py: Not sent: ']
        return result.code, blocks
    return at_step


@pytest.mark.parametrize('typed', [[10], [
    'ehlo', 'StartTLS', 'EHLO me.example', 'auth plain AGE=', 1,
    'mail FROM:<carol@example.org>', 'rcpt', 'DATA now', 1, 'quit']])
def test_the_next_command(typed, at_step):
    """Enter, or its verb in any case, sends it, however late; it is shown."""
    code, blocks = at_step(ONE_BY_ONE, *typed, slow=(0, 8), pipe='| cat')
    assert 'exit code 0' in blocks[-1] and 'C: ' not in blocks[0]
    for command, block in zip(ASKED, blocks[1:]):
        assert re.match(rf'.*\nC: {re.escape(command)}', block), block


@pytest.mark.parametrize('told, typed, code', [
    # any other command is sent, its reply shown, and the prompt comes again
    (ONE_BY_ONE.replace(EHLO, NOOP + EHLO), ['NOOP', 10], 0),
    (ONE_BY_ONE.replace(LOGIN, 'C: DATA\nS: 503 5.5.1 MAIL first\n'
                        'C: vrfy  Bob\nS: 252 2.0.0 Maybe\n' + LOGIN),
     [3, 'DATA', 'vrfy  Bob', 7], 0),
    (ONE_BY_ONE.replace('C: RCPT', NOOP + 'C: RCPT').replace(
        'C: DATA', NOOP + 'C: DATA').replace('C: QUIT', NOOP + 'C: QUIT'),
     [6, 'NOOP', 1, 'NOOP', 2, 'NOOP', 1], 0),
    # a MAIL is undone at once if it is accepted
    (ONE_BY_ONE.replace(LOGIN, 'C: MAIL FROM:<x@example.com>\nS: 530 5.7.0 No'
                        '\nC: mail x\nS: 250 ok\nC: RSET\nS: 250 ok\n'
                        + LOGIN),
     [3, 'MAIL FROM:<x@example.com>', 'mail x', 7], 0),
    # the extensions are those of the EHLO that smtp.py sent
    (ONE_BY_ONE.replace(TLS, 'C: HELO x\nS: 250 hello\n' + TLS).replace(
        LOGIN, 'C: EHLO x\nS: 250-hello\nS: 250 AUTH PLAIN\n' + LOGIN),
     [1, 'HELO x', 2, 'EHLO x', 7], 0),
    # a 3yz to it hangs up, whatever it is
    (MAIL + 'C: DATA\nS: 354 Go on\n', [6, 'DATA'], 64),
    (GREETING + 'C: XYZ\nS: 350 Go on\n', ['XYZ'], 64),
    # the server ends the session, or does not keep to SMTP
    (GREETING + 'C: NOOP\n' + LATER, ['NOOP'], 75),
    (GREETING + 'C: NOOP\n-- closes\n', ['NOOP'], 75),
    (GREETING + 'C: NOOP\nS: 25 ok\n', ['NOOP'], 76),
    (GREETING + EHLO + LATER, [2], 75),
    (GREETING + EHLO + '-- closes\n', [2], 75),
    (GREETING + EHLO + 'S: 250 2.0.0 By the way\n', [2], 76),
    (TO_QUIT + 'C: NOOP\n' + LATER, [9, 'NOOP'], 0),
    # the end, as with Ctrl-C; after the 250 it is the end of a success
    (GREETING, ['q'], 130), (GREETING, [CTRL_C], 130),
    (GREETING + EHLO, [1, 'Quit'], 130), (MAIL, [6, CTRL_D], 130),
    (BEGINS['login'] + LOGIN.partition('C: *')[0], [4, 'Q'], 130),
    (TO_MESSAGE, [8, 'q'], 130), (TO_QUIT, [9, 'q'], 0),
    (TO_QUIT, [9, CTRL_C], 0)])
def test_other_commands(told, typed, code, at_step):
    """They are sent as typed, and shown; the verdict stays true."""
    ended, blocks = at_step(told, *typed)
    assert ended == code, blocks
    shown = re.findall('(?m)^[CS]: [^<#\n]*?(?=   #|$)', ''.join(blocks))
    assert not set(re.findall('(?m)^[CS]: [^<#\n]*$', told)) - set(shown)


@pytest.mark.parametrize('before, typed', [
    (0, 'AUTH PLAIN AGE='), (0, 'starttls'), (0, 'BDAT 5 LAST'), (0, 'bdat'),
    (0, 'NOOP \xe9'), (0, 'NOOP \x1b[1m'), (3, 'starttls'), (4, 'NOOP'),
    (4, 'RSET'), (8, 'NOOP'), (8, 'RSET'), (6, 'EHLO x'), (6, 'helo x'),
    (6, 'MAIL FROM:<x@example.com>'), (6, 'rset'), (7, 'Ehlo x'), (7, 'MAIL'),
    (7, 'RCPT TO:<x@example.com>'), (7, 'RSET')])
def test_not_now(before, typed, at_step):
    """What would change what smtp.py knows is refused in one line."""
    code, blocks = at_step(ONE_BY_ONE, before, typed, 10 - before)
    assert len(re.findall('(?m)^-- Not now: .+$', blocks[before + 1])) == 1


@pytest.mark.parametrize('options', [[], ['--explain']])
def test_narration_in_its_place(options, at_step):
    """? says what Enter sends, and why; --explain does so after Enter."""
    _, blocks = at_step(ONE_BY_ONE.replace(EHLO, NOOP + EHLO), 'NOOP', '?', 4,
                        '?', 6, options=options)
    summary = f'-- {(smtp.say_hello.__doc__ or "").partition(chr(10))[0]}\n'
    assert summary in blocks[2] and '-- Enter sends: EHLO ' in blocks[2]
    assert '-- Enter sends: ********\n' in blocks[7]
    assert 'C: ' not in blocks[2] + blocks[7]
    for block in blocks[1], blocks[3].partition('C: EHLO')[0]:
        assert (summary in block) == (bool(options) and block != blocks[1])


def test_lines_that_cannot_be_read(at_step, call):
    """A line that the terminal cut is not sent; without one it is 64."""
    code, blocks = at_step(GREETING + dialogue.QUIT, 'NOOP ' + 'x' * 4095, 1)
    assert code == 64 and 'terminal' in blocks[2]
    result = call('--step', *LETTER, stdin=b'\n' * 20)
    checks.check(result, 64, '--step needs a terminal')
