"""Whatever octets a server sends, they are a Reply or a documented error.

The judge is `judge`, a second reading of the grammar (RFC 5321, section 4.2)
that shares nothing with smtp.py: it takes all octets at once, where smtp.py
takes them as they come.
"""

import re
import socket
import string
from typing import Iterator, List, Sequence, Tuple, Union

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import smtp

LIMIT_OF_LINE, LIMIT_OF_REPLY, LIMIT_OF_LINES = 8192, 65536, 1000
SETTINGS = settings(max_examples=300, deadline=None)

Outcome = Union[Tuple[int, Tuple[str, ...]], str]


class Segments:
    """A socket whose peer sends these segments, and then hangs up."""

    def __init__(self, segments: Sequence[bytes], then: bytes = b'') -> None:
        """Keep the segments; `then` is sent again and again after them."""
        self.segments = [segment for segment in segments if segment]
        self.then = then
        self.received = 0
        self.sent = b''

    def recv(self, size: int) -> bytes:
        """Return one segment, or what fits of it."""
        if not self.segments and self.then:
            self.segments.append(self.then)
        if not self.segments:
            return b''
        first = self.segments.pop(0)
        if len(first) > size:
            self.segments.insert(0, first[size:])
        self.received += len(first[:size])
        return first[:size]

    def sendall(self, octets: bytes) -> None:
        """Take all octets."""
        self.sent += octets

    def settimeout(self, seconds: float) -> None:
        """Nobody waits here."""

    def close(self) -> None:
        """Hang up."""


def read_replies(sock: Union[Segments, socket.socket]) -> Iterator[Outcome]:
    """Yield what smtp.py makes of all that is sent, up to the first error."""
    connection = smtp.Connection(
        sock, smtp.Transcript(None), 5)  # type: ignore[arg-type]
    while True:
        connection.awaited.append('NOOP')
        try:
            reply = connection.read_reply()
        except smtp.SMTPProtocolError:
            yield 'protocol error'
            return
        except smtp.SMTPServerDisconnected:
            yield 'disconnected'
            return
        except smtp.SMTPResponseException as error:
            assert error.reply is not None and error.reply.code == 421
            reply = error.reply
        yield reply.code, reply.lines


def judge(octets: bytes) -> Iterator[Outcome]:
    """Yield what the grammar makes of it."""
    while True:
        code, size = b'', 0
        texts: List[str] = []
        while True:
            line, newline, rest = octets.partition(b'\n')
            if len(line) + len(newline) > LIMIT_OF_LINE:
                yield 'protocol error'
                return
            if not newline:
                yield 'disconnected'
                return
            octets = rest
            size += len(line) + 1
            whole = re.fullmatch(
                rb'([2-5][0-5][0-9])(?:([ -])([^\r\n]*))?\r', line)
            if not whole or (code and whole[1] != code) or (
                    size > LIMIT_OF_REPLY or len(texts) == LIMIT_OF_LINES):
                yield 'protocol error'
                return
            code = whole[1]
            texts.append((whole[3] or b'').decode('utf-8', 'backslashreplace'))
            if whole[2] != b'-':
                break
        yield int(code), tuple(texts)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Something like a line of a reply: right, or wrong in one place."""
    code = draw(st.sampled_from([b'250', b'250', b'220', b'354', b'421',
                                 b'550', b'199', b'260', b'25', b'2500',
                                 b'\xb2\xb5\xb0', b'', b' 250', b'+25',
                                 '２５０'.encode()]))
    separator = draw(st.sampled_from([b' ', b' ', b'-', b'-', b'', b'\t',
                                      b'_', b'\xa0']))
    text = draw(st.one_of(
        st.sampled_from([b'', b'ok', b'2.0.0 Ok', b'a\rb', b'a\0b', b'\xff']),
        st.text(string.printable, max_size=20).map(str.encode),
        st.binary(max_size=20)))
    end = draw(st.sampled_from([b'\r\n'] * 6 + [b'\n', b'\r', b'', b'\r\r\n']))
    return code + separator + text + end


streams = st.one_of(st.lists(lines(), max_size=6).map(b''.join),
                    st.binary(max_size=60))


@SETTINGS
@given(streams)
@example(b'250-a\r\n250 b\r\n354 c\r\n')
@example(b'250\r\n250-\r\n250\r\n')
@example(b'250-a\r\n550 b\r\n')
@example(b'250 a\n')
@example(b'250 a\r')
@example(b'250 a\rb\r\n')
@example(b'250 a\r\r\n')
@example(b'250 ' + b'x' * 9000)
@example(b'999 a\r\n')
def test_any_octets(octets: bytes) -> None:
    """The same replies, and the same end, as by the grammar."""
    assert list(read_replies(Segments([octets]))) == list(judge(octets))


@SETTINGS
@given(streams, st.lists(st.integers(1, 7), min_size=1, max_size=12))
def test_any_segmentation(octets: bytes, sizes: List[int]) -> None:
    """Where TCP cuts the stream makes no difference."""
    segments: List[bytes] = []
    rest = octets
    while rest:
        size = sizes[len(segments) % len(sizes)]
        segments.append(rest[:size])
        rest = rest[size:]
    assert list(read_replies(Segments(segments))) == list(
        read_replies(Segments([octets])))


@settings(SETTINGS, max_examples=50)
@given(streams)
def test_any_octets_over_a_socket(octets: bytes) -> None:
    """The same over a real socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(octets)
        theirs.shutdown(socket.SHUT_WR)
        assert list(read_replies(ours)) == list(judge(octets))


