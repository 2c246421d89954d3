"""Finished messages that cannot go as they are: 8 bits, long lines, NUL, CR.

And those whose file changes while it is sent.
"""

import os
import pathlib
import re
from typing import Any, Callable, Dict

import practice_server
import pytest
from finishing import HEADER, MESSAGES, assert_not_sent, assert_sent, meant
from posting import BOB, CAROL, HIDDEN, Post, call


def test_eight_bits_where_they_are_not_offered(
        monkeypatch: pytest.MonkeyPatch, post: Post) -> None:
    """A server of seven bits is not even asked; there is advice."""
    monkeypatch.setattr(practice_server, 'EXTENSIONS', tuple(
        line for line in practice_server.EXTENSIONS
        if line not in ('8BITMIME', 'SMTPUTF8')))
    for name, words in (('latin_1', ['8BITMIME', 'quoted-printable']),
                        ('thunderbird', ['8BITMIME', 'quoted-printable']),
                        ('utf8_header', ['SMTPUTF8', 'encoded-words'])):
        done = call(*post.options, '-v', '--message',
                    str(MESSAGES / f'{name}.eml'))
        assert (done.code, post.messages) == (69, [])
        assert 'C: MAIL' not in done.errors
        for word in words:
            assert word in done.errors
    assert_sent(call(*post.options, '--message',
                     str(MESSAGES / 'outlook.eml')))
    assert [option for option in post.only().mail_options
            if not option.startswith('SIZE=')] == []


def test_header_that_is_not_utf8(finished: Callable[[bytes], str],
                                 post: Post) -> None:
    """SMTPUTF8 would promise UTF-8 (RFC 6532), so this cannot be sent."""
    message = HEADER + b'Subject: Gr\xfc\xdfe\r\n\r\nHello.\r\n'
    for verbose in ([], ['-v']):
        done = call(*post.options, *verbose, '--message', finished(message))
        assert_not_sent(done, post, 65)
        assert 'Subject' in done.errors
        assert 'UTF-8' in done.errors


@pytest.mark.parametrize('line', [
    b'x' * 998, b'.' + b'x' * 997, b'x' + '\u20ac'.encode() * 332 + b'x'])
@pytest.mark.parametrize('place', ['body', 'header', 'last line', 'far on'])
def test_lines_of_998_octets(line: bytes, place: str, post: Post,
                             finished: Callable[[bytes], str]) -> None:
    """998 octets go through, and 999 do not."""
    for more, code in ((b'', 0), (b'x', 65)):
        if place == 'header':
            message = HEADER + b'X-Long:\n ' + line[:-1] + more + b'\n\nHello'
        else:
            start = b'Hello.\n' * (20000 if place == 'far on' else 1)
            end = b'' if place == 'last line' else b'\nGoodbye.\n'
            message = HEADER + b'\n' + start + line + more + end
        post.accept()
        done = call(*post.options, '--message', finished(message))
        if code == 0:
            assert_sent(done)
            assert post.only().content == meant(message)
        else:
            assert_not_sent(done, post, code)
            assert '998' in done.errors
            assert 'quoted-printable' in done.errors


@pytest.mark.parametrize('message', [
    HEADER + b'\r\nHel\0lo\r\n',
    HEADER + b'Subject: Hel\0lo\r\n\r\nHello\r\n',
    HEADER + b'Subject:\r\n Hel\0lo\r\n\r\nHello\r\n',
    HEADER + b'\r\n' + b'Hello\r\n' * 20000 + b'\0',
], ids=['body', 'header', 'folded', 'far on'])
def test_nul(message: bytes, finished: Callable[[bytes], str], post: Post
             ) -> None:
    """NUL is not for mail (RFC 5322 section 4)."""
    done = call(*post.options, '--message', finished(message))
    assert_not_sent(done, post, 65)
    assert 'NUL' in done.errors
    assert '\0' not in done.errors


@pytest.mark.parametrize('header', [
    b'Subject: x\rBcc: evil@example.net\r\n',
    b'Subject: x\rTo: evil@example.net\r\n',
    b'Subject: x\r\rTo: evil@example.net\r\n',
    b'Subject: x\r\n y\rTo: evil@example.net\r\n',
    b'Subject: x\r\n\ty\r\rFrom: evil@example.net\r\n',
    b'Subject: x\r\n\rTo: evil@example.net\r\n',
    b'Subject: x\n \rTo: evil@example.net\n',
    b'\rTo: evil@example.net\r\n',
    b'Cc:\r\n carol@example.org,\r evil@example.net\r\n',
    b'Cc: carol@exam\rple.org\r\n',
    b'Cc:\r\n carol@exam\rple.org\r\n',
    b'Bcc: hidden@example.net\r\n x\r\r\nTo: evil@example.net\r\n',
    b'Bcc: hidden@example.net\r\n \rTo: evil@example.net\r\n',
    b'X\r-Y: x\r\n',
])
@pytest.mark.parametrize('place', ['before', 'after'])
def test_cr_within_a_header(header: bytes, place: str, post: Post,
                            finished: Callable[[bytes], str]) -> None:
    """A CR alone neither ends a line nor disappears: it is not sent.

    What one program takes for a line end and another does not, smuggles a
    field or a recipient past one of them.
    """
    message = (header + HEADER if place == 'before' else HEADER + header)
    done = call(*post.options, '--message', finished(message + b'\r\nHi\r\n'))
    if done.code == 65:
        assert_not_sent(done, post, 65)
        assert '\r' not in done.errors
        return
    assert_sent(done)
    received = post.only()
    assert not re.search(b'\r(?!\n)|(?<!\r)\n', received.content)
    assert set(received.recipients) <= {BOB, CAROL, HIDDEN}
    head = received.content.partition(b'\r\n\r\n')[0]
    assert not re.search(rb'(?im)^(to|cc|bcc|from)[ \t]*:.*evil@', head)


CHANGES: Dict[str, Callable[[pathlib.Path], Any]] = {
    'longer': lambda path: path.write_bytes(path.read_bytes() + b'More\r\n'),
    'shorter': lambda path: os.truncate(path, os.path.getsize(path) - 8),
    'other octets': lambda path: path.write_bytes(
        path.read_bytes().replace(b'Hello', b'HELLO')),
    'empty': lambda path: os.truncate(path, 0),
    'other header': lambda path: path.write_bytes(
        path.read_bytes().replace(b'To: bob', b'To: evil')),
}


@pytest.mark.parametrize('lines', [10, 50000])
@pytest.mark.parametrize('change', sorted(CHANGES))
def test_a_file_that_changes(change: str, lines: int, post: Post,
                             finished: Callable[[bytes], str],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """The size was promised, so what is not as it was is not sent."""
    path = pathlib.Path(finished(HEADER + b'\r\n' + b'Hello\r\n' * lines))
    os.utime(path, (1, 1))      # whatever the clock's grain: it will change
    welcome = post.server.handle_RCPT

    async def handle_rcpt(*arguments: Any) -> Any:
        """Change the file between the look at it and its sending."""
        CHANGES[change](path)
        return await welcome(*arguments)

    monkeypatch.setattr(post.server, 'handle_RCPT', handle_rcpt)
    done = call(*post.options, '--message', str(path))
    assert_not_sent(done, post, 66)
    assert f'{path} changed while it was sent' in done.errors
