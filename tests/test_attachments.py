"""Attachments: octets, names and types; files that are none, or that change.

And the boundaries between the parts, which occur in none of them.
"""

import os
import pathlib
import re
import socket
import sys
import tracemalloc
from typing import Any, Iterator, List

import pytest
import reading
from reading import GENDER, compose, composed, octets_of, read, refused

import smtp

KIBI = 1024


@pytest.fixture
def file(tmp_path: pathlib.Path) -> Any:
    """A function that makes a file, and returns its path."""
    def make(content: bytes = b'content', name: str = 'a.bin') -> str:
        path = tmp_path / name
        try:
            path.write_bytes(content)
        except (OSError, ValueError):
            pytest.skip('this system has no such file name')
        return str(path)
    return make


ROUND = 57 * 1150       # octets of a file that are read and sent at once


# ------------------------------------------------ contents, types and names


@pytest.mark.parametrize('size', [
    0, 1, 2, 3, 56, 57, 58, 113, 114, 115, 4096, ROUND - 57, ROUND - 1, ROUND,
    ROUND + 1, ROUND + 56, ROUND + 57, ROUND + 58, 2 * ROUND - 1, 2 * ROUND,
    2 * ROUND + 1])
def test_files_of_all_sizes(file: Any, size: int) -> None:
    """Octet for octet, in full lines of base64, the size known beforehand."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    octets = composed({}, attachments=[file(content)])
    base64 = re.split(rb'\r\n\r\n', octets)[-2]
    if size:
        lines = octets.split(b'filename="a.bin"\r\n\r\n')[1]
        lines = lines.partition(b'\r\n\r\n--')[0].split(b'\r\n')
        assert {len(line) for line in lines[:-1]} <= {76}
        assert 0 < len(lines[-1]) <= 76
    assert base64
    assert read(octets).files == [
        ('a.bin', 'application/octet-stream', content)]


@pytest.mark.parametrize('count', [0, 1, 2, 40])
def test_any_number_of_files(file: Any, count: int) -> None:
    """Also the same one again, also empty ones."""
    paths = [file(b'x' * number, f'{number}.txt') for number in range(count)]
    files = read(composed({}, 'é', attachments=paths + paths)).files
    assert files == [(f'{number}.txt', 'text/plain', b'x' * number)
                     for number in range(count)] * 2


@pytest.mark.parametrize('name, kind', [
    ('a.pdf', 'application/pdf'), ('a.PNG', 'image/png'),
    ('a.txt', 'text/plain'), ('README', 'application/octet-stream'),
    ('a.unknown-type', 'application/octet-stream'),
    ('a.eml', 'application/octet-stream'),
    ('a.mht', 'application/octet-stream'),
    ('a.tar.gz', 'application/octet-stream'),
    ('.txt', 'application/octet-stream'),
    ('data:text', 'application/octet-stream')])
def test_the_type_follows_from_the_name(file: Any, name: str, kind: str
                                        ) -> None:
    """A message or multipart must not be in base64 (RFC 2046 section 5.2)."""
    path = file(name=name)
    assert read(composed({}, attachments=[path])).files[0][1] == kind


@pytest.mark.parametrize('name', [
    'plain.pdf', 'two words.pdf', 'quo"te.pdf', "it's.pdf", 'back\\slash',
    'semi;colon', 'per%cent', 'pl+us', 'é.pdf', 'Grüße aus Köln.txt',
    '日本語.txt', 'a' * 60 + '.pdf', 'a' * 200 + '.pdf', 'é' * 100 + '.pdf',
    GENDER * 20, 'tab\tname', ' leading', 'trailing ', '=?utf-8?q?x?=',
    "utf-8''x", 'a*b', 'a.tar.gz', '.hidden', '<a>', '(a)', 'a@b', 'a,b',
    'a:b', 'a[1]', '-', '\x1b[31m', '\u202egnp.exe', '~', '\x7f', 'a  b',
    'words ' * 30], ids=lambda name: ascii(name)[1:16])
def test_names_of_files(file: Any, name: str) -> None:
    """Every name comes back (RFC 2231), and no line is long."""
    octets = composed({}, attachments=[file(name=name)])
    assert read(octets).files == [
        (name, read(octets).files[0][1], b'content')]
    start = octets.index(b'Content-Disposition:')
    lines = octets[start:octets.index(b'\r\n\r\n', start)].split(b'\r\n')
    assert max(map(len, lines)) <= 78
    assert all(line.startswith(b' ') for line in lines[1:])
    assert re.fullmatch(b'[ -~]*', b''.join(lines))


def test_octets_of_a_long_name(file: Any) -> None:
    """Sections are numbered, and only the first names the character set."""
    octets = composed({}, attachments=[file(name='é' * 12 + 'x' * 40)])
    value, = re.findall(rb'Content-Disposition: (.*?)\r\n\r\n', octets,
                        re.DOTALL)
    words = value.decode().split(';')
    assert words[0] == 'attachment'
    sections = [word.strip().partition('=') for word in words[1:]]
    assert [section[0] for section in sections] == [
        f'filename*{number}*' for number in range(len(sections))]
    whole = ''.join(section[2] for section in sections)
    assert whole == "utf-8''" + '%C3%A9' * 12 + 'x' * 40


@pytest.mark.parametrize('name', ['new\nline.txt', 'a\rb', 'a\r\nBcc: x'])
def test_a_line_end_in_a_name(file: Any, name: str) -> None:
    """It would begin a header field of the file's choice."""
    path = file(name=name)
    with refused('file name'):
        compose({}, attachments=[path])