reply_texts = st.lists(st.text(st.characters(
    blacklist_characters='\r\n', blacklist_categories=['Cs'])),
    min_size=1, max_size=5)


@SETTINGS
@given(st.integers(2, 5), st.integers(0, 5), st.integers(0, 9), reply_texts)
def test_right_replies(first: int, second: int, third: int,
                       texts: List[str]) -> None:
    """Every reply by the grammar comes back as it was, also in UTF-8."""
    code = 100 * first + 10 * second + third
    octets = ''.join(
        f'{code}{" " if number == len(texts) else "-"}{text}\r\n'
        for number, text in enumerate(texts, 1)).encode()
    outcomes = list(read_replies(Segments([octets])))
    assert outcomes == [(code, tuple(texts)), 'disconnected']


@pytest.mark.parametrize('octets, fits', [
    (b'250 ' + b'x' * (LIMIT_OF_LINE - 6) + b'\r\n', True),
    (b'250 ' + b'x' * (LIMIT_OF_LINE - 3) + b'\r\n', False),
    (b'250-\r\n' * (LIMIT_OF_LINES - 1) + b'250 \r\n', True),
    (b'250-\r\n' * LIMIT_OF_LINES + b'250 \r\n', False),
    ((b'250-' + b'x' * 4000 + b'\r\n') * 15 + b'250 \r\n', True),
    ((b'250-' + b'x' * 4000 + b'\r\n') * 17 + b'250 \r\n', False),
], ids=['line', 'long line', 'lines', 'many lines', 'reply', 'long reply'])
def test_limits(octets: bytes, fits: bool) -> None:
    """What is within the limits is read, and what is beyond is not."""
    first = next(read_replies(Segments([octets])))
    assert isinstance(first, tuple) if fits else first == 'protocol error'


@pytest.mark.parametrize('then, limit', [
    (b'x' * 5000, 3 * LIMIT_OF_LINE),
    (b'250-x\r\n' * 999, LIMIT_OF_REPLY + 3 * LIMIT_OF_LINE),
    (b'250-\r\n' * 7, LIMIT_OF_REPLY + 3 * LIMIT_OF_LINE),
])
def test_an_endless_reply_is_not_kept(then: bytes, limit: int) -> None:
    """No more is taken from the server than the limits allow."""
    endless = Segments([b'250-'], then)
    assert list(read_replies(endless)) == ['protocol error']
    assert endless.received <= limit


@pytest.mark.parametrize('octet_by_octet', [b'2', b'250-x\r\n', b'\x00'])
def test_deadline_is_for_the_whole_reply(
        octet_by_octet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An octet each second wins the server nothing."""
    now = [1000.0]
    monkeypatch.setattr(smtp.time, 'monotonic', lambda: now[0])

    class Slow(Segments):
        timeout = 0.0

        def settimeout(self, seconds: float) -> None:
            self.timeout = seconds

        def recv(self, size: int) -> bytes:
            now[0] += min(1.0, self.timeout)
            if self.timeout < 1.0:
                raise socket.timeout
            return super().recv(1)

    outcomes = list(read_replies(Slow([], octet_by_octet)))
    assert outcomes == ['disconnected']
    assert now[0] <= 1006.0  # five seconds, and the last wait


@SETTINGS
@given(st.lists(st.sampled_from([
    'SIZE 1000', 'size', 'STARTTLS', 'startTLS', 'XSTARTTLS', 'STARTTLS2',
    'HELP STARTTLS', '\u017fTARTTLS', 'AUTH PLAIN', 'auth login', 'AUTH=LOGIN',
    'AUTH=CRAM-MD5 PLAIN', 'XAUTH LOGIN', 'PIPELINING', 'pipelining',
    'P\u0131PELINING', '', ' STARTTLS']), max_size=6))
def test_extensions(offered: List[str]) -> None:
    """Keywords are whole words of ASCII in any case; AUTH is one list."""
    greeted = ['mail.example.com STARTTLS', *offered]
    reply = [f'250-{line}\r\n' for line in greeted]
    reply[-1] = reply[-1].replace('-', ' ', 1)
    connection = smtp.Connection(
        Segments([''.join(reply).encode()]),  # type: ignore[arg-type]
        smtp.Transcript(None), 5)
    smtp.say_hello(connection, 'client.example.com')
    extensions = connection.extensions
    ascii_only = [line for line in offered if line.isascii()]
    words = [re.split('[ =]', line.upper()) for line in ascii_only]
    for keyword in ('STARTTLS', 'SIZE', 'PIPELINING', 'AUTH'):
        assert (keyword in extensions) == (
            keyword in [line[0] for line in words])
    assert set(extensions.get('AUTH', '').split()) == {
        mechanism for line in words if line[0] == 'AUTH'
        for mechanism in line[1:]}
