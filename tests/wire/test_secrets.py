"""Passwords and tokens go to the server, inside TLS, and nowhere else.

The limit: /proc/PID/environ shows what a process was started with to its own
user, and to root; --password-command leaves nothing there.
"""

import base64
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import smtp
from support import checks, cli, dialogue
from support.checks import SENT, SETTINGS
from support.dialogue import BEGINS, LOGIN, QUIT
from support.post import ALICE, BASIC, BOB, CAROL, MAIL, PASSWORD, TOKEN

VARIABLES = {'SMTP_PASSWORD': PASSWORD, 'SMTP_ACCESS_TOKEN': TOKEN}
INFO = {'From': ALICE, 'To': [BOB, CAROL], 'Subject': 'x'}


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


@pytest.mark.skipif(os.name == 'nt', reason='needs a POSIX shell')
@pytest.mark.parametrize('name', VARIABLES)
def test_a_secret_that_is_not_utf8(name, post, run):
    """Nobody knows what to send then: 78, and not a traceback."""
    result = run(*post.options, *MAIL, env={name: os.fsdecode(b'hunter\xff2')})
    checks.check(result, SETTINGS, 'UTF-8', absent='hunter')


@pytest.mark.parametrize('refusal, extras', [
    ('password=535 5.7.3 {echo}', {}),
    ('password=535 5.7.3 {echo}', {'auth': 'xoauth2'}),
    ('mail=550 5.7.60 {echo}', {}), ('rcpt=550 5.1.1 {echo}', {}),
    ('dot=554 5.2.0 {echo}', {}), ('data=451 4.3.0 {echo}', {})], ids=str)
def test_nothing_in_an_error(refusal, extras, post):
    """However it fails, neither the error nor its causes know the secret."""
    token = extras.get('auth') == 'xoauth2'
    secret = TOKEN if token else PASSWORD
    response = f'user={ALICE}\1auth=Bearer {TOKEN}\1\1' if token else PASSWORD
    encoded = base64.b64encode(response.encode()).decode()
    post.refuse(refusal.format(echo=f'{secret} {encoded}'))
    shown = io.StringIO()
    session = {**post.session, 'transcript': smtp.Transcript(shown), **extras}
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, INFO, 'x', **session)
    checks.hidden([shown.getvalue(), *checks.all_of(caught.value)],
                  secret, encoded[:-4])


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


def test_an_echo_in_a_line_that_is_cut(play):
    """Only the limit of a line ends the secret, so the mask misses it."""
    line = 'x' * (8192 - len('535 ') - 10) + PASSWORD
    result, _ = play(BEGINS['login'] + LOGIN.rpartition('S: ')[0]
                     + f'S: 535 {line}\n', '-v')
    checks.check(result, 76, 'not a reply')
    assert PASSWORD[:9] not in result.err


@pytest.mark.parametrize('option', ['-v', '--explain'])
@pytest.mark.parametrize('auth', ['login', 'plain', 'xoauth2'])
def test_an_echo(auth, option, play):
    """The secret, and 8 characters or more of its base64 or response."""
    secret = 'correct horse battery staple'
    response = {'login': secret, 'plain': f'\0{ALICE}\0{secret}',
                'xoauth2': f'user={ALICE}\1auth=Bearer {secret}\1\1'}[auth]
    coded = [base64.b64encode(text.encode()).decode()
             for text in (secret, response)]
    echoes = [coded[0] * 2, secret, *(
        text[:length] for text in coded
        for length in (8, 9, 11, 17, len(text) - 1, len(text)))]
    result, player = play(BEGINS['login'] + (
        LOGIN.rpartition('S: ')[0] if auth == 'login'
        else f'C: AUTH {auth.upper()} ********\n') + ''.join(
            f'S: 535-5.7.8 What is [{echo}]?\n' for echo in echoes)
        + 'S: 535 5.7.8 No\n' + QUIT, option, '--auth', auth, password=secret)
    checks.check(result, checks.LOGIN, 'What is', secrets=[
        secret, *(text[:8] for text in coded)])
    assert re.findall(r'(?m)^S: 535-5.7.8 What is \[(.*)\]\?$', result.err) \
        == ['*' * 8] * 14
    assert player.secrets == [secret.encode()]


def test_secrets_that_overlap(post):
    """In one transcript each of them is masked whole."""
    shown = io.StringIO()
    transcript = smtp.Transcript(shown)
    post.refuse(f'password=535 5.7.3 Is it: the word is {PASSWORD} or open?')
    for secret in ('open', 'the word is open', PASSWORD):
        shown.truncate(shown.seek(0))
        with pytest.raises(smtp.SMTPException) as caught:
            smtp.smtp_send(secret, INFO, 'x', transcript=transcript,
                           **post.session)
        for output in (str(caught.value), shown.getvalue()):
            assert 'Is it' in output and 'open' not in output
    for output in (str(caught.value), shown.getvalue()):
        assert 'sesame' not in output
