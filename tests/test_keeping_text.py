"""What is kept of a text that was not sent: see test_unsent.py, too."""

import os
import pathlib
import re
import shlex
import stat
import tempfile
import time
from typing import List

import practice_server
import pytest
import reading
from calling import BASIC, MAIL, POSIX, SECRET, Call, Done, not_sent


def command_of(done: Done) -> List[str]:
    """Return the arguments of the command that an error ends with."""
    words = shlex.split(done.errors.rstrip('\n').split('\n')[-1])
    return words[2:]        # without Python and smtp.py


def kept(done: Done) -> pathlib.Path:
    """Return the file that was kept, which is ours alone."""
    found = re.search('--message[ =](.*?)(?: --|$)',
                      ' '.join(command_of(done)))
    assert found, done.errors
    path = pathlib.Path(found[1]).absolute()
    assert re.fullmatch(r'unsent-[\w-]+\.eml', path.name)
    assert not path.is_symlink()
    if os.name != 'nt':
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


def test_piped_text_is_kept_and_can_be_sent(
        call: Call, session: List[str], server: practice_server.PracticeServer
        ) -> None:
    """The last line of the error is the command that sends it."""
    server.refusals['rcpt'] = '451 4.7.1 Greylisting in action'
    args = ['-f', 'Alice <alice@example.com>', '-t', 'bob@example.org',
            '-c', 'Ö <o@example.org>', '-b', 'carol@example.org', '-s', 'Grüße']
    done = call(*args, *session, input='.\nHällo\n'.encode(), password=SECRET)
    not_sent(done, 75, '451 4.7.1')
    path = kept(done)
    assert path.parent == pathlib.Path.cwd()
    assert SECRET.encode() not in path.read_bytes()
    server.refusals.clear()
    again = call(*command_of(done), password=SECRET)
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
    files = list(pathlib.Path.cwd().glob('unsent-*'))
    assert (not files and 'precious words' in done.errors) \
        or b'precious words' in files[0].read_bytes()


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
    path = kept(call(*args, input=b'first', password=SECRET))
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
        or b'second words' in kept(done).read_bytes()


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
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_dry_run_keeps_nothing(start: Call, tmp_path: pathlib.Path) -> None:
    """It sends nothing, so nothing is unsent."""
    done = start('-n', *BASIC, input=b'Hello', shell='> /dev/full')
    not_sent(done, done.code)
    assert not list(tmp_path.glob('unsent-*'))
