"""The file of an unsent text: for its owner alone, and over no other."""

import datetime
import email
import email.policy
import os
import pathlib
import re
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, List

import practice_server
import pytest
import reading
from at_terminal import PATIENCE
from calling import BASIC, MAIL, POSIX, SECRET, Call, not_sent
from keeping import FINISHED, TEXT, kept, mail, what_is_left
from posting import PASSWORD, PROGRAM, Done, Post, call


def words_of_the_command(done: Done) -> List[str]:
    """Return the arguments of the command that an error ends with."""
    words = shlex.split(done.errors.rstrip('\n').split('\n')[-1])
    return words[2:]        # without Python and smtp.py


def kept_by(done: Done) -> pathlib.Path:
    """Return the file that was kept, which is ours alone."""
    found = re.search('--message[ =](.*?)(?: --|$)',
                      ' '.join(words_of_the_command(done)))
    assert found, done.errors
    path = pathlib.Path(found[1]).absolute()
    assert re.fullmatch(r'unsent-[\w-]+\.eml', path.name)
    assert not path.is_symlink()
    if os.name != 'nt':
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


# --------------------------------------------------- what is kept, and when


def test_piped_text_is_kept_and_can_be_sent(
        call: Call, session: List[str], server: practice_server.PracticeServer
        ) -> None:
    """The last line of the error is the command that sends it."""
    server.refusals['rcpt'] = '451 4.7.1 Greylisting in action'
    args = ['-f', 'Alice <alice@example.com>', '-t', 'bob@example.org',
            '-c', 'Ö <o@example.org>', '-b', 'carol@example.org',
            '-s', 'Grüße']
    done = call(*args, *session, input='.\nHällo\n'.encode(), password=SECRET)
    not_sent(done, 75, '451 4.7.1')
    path = kept_by(done)
    assert path.parent == pathlib.Path.cwd()
    assert SECRET.encode() not in path.read_bytes()
    server.refusals.clear()
    again = call(*words_of_the_command(done), password=SECRET)
    assert again.code == 0, again.errors
    message, = server.messages
    assert message.recipients == (
        'bob@example.org', 'o@example.org', 'carol@example.org')
    assert message.sender == 'alice@example.com'
    mail = reading.read(message.content)
    assert (mail.subject, mail.text) == ('Grüße', '.\r\nHällo\r\n')
    reading.lint(message.content)       # no Bcc in it
    assert len(list(pathlib.Path.cwd().glob('unsent-*'))) == 1


def test_nothing_is_kept_without_need(call: Call, session: List[str],
                                      closed_port: int) -> None:
    """Neither what was sent, nor what stands on the command line or a file."""
    assert call(*BASIC, *session, input=b'x', password=SECRET).code == 0
    assert call(*MAIL, '--server', '127.0.0.1', '-p', str(closed_port),
                password=SECRET).code == 75
    assert call('-n', *BASIC, input=b'x').code == 0
    done = call(*BASIC, '--server', '127.0.0.1', '-p', str(closed_port),
                input=b'', password=SECRET)
    not_sent(done, 75)
    assert not list(pathlib.Path.cwd().iterdir())


def test_text_is_kept_if_the_message_cannot_be_made(call: Call) -> None:
    """It is the text that was work, whatever else was wrong."""
    done = call(*BASIC, '-H', 'X: a\udcff', '--server', 'nowhere.invalid',
                input=b'precious words', password=SECRET)
    not_sent(done, 65, 'X')
    path, = pathlib.Path.cwd().glob('unsent-*')
    assert path.read_bytes() == b'precious words'
    assert path.name in done.errors


@POSIX
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_dry_run_keeps_nothing(start: Call, tmp_path: pathlib.Path) -> None:
    """It sends nothing, so nothing is unsent."""
    done = start('-n', *BASIC, input=b'Hello', shell='> /dev/full')
    not_sent(done, done.code)
    assert not list(tmp_path.glob('unsent-*'))


