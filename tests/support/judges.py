"""A message as others read it: the judges of what smtp.py composes.

`lint` compares a message with the RFCs, octet by octet. `read` gives it to the
standard library's `email` parser in both of its forms: the modern one, which
parses addresses and parameters itself, and the old one ("compat32"), which
leaves that to functions of 2001. They have to find the same, and not complain.
"""

import contextlib
import email
import email.errors
import email.header
import email.policy
import email.utils
import functools
import inspect
import pathlib
import re
import typing

import pytest

import smtp

MESSAGES = pathlib.Path(__file__).resolve().parents[1] / 'messages'
DATE = 'Mon, 23 Nov 2026 12:00:00 +0100'
INFO = {'From': 'alice@example.com', 'To': 'bob@example.org',
        'Subject': 'Lunch', 'Date': DATE}
SURROGATE = '\udcff'    # an octet that is not UTF-8, in an argument
GENDER = '\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}'

# Where it can be strict, it knows no literals: bob@[192.0.2.7] is nobody.
GETADDRESSES = (
    functools.partial(email.utils.getaddresses, strict=False)
    if 'strict' in inspect.signature(email.utils.getaddresses).parameters
    else email.utils.getaddresses)

# RFC 5322 section 3.3, without its obsolete forms
DATE_FORM = re.compile(
    r'(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} '
    r'(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} '
    r'[0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}')

# RFC 2047 section 2; section 5 (3) has the shorter list for names of people
ENCODED_WORD = re.compile(
    r'=\?utf-8\?(?:q\?[!->@-~]+|b\?(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{4}|'
    r'[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==))\?=', re.IGNORECASE)
IN_A_PHRASE = re.compile(
    r'=\?utf-8\?(?:q\?[A-Za-z0-9!*+/=_-]+|b\?[A-Za-z0-9+/=]+)\?=',
    re.IGNORECASE)
ADDRESSED = 'From', 'To', 'Cc'
ADDRESS_FIELDS = ('from', 'to', 'cc', 'reply-to', 'sender')
OURS = ['from', 'to', 'cc', 'subject', 'date', 'message-id']
OURS_AT_THE_END = ['mime-version', 'content-type', 'content-transfer-encoding']


class Mail(typing.NamedTuple):
    """What a reader sees; names and addresses of people, three of files."""

    sender: list
    to: list
    cc: list
    subject: str
    text: str
    html: str
    files: list     # name, type, octets


def compose(info, text='Hello\n', **extras):
    """Build a message from INFO and `info`; a value of None takes one away."""
    return smtp.build_message({
        key: value for key, value in {**INFO, **info}.items()
        if value is not None}, text, **extras)


def octets_of(message):
    """Return the octets of a message; its chunks must keep their promises."""
    chunks = list(message.chunks())
    assert all(isinstance(chunk, bytes) for chunk in chunks)
    octets = b''.join(chunks)
    assert message.size == len(octets), 'the size is exact'
    return octets


def envelope_of(message):
    """Return the sender and the recipients of a message."""
    return message.sender, list(message.recipients)


def lint(octets, utf8=False):
    """Compare a message, with `utf8` one for SMTPUTF8, with the RFCs."""
    assert octets.endswith(b'\r\n')
    lines = octets.split(b'\r\n')
    for line in lines:
        assert not re.search(b'[\r\n\0]', line), f'CR, LF or NUL in {line!r}'
        assert len(line) <= 998, f'{len(line)} octets: {line[:60]!r}...'
    end = lines.index(b'')
    assert all(map(bytes.isascii, lines[end:] if utf8 else lines))
    assert not lines[0].startswith((b' ', b'\t'))
    names = []
    for line in map(bytes.decode, lines[:end]):
        assert line.strip(' \t'), 'a line of spaces ends the header for some'
        if not line.startswith((' ', '\t')):
            found = re.match('([!-9;-~]+):(?: |$)', line)
            assert found, line
            names.append(found[1].lower())
        check_line(names[-1], line)
    assert 'bcc' not in names and 'message-id' in names
    own = [name for name in names if name in OURS + OURS_AT_THE_END]
    assert own == [name for name in OURS + OURS_AT_THE_END if name in own]
    first_of_end = [*names, 'mime-version'].index('mime-version')
    assert names[first_of_end:] == [
        name for name in OURS_AT_THE_END if name in names]


def check_line(name, line):
    """Check one line: it is folded, and what looks encoded is so by rule."""
    if len(line) > 78:
        # Nowhere could it be folded: one word, or one "quoted string".
        content = re.sub('^([!-9;-~]+:)?[ \t]+', '', line)
        content = re.sub(r'"(?:[^"\\]|\\.)*"', 'x', content)
        assert not re.search('[ \t]', content), f'not folded: {line!r}'
    for word in re.split('[ \t]+', line):
        if re.search(r'=\?.*\?.*\?.*\?=', word) and not (
                name in ADDRESS_FIELDS and '@' in word):
            rule = IN_A_PHRASE if name in ADDRESS_FIELDS else ENCODED_WORD
            assert rule.fullmatch(word), f'not an encoded-word: {word!r}'
            assert len(word) <= 75, f'{len(word)} characters: {word!r}'
            octets, charset = email.header.decode_header(word)[0]
            octets.decode(charset)      # whole characters
            assert len(line) <= 76, f'{len(line)} characters: {line!r}'


