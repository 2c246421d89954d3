"""Where passwords and tokens never go.

They come from --password-command, from $SMTP_PASSWORD or $SMTP_ACCESS_TOKEN,
or from a person at the terminal. They go to the server, inside TLS, and to no
output, no exception, no traceback, no other program and no list of processes.

A promise has its limits: the environment that a process was started with can
be read in /proc/PID/environ by its own user, and by root, as long as it runs.
No program can take that back; --password-command leaves nothing there.
"""

from __future__ import annotations

import base64
import io
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import pytest

import smtp
from support import checks, cli, dialogue
from support.checks import LOGIN, SENT, SETTINGS
from support.dialogue import BEGINS, QUIT
from support.post import ALICE, BASIC, BOB, CAROL, MAIL, PASSWORD, TOKEN

VARIABLES = {'SMTP_PASSWORD': PASSWORD, 'SMTP_ACCESS_TOKEN': TOKEN}
INFO = {'From': ALICE, 'To': [BOB, CAROL], 'Subject': 'x'}
POSIX = pytest.mark.skipif(os.name == 'nt', reason='needs a POSIX shell')


# ------------------------------------------------------------ the environment


def test_variables_are_gone_before_the_session(
        monkeypatch: Any, post: Any, call: Any) -> None:
    """They are read once; a program that is started later sees nothing."""
    seen: list[str] = []
    connect = cli.smtp.socket.socket.connect

    def spy(*arguments: Any) -> Any:
        seen.append(subprocess.run(
            [sys.executable, '-I', '-S', '-c', 'import os; print(os.environ)'],
            stdout=subprocess.PIPE, check=True, encoding='utf-8').stdout)
        return connect(*arguments)
    monkeypatch.setattr('socket.socket.connect', spy)
    checks.check(call(*MAIL, *post.options, env=VARIABLES), SENT)
    assert seen and 'PATH' in seen[0]
    checks.hidden(seen, PASSWORD, TOKEN)
    assert 'SMTP_' not in seen[0]


@pytest.mark.parametrize('args', [
    ['--nonsense'], ['--version'], ['-n', '--body', 'x'], [*MAIL, '-n'],
    [*BASIC, '-t', 'nobody']], ids=lambda args: args[0])
def test_variables_are_removed_whatever_happens(args: list[str]) -> None:
    """By a usage error, too; a program that calls main() is not surprised."""
    code = ('import os, sys, smtp\ntry: smtp.main(sys.argv[1:])\n'
            'except SystemExit: pass\nprint([n for n in os.environ if '
            '"SMTP_" in n])')
    done = subprocess.run(
        [sys.executable, '-c', code, *args], stdin=subprocess.DEVNULL,
        env={**cli.clean(VARIABLES), 'PYTHONPATH': str(cli.ROOT)},
        capture_output=True, encoding='utf-8')
    assert done.stdout.split('\n')[-2] == '[]', done.stderr
    checks.harmless(done.stdout + done.stderr)


@pytest.mark.skipif(not os.path.exists('/proc/self/cmdline'),
                    reason='no /proc here')
def test_the_list_of_processes(start: Any, server_context: Any, ca_file: str
                               ) -> None:
    """While it logs in, its command line and its children say nothing."""
    command = shlex.join([sys.executable, '-I', '-S', '-c',
                          "print('open-' + 'sesame')"])
    told = BEGINS['login'] + f'C: AUTH LOGIN {dialogue.USER}\n-- says nothing'
    with dialogue.playing(told, server_context) as player:
        process = start(*cli.reach(player.port, ca_file), *MAIL, '-v',
                        '--password-command', command)
        cli.wait_until(lambda: any('C: AUTH' in line
                                   for line in player.played), 'the login')
        folder = pathlib.Path(f'/proc/{process.pid}')
        for name in ('cmdline', 'environ', 'comm'):
            assert PASSWORD.encode() not in (folder / name).read_bytes()
        process.kill()


@POSIX
@pytest.mark.parametrize('name', VARIABLES)
def test_a_secret_that_is_not_utf8(name: str, post: Any, run: Any) -> None:
    """Nobody knows what to send then: 78, and not a traceback."""
    result = run(*post.options, *MAIL, env={name: os.fsdecode(b'hunter\xff2')})
    checks.check(result, SETTINGS, 'UTF-8', absent='hunter')


# ------------------------------------------------------ errors and tracebacks


@pytest.mark.parametrize('refusal, extras', [
    ('password=535 5.7.3 {echo}', {}),
    ('password=535 5.7.3 {echo}', {'auth': 'xoauth2'}),
    ('mail=550 5.7.60 {echo}', {}), ('rcpt=550 5.1.1 {echo}', {}),
    ('dot=554 5.2.0 {echo}', {}), ('data=451 4.3.0 {echo}', {}),
    ('', {'port': 1}), ('', {'ca_file': '/missing'}), ('', {'auth': 'plain'}),
    ('', {'server': '127.0.0.1', 'ca_file': None}),
], ids=str)
def test_nothing_in_an_error(refusal: str, extras: dict[str, Any], post: Any
                             ) -> None:
    """However it fails, neither the error nor its causes know the secret."""
    token = extras.get('auth') == 'xoauth2'
    secret = TOKEN if token else PASSWORD
    response = f'user={ALICE}\1auth=Bearer {TOKEN}\1\1' if token else PASSWORD
    encoded = base64.b64encode(response.encode()).decode()
    if refusal:
        post.refuse(refusal.format(echo=f'{secret} {encoded}'))
    shown = io.StringIO()
    session = {**post.session, 'transcript': smtp.Transcript(shown), **extras}
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, INFO, 'x', **session)
    outputs = [shown.getvalue(), *checks.all_of(caught.value)]
    checks.hidden(outputs, secret)
    assert not any(encoded[:-4] in output for output in outputs)


