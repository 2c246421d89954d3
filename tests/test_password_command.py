"""--password-command: run without a shell, its first line is the password."""

import pathlib
import shlex
import signal
import socket
import subprocess
import sys
from typing import Dict, List

import pytest
from calling import POSIX, SECRET, Call, no_mishap, not_sent
from posting import ALICE, BOB, PASSWORD, PROGRAM, TOKEN, Post, call
from secrecy import MAIL, assert_refused, python, send


@pytest.mark.parametrize('code', [
    "print('open-sesame')",
    "import sys; sys.stdout.write('open-sesame')",
    "print('open-sesame\\nuser: alice\\nurl: example.com')",
    "import os; os.write(1, b'open-sesame\\r\\nuser\\r\\n')",
    "import os; os.write(1, b'open-sesame\\nGr\\xfc\\xdfe\\n')",
    "import os; os.write(2, b'a warning\\n'); print('open-sesame')",
    "print('open-sesame\\n' + 'x' * 300000)",
], ids=['line', 'no line end', 'more lines', 'CRLF', 'Latin 1 below',
        'warning', 'much below'])
def test_first_line_of_the_command(code: str, post: Post) -> None:
    """That is how `pass` and its like store what belongs to a password."""
    done = send(post, '--password-command', python(code))
    assert (done.code, done.errors) == (0, '')
    assert post.only().user == ALICE


@pytest.mark.parametrize('words', [
    ['printf', '%s\n', 'open-sesame'], ['printf', 'open-%s\\n', 'sesame'],
    ['sh', '-c', 'echo open-"$1" | cat', 'sh', 'sesame'],
], ids=str)
@POSIX
def test_words_of_the_command(words: List[str], post: Post) -> None:
    """Quoted as for a shell; a shell runs only if one is named."""
    assert send(post, '--password-command', shlex.join(words)).code == 0
    post.only()


@POSIX
def test_never_through_a_shell(post: Post, tmp_path: pathlib.Path) -> None:
    """What a shell would do, is not done."""
    for command in ('printf open-sesame; touch made', 'printf $(touch made)',
                    'printf open-sesame > made', 'printf `touch made`',
                    'printf open-sesame & touch made',
                    'printf open-sesame\ntouch made', 'printf ~ $HOME *'):
        done = call(*post.options, *MAIL, '--password-command', command,
                    env={}, cwd=tmp_path)
        assert done.code in (0, 77, 78)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('code, words', [
    ("import os; os.write(2, b'the store is locked\\n'); os._exit(3)",
     ['the store is locked', '3']),
    ("import os; os.write(1, b'hun' b'ter-two\\n'); os._exit(1)", ['1']),
    ("import os; os.write(2, 'Gr\\xfc\\xdfe\\n\\x1b[2J\\u202e\\nSent to you'"
     ".encode('utf-8')); os._exit(1)", ['Grüße']),
    ("import os; os.write(2, b'\\xff\\xfe'); os._exit(1)", ['1']),
    ('', ['empty']), ("print()", ['empty']),
    ("print('\\nhun' 'ter-two')", ['empty']),
    ("import os; os.write(1, b'hun' b'ter-two\\xff\\n')", ['UTF-8']),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", ['15']),
], ids=['says why', 'silent', 'hostile', 'binary', 'nothing', 'empty line',
        'empty first line', 'no UTF-8', 'killed'])
def test_command_that_fails(code: str, words: List[str], post: Post) -> None:
    """78, with its own words; no connection, no secret."""
    done = send(post, '--password-command', python(code), '-v',
                SMTP_PASSWORD=PASSWORD, SMTP_ACCESS_TOKEN=TOKEN)
    assert_refused(done, 78, '--password-command', *words)
    assert 'S: 220' not in done.errors
    assert 'hunter' not in done.errors
    assert post.messages == []


@pytest.mark.parametrize('command, words', [
    ('no-such-program --get', ['no-such-program']),
    ('./no-such-program', ['no-such-program']),
    ('', ['--password-command']), ('  ', ['--password-command']),
    ("''", ['--password-command']),
    ('printf "open', ['quotation']), ("printf 'open", ['quotation']),
    ('printf open\\', ['escape']),
])
def test_command_that_cannot_run(command: str, words: List[str], post: Post
                                 ) -> None:
    """78; it is said what was to be run, or what is wrong with its words."""
    done = send(post, f'--password-command={command}', SMTP_PASSWORD=PASSWORD)
    assert_refused(done, 78, *words)
    assert 'list index' not in done.errors


def test_folder_as_a_command(post: Post, tmp_path: pathlib.Path) -> None:
    """Neither a program nor allowed."""
    done = send(post, '--password-command', shlex.quote(str(tmp_path)))
    assert_refused(done, 78, str(tmp_path))


def test_command_does_not_swallow_the_text(post: Post) -> None:
    """Standard input holds the text; a program that reads it gets nothing."""
    command = python("import sys; sys.stdin.read(); print('open-sesame')")
    args = [*post.options, '--from', ALICE, '--to', BOB, '--subject', 'x',
            '--password-command', command]
    done = subprocess.run([sys.executable, str(PROGRAM), *args],
                          input=b'The text.\n', capture_output=True)
    assert done.returncode == 0, done.stderr
    assert post.only().parse().get_content().strip() == 'The text.'


def test_command_sees_no_other_secret(
        post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """$SMTP_PASSWORD and $SMTP_ACCESS_TOKEN are not handed on."""
    monkeypatch.delenv('SMTP_TEST_REAL_SERVERS', raising=False)
    command = python("import os, sys; os.write(2, repr({name: value for name, "
                     "value in os.environ.items() if 'SMTP' in name})"
                     ".encode()); sys.exit(1)")
    done = send(post, '--password-command', command, SMTP_PASSWORD='hunter-2',
                SMTP_ACCESS_TOKEN='hunter-3', SMTP_LAB='yes')
    assert_refused(done, 78, "{'SMTP_LAB': 'yes'}")


@POSIX
def test_interrupted_command(post: Post, clean_environment: Dict[str, str]
                             ) -> None:
    """A command that waits for ever ends with smtp.py."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(10)
        command = python(
            'import socket, time; here = socket.create_connection('
            f'("127.0.0.1", {listener.getsockname()[1]})); time.sleep(60)')
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *post.options, *MAIL,
             '--password-command', command], env=clean_environment,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding='utf-8')
        try:
            running, _ = listener.accept()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 143
    assert errors.startswith('smtp.py: Not sent: ')
    with running:
        running.settimeout(10)
        assert running.recv(1) == b'', 'the command runs on'


@POSIX
@pytest.mark.parametrize('command', [
    'false', 'no-such-command-at-all', 'true', '', '"', "printf '\\377'",
    "sh -c 'echo oops >&2; exit 3'"])
def test_a_password_command_that_fails(call: Call, command: str) -> None:
    """78, with what it said; nothing is connected."""
    done = call(*MAIL, '--password-command', command,
                '--server', 'nowhere.invalid')
    not_sent(done, 78)
    assert ('oops' in done.errors) == ('oops' in command)


@POSIX
def test_a_password_command(call: Call, session: List[str]) -> None:
    """The first line of its output is the password."""
    command = f"printf '%s\\n' '{SECRET}' 'user: alice'"
    done = call(*MAIL, *session, '-v', '--password-command', command)
    assert done.code == 0, done.errors
    no_mishap(done)
