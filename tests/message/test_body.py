"""The body: text, HTML and attachments, apart and together."""

import binascii
import os
import re
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import smtp
from support import checks, hostile, judges
from support.checks import FILE
from support.judges import GENDER, compose, composed, normal, read, refused
from support.post import ALICE, BOB, MAIL, PASSWORD

SMUGGLED = [
    '\n.\n', '\n.\r\n', '\r\n.\n', '\r\n.\r', '\r.\r', '\r.\r\n', '\r.\n',
    '\n.\r', '\r\n.\r\n', '\r\n\0.\r\n', '\r\n.\0\r\n', '\r\n..\r\n',
    '\r\n\x1a.\r\n', '\n\n.\n\n', '\r\r.\r\r', '\r\n.\r\r\n', '\r\n.\n\r\n']
BLOCK = 57 * 840        # octets of a file, about as many as are read at once
BINARY = 'application/octet-stream'
posix = pytest.mark.skipif(sys.platform == 'win32', reason='has no such files')


@pytest.mark.parametrize('letter', ['e', 'é', '日' * 9])
def test_no_second_message_is_smuggled(letter, post):
    """Each line end is CRLF, so all servers see the same lines."""
    text = 'x'.join(SMUGGLED) + '.\n' * 3 + letter
    smtp.smtp_send(PASSWORD, judges.INFO, text, **post.session)
    assert read(post.only().content).text == normal(text)


@pytest.mark.parametrize('text, encoding', [
    ('x' * 998, '7bit'), ('x\r' * 9 + 'y' * 998 + '\r\n', '7bit'),
    ('x' * 999, 'quoted-printable'), ('x\n' + 'x' * 999, 'quoted-printable'),
    ('é' * 99_999, 'base64'), ('é' + 'x' * 99_999, 'quoted-printable'),
    ('é', 'quoted-printable'), ('日本語' * 20, 'base64'), ('\t \n', '7bit'),
    ('=' * 998, '7bit'), ('=' * 999, 'base64'), ('\n', '7bit'), ('', '7bit'),
    ('\r\n\r\n', '7bit'), ('a\rb\n\rc\r\r\nd', '7bit'),
    *(('é' + 'a' * count, None) for count in range(12)),
    *(('é' * foreign + 'a' * (100 - foreign) + '\n' + 'b' * foreign, None)
      for foreign in range(15, 40)),
    *((f'{letter}{end}MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r.{end}', None)
      for letter in ('e', 'é', '日' * 9) for end in SMUGGLED),
    # What Python's splitlines takes for a line end, and other oddities, stay.
    *((f'{letter}a{odd}b\r\n{odd}\r\n{odd}.\r\n.{odd}\r\n', None)
      for letter in ('', 'é') for odd in '\v\f\x1c\x1d\x1e\x85\u2028\u2029\0'
      '\x1a\x1b\x7f\ufeff\b')], ids=ascii)