@pytest.mark.parametrize('secret', ['hunter-\udcff2', '\ud83d', '\udcff'],
                         ids=ascii)
@pytest.mark.parametrize('auth', ['auto', 'xoauth2'])
def test_a_secret_that_is_not_text(secret: str, auth: str, post: Any) -> None:
    """A documented error, which does not know it either."""
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, INFO, 'x', auth=auth, **post.session)
    assert caught.value.exit_code == SETTINGS
    for text in checks.all_of(caught.value):
        assert ascii(secret)[1:-1] not in text
        assert 'hunter' not in text


@pytest.mark.parametrize('auth', ['login', 'plain', 'xoauth2'])
def test_a_user_name_that_is_not_text(auth: str, post: Any) -> None:
    """The error about it does not quote what stands beside it."""
    secret = '-'.join(['hunter', '2'])  # a traceback quotes the source
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, INFO, 'Hello!', auth=auth,
                       user=os.fsdecode(b'al\xffice'), **post.session)
    assert not any(secret in text for text in checks.all_of(caught.value))


# -------------------------------------------------------- what a server echoes


@pytest.mark.parametrize('auth', ['login', 'plain', 'xoauth2'])
def test_an_echo_cut_short(auth: str, play: Any) -> None:
    """A server repeats the beginning of what it heard, from 8 characters."""
    secret = 'correct horse battery staple'
    response = {'login': secret, 'plain': f'\0{ALICE}\0{secret}',
                'xoauth2': f'user={ALICE}\1auth=Bearer {secret}\1\1'}[auth]
    if auth == 'xoauth2':
        secret, response = (text.replace(' ', '-')
                            for text in (secret, response))
    encoded = base64.b64encode(response.encode()).decode()
    heard = 'C: ********\n' if auth == 'login' else \
        f'C: AUTH {auth.upper()} ********\n'
    first = f'C: AUTH LOGIN {dialogue.USER}\nS: 334 \n' * (auth == 'login')
    for length in (8, 9, 11, 17, len(encoded) - 1, len(encoded)):
        result, player = play(
            BEGINS['login'] + first + heard
            + f'S: 535 5.7.8 What is {encoded[:length]}?\n' + QUIT, '-v',
            '--auth', auth, password=None, env={
                'SMTP_ACCESS_TOKEN' if auth == 'xoauth2' else 'SMTP_PASSWORD':
                secret})
        checks.check(result, LOGIN, 'What is', absent=encoded[:8],
                     secrets=[secret])
        assert encoded[:8] not in result.err
        assert player.secrets == [secret.encode()]


def test_a_secret_that_begins_another(post: Any) -> None:
    """`open` and `open-sesame`, in one transcript: both are masked whole."""
    shown = io.StringIO()
    transcript = smtp.Transcript(shown)
    post.refuse(f'password=535 5.7.3 Is it {PASSWORD} or open?')
    for secret in ('open', PASSWORD):
        shown.truncate(shown.seek(0))
        with pytest.raises(smtp.SMTPException) as caught:
            smtp.smtp_send(secret, INFO, 'x', transcript=transcript,
                           **post.session)
        for output in (str(caught.value), shown.getvalue()):
            assert 'Is it' in output and 'open' not in output
    for output in (str(caught.value), shown.getvalue()):
        assert 'sesame' not in output


@pytest.mark.parametrize('where', ['334', '235', '250', '221'])
def test_echoes_of_later_secrets(where: str, play: Any) -> None:
    """Each reply of the login may hold the password; it is masked in all."""
    echo = dialogue.PASSWORD
    told = BEGINS['login'] + f'C: AUTH LOGIN {dialogue.USER}\n' + (
        f'S: 334 {echo * (where == "334")}\nC: ********\n'
        f'S: 235 {echo * (where == "235")}\n') + dialogue.ENVELOPE.replace(
            'Sender OK', f'Sender OK {echo * (where == "250")}'
        ) + dialogue.DOT + 'S: 250 2.0.0 Ok\nS: 221 ' + (
            echo * (where == '221')) + '\n'
    result, _ = play(told, '-v')
    checks.check(result, SENT)


# ---------------------------------------------------------------- the terminal


@POSIX
def test_the_prompt_shows_nothing(sit: Any, post: Any) -> None:
    """It asks on the terminal, without echo, even while the text is piped."""
    person = sit(*post.options, *BASIC, shell='echo Piped. | {}')
    person.types_hidden(PASSWORD)
    result = person.ends()
    assert result.code == 0, result.err
    assert PASSWORD not in result.err
    assert post.only().parse().get_content().strip() == 'Piped.'


@pytest.mark.parametrize('args', [
    ['--password', 'open-sesame'], ['--password=open-sesame'],
    ['--passwort=open-sesame'], ['-n', '--password', 'open-sesame', *MAIL]])
def test_a_password_on_the_command_line(args: list[str], call: Any) -> None:
    """It is refused, and not repeated: where else it can come from is."""
    result = call(*args)
    checks.check(result, checks.USAGE, '$SMTP_PASSWORD')


def test_an_error_of_ours_quotes_no_secret(call: Any, lookup: Any) -> None:
    """An error that nobody expects may have octets of a secret in it."""
    lookup(UnicodeDecodeError('utf-8', b'hunter-2\xff', 8, 9, 'bad'))
    result = call(*MAIL, password=PASSWORD)
    assert result.code != SENT
    checks.ended_well(result)
    assert 'hunter' not in result.err
