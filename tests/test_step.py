"""--step: nothing is sent before Enter, `?` explains, `q` ends politely."""

import pathlib
import re
import ssl
import time
from typing import Any, Callable, List

import at_terminal
import pytest
import scripted
from at_terminal import (
    EHLO,
    ENVELOPE,
    MESSAGE,
    OPENING,
    PASSWORD,
    At,
    check_wire,
    verdicts,
)
from sessions import GREETING, LETTER, LOGIN, QUIT

import smtp

pytestmark = at_terminal.NEEDED


WAITS = r'--[^\n]*Enter[^\n]*q[^\n]*'


def test_step_sends_nothing_before_enter(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Each command is shown, and waits; then the mail is sent."""
    session = re.sub('S: 250 (STARTTLS|AUTH)', r'S: 250-PIPELINING\nS: 250 \1',
                     OPENING + LOGIN + ENVELOPE + MESSAGE + QUIT)
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *LETTER, SMTP_PASSWORD=PASSWORD)
        person.sees(WAITS)
        assert 'EHLO client.example.com' in person.seen
        until = time.monotonic() + 0.2
        while time.monotonic() < until:     # nothing happens by itself
            assert player.played == [GREETING.strip()]
            time.sleep(0.02)
        for command in ('STARTTLS', 'EHLO', 'AUTH LOGIN', r'\*{8}', 'MAIL',
                        'RCPT', 'DATA', 'Hello Bob!'):
            person.child.sendline('')
            person.sees(f'(?s){command}.*?\n{WAITS}')
        person.child.sendline('')
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Sent to']
    assert PASSWORD not in person.seen


STOPS = {   # how often Enter is pressed, and what the server has to hear then
    'EHLO': (0, GREETING + QUIT), 'STARTTLS': (1, GREETING + EHLO + QUIT),
    'AUTH': (3, OPENING + QUIT), 'MAIL': (5, OPENING + LOGIN + QUIT),
    # RFC 4954 section 4: a login is given up with an asterisk; anything else
    # would be taken for the password.
    'password': (4, OPENING + LOGIN.partition('C: *')[0]
                 + 'C: *\nS: 501 5.7.0 Given up\n' + QUIT),
    # After 354 everything is message: to hang up is all that is left.
    'message': (8, OPENING + LOGIN + ENVELOPE)}


@pytest.mark.parametrize('stop, option', [
    *((stop, '--step') for stop in STOPS),
    ('EHLO', '--explain'), ('MAIL', '--explain')])
def test_step_quits_politely(
        stop: str, option: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """After `q` comes QUIT, then exit 0 and "Not sent"."""
    number, session = STOPS[stop]
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           option, *LETTER, SMTP_PASSWORD=PASSWORD)
        for _ in range(number):
            person.types('', at=WAITS)
        person.types('q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Not sent:']
    if stop == 'message':
        assert 'C: QUIT' not in person.seen     # nobody hears it any more


def test_step_draws_what_was_sent(at_server: At,
                                  server_context: ssl.SSLContext) -> None:
    """A command that was shown but not sent is not in the picture."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--step', '--diagram', 'session.mmd',
                           '--ehlo', 'client.example.com', *LETTER,
                           SMTP_PASSWORD=PASSWORD)
        person.types('', 'q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    drawn = pathlib.Path(person.child.cwd, 'session.mmd').read_text('utf-8')
    assert re.findall(r'C->>S: (\w+)', drawn) == ['EHLO', 'QUIT']


@pytest.mark.parametrize('explain', [[], ['--explain']],
                         ids=['step', 'explain'])
def test_step_explains_when_asked(
        explain: List[str], at_server: At,
        server_context: ssl.SSLContext) -> None:
    """? explains the command that waits; then it waits again."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *explain, *LETTER, SMTP_PASSWORD=PASSWORD)
        for step in (smtp.say_hello, smtp.start_tls):
            person.types('?', at=WAITS)
            summary = (step.__doc__ or '').split('\n')[0]
            person.sees(re.escape(f'-- {summary}'))
            person.sees('RFC ')
            person.types('' if step is smtp.say_hello else 'q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    if not explain:
        assert 'it is about' not in person.seen


def test_deadlines_pause_while_a_person_thinks(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Only the server's time is limited."""
    session = GREETING + EHLO.replace('STARTTLS', 'HELP') + ENVELOPE \
        + MESSAGE + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--tls', 'none', '--ehlo',
                           'client.example.com', '--timeout', '0.3', *LETTER)
        for number in range(5):
            person.sees(WAITS)
            if number in (1, 4):
                time.sleep(0.4)     # the person thinks
            person.child.sendline('')
        assert person.ends() == 0, person.seen
    check_wire(player, person)


@pytest.mark.parametrize('what, wanted', [
    ('-- closes', '(?i)closed'),
    ('S: 421 4.4.2 Idle for too long\n-- closes', 'Idle for too long')])
def test_server_hangs_up_while_a_person_thinks(
        what: str, wanted: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """It is said, at the latest when the person goes on."""
    with scripted.playing(f'{GREETING}{EHLO}{what}\n',
                          server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *LETTER, SMTP_PASSWORD=PASSWORD)
        person.types('', at=WAITS)
        person.types('', at='STARTTLS[^.]*' + WAITS)
        assert person.ends() == 75
    assert re.search(wanted, person.seen)
    assert verdicts(person.seen) == ['Not sent:']


def test_step_with_the_result_in_a_pipe(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """The terminal to ask on is standard input, not standard output."""
    session = GREETING + EHLO + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--tls', 'none', '-q', 'ehlo',
                           '--ehlo', 'client.example.com', pipe=' | cat')
        person.types('', at=WAITS)
        person.sees('Not sent')
        person.sees('exit code 0')
        person.ends()
    check_wire(player, person)


def test_step_needs_a_terminal(run_smtp: Callable[..., Any]) -> None:
    """Nobody is there to press Enter."""
    done = run_smtp('--step', *LETTER, input='\n' * 20)
    assert done.returncode == 64
    assert '--step' in done.stderr and 'terminal' in done.stderr