def test_the_encoding(text, encoding):
    """Plain as long as it can be; then the shorter one, to the octet."""
    octets = composed({}, text)
    assert read(octets).text == normal(text)
    found = judges.fields(octets, 'Content-Transfer-Encoding')
    assert found == [encoding or found[0]]
    if found != ['7bit']:
        whole = normal(text).encode()
        base64 = -(-len(whole) // 3) * 4
        assert len(octets.partition(b'\r\n\r\n')[2]) == min(
            len(binascii.b2a_qp(whole)), base64 + 2 * -(-base64 // 76))


@pytest.mark.parametrize('tail', [' ', '\t', '  ', '=', 'é', '=é ', ' \t.'])
def test_quoted_printable(tail):
    """Lines of 76 at most, no blank at an end, whole =XX (RFC 2045 6.7)."""
    for width in range(70, 82):
        for end in '\n', '', '\nmore':
            text = f'é{"y" * 99}\n{"x" * (width - len(tail))}{tail}{end}'
            body = composed({}, text).partition(b'\r\n\r\n')[2]
            assert all(re.fullmatch(
                b'(?:[\t -<>-~]|=[0-9A-F]{2})*=?(?<![ \t])', line)
                and len(line) <= 76 for line in body.split(b'\r\n'))
            octets = composed({}, 'é', html=text)
            assert max(map(len, octets.split(b'\r\n'))) <= 76
            assert read(octets).html == normal(text)


@pytest.mark.parametrize('size', [
    0, 1, 2, 3, 56, 57, 58, 113, 114, 115, 4096, *(
        times * BLOCK + more for times in (1, 2) for more in (
            -57, -1, 0, 1, 56, 57, 58))])
def test_files_of_all_sizes(tmp_path, size):
    """Octet for octet, in full lines of base64, the size known beforehand."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    (tmp_path / 'a.bin').write_bytes(content)
    octets = composed({}, attachments=tmp_path / 'a.bin')
    assert read(octets).files == [('a.bin', BINARY, content)]
    base64 = octets.split(b'"a.bin"\r\n\r\n')[1].partition(b'\r\n--')[0]
    assert re.fullmatch(b'([^\r]{76}\r\n)*([^\r]{1,76}\r\n)?', base64)


def test_what_can_be_attached(tmp_path):
    """Paths and pairs, any number, the same again; a link by its own name."""
    path = tmp_path / 'a.txt'
    path.symlink_to('a')
    path.write_bytes(b'x')
    for count, files in (
            (1, str(path)), (1, path), (1, [path]), (2, (str(path), path)),
            (20, [path] * 20), (0, []), (0, ()), (1, [('../a.txt', b'x')]),
            (2, [('a.txt', b'x'), path]), (2, (path, ('a.txt', b'x')))):
        assert read(composed({}, 'é', attachments=files)).files == [
            ('a.txt', 'text/plain', b'x')] * count


@pytest.mark.parametrize('name, kind, value', [
    ('a.PNG', 'image/png', 'filename="a.PNG"'), ('a.txt', 'text/plain', ''),
    ('two words, [1] (2)', BINARY, 'filename="two words, [1] (2)"'),
    ('100% ü', BINARY, "filename*=utf-8''100%25%20%C3%BC"),
    ('U\u0308', BINARY, "filename*=utf-8''U%CC%88"),     # as macOS has it
    (' x', BINARY, "filename*=utf-8''%20x"),
    ('x ', BINARY, "filename*=utf-8''x%20"), *((name, BINARY, '') for name in (
        # A message or multipart must not be in base64 (RFC 2046 section 5.2).
        'a.eml', 'a.mht', 'a.unknown', '.txt', 'a.tar.gz', 'data:,x', '...',
        'quo"te', "it's", 'back\\slash', 'semi;colon', 'a' * 300, 'é' * 150,
        GENDER * 20, 'tab\tname', '~', 'words ' * 30,
        '=?utf-8?q?x?=', "utf-8''x", 'a*b', '<a>', 'a@b', '-', '\x7f', 'a  b',
        '\x1b[31m', '\u202egnp'))], ids=ascii)
def test_names_and_types(name, kind, value):
    """Every name comes back (RFC 2231), not normalized, in one piece."""
    octets = composed({}, attachments=[(name, b'x')])
    assert read(octets).files == [(name, kind, b'x')]
    found, = re.findall(
        rb'Disposition: attachment;\s+([ -~]*)\r\n\r\n', octets)
    assert found.decode() == value or not value


@pytest.mark.parametrize('what, given', [
    ('text', {'text': judges.SURROGATE}), ('text', {'html': 'a\n\ud800b'}),
    # A line end would begin a header field of the file's choice.
    *(('file name', {'attachments': [(name, b'x')]}) for name in (
        'new\nline', 'a\rb', 'a\r\nBcc: x', 'a\0b', '\udcff.txt')),
    ('Disposition is too long', {'attachments': [('é' * 170, b'x')]})],
    ids=ascii)
def test_what_cannot_be_sent(what, given):
    """Half a character in a text, and some names of files."""
    with refused(what):
        compose({}, **{'text': 'x', **given})


@posix
@pytest.mark.parametrize('kind', [
    'missing', 'folder', 'fifo', 'loop', '/dev/zero', 'missing/x'])
def test_what_cannot_be_attached(call, folder, kind):
    """It is found before anything else, and nobody waits for a FIFO."""
    make = {'folder': os.mkdir, 'fifo': os.mkfifo,
            'loop': lambda path: os.symlink(path, path)}
    make.get(kind, str)(folder / kind)
    # Without a password: it would be asked for, with another exit code.
    checks.check(call(*MAIL, '-a', str(folder / kind)), FILE, kind)


@posix
@pytest.mark.parametrize('when', ['before', 'while'])
@pytest.mark.parametrize('change', [
    b'abcde' * BLOCK + b'!', b'abcde' * BLOCK + b'\0' * 99, b'', b'a' * BLOCK,
    b'abcde' * (BLOCK - 1), b'abcde' * (BLOCK - 1) + b'other'],
    ids=lambda change: str(change)[-9:])
def test_a_file_that_changes(tmp_path, when, change):
    """The message must not be completed: it would not be what was meant."""
    path = tmp_path / 'a.bin'
    path.write_bytes(b'abcde' * BLOCK)
    chunks = compose({}, attachments=path).chunks()
    begin = b''
    while when == 'while' and b'YWJjZGVh' not in begin:
        begin += next(chunks)
    path.write_bytes(change)
    os.utime(path, ns=(1, 1))       # clocks of file systems may be slow
    with refused(str(path), code=FILE):
        b''.join(chunks)


@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='Linux only')
@pytest.mark.parametrize('path, words', [
    ('/proc/version', 'changed'), ('/proc/self/mem', 'read')])
def test_a_file_that_fails(call, post, path, words):
    """One that says that it is empty, and one that cannot be read."""
    result = call(*post.options, *MAIL, '-a', path, password=PASSWORD)
    checks.check(result, FILE, path, words)
    assert not post.messages


def test_a_large_file_takes_no_memory(tmp_path, server_context):
    """Neither as it is read nor as it is sent; its size is as promised."""
    (tmp_path / 'a').write_bytes(bytes(8_000_000))
    sizes = []

    def swallow(server, wire, right):
        wire.send(right)
        octets = end = b' '
        while octets and end != b'\r\n.\r\n':
            octets = wire.receive()
            sizes.append(len(octets))
            end = (end + octets)[-5:]
        wire.send(b'250 Ok\r\n')
        raise hostile.Over
    with hostile.serving('DATA', swallow, server_context, False) as server:
        tracemalloc.start()
        smtp.smtp_send('', judges.INFO, 'x', attachments=tmp_path / 'a',
                       server='127.0.0.1', tls='none', port=server.port)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_500_000
    assert sum(sizes) > 10_900_000
    assert server.lines[1].endswith(f' SIZE={sum(sizes) - 3}')


# What means something somewhere, and anything at all
TRICKY = st.one_of(st.sampled_from([
    *'ab =?_"\\,.:;<>@()\'%éß日\x85\v\x1b\xa0-/&\u0301\u2028\u202e', '--=_',
    'From ', 'x' * 80, GENDER]), st.characters(
        exclude_categories=['Cs'], exclude_characters='\r\n\0'))
LINE = st.lists(TRICKY, max_size=60).map(''.join)
LINES = st.lists(st.one_of(LINE, st.sampled_from(
    ['\r', '\n', '\r\n', '\n.\n', '\r\n.\r\n', '=\r\n', '\0', 'x' * 998])),
    max_size=20).map(''.join)
NAME = LINE.map(lambda text: text.replace('/', '-') or 'x')


@given(LINE, LINE.filter(str.strip), LINES, st.one_of(st.none(), LINES),
       st.lists(st.tuples(NAME, st.binary(max_size=400)), max_size=3))
def test_what_is_composed_is_read(subject, name, text, html, files):
    """Whatever was meant comes back, in the eyes of two parsers."""
    person = '"' + re.sub(r'(["\\])', r'\\\1', name) + '" <bob@example.org>'
    mail = read(composed({'To': person, 'Subject': subject, 'X-Lab': subject},
                         text, html=html, attachments=files))
    assert (mail.subject, mail.text) == (subject, normal(text))
    assert (mail.html, mail.to[0]) == (
        normal(html or ''), (name, 'bob@example.org'))
    assert [file[::2] for file in mail.files] == files


@pytest.mark.parametrize('name, info, more', [
    # Only Bcc, no subject: a message may say nothing at all.
    ('plain', {'To': None, 'Bcc': 'bob@example.org', 'Subject': None}, {
        'text': ''}),
    ('everything', {
        'From': 'Alice <alice@example.com>',
        'To': ['Bób Exampleton <bob@example.org>', '"Doe, Carol" <c@b.org>'],
        'Cc': 'Dr. Bob <dr.bob@example.org>, "odd one"@example.org',
        'Bcc': 'hidden@example.net', 'Subject': 'Übermorgen Lunch',
        'X-Lab': ['3', ''], 'Reply-To': 'Alice Ö <a@example.com>'}, {
            'text': 'Hello Bob, to you all schöne Grüße,\n.\n',
            'html': 'こんにちは、ボブ。\n' * 3, 'attachments': [
                ('menu.bin', bytes(range(60))), ('Grüße.pdf', b'')]})])
def test_octets_of_whole_messages(name, info, more):
    """Fields in their order, alternatives (RFC 2046 5.1.4), files."""
    octets = re.sub(b'[0-9a-f]{24,}', b'RANDOM', composed(info, **more))
    golden = (judges.MESSAGES / 'composed' / f'{name}.eml').read_bytes()
    assert octets == golden.replace(b'\n', b'\r\n')


@pytest.mark.timeout(10)
@pytest.mark.parametrize('length', [70, 990])
def test_long_texts_cost_little(length):
    """Ten megabytes, line by line, are looked through once."""
    text = ('x' * length + '\n') * (10_000_000 // length)
    info = {'From': ALICE, 'To': BOB}
    assert smtp.build_message(info, text).size > 10_000_000
    header = f'From: {ALICE}\nTo: {BOB}\n\n'
    assert smtp.read_message((header + text).encode()).size > 10_000_000
