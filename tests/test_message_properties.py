"""Whatever is composed, a mail reader finds again what was meant.

Hypothesis invents subjects, names, addresses, texts and files. Each message is
held against the RFCs, and read by both forms of the standard library's parser;
see reading.py. For a longer run:

    PYTHONPATH=tests python -m pytest -p reading \
        --hypothesis-profile=thorough tests/test_message_properties.py
"""

import pathlib
from typing import Any, Dict, List, Tuple

import pytest
import reading
from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from reading import examples

import smtp

# Any text that has no half characters; and what may stand in a header.
TEXT = st.text(st.characters(exclude_categories=['Cs']), max_size=300)
LINE = st.text(st.characters(exclude_categories=['Cs'],
                             exclude_characters='\r\n\0'), max_size=200)
# Text of the characters that mean something somewhere is more telling.
TRICKY = st.text('ab =?_"\\\t,.:;<>@()\'%*éß\u0301日\N{PILE OF POO}\x85\u2028'
                 '\v\f\x1b\u202e\xa0-/&', max_size=120)
LINES = st.one_of(LINE, TRICKY, st.lists(TRICKY, max_size=9).map(' '.join))
TEXTS = st.one_of(
    TEXT, st.lists(st.one_of(TRICKY, st.sampled_from(
        ['\r', '\n', '\r\n', '.', '..', 'From ', '\n.\n', '\r\n.\r\n', ' ',
         '--', '--=_', '=\r\n', 'x' * 998, 'x' * 999, 'é' * 500])),
        max_size=20).map(''.join))

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
DOT_ATOM = st.lists(st.text(ATEXT, min_size=1, max_size=9), min_size=1,
                    max_size=3).map('.'.join)
ODD = st.text(' !"#@,.:;<>()[]\\ab', min_size=1, max_size=20)
LABEL = st.from_regex('[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?', fullmatch=True)
DOMAIN = st.one_of(
    st.tuples(st.lists(LABEL, max_size=3), st.from_regex(
        '[a-z]([a-z0-9-]{0,20}[a-z0-9])?', fullmatch=True)).map(
            lambda labels: '.'.join([*labels[0], labels[1]])),
    st.ip_addresses(v=4).map('[{}]'.format),
    st.ip_addresses(v=6).map('[IPv6:{}]'.format))


def quoted(text: str) -> str:
    """Write a quoted-string (RFC 5322 section 3.2.4)."""
    return '"' + text.replace('\\', r'\\').replace('"', r'\"') + '"'


@st.composite
def addresses(draw: Any) -> Tuple[str, str]:
    """Draw an address as it may be written, and as the envelope has it."""
    domain = draw(DOMAIN)
    if draw(st.booleans()):
        local = draw(DOT_ATOM)
        written = local if draw(st.booleans()) else quoted(local)
    else:
        # Something in it must need the quotes: else they are taken off.
        written = local = quoted(draw(ODD) + '@')
    assume(len(local) <= 64)
    return f'{written}@{domain}', f'{local}@{domain}'


@st.composite
def people(draw: Any) -> Tuple[str, str, str]:
    """Draw a mailbox as it may be written, its name, and its address."""
    written, address = draw(addresses())
    if draw(st.integers(0, 3)) == 0:
        return written, '', address
    name = draw(LINES.filter(lambda text: text.strip(' \t')))
    return f'{quoted(name)} <{written}>', name, address


@examples(150)
@given(LINES)
@example('a' + ' ' * 1200 + 'b')
def test_subjects(subject: str) -> None:
    """The same subject comes back."""
    assert reading.read(reading.composed({'Subject': subject})
                        ).subject == subject


@examples(100)
@given(st.from_regex('X-[A-Za-z0-9-]{1,50}', fullmatch=True), LINES)
def test_further_fields(name: str, value: str) -> None:
    """A field of any name holds any text, and its lines are short."""
    octets = reading.composed({name: value})
    field, = reading.fields(octets, name)
    as_subject = reading.composed({'Subject': value})
    assert field.isascii()
    assert reading.read(as_subject).subject == value


