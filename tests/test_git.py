"""git: its patches go through --message, and smtp.py is its mailer."""

import email
import email.policy
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any, Callable, Sequence

import pytest
from finishing import assert_sent, meant
from posting import ALICE, BOB, CAROL, HIDDEN, PASSWORD, PROGRAM, Post, call


def required(what: str) -> None:
    """Skip the test for what the machine lacks, unless it must be there."""
    if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
        pytest.fail(f'{what} is required, and missing')
    pytest.skip(f'{what} is not installed')


class Repository:
    """A git repository, apart from all settings of this machine."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Make it, with one file in it."""
        self.folder = folder
        folder.mkdir()
        self.environment = {
            'PATH': os.environ.get('PATH', os.defpath), 'HOME': str(folder),
            'GIT_CONFIG_NOSYSTEM': '1', 'GIT_CONFIG_GLOBAL': os.devnull,
            'GIT_AUTHOR_NAME': 'Alice Ünal', 'GIT_AUTHOR_EMAIL': ALICE,
            'GIT_COMMITTER_NAME': 'Alice', 'GIT_COMMITTER_EMAIL': ALICE,
            'LC_ALL': 'C.UTF-8', 'SMTP_PASSWORD': PASSWORD}
        self.git('init', '-q', '-b', 'main')
        self.commit('Begin\n', 'Begin')

    def git(self, *args: str, input: bytes = b'') -> bytes:
        """Run git; it must succeed."""
        done = self.attempt(*args, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def attempt(self, *args: str, input: bytes = b''
                ) -> 'subprocess.CompletedProcess[bytes]':
        """Run git."""
        return subprocess.run(['git', *args], cwd=self.folder, input=input,
                              env=self.environment, capture_output=True,
                              timeout=60)

    def commit(self, text: str, message: str) -> None:
        """Put a text into the file."""
        (self.folder / 'file.txt').write_bytes(text.encode())
        self.git('add', 'file.txt')
        self.git('commit', '-q', '-m', message)


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    """A repository with two commits to send."""
    if not shutil.which('git'):
        required('git')
    repository = Repository(tmp_path / 'repository')
    repository.git('checkout', '-q', '-b', 'work')
    repository.commit(
        'Begin\n.\nGrüße\n..\nFrom here\n\tthere \nend', 'Grüße: a subject '
        'so long that it has to be folded, and then it goes on\n\nA text.\n.')
    repository.commit('Begin\n.\nend\n', 'Second')
    return repository


def applied(repository: Repository, messages: Sequence[bytes]) -> bytes:
    """Let git apply messages to the first commit; return its tree."""
    repository.git('checkout', '-q', '-B', 'received', 'main')
    for message in messages:
        repository.git('am', '-q', input=message.replace(b'\r\n', b'\n'))
    return repository.git('rev-parse', 'received^{tree}')


def test_git_format_patch(repository: Repository, post: Post) -> None:
    """Patches arrive octet for octet, and git can apply what arrived."""
    repository.git('format-patch', '-q', '--to', f'Bób <{BOB}>', '--cc',
                   CAROL, '--from', '--cover-letter', '--attach', '-o',
                   'out', 'main..work')
    repository.git('format-patch', '-q', '--to', f'Bób <{BOB}>', '--cc',
                   CAROL, '-o', 'out', '--start-number', '5', 'main..work')
    paths = sorted((repository.folder / 'out').glob('*.patch'))
    assert len(paths) == 5
    for path in paths:
        done = call(*post.options, '--message', str(path))
        assert_sent(done)
        received = post.messages[-1]
        octets = path.read_bytes()
        assert (received.content if b'\nMessage-ID:' in octets.split(
            b'\n\n')[0] else without_message_id(received.content)
                ) == meant(octets)
        assert list(received.recipients) == [BOB, CAROL]
        eight = not octets.isascii()
        assert ('BODY=8BITMIME' in received.mail_options) == eight
    tree = repository.git('rev-parse', 'work^{tree}')
    assert applied(repository, [
        received.content for received in post.messages[-2:]]) == tree


def without_message_id(content: bytes) -> bytes:
    """Take away the Message-ID that smtp.py has added."""
    header, empty_line, body = content.partition(b'\r\n\r\n')
    header, count = re.subn(rb'\r\nMessage-ID: <[^<>@\s]+@example\.com>', b'',
                            header)
    assert count == 1
    return header + empty_line + body


@pytest.fixture
def send_email(repository: Repository, post: Post
               ) -> 'Callable[..., subprocess.CompletedProcess[bytes]]':
    """A function that runs git send-email, with smtp.py as its sendmail."""
    if b'send-email' not in repository.git('help', '-a'):
        required('git send-email')
    command = shlex.join([sys.executable, str(PROGRAM), *post.options,
                          '--message', '-'])

    def run(*args: str) -> 'subprocess.CompletedProcess[bytes]':
        done = repository.attempt('send-email', '--sendmail-cmd', command,
                                  '--confirm=never', *args)
        if b"'Mail::Address' module is not here" in done.stderr:
            required("git send-email's Perl module Mail::Address")
        return done
    return run


def test_git_send_email(repository: Repository, post: Post,
                        send_email: Any) -> None:
    """The recipe of the README, with the git of this machine."""
    done = send_email('--to', f'Bób <{BOB}>', '--cc', CAROL, '--bcc', HIDDEN,
                      '--envelope-sender', ALICE, 'main..work')
    assert done.returncode == 0, done.stderr.decode()
    assert len(post.messages) == 2
    for received in post.messages:
        assert received.sender == ALICE
        assert {BOB, CAROL, HIDDEN} <= set(received.recipients)
        assert HIDDEN.encode() not in received.content
        message = email.message_from_bytes(received.content,
                                           policy=email.policy.default)
        assert not message.defects
        assert message['To'].addresses[0].display_name == 'Bób'
        assert message['Message-ID'] and message['Date']
    assert post.messages[1].parse()['In-Reply-To'] == \
        post.messages[0].parse()['Message-ID']
    assert applied(repository, [
        received.content for received in post.messages]) == \
        repository.git('rev-parse', 'work^{tree}')


def test_git_send_email_refused(repository: Repository, post: Post,
                                send_email: Any) -> None:
    """Git hears of the refusal, and says so."""
    post.refuse('no-such-user')
    done = send_email('--to', BOB, '--cc', CAROL, '-1', 'work')
    assert done.returncode != 0
    assert b'Not sent: ' in done.stderr
    assert CAROL.encode() in done.stderr
    assert post.messages == []
