"""The text of a message: line ends, encodings, no second message within it."""

import binascii
import re

import practice_server
import pytest
import reading
from reading import (
    SURROGATE,
    compose,
    composed,
    fields,
    octets_of,
    read,
    refused,
)

import smtp

KIBI = 1024


# ---------------------------------------------------------------- line ends


@pytest.mark.parametrize('text, sent', [
    ('a', 'a\r\n'), ('a\n', 'a\r\n'), ('a\r', 'a\r\n'), ('a\r\n', 'a\r\n'),
    ('a\n\nb', 'a\r\n\r\nb\r\n'), ('a\r\rb', 'a\r\n\r\nb\r\n'),
    ('a\n\rb', 'a\r\n\r\nb\r\n'), ('a\r\r\nb', 'a\r\n\r\nb\r\n'),
    ('\n', '\r\n'), ('\r\n\r\n', '\r\n\r\n'), ('', ''),
    ('a\rb\nc\r\nd', 'a\r\nb\r\nc\r\nd\r\n')], ids=ascii)
def test_line_ends(text: str, sent: str) -> None:
    """CR, LF and CRLF all mean the same."""
    octets = composed({}, text)
    assert octets.partition(b'\r\n\r\n')[2] == sent.encode()
    assert read(octets).text == sent


@pytest.mark.parametrize('character', [
    '\v', '\f', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029', '\0',
    '\x1a', '\x1b', '\x7f', '\ufeff', '\b'], ids=ascii)
def test_nothing_else_is_a_line_end(character: str) -> None:
    """What Python's splitlines takes for one, and other oddities, stay."""
    text = f'a{character}b\r\n{character}\r\n{character}.\r\n.{character}\r\n'
    assert read(composed({}, text)).text == text
    text = 'é' + text
    assert read(composed({}, text)).text == text


SMUGGLED = [
    '\n.\n', '\n.\r\n', '\r\n.\n', '\r\n.\r', '\r.\r', '\r.\r\n', '\r.\n',
    '\n.\r', '\r\n.\r\n', '\r\n\0.\r\n', '\r\n.\0\r\n', '\r\n..\r\n',
    '\r\n\x1a.\r\n', '\n\n.\n\n', '\r\r.\r\r', '\r\n.\r\r\n', '\r\n.\n\r\n']


@pytest.mark.parametrize('sequence', SMUGGLED, ids=ascii)
@pytest.mark.parametrize('letter', ['e', 'é', '日' * 9])
def test_no_second_message_is_smuggled(sequence: str, letter: str) -> None:
    """Each line end is CRLF, so all servers see the same lines."""
    text = (f'{letter}{sequence}MAIL FROM:<eve@example.org>\r\n'
            f'RCPT TO:<bob@example.org>\nDATA\r.{sequence}')
    octets = composed({}, text)
    assert read(octets).text == reading.normal(text)


def test_the_smuggler_and_a_server() -> None:
    """All those sequences in one text: one message arrives, and is equal."""
    text = 'x'.join(SMUGGLED) + '.\n' * 3 + 'é'
    with practice_server.PracticeServer() as server:
        receipt = smtp.smtp_send(
            practice_server.PASSWORD, reading.INFO, text, server=server.host,
            port=server.port, ca_file=server.ca_file)
    message, = server.messages
    assert receipt.reply.code == 250
    assert read(message.content).text == reading.normal(text)


# ---------------------------------------------------------------- encodings


def encoding_of(octets: bytes) -> str:
    """Return how the only part of a message is encoded."""
    return fields(octets, 'Content-Transfer-Encoding')[0]


@pytest.mark.parametrize('text, encoding', [
    ('x' * 998, '7bit'), ('x' * 998 + '\n' + 'y' * 998 + '\r\n', '7bit'),
    ('x' * 999, 'quoted-printable'), ('x' * 100_000, 'quoted-printable'),
    ('é' * 100_000, 'base64'), ('é' + 'x' * 100_000, 'quoted-printable'),
    ('é', 'quoted-printable'), ('日本語' * 20, 'base64'),
    ('=' * 998, '7bit'), ('=' * 999, 'base64'), ('.\n' * 100, '7bit'),
    ('From here\n', '7bit'), ('\t \n', '7bit'), ('\0', None)],
    ids=lambda text: ascii(text)[1:16])
def test_the_encoding(text: str, encoding: str) -> None:
    """Plain as long as it can be; then as readable and short as possible."""
    octets = composed({}, text)
    assert encoding in (encoding_of(octets), None)
    assert encoding_of(octets) != '8bit'
    assert read(octets).text == reading.normal(text)


def test_the_shorter_encoding_is_chosen() -> None:
    """Counted to the octet, for short texts and around the turning point."""
    texts = ['é' + 'a' * count for count in range(12)]
    texts += ['é' * foreign + 'a' * (100 - foreign) + '\n' + 'b' * foreign
              for foreign in range(15, 40)]
    for text in texts:
        octets = composed({}, text)
        whole = reading.normal(text).encode()
        quoted = len(binascii.b2a_qp(whole))
        characters = -(-len(whole) // 3) * 4
        base64 = characters + 2 * -(-characters // 76)
        chosen = len(octets.partition(b'\r\n\r\n')[2])
        assert chosen == min(quoted, base64), (text, encoding_of(octets))


def test_quoted_printable_survives_careless_servers() -> None:
    """Short lines, no space at an end, = and trailing tabs written as hex."""
    text = ('é = a \nb\t\n \n\t\n' + 'word ' * 40 + '\n' + 'x' * 75 + ' \n'
            + 'y' * 74 + 'é\n' + '.' * 200 + '\n.\nFrom x\n')
    octets = composed({}, text)
    assert encoding_of(octets) == 'quoted-printable'
    lines = octets.partition(b'\r\n\r\n')[2].split(b'\r\n')
    assert max(map(len, lines)) <= 76
    for line in lines:
        assert not line.endswith((b' ', b'\t'))
        assert re.fullmatch(b'(?:[\t -<>-~]|=[0-9A-F]{2})*=?', line)
    assert read(octets).text == reading.normal(text)


@pytest.mark.parametrize('text', [SURROGATE, 'a\n\ud800b', '\udfff\ud800'])
def test_a_text_that_is_no_text(text: str) -> None:
    """Half characters are refused, in each kind of text."""
    with refused('UTF-8'):
        compose({}, text)
    with refused('UTF-8'):
        compose({}, 'fine', html=text)


def test_a_text_of_megabytes() -> None:
    """Chunks of whole lines, none of them large."""
    text = 'Zwölf Zeichen.\n' * 150_000
    message = compose({}, text)
    chunks = list(message.chunks())
    assert max(map(len, chunks)) < 256 * KIBI
    assert read(octets_of(message)).text == reading.normal(text)
