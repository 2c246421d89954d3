"""Where passwords and tokens never go.

They go to the server, inside TLS, and to no output, exception, traceback,
other program or list of processes.

A promise has its limits: the environment that a process was started with can
be read in /proc/PID/environ by its own user, and by root, as long as it runs.
No program can take that back; --password-command leaves nothing there.
"""

import base64
import io
import os
import pathlib
import shlex
import subprocess
import sys

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


def test_variables_are_gone_before_the_session(monkeypatch, post, call):
    """They are read once; a program that is started later sees nothing."""
    seen = []
    connect = cli.smtp.socket.socket.connect

    def spy(*arguments):
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
def test_variables_are_removed_whatever_happens(args):
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
def test_the_list_of_processes(start, server_context, ca_file):
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
def test_a_secret_that_is_not_utf8(name, post, run):
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
def test_nothing_in_an_error(refusal, extras, post):
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


@pytest.mark.parametrize('auth', ['auto', 'login', 'plain', 'xoauth2'])
@pytest.mark.parametrize('secret, user', [
    ('hunter-\udcff2', ALICE), ('\ud83d', ALICE), ('\udcff', ALICE),
    ('-'.join(['hunter', '2']), 'al\udcffice')], ids=ascii)
def test_a_secret_or_a_user_that_is_not_text(secret, user, auth, post):
    """A documented error, which knows neither, nor what is beside it."""
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, INFO, 'x', auth=auth, user=user, **post.session)
    if user == ALICE:
        assert caught.value.exit_code == SETTINGS
    for text in checks.all_of(caught.value):
        assert ascii(secret)[1:-1] not in text
        assert 'hunter' not in text


# -------------------------------------------------------- what a server echoes


@pytest.mark.parametrize('auth', ['login', 'plain', 'xoauth2'])
def test_an_echo_cut_short(auth, play):
    """A server repeats the beginning of what it heard, from 8 characters."""
    token = auth == 'xoauth2'
    secret = 'correct-horse-battery-staple'
    response = {'login': secret, 'plain': f'\0{ALICE}\0{secret}',
                'xoauth2': f'user={ALICE}\1auth=Bearer {secret}\1\1'}[auth]
    encoded = base64.b64encode(response.encode()).decode()
    heard = (f'C: AUTH LOGIN {dialogue.USER}\nS: 334 \nC: ********\n'
             if auth == 'login' else f'C: AUTH {auth.upper()} ********\n')
    for length in (8, 9, 11, 17, len(encoded) - 1, len(encoded)):
        result, player = play(
            BEGINS['login'] + heard
            + f'S: 535 5.7.8 What is {encoded[:length]}?\n' + QUIT, '-v',
            '--auth', auth, password=None, env={
                'SMTP_ACCESS_TOKEN' if token else 'SMTP_PASSWORD': secret})
        checks.check(result, LOGIN, 'What is', absent=encoded[:8],
                     secrets=[secret])
        assert encoded[:8] not in result.err
        assert player.secrets == [secret.encode()]


def test_a_secret_that_begins_another(post):
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
def test_echoes_of_later_secrets(where, play):
    """Each reply of the login may hold the password; it is masked in all."""
    told = (f'C: AUTH LOGIN {dialogue.USER}\nS: 334 \nC: ********\nS: 235 \n'
            + dialogue.ENVELOPE + dialogue.DOT + 'S: 250 \nS: 221 \n')
    told = BEGINS['login'] + told.replace(
        f'S: {where} ', f'S: {where} {dialogue.PASSWORD} ')
    result, _ = play(told, '-v')
    checks.check(result, SENT)


# ---------------------------------------------------------------- the terminal


def test_an_error_of_ours_quotes_no_secret(call, lookup):
    """An error that nobody expects may have octets of a secret in it."""
    lookup(UnicodeDecodeError('utf-8', b'hunter-2\xff', 8, 9, 'bad'))
    result = call(*MAIL, password=PASSWORD)
    assert result.code != SENT
    checks.ended_well(result)
    assert 'hunter' not in result.err
