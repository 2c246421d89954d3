"""The text: from an option, a file or a pipe; every octet of it arrives."""

import os
import select

import pytest

from support import checks, cli, judges
from support.checks import FILE, SENT, USAGE
from support.post import ALICE, BASIC, BOB, PASSWORD

NOTE = 'Latin-1'


def text_of(result, note=''):
    """Return the text of a message that was printed."""
    assert result.code == SENT, result.err
    assert result.err.count('note: ') == bool(note) and note in result.err
    judges.lint(result.out)
    return judges.read(result.out).text


@pytest.mark.parametrize('octets, text, note', [
    (b'Hello\nBob', 'Hello\r\nBob\r\n', ''), (b'.\n.', '.\r\n.\r\n', ''),
    (b'a\r\r\nb\n\rc', 'a\r\n\r\nb\r\n\r\nc\r\n', ''),
    ('ü\u2028b\v\f\x85c'.encode(), 'ü\u2028b\v\f\x85c\r\n', ''),
    (b'a\0b\0', 'a\0b\0\r\n', ''), (b'\n' * 500, '\r\n' * 500, ''),
    # The marks of UTF-8 and UTF-16, as Windows and PowerShell write them.
    (b'\xef\xbb\xbfbom', 'bom\r\n', ''),
    ('\ufeffgrün\n'.encode('utf-16-le'), 'grün\r\n', ''),
    ('\ufeffgrün\n'.encode('utf-16-be'), 'grün\r\n', ''),
    # A log with odd octets: they are Latin-1, the others stay.
    (b'\xff', 'ÿ\r\n', NOTE), ('ü€'.encode() + b'\xfc', 'ü€ü\r\n', NOTE),
    (b'x' * 70_000 + b'\xe9', 'x' * 70_000 + 'é\r\n', NOTE),
    (b'\xed\xa0\x80', 'í\xa0\x80\r\n', NOTE), (b'a\xe2', 'aâ\r\n', NOTE),
    (b'\xc0\xaf', 'À¯\r\n', NOTE), (b'a\xff\xfeb', 'aÿþb\r\n', NOTE),
    (b'\xe9 ' + 'ü 日'.encode(), 'é ü 日\r\n', NOTE),
    # Cut within a character of UTF-16: not replaced in silence.
    (b'\xff\xfea\0\x00\xd8', 'a\ufffd\r\n', 'note: '),
    (b'\xff\xfea\0b', 'a\ufffd\r\n', 'note: ')],
    ids=lambda value: ascii(value)[:20])
def test_text_from_a_pipe_or_a_file(octets, text, note, call, folder):
    """It is all the same; what is not UTF-8 is no reason not to send it."""
    (folder / 'a file.txt').write_bytes(octets)
    for args, pipe in (([], octets), (['--body', '-'], octets), (
            ['--body', '@a file.txt'], b'not this')):
        assert text_of(call('-n', *BASIC, *args, stdin=pipe), note) == text
    result = call('-n', *BASIC, '--body=-', '--html', '@a file.txt', stdin=b'')
    assert judges.read(result.out).html == text


@pytest.mark.parametrize('text', ['', ' ', '-x', '---', 'a@b', 'a\nb', '"'])
def test_text_from_the_option(text, call):
    """Only a leading @ and a lone hyphen mean something else."""
    result = call('-n', *BASIC, f'--body={text}', stdin=b'not this')
    assert text_of(result) == judges.normal(text)


def test_a_slow_pipe_that_does_not_block(start):
    """It may be shared with a program that made it so: nothing is cut."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    process = start('-n', *BASIC, stdin=read)
    with open(write, 'wb', buffering=0) as pipe:
        for piece in b'first ', b'second ', b'third':
            cli.wait_until(lambda: cli.waits(process.pid), 'waiting')
            pipe.write(piece)
            cli.wait_until(lambda: not select.select([read], [], [], 0)[0])
    os.close(read)
    assert text_of(cli.ended(process)) == 'first second third\r\n'


@pytest.mark.parametrize('shell, code, words', [
    ('<&-', USAGE, 'standard input is empty'),
    ('</dev/null', USAGE, 'standard input is empty'),
    ('0>/dev/null', FILE, 'Bad file descriptor')])
def test_nothing_to_read(shell, code, words, run):
    """Closed, empty, or only for writing; with --body nothing is read."""
    checks.check(run('-n', *BASIC, shell=shell), code, words)
    assert text_of(run('-n', *BASIC, '--body', 'x', shell=shell)) == 'x\r\n'


def test_a_check_reads_no_text(post, start, call, folder):
    """It stays in the pipe; a message is read, and not kept afterwards."""
    read, write = os.pipe()
    os.write(write, b'precious')
    assert start('--check', '-f', ALICE, *post.options, stdin=read,
                 password=PASSWORD).wait(30) == SENT
    assert os.read(read, 99) == b'precious'
    os.close(write)
    os.close(read)
    checks.check(call('--check', '--message', '-', *post.options, stdin=(
        f'From: {ALICE}\nTo: {BOB}\nBcc: carol@example.org\n\n'.encode()),
        password=PASSWORD), SENT, 'Recipients accepted: 2. Nothing was sent.')
    assert not post.messages and not list(folder.iterdir())