def test_a_name_that_is_no_text(tmp_path: pathlib.Path) -> None:
    """Some file systems take any octets for a name; a message does not."""
    path = os.fsencode(tmp_path) + b'/\xff\xfe.txt'
    try:
        with open(path, 'wb'):
            pass
    except OSError:
        pytest.skip('this system has no such file name')
    with refused('file name'):
        compose({}, attachments=[os.fsdecode(path)])


# ---------------------------------------------- what is no file, or changes


def not_a_file(kind: str, folder: pathlib.Path) -> str:
    """Make, or find, something that cannot be attached."""
    path = folder / kind
    if kind == 'directory':
        path.mkdir()
    elif kind == 'fifo' and hasattr(os, 'mkfifo'):
        os.mkfifo(path)
    elif kind == 'socket' and hasattr(socket, 'AF_UNIX'):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path)[-100:])
    elif kind == 'broken link':
        path.symlink_to(folder / 'nothing')
    elif kind == 'link to itself':
        path.symlink_to(path)
    elif kind == 'unreadable':
        path.write_bytes(b'x')
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip('this user may read everything')
    elif kind.startswith('/dev/'):
        return kind
    return str(path)


@pytest.mark.timeout(10)
@pytest.mark.skipif(sys.platform == 'win32', reason='has no such files')
@pytest.mark.parametrize('kind', [
    'missing', 'directory', 'fifo', 'socket', 'broken link', 'unreadable',
    'link to itself', '/dev/null', '/dev/zero', '/dev/tty', 'missing/x'])
