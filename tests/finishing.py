"""Finished messages for --message, and what has to arrive of them."""

import pathlib
import re
from typing import Any, Callable, List

import pytest
from posting import Post

MESSAGES = pathlib.Path(__file__).parent / 'messages'
BLIND = re.compile(rb'(?i)(resent-)?bcc[ \t]*:')
HEADER = (b'From: alice@example.com\r\nTo: bob@example.org\r\n'
          b'Date: Mon, 23 Nov 2026 12:00:00 +0100\r\n'
          b'Message-ID: <1@example.com>\r\n')


@pytest.fixture
def finished(tmp_path: pathlib.Path) -> Callable[[bytes], str]:
    """A function that makes a file of a message."""
    def write(octets: bytes) -> str:
        path = tmp_path / 'finished.eml'
        path.write_bytes(octets)
        return str(path)
    return write


def meant(octets: bytes) -> bytes:
    """Return what has to arrive of a message that has Date and Message-ID.

    Unlike smtp.py, this looks at the whole of it at once.
    """
    lines = octets.splitlines()     # of bytes: at CR, LF and CRLF, no more
    if re.match(b'From [^:]', lines[0]):    # as in a mailbox
        del lines[0]
    end = lines.index(b'') if b'' in lines else len(lines)
    header: List[bytes] = []
    hidden = False
    for line in lines[:end]:
        if not line.startswith((b' ', b'\t')):
            hidden = bool(BLIND.match(line))
        if not hidden:
            header.append(line)
    return b'\r\n'.join([*header, *(lines[end:] or [b'']), b''])


def assert_sent(done: Any) -> None:
    """smtp.py says that it was sent, and has nothing but notes to add."""
    errors = re.sub('(?m)^smtp.py: note: .*\n', '', done.errors)
    assert (done.code, errors) == (0, '')
    assert done.output.startswith(b'Sent to ')


def assert_not_sent(done: Any, post: Post, code: int) -> None:
    """smtp.py says in good order that nothing was sent, which is true."""
    assert done.code == code, done.errors
    assert done.errors.startswith('smtp.py: Not sent: ')
    assert done.output == b''
    assert post.messages == []
