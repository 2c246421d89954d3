"""--quit-after: how far a session goes, what is asked for it, what it says."""

import pathlib
import re
from typing import Dict, List, Tuple

import pytest
from sessions import (
    EHLO,
    GREETING,
    LOGIN,
    OPENING,
    QUIT,
    SECOND_EHLO,
    TLS,
    Done,
    Play,
    ehlo,
)

WITHOUT_SIZE = re.compile(r'S: 250-SIZE \d+\n')
REACHED: Dict[str, Tuple[str, List[str]]] = {
    'connect': (GREETING, []),
    'ehlo': (GREETING + EHLO, []),
    'tls': (GREETING + EHLO + TLS, []),
    'auth': (OPENING + LOGIN, ['-u', 'alice@example.com']),
    'mail': (OPENING + LOGIN + 'C: MAIL FROM:<alice@example.com>\n'
             'S: 250 2.1.0 Sender OK\n', ['-f', 'alice@example.com']),
    'rcpt': (OPENING + LOGIN + 'C: MAIL FROM:<alice@example.com>\n'
             'C: RCPT TO:<bob@example.org>\nC: RCPT TO:<carol@example.org>\n'
             'S: 250 2.1.0 Sender OK\nS: 250 2.1.5 ok\nS: 250 2.1.5 ok\n',
             ['-f', 'alice@example.com', '-t', 'bob@example.org',
              '-b', 'carol@example.org']),
}
WORDS = {'connect': 'connect|greeting', 'ehlo': 'ehlo|hello',
         'tls': 'tls|encrypt', 'auth': 'auth|log', 'mail': 'mail|sender',
         'rcpt': 'rcpt|recipient'}


def check_stopped(done: Done, step: str) -> None:
    """Nothing was sent, which is what was wanted; the result says how far."""
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''
    assert re.search(
        rf'(?im)^smtp\.py: Not sent: .*\b({WORDS[step]})', done.stderr)


@pytest.mark.parametrize('step', REACHED)
def test_quit_after(step: str, play: Play) -> None:
    """Nothing is asked for that is not needed, and QUIT is said."""
    said, options = REACHED[step]
    secret = None if step in ('connect', 'ehlo', 'tls') else 'open sesame'
    done, _ = play(WITHOUT_SIZE.sub('', said) + QUIT, '-q', step, *options,
                   password=secret)
    check_stopped(done, step)


@pytest.mark.parametrize('step', ['connect', 'ehlo', 'tls', 'auth'])
def test_quit_after_with_implicit_tls(step: str, play: Play) -> None:
    """TLS comes first here; the goodbye is the same."""
    said, options = REACHED[step]
    begins = said.replace(EHLO, '' if TLS in said else SECOND_EHLO)
    secret = 'open sesame' if step == 'auth' else None
    done, _ = play('-- TLS begins\n' + begins.replace(TLS, '') + QUIT,
                   '-q', step, '--tls', 'implicit', *options, password=secret)
    check_stopped(done, step)


@pytest.mark.parametrize('step', ['connect', 'ehlo', 'mail', 'rcpt'])
def test_quit_after_without_tls(step: str, play: Play) -> None:
    """Neither TLS nor a login, so no password."""
    said, options = REACHED[step]
    for part in TLS, SECOND_EHLO, LOGIN:
        said = said.replace(part, '')
    done, _ = play(WITHOUT_SIZE.sub('', said) + QUIT, '-q', step,
                   '--tls', 'none', *options)
    check_stopped(done, step)


def test_quit_after_does_not_invent_a_size(play: Play) -> None:
    """There is no message, so MAIL does not say how large it is."""
    said, options = REACHED['mail']
    done, _ = play(said + QUIT, '-q', 'mail', *options, password='open sesame')
    check_stopped(done, 'mail')


def test_quit_after_rcpt_says_who_was_refused(play: Play) -> None:
    """Recipients are checked, each of them, and nothing is sent."""
    said, options = REACHED['rcpt']
    refused = WITHOUT_SIZE.sub('', said).replace(
        'S: 250 2.1.5 ok\n', 'S: 550 5.1.1 No such user here\n', 1)
    done, player = play(refused + QUIT, '-q', 'rcpt', *options,
                        password='open sesame')
    assert done.returncode == 67
    assert 'bob@example.org' in done.stderr
    assert 'No such user here' in done.stderr
    assert 'carol@example.org' not in done.stderr
    assert player.message is None


@pytest.mark.parametrize('offered', [True, False])
def test_quit_after_rcpt_with_letters_beyond_ascii(offered: bool, play: Play
                                                   ) -> None:
    """Such an address asks for SMTPUTF8, even where there is no message."""
    session = GREETING + ehlo(*['SMTPUTF8'] * offered)
    if offered:
        session += ('C: MAIL FROM:<alice@example.com> SMTPUTF8\n'
                    'S: 250 2.1.0 Sender OK\n'
                    'C: RCPT TO:<jürgen@example.org>\nS: 250 2.1.5 ok\n')
    done, _ = play(session + QUIT, '-q', 'rcpt', '--tls', 'none',
                   '-f', 'alice@example.com', '-t', 'jürgen@example.org')
    if offered:
        check_stopped(done, 'rcpt')
    else:
        assert done.returncode == 69
        assert 'does not offer SMTPUTF8' in done.stderr


def test_quit_after_auth_says_that_the_password_is_wrong(play: Play) -> None:
    """A password is checked."""
    said, options = REACHED['auth']
    done, _ = play(
        said.replace('S: 235 2.7.0 Welcome', 'S: 535 5.7.8 Go away') + QUIT,
        '-q', 'auth', *options, password='open sesame')
    assert done.returncode == 77
    assert 'Go away' in done.stderr


@pytest.mark.parametrize('step', ['auth', 'mail', 'rcpt'])
def test_quit_after_takes_addresses_from_a_message(
        step: str, play: Play, tmp_path: pathlib.Path) -> None:
    """--message says who sends and who receives, so that is not asked for."""
    path = tmp_path / 'letter.eml'
    path.write_bytes(b'From: Alice <alice@example.com>\r\n'
                     b'To: bob@example.org\r\nBcc: carol@example.org\r\n'
                     b'Subject: Greetings\r\n\r\nHello Bob!\r\n')
    said = re.sub(r'(MAIL FROM:<\S+>)\n', r'\1 SIZE=<size>\n',
                  REACHED[step][0])
    done, _ = play(said + QUIT, '-q', step, '--message', str(path),
                   password='open sesame')
    check_stopped(done, step)