def test_what_cannot_be_attached(
        kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    """It is found before anything else, and nobody waits for a FIFO."""
    monkeypatch.chdir(tmp_path)
    if kind == 'socket' and len(str(tmp_path)) > 90:
        pytest.skip('the path is too long for a socket')
    path = not_a_file(kind, tmp_path)
    with refused(path, code=66):
        compose({}, attachments=[path])


def test_a_link_to_a_file_is_a_file(file: Any, tmp_path: pathlib.Path
                                    ) -> None:
    """Its name is the link's."""
    path = tmp_path / 'link.txt'
    try:
        path.symlink_to(file(b'there'))
    except OSError:
        pytest.skip('this user may make no links')
    assert read(composed({}, attachments=[str(path)])).files == [
        ('link.txt', 'text/plain', b'there')]


@pytest.mark.skipif(not os.path.exists('/proc/version'), reason='Linux only')
def test_a_file_that_says_it_is_empty_and_is_not() -> None:
    """Refused, as a file that has changed; never silently nothing."""
    message = compose({}, attachments=['/proc/version'])
    with pytest.raises(smtp.SMTPMessageError) as caught:
        octets_of(message)
    assert '/proc/version changed while it was sent' in str(caught.value)
    assert caught.value.exit_code == 66


def replace(path: str) -> None:
    """Put another file of the same size in the place of this one."""
    size = os.path.getsize(path)
    with open(path + '.new', 'wb') as new:
        new.write(b'z' * size)
    os.utime(path + '.new', ns=(1, 1))
    os.replace(path + '.new', path)


def append(path: str) -> None:
    """Let the file grow."""
    with open(path, 'ab') as grown:
        grown.write(b'!')


def overwrite(path: str) -> None:
    """Write to the end of the file, and do not change its size."""
    with open(path, 'r+b') as changed:
        changed.seek(-1, os.SEEK_END)
        changed.write(b'!')
    os.utime(path, ns=(1, 1))       # clocks of file systems may be slow


def become_a_fifo(path: str) -> None:
    """Put something in the file's place that nobody writes to."""
    os.remove(path)
    os.mkfifo(path)


@pytest.mark.timeout(10)
@pytest.mark.skipif(sys.platform == 'win32', reason='locks open files')
@pytest.mark.parametrize('when', ['before', 'while'])
@pytest.mark.parametrize('change', [
    append, overwrite, replace, os.remove, become_a_fifo,
    lambda path: os.truncate(path, 0),
    lambda path: os.truncate(path, ROUND),
    lambda path: os.truncate(path, 3 * ROUND - 1),
    lambda path: os.truncate(path, ROUND + 10)],
    ids=['append', 'overwrite', 'replace', 'remove', 'fifo', 'empty',
         'whole round', 'one less', 'within'])
def test_a_file_that_changes(file: Any, when: str, change: Any) -> None:
    """The message must not be completed: it would not be what was meant."""
    path = file(b'abc' * ROUND)
    chunks = compose({}, attachments=[path]).chunks()
    begin = b''
    while when == 'while' and b'YWJjYWJj' not in begin:
        begin += next(chunks)
    change(path)
    if when == 'while' and change in (replace, os.remove, become_a_fifo):
        # The open file is still the one that it was, so it goes on.
        octets = begin + b''.join(chunks)
        assert read(octets).files[0][2] == b'abc' * ROUND
        return
    with pytest.raises(smtp.SMTPMessageError) as caught:
        b''.join(chunks)
    assert path in str(caught.value)
    assert caught.value.exit_code == 66
    assert not caught.value.may_have_been_sent


# ------------------------------------------------------------------- memory


def test_a_large_file_takes_no_memory(file: Any, tmp_path: pathlib.Path
                                      ) -> None:
    """Eight times the size, the same memory."""
    peaks = []
    for size in (KIBI * KIBI, 8 * KIBI * KIBI):
        path = file(b'', f'{size}.bin')
        os.truncate(path, size)
        message = compose({}, attachments=[path])
        tracemalloc.start()
        try:
            length = sum(len(chunk) for chunk in message.chunks())
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert length == message.size
    assert peaks[1] < KIBI * KIBI
    assert peaks[1] < 1.2 * peaks[0]


# --------------------------------------------------------------- boundaries


def test_the_boundary_is_in_no_part(monkeypatch: pytest.MonkeyPatch, file: Any
                                    ) -> None:
    """If chance picks one that stands in the text, it has to pick again."""
    numbers: Iterator[int] = iter([1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9])
    monkeypatch.setattr(os, 'urandom',
                        lambda size: bytes([next(numbers)]) * size)
    text = 'Look:\n--=_020202020202020202020202--\n=_03030303030303030303030\n'
    octets = composed({}, text, attachments=[file()])
    boundaries: List[bytes] = re.findall(rb'boundary="(.*)"', octets)
    assert boundaries == [b'=_030303030303030303030303']
    assert octets.count(boundaries[0]) == 4
    assert read(octets).text == reading.normal(text)


@pytest.mark.parametrize('letter', ['', 'é'])
def test_a_text_that_looks_like_a_boundary(letter: str, file: Any) -> None:
    """The text of another mail, quoted whole, is text."""
    inner = octets_of(compose({}, letter, attachments=[file()])).decode()
    octets = composed({}, inner, attachments=[file()], html=inner)
    mail = read(octets)
    assert mail.text == mail.html == inner
    assert len(mail.files) == 1
