"""Text that was piped or typed, and not sent, is kept, whatever happened."""

import os
import re
import shlex
import stat
import time

import pytest

from support import checks
from support.post import BASIC, BOB, MAIL, PASSWORD

TEXT = b'.\nHello  \r\nGr\xc3\xbc\xc3\x9fe, odd \xfc\n\nthe last line'
FINISHED = (b'From: Alice <alice@example.com>\nTo: bob@example.org\r\n'
            b'Bcc: hidden@example.net\nSubject: Lunch\n\n' + TEXT)
NOWHERE = ['--server', 'nowhere..x']
BOTH = pytest.mark.parametrize('octets, options', [
    (TEXT, BASIC), (FINISHED, ['--message=-'])], ids=['text', 'eml'])


def kept(folder, result, octets=TEXT):
    """Check the one kept file; return the options that send it."""
    path, = folder.glob('unsent-*')
    assert path.read_bytes() == octets and not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.suffix == ('.txt' if octets == TEXT else '.eml')
    option = '--body @' if octets == TEXT else '--message '
    found, = re.findall(rf' ({option}\S*{path.name})\n\Z', result.err)
    return found.split()


@pytest.mark.parametrize('refusal, more, code', [
    ('greeting=421 4.3.2 No', '', 75), ('wrong-password', '', 77),
    ('mail=554 5.5.0 No', '', 69), ('rcpt=554 5.5.0 No', '', 67),
    ('dot=451 4.3.0 Later', '', 75), ('dot=554 5.5.0 No', '', 69),
    ('', '--server nowhere..x', 68), ('', '--tls implicit', 76),
    ('', '--server 127.0.0.1 -p {closed}', 75), ('', '-f nobody', 65),
    ('', '--ca-file missing.pem', 66), ('', '--password-command false', 78),
    ('', '-t bob@', 65), ('', '-a missing.pdf', 66), ('', '-H "X: a\n"', 65)])
@BOTH
def test_kept_and_sent_again(octets, options, refusal, more, code, post, call,
                             folder, closed_port):
    """Whatever the cause, it is there, and arrives by the option shown."""
    if octets is FINISHED and re.match('-[aH] ', more):
        pytest.skip('the options of a text')
    post.refuse(*[refusal] * bool(refusal))
    umask = os.umask(0)     # files are for everyone, if their maker agrees
    result = call(*post.options, *options, *shlex.split(more.format(
        closed=closed_port)), stdin=octets, password=PASSWORD)
    os.umask(umask)
    checks.check(result, code)
    again = kept(folder, result, octets)
    post.accept()
    assert call(*post.options, *again, *BASIC[:4 if octets is FINISHED else 6],
                password=PASSWORD).code == 0
    assert post.only().recipients == (BOB,)
    assert b'the last line\r\n' in post.only().content
    assert b'hidden' not in post.only().content


@pytest.mark.parametrize('octets, options, code', [
    (TEXT, BASIC, 74), (FINISHED, ['--message=-'], 74), *(
        (octets, ['--message=-'], 65) for octets in (
            b'nonsense', b'Gr\xfc\xdfe,\r\rno header\n',
            b'Subject: x\n\nno one\n', b'From: alice@example.com\nTo: b@\n\n',
            FINISHED + b'x' * 999, FINISHED + b'\0\r'))])
def test_kept_as_it_came(octets, options, code, post, call, folder):
    """What may have been sent, and what cannot be sent at all."""
    post.drop_after_dot = True
    result = call(*post.options, *options, stdin=octets, password=PASSWORD)
    checks.check(result, code, *['check whether.*To send it'] * (code == 74))
    kept(folder, result, octets)


def test_nothing_to_keep(post, call, folder, tmp_path):
    """What was sent, or is somewhere else, leaves no file."""
    path = tmp_path / 'mail.eml'
    path.write_bytes(FINISHED)
    for code, args in (
            (0, BASIC), (0, ['--message=-']), (0, ['-n', *BASIC]),
            (0, ['-n', '--message=-']), (69, MAIL), (64, [*BASIC, '--what']),
            (69, [*BASIC, '--body', f'@{path}']),
            (69, ['--message', str(path)])):
        post.accept()
        post.refuse(*['mailbox-full'] * (code == 69))
        result = call(*post.options, *args, stdin=FINISHED, password=PASSWORD)
        assert (result.code, list(folder.iterdir())) == (code, []), args


def test_attachments_are_not_kept(play, folder, tmp_path):
    """They are files already: what is kept is the text, and at once."""
    begun = time.monotonic()
    with open(tmp_path / 'large.bin', 'wb') as file:
        file.truncate(3_000_000_000)
    result, _ = play(
        f'run: --tls none --body - -a {tmp_path}/large.bin\nS: 220 a\nC: EHLO '
        '<name>\nS: 250-a\nS: 250 SIZE 99\nC: QUIT\nS: 221 Bye\n', stdin=TEXT)
    checks.check(result, 65)
    kept(folder, result)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize('planted', ['file', 'link', 'dangling link'])
def test_never_over_a_file_nor_through_a_link(planted, call, folder, tmp_path,
                                              monkeypatch):
    """An attacker who guesses the name gains nothing."""
    form, moment = time.strftime, time.localtime(0)
    monkeypatch.setattr(time, 'strftime', lambda text, *_: form(text, moment))
    call(*BASIC, '-t', 'bob@', stdin=TEXT)
    path, = folder.iterdir()
    path.unlink()
    victim = path if planted == 'file' else tmp_path / 'victim'
    if planted != 'dangling link':
        victim.write_bytes(b'mine')
    if planted != 'file':
        path.symlink_to(victim)
    result = call(*BASIC, '-t', 'bob@', stdin=TEXT)
    assert victim.exists() == (planted != 'dangling link')
    assert not victim.exists() or victim.read_bytes() == b'mine'
    other, = set(folder.rglob('unsent-*')) - {path}
    assert other.read_bytes() == TEXT and other.name in result.err


def test_a_folder_that_takes_no_file(run, tmp_path, folder):
    """Such as one that is gone: then it is kept in the temporary one."""
    result = run(*BASIC, *NOWHERE, stdin=TEXT, preexec_fn=folder.rmdir,
                 password='x', env={'TMPDIR': str(tmp_path)})
    checks.check(result, 68, 'To send it, use')
    kept(tmp_path, result)


@pytest.mark.parametrize('limit', [0, 4096])
@BOTH
def test_the_disk_is_full(octets, options, limit, run, folder):
    """Before the first octet or later: the verdict, and all of the text."""
    resource = pytest.importorskip('resource')
    result = run(*options, *NOWHERE, stdin=octets + b'\nmore' * 9000,
                 password='x', preexec_fn=lambda: resource.setrlimit(
                     resource.RLIMIT_FSIZE, (limit, limit)))
    checks.check(result, 68, 'nowhere..x', absent='To send it')
    assert result.err.count('\nmore') == 9000
    assert not list(folder.glob('unsent-*'))
