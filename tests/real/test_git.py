"""git: its patches go through --message, and smtp.py is its mailer."""

import shlex
import subprocess
import sys

import pytest

from support import checks, cli, postfix
from support.post import ALICE, BOB, CAROL, HIDDEN, PASSWORD


@pytest.fixture
def git(folder):
    """A function that runs git in a repository with two commits to send."""
    env = cli.clean({
        'GIT_AUTHOR_NAME': 'Alice Ünal', 'GIT_AUTHOR_EMAIL': ALICE,
        'GIT_COMMITTER_NAME': 'Alice', 'GIT_COMMITTER_EMAIL': ALICE,
        'GIT_CONFIG_NOSYSTEM': '1'}, folder, PASSWORD)

    def git(*args, code=0, stdin=b''):
        done = subprocess.run(['git', *args], cwd=folder, env=env, timeout=60,
                              input=stdin, capture_output=True)
        for missing in (b"'Mail::Address'", b'not a git command'):
            if missing in done.stderr:
                postfix.cannot_run(done.stderr.decode())
        assert bool(done.returncode) == bool(code), done.stderr.decode()
        return done.stderr if code else done.stdout
    git('init', '-q', '-b', 'main')
    for text, message in [
            ('Begin\n', 'Begin'),
            ('Begin\n.\nGrüße\n..\nFrom here\n\tthere \nend', 'Grüße: a long '
             'subject, which has to be folded somewhere\n\nA text.\n.'),
            ('Begin\n.\nend\n', 'Second')]:
        (folder / 'file.txt').write_bytes(text.encode())
        git('add', 'file.txt')
        git('commit', '-q', '-m', message)
    return git


def test_format_patch(git, post, call):
    """One patch from a pipe is a mail, octet for octet; two are refused."""
    args = [*post.options, '--message', '-', '-f', ALICE, BOB]
    patch = git('format-patch', '-1', '--stdout', 'main~1')
    checks.check(call(*args, stdin=patch, password=PASSWORD), 0)
    received = post.only()
    assert received.recipients == (BOB,)
    assert 'BODY=8BITMIME' in received.mail_options
    header, _, body = received.content.partition(b'\r\n\r\n')
    wanted = patch.replace(b'\n', b'\r\n').partition(b'\r\n\r\n')
    assert body == wanted[2]
    assert header.startswith(wanted[0].partition(b'\r\n')[2])
    two = git('format-patch', '-2', '--stdout', 'main')
    checks.check(call(*args, stdin=two, password=PASSWORD), 65,
                 'holds 2 messages')


def test_send_email(git, post):
    """The recipe of the README: what arrives can be applied."""
    command = ['send-email', '--confirm=never', '--sendmail-cmd', shlex.join(
        [sys.executable, str(cli.PROGRAM), *post.options, '--message', '-']),
        '--to', f'Bób <{BOB}>', '--cc', CAROL, '--bcc', HIDDEN, '-2', 'main']
    git(*command)
    assert len(post.messages) == 2
    for received in post.messages:
        assert received.sender == ALICE
        assert {BOB, CAROL, HIDDEN} <= set(received.recipients)
        assert HIDDEN.encode() not in received.content
    git('checkout', '-q', '-b', 'received', 'main~2')
    git('am', '-q', stdin=b''.join(
        b'From x Mon Sep 17 00:00:00 2001\n' + received.content.replace(
            b'\r\n', b'\n') + b'\n' for received in post.messages))
    assert git('rev-parse', 'received^{tree}') == git(
        'rev-parse', 'main^{tree}')
    post.refuse('no-such-user')
    assert b'Not sent: ' in git(*command, code=1)