@examples(150)
@given(TEXTS)
def test_texts(text: str) -> None:
    """The same lines come back, and nothing can end the message early."""
    octets = reading.composed({}, text)
    assert reading.read(octets).text == reading.normal(text)
    assert b'\r\n.\r\n' not in octets or '.' in text


@examples(60)
@given(people(), st.lists(people(), min_size=1, max_size=6),
       st.lists(people(), max_size=3))
def test_people(sender: Tuple[str, str, str], to: List[Tuple[str, str, str]],
                cc: List[Tuple[str, str, str]]) -> None:
    """All names and addresses come back, in their order."""
    message = reading.compose({
        'From': sender[0], 'To': ', '.join(person[0] for person in to),
        'Cc': [person[0] for person in cc]})
    octets = reading.octets_of(message)
    reading.lint(octets)
    mail = reading.read(octets)
    assert mail.sender == [sender[1:]]
    assert mail.to == [person[1:] for person in to]
    assert mail.cc == [person[1:] for person in cc]
    assert message.sender == sender[2]
    everybody = list(dict.fromkeys(person[2] for person in to + cc))
    assert list(message.recipients) == everybody


FOLDER: Dict[str, pathlib.Path] = {}


@pytest.fixture(scope='module', autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the folder that all examples share."""
    FOLDER['path'] = tmp_path_factory.mktemp('files')


NAMES = LINES.map(lambda text: text.replace('/', '-')).filter(
    lambda name: name not in ('', '.', '..') and len(name.encode()) <= 250)


@examples(60)
@given(TEXTS, st.one_of(st.none(), TEXTS),
       st.lists(st.tuples(NAMES, st.binary(max_size=400),
                          st.integers(1, 40)), max_size=3))
def test_whole_messages(text: str, html: Any,
                        files: List[Tuple[str, bytes, int]]) -> None:
    """Text, HTML and attachments come back, octet for octet."""
    paths = []
    for number, (name, content, times) in enumerate(files):
        path = FOLDER['path'] / str(number) / name
        path.parent.mkdir(exist_ok=True)
        try:
            path.write_bytes(content * times)
        except OSError:
            assume(False)       # a name that this file system cannot have
        paths.append(str(path))
    mail = reading.read(reading.composed({}, text, html=html,
                                         attachments=paths))
    assert mail.text == reading.normal(text)
    assert mail.html == reading.normal(html or '')
    assert [(name, octets) for name, _, octets in mail.files] == [
        (name, content * times) for name, content, times in files]


PIECES = st.sampled_from([
    'a', 'b.c', 'a@b.c', '@', '@b.c', ' ', '\t', ',', '"', '(', ')', '<', '>',
    ':', ';', '\\', '[', ']', '[192.0.2.7]', '.', '=?utf-8?q?a?=', '"a b"',
    '(x)', 'Bob ', '<a@b.c>', 'é', '%', 'F:', '\x01', '\xa0', '-'])


@examples(300)
@given(st.one_of(st.lists(PIECES, max_size=14).map(''.join), LINES))
@example('a@b.c, "x@y.z" <d@e.f>, F: g@h.i;, (j@k.l) "m n"@o.p')
@example('"a"@b.c')
@example('"\\a@b.c"<x@y.z>')
def test_accepted_addresses_are_the_same_for_others(text: str) -> None:
    """Never more recipients than were typed, and others find the same."""
    try:
        parsed = smtp.parse_addresses('To', text)
    except smtp.SMTPMessageError as error:
        event('refused')
        assert error.exit_code == 65
        return
    event(f'accepted: {min(2, len(parsed.addresses))} or more')
    found = list(parsed.addresses)
    assert len(found) <= text.count('@')
    for address in found:
        local, _, domain = address.rpartition('@')
        assert local and domain
        assert len(local.encode()) <= 64 and len(address.encode()) <= 254
    message = reading.compose({'To': text, 'Bcc': 'z@example.org'})
    octets = reading.octets_of(message)
    reading.lint(octets, utf8=not ''.join(found).isascii())
    value, = reading.fields(octets, 'To')
    if found and ''.join(found).isascii():
        to = reading.read(octets).to
        assert [address.replace('"', '') for _, address in to] == [
            address.replace('"', '') for address in found]
    again = smtp.parse_addresses('To', value)
    assert list(again.addresses) == found
