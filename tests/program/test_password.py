"""--password-command: run without a shell, its first line is the password."""

import contextlib
import os
import shlex
import signal
import socket
import sys

import pytest

from support import checks, cli
from support.post import ALICE, MAIL, PASSWORD


def python(code):
    """Return a command that runs a line of Python."""
    return shlex.join([sys.executable, '-Sc', 'import os, sys; ' + code])


@pytest.fixture
def get(post, run):
    """A function that sends a mail with a --password-command."""
    return lambda command, *args, **more: run(
        *post.options, *MAIL, f'--password-command={command}', *args, **more)


@pytest.mark.parametrize('command', [
    *(python(f"os.write(2, b'a warning'); os.write(1, b'open-sesame{rest})")
      for rest in ("'", r"\nuser: alice\nurl: x\n'", r"\r\nuser\r\n'",
                   r"\nGr\xfc\xdf\n'", r"\n' + b'x' * 300000")),
    "printf '%s\\n' open-sesame", "sh -c 'echo open-\"$1\" | cat' sh sesame",
    "sh -c 'cat; echo open-sesame'",    # standard input is the text's
    # What stays in the background may hold the outputs for hours.
    "sh -c 'echo open-sesame; sleep 30 2>x & echo $! > pid'"])
def test_the_first_line(command, get, post, folder):
    """That is how `pass` and its like store it; quoted as for a shell."""
    checks.check(get(command, stdin=b'Not a password.\n'), 0)
    post.messages.clear()
    result = get(command, '--body=-', stdin=b'The text.')
    checks.check(result, 0)
    assert result.err in ('', 'a warning') and post.only().user == ALICE
    assert b'The text.' in post.only().content
    with contextlib.suppress(FileNotFoundError):    # it still runs
        os.kill(int((folder / 'pid').read_text()), signal.SIGTERM)


@pytest.mark.parametrize('trick', [
    '; touch made', ' $(touch made)', ' > made', ' `touch made`',
    ' & touch made', '\ntouch made'])
def test_never_through_a_shell(trick, get, folder):
    """What a shell would do, is not done."""
    assert get(f'printf open-sesame{trick}').code in (0, 77)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize('command, words', [
    (python("os.write(2, b'It is locked.\\n'); os._exit(3)"), 'exit code 3'),
    ('false', 'exit code 1'), (python('os.kill(os.getpid(), 15)'), '15'),
    ('true', 'line in UTF-8'), ("printf '\\nhun'ter-two", 'line in UTF-8'),
    ("printf 'hun'ter-two\\\\377", 'line in UTF-8'), ('', ''), ("' '", ''),
    ('no-such-program hunter-two', 'No such file'),
    ('hunter-two', 'No such file'),
    ('/etc', 'Permission denied'),
    ('printf "open', 'quotation'), ('printf open\\', 'escape'),
    # It may have been the password: neither shown nor denied.
    ("sh -c 'echo hun''ter-two; exit 1'", 'exit code 1'),
    # No other secret is passed on, and nothing else is kept back.
    (python("sys.exit(repr([name for name in os.environ if 'SMTP' in name]))"),
     'exit code 1')], ids=lambda text: text[-30:])
def test_a_command_that_fails(command, words, run):
    """78, with its own words; no connection, no secret."""
    result = run(*MAIL, f'--password-command={command}', '-v', '--server=x',
                 password=PASSWORD, env={'SMTP_ACCESS_TOKEN': 'hunter-3',
                                         'SMTP_LAB': 'yes'})
    checks.check(result, 78, '--password-command failed', words, absent=[
        'list index', *['printed nothing'] * ('echo' in command)])
    assert 'hunter' not in result.err and 'S: 220' not in result.err
    assert ('It is locked.' in result.err) == ('locked' in command)
    assert ("['SMTP_LAB']" in result.err) == ('SMTP' in command)


def test_an_interrupted_command(start):
    """A command that never ends does so with smtp.py."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(cli.PATIENCE)
        process = start(*MAIL, '--password-command', python(
            'import socket, time; here = socket.create_connection('
            f'{listener.getsockname()}); time.sleep(60)'))
        with contextlib.closing(listener.accept()[0]) as running:
            process.send_signal(signal.SIGTERM)
            checks.check(cli.ended(process), 130, 'interrupted')
            running.settimeout(cli.PATIENCE)
            assert running.recv(1) == b'', 'the command runs on'