def read(octets):
    """Read a message with both forms of the parser; they must agree."""
    modern = email.message_from_bytes(octets, policy=email.policy.default)
    for value in (value for part in modern.walk() for value in part.values()):
        # That a name holds control characters is as it was written.
        defects = [defect for defect in value.defects if not isinstance(
            defect, email.errors.NonPrintableDefect)]
        assert not defects, (value, defects)
    new = seen(modern, lambda header: [
        (each.display_name, each.addr_spec) for each in header.addresses],
        str, lambda part: part['Content-Disposition'].params['filename'])
    old = seen(email.message_from_bytes(octets), old_people, decoded, old_name)
    for field, one, other in zip(Mail._fields, new, old):
        if field in ('sender', 'to', 'cc'):
            one, other = comparable(one), comparable(other)
        assert one == other, field
    return old


def comparable(people):
    """Leave out of names and addresses what the modern parser gets wrong.

    It keeps the space between two encoded-words of a name (RFC 2047 section
    6.2), takes spaces beyond ASCII off the ends of names, and takes the quotes
    off local parts that need them, such as "a..b".
    """
    return [(''.join(name.split()), address.replace('"', ''))
            for name, address in people]


def seen(message, people, decoded, name):
    """Return the Mail, by functions for what the parser leaves to others."""
    texts, files = {'plain': '', 'html': ''}, []
    for part in message.walk():
        assert not part.defects, part.defects
        octets = part.get_payload(decode=True)
        if part.get_content_disposition() == 'attachment':
            files.append((name(part), part.get_content_type(), octets))
        elif part.get_content_maintype() == 'text':
            texts[part.get_content_subtype()] += octets.decode(
                part.get_content_charset())
    return Mail(*([person for header in message.get_all(field, [])
                   for person in people(header)] for field in ADDRESSED),
                decoded(message['Subject']), *texts.values(), files)


def decoded(raw):
    """Return what a folded value with encoded-words means."""
    return str(email.header.make_header(email.header.decode_header(
        re.sub('\r?\n(?=[ \t])', '', raw))))


def old_people(raw):
    """Return the names and addresses of a raw value."""
    unfolded = re.sub('\r?\n(?=[ \t])', '', raw)
    return [(decoded(name), address)
            for name, address in GETADDRESSES([unfolded]) if address]


def old_name(part):
    """Return the name of an attachment, which is text or three values."""
    name = part.get_param('filename', '', 'Content-Disposition')
    if isinstance(name, tuple):     # (character set, language, value)
        name = name[2].encode('raw-unicode-escape').decode(name[0])
    return name


def composed(info, text='Hello\n', **extras):
    """Build a message, check all that holds for each, and return it."""
    octets = octets_of(compose(info, text, **extras))
    # Beyond ASCII before an @, a header cannot but be UTF-8.
    lint(octets, bool(re.search('[^\0-\x7f][^@<> ]*@', str(info))))
    return octets


def fields(octets, name):
    """Return the values of a field, unfolded (RFC 5322 section 2.2.3)."""
    header = octets.partition(b'\r\n\r\n')[0].decode()
    unfolded = re.sub('\r\n(?=[ \t])', '', header)
    return re.findall(f'(?im)^{name}: ?(.*?)\r?$', unfolded)


def meant(octets):
    """Return what has to arrive of a finished message with date and name."""
    lines = octets.replace(b'\xef\xbb\xbf', b'').splitlines() + [b'']
    if lines[0].startswith(b'From '):       # as in a mailbox
        del lines[0]
    end = lines.index(b'')
    header = re.sub(rb'(?im)^(resent-)?bcc[ \t]*:.*\n(?:[ \t].*\n)*', b'',
                    b''.join(line + b'\n' for line in lines[:end]))
    body = b'\r\n'.join(lines[end:] if end < len(lines) - 1 else [b'', b''])
    return header.replace(b'\n', b'\r\n') + body


def normal(text):
    """Return text as it is sent: CRLF after each line, also the last one."""
    text = re.sub('\r\n|\r|\n', '\r\n', text)
    return text if not text or text.endswith('\r\n') else text + '\r\n'


@contextlib.contextmanager
def refused(*naming, code=65):
    """Expect an SMTPMessageError whose text names each of `naming`."""
    with pytest.raises(smtp.SMTPMessageError) as caught:
        yield caught
    error = caught.value
    assert error.exit_code == code, error
    assert ' --' not in str(error), 'errors know no options'
    for text in naming:
        assert text in str(error), (text, str(error))
    assert all(character.isprintable() or character == '\n'
               for character in str(error))