@POSIX
def test_attachment_that_vanishes(post: Post, folder: pathlib.Path,
                                  tmp_path: pathlib.Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is kept without it, and no half of a message is left."""
    path = tmp_path / 'large.bin'
    path.write_bytes(bytes(500_000))
    welcome = post.server.handle_RCPT

    async def handle_rcpt(*arguments: Any) -> Any:
        """Remove it between the look at it and its sending."""
        path.unlink(missing_ok=True)
        return await welcome(*arguments)

    monkeypatch.setattr(post.server, 'handle_RCPT', handle_rcpt)
    done = call(*mail(post, '--attach', str(path), '--body', '-'),
                input=TEXT.encode(), cwd=folder)
    assert (done.code, post.messages) == (66, [])
    assert b'lunch?' in what_is_left(done.errors, folder)
    for left in folder.glob('*.eml'):
        message = email.message_from_bytes(left.read_bytes(),
                                           policy=email.policy.default)
        assert not message.defects


# -------------------------------------------------------- never over a file


@POSIX
@pytest.mark.parametrize('link', [True, False])
def test_keeping_never_writes_over_anything(
        call: Call, closed_port: int, monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path, link: bool) -> None:
    """Not over a file of that name, nor through a link."""
    moment, form = time.localtime(0), time.strftime
    monkeypatch.setattr(time, 'strftime', lambda text, *_: form(text, moment))
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    args = [*BASIC, '--server', '127.0.0.1', '-p', str(closed_port)]
    path = kept_by(call(*args, input=b'first', password=SECRET))
    victim = tmp_path / 'victim'
    victim.write_bytes(b'mine')
    path.unlink()
    if link:
        path.symlink_to(victim)
    else:
        victim.rename(path)
        victim = path
    done = call(*args, input=b'second words', password=SECRET)
    not_sent(done, 75)
    assert victim.read_bytes() == b'mine'
    assert 'second words' in done.errors \
        or b'second words' in kept_by(done).read_bytes()


@POSIX
def test_never_over_a_file_nor_through_a_link(
        post: Post, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Somebody who guesses the name gains nothing, and nothing is lost."""
    post.refuse('mailbox-full')
    call(*mail(post), input=TEXT.encode(), cwd=folder)
    name = kept(folder).name
    kept(folder).unlink()
    when = re.search(r'\d{8}-\d{6}', name)
    assert when, 'this test guesses names by the time in them'
    victim = tmp_path / 'victim'
    for kind in ('file', 'link', 'dangling link'):
        for path in folder.iterdir():
            path.unlink()
        planted = []
        for second in range(-1, 20):
            guess = datetime.datetime.now() + datetime.timedelta(0, second)
            path = folder / name.replace(
                when[0], guess.strftime('%Y%m%d-%H%M%S'))
            if kind == 'file':
                path.write_text('precious')
            else:
                path.symlink_to(victim)
            planted.append(path)
        if kind == 'link':
            victim.write_text('precious')
        done = call(*mail(post), input=TEXT.encode(), cwd=folder)
        assert done.code == 69
        for path in planted:
            if kind == 'dangling link':
                assert not victim.exists()
            else:
                assert path.read_text() == 'precious'
        assert b'lunch?' in what_is_left(done.errors, folder)
        if victim.exists():
            victim.unlink()


@POSIX
def test_mode_whatever_the_umask(post: Post, folder: pathlib.Path) -> None:
    """Nobody else may read it, though files are for all here."""
    post.refuse('mailbox-full')
    before = os.umask(0)
    try:
        call(*mail(post), input=TEXT.encode(), cwd=folder)
    finally:
        os.umask(before)
    kept(folder)


# ------------------------------------------------ folders that take no file


@POSIX
def test_no_folder_takes_files(call: Call, closed_port: int,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the text is in the error, as the last resort."""
    pathlib.Path.cwd().rmdir()
    monkeypatch.setattr(tempfile, 'tempdir', '/nonexistent')
    done = call(*BASIC, '--server', '127.0.0.1', '-p', str(closed_port),
                input='precious wörds'.encode(), password=SECRET)
    not_sent(done, 75, 'precious wörds')


@POSIX
@pytest.mark.parametrize('finished', [False, True], ids=['text', 'message'])
@pytest.mark.parametrize('how', ['gone', 'read-only'])
def test_folder_that_takes_no_file(
        how: str, finished: bool, post: Post, folder: pathlib.Path,
        run_smtp: Callable[..., Any], tmp_path: pathlib.Path) -> None:
    """Then it is kept elsewhere, or printed; but it is not lost."""
    if how == 'read-only' and os.geteuid() == 0:
        pytest.skip('root may write everywhere')
    post.refuse('mailbox-full')
    args = [*post.options, '--message', '-'] if finished else mail(post)
    prepare = {'gone': 'rmdir "$PWD"', 'read-only': 'chmod a-w .'}[how]
    done = subprocess.run(
        ['sh', '-c', f'{prepare}; exec "$@"', '-', sys.executable,
         str(PROGRAM), *args], input=FINISHED if finished else TEXT.encode(),
        env={'PATH': os.environ.get('PATH', os.defpath), 'LC_ALL': 'C.UTF-8',
             'HOME': str(tmp_path), 'TMPDIR': str(tmp_path),
             'SMTP_PASSWORD': PASSWORD},
        cwd=folder, capture_output=True, timeout=PATIENCE)
    errors = done.stderr.decode()
    assert done.returncode == 69
    assert 'Traceback' not in errors
    left = what_is_left(errors, tmp_path)
    if finished:
        assert left.endswith(FINISHED[-20:]) \
            or b'the last line' in left and b'hidden@example.net' in left
    else:
        assert b'Hello Bob' in left and b'lunch?' in left
