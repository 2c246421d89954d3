"""What smtp.py composes, octet for octet, and what a mail reader makes of it.

Every message here is also held against the RFCs and read by the standard
library's parser; see reading.py, where both judges live.
"""

import binascii
import datetime
import email.utils
import itertools
import os
import pathlib
import re
import socket
import sys
import textwrap
import tracemalloc
from typing import Any, Iterator, List

import practice_server
import pytest
import reading
from reading import DATE, compose, composed, fields, lint, octets_of, read, refused

import smtp

KIBI = 1024
SURROGATE = '\udcff'    # an octet that is no UTF-8, in an argument
GENDER = '\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}'


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random octets that are not: 01 01 01..., then 02 02 02..., and so on."""
    numbers = itertools.count(1)
    monkeypatch.setattr(os, 'urandom',
                        lambda size: bytes([next(numbers)]) * size)


def wire(text: str) -> bytes:
    """Return a text of this file as it has to be on the wire."""
    return textwrap.dedent(text).lstrip('\n').replace('\n', '\r\n').encode()


# ------------------------------------------------------- complete messages


def test_the_simplest_message(pinned: None) -> None:
    """Plain ASCII goes as it is."""
    octets = composed({}, 'Hello Bob,\n\nlunch?\n')
    assert octets == wire('''
        From: alice@example.com
        To: bob@example.org
        Subject: Lunch
        Date: Mon, 23 Nov 2026 12:00:00 +0100
        Message-ID: <01010101010101010101010101010101@example.com>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii
        Content-Transfer-Encoding: 7bit

        Hello Bob,

        lunch?
        ''')
    assert read(octets) == reading.Mail(
        [('', 'alice@example.com')], [('', 'bob@example.org')], [], 'Lunch',
        'Hello Bob,\r\n\r\nlunch?\r\n', '', [])


def test_a_message_of_everything(pinned: None, tmp_path: pathlib.Path
                                 ) -> None:
    """All fields in their order, letters of all kinds, text and two files."""
    (tmp_path / 'menu.bin').write_bytes(bytes(range(60)))
    (tmp_path / 'Grüße.pdf').write_bytes(b'')
    message = compose({
        'From': 'Alice <alice@example.com>',
        'To': ['Bób Exampleton <bob@example.org>', '"Doe, Carol" <c@b.org>'],
        'Cc': 'Dr. Bob <dr.bob@example.org>, "odd one"@example.org',
        'Bcc': 'hidden@example.org',
        'Subject': 'Übermorgen Lunch',
        'X-Lab': '3', 'Reply-To': 'Alice Ö at work <a@example.com>'},
        'Hello Bob, to you all schöne Grüße,\n.\n', attachments=[
            str(tmp_path / 'menu.bin'), str(tmp_path / 'Grüße.pdf')])
    octets = octets_of(message)
    assert octets == wire('''
        From: Alice <alice@example.com>
        To: =?utf-8?q?B=C3=B3b_Exampleton?= <bob@example.org>, "Doe, Carol"
         <c@b.org>
        Cc: "Dr. Bob" <dr.bob@example.org>, "odd one"@example.org
        Subject: =?utf-8?q?=C3=9Cbermorgen?= Lunch
        Date: Mon, 23 Nov 2026 12:00:00 +0100
        Message-ID: <01010101010101010101010101010101@example.com>
        X-Lab: 3
        Reply-To: =?utf-8?q?Alice_=C3=96_at_work?= <a@example.com>
        MIME-Version: 1.0
        Content-Type: multipart/mixed; boundary="=_020202020202020202020202"

        --=_020202020202020202020202
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: quoted-printable

        Hello Bob, to you all sch=C3=B6ne Gr=C3=BC=C3=9Fe,
        =2E

        --=_020202020202020202020202
        Content-Type: application/octet-stream
        Content-Transfer-Encoding: base64
        Content-Disposition: attachment; filename="menu.bin"

        AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4
        OTo7

        --=_020202020202020202020202
        Content-Type: application/pdf
        Content-Transfer-Encoding: base64
        Content-Disposition: attachment; filename*=utf-8\'\'Gr%C3%BC%C3%9Fe.pdf


        --=_020202020202020202020202--
        ''')
    lint(octets)
    assert message.sender == 'alice@example.com'
    assert list(message.recipients) == [
        'bob@example.org', 'c@b.org', 'dr.bob@example.org',
        '"odd one"@example.org', 'hidden@example.org']
    assert read(octets) == reading.Mail(
        [('Alice', 'alice@example.com')],
        [('Bób Exampleton', 'bob@example.org'), ('Doe, Carol', 'c@b.org')],
        [('Dr. Bob', 'dr.bob@example.org'), ('', '"odd one"@example.org')],
        'Übermorgen Lunch', 'Hello Bob, to you all schöne Grüße,\r\n.\r\n', '',
        [('menu.bin', 'application/octet-stream', bytes(range(60))),
         ('Grüße.pdf', 'application/pdf', b'')])


def test_html_and_a_file(pinned: None, tmp_path: pathlib.Path) -> None:
    """The alternatives are one part, the plain one first (RFC 2046 5.1.4)."""
    (tmp_path / 'a.png').write_bytes(b'\x89PNG')
    octets = composed({}, 'Hi', html='<p>Hi</p>',
                      attachments=[str(tmp_path / 'a.png')])
    outline = re.findall(rb'^(--=_.*|Content-Type.*)\r$', octets, re.MULTILINE)
    kinds = [line.split(b';')[0] for line in outline]
    assert [kind for kind in kinds if kind.startswith(b'C')] == [
        b'Content-Type: multipart/mixed',
        b'Content-Type: multipart/alternative', b'Content-Type: text/plain',
        b'Content-Type: text/html', b'Content-Type: image/png']
    mail = read(octets)
    assert (mail.text, mail.html) == ('Hi\r\n', '<p>Hi</p>\r\n')
    assert mail.files == [('a.png', 'image/png', b'\x89PNG')]


def test_only_blind_copies(pinned: None) -> None:
    """Bcc is nowhere in the message, and To says that it hides somebody."""
    message = compose({'To': None, 'Bcc': 'bob@example.org, c@example.org'})
    assert octets_of(message) == wire('''
        From: alice@example.com
        To: undisclosed-recipients:;
        Subject: Lunch
        Date: Mon, 23 Nov 2026 12:00:00 +0100
        Message-ID: <01010101010101010101010101010101@example.com>
        MIME-Version: 1.0
        Content-Type: text/plain; charset=us-ascii
        Content-Transfer-Encoding: 7bit

        Hello
        ''')
    assert list(message.recipients) == ['bob@example.org', 'c@example.org']


def test_empty_subject_and_text(pinned: None) -> None:
    """A message may say nothing at all; its header is complete all the same."""
    octets = composed({'Subject': ''}, '')
    assert b'\r\nSubject:\r\n' in octets or b'\r\nSubject: \r\n' in octets
    assert octets.endswith(b'\r\nContent-Transfer-Encoding: 7bit\r\n\r\n')
    assert read(octets).text == ''


def test_a_missing_subject_is_an_empty_one() -> None:
    """The field is there: readers expect it."""
    assert fields(composed({'Subject': None}), 'Subject') == ['']


def test_only_cc() -> None:
    """Somebody in Cc is no secret: there is no 'undisclosed-recipients'."""
    octets = composed({'To': None, 'Cc': 'bob@example.org'})
    assert fields(octets, 'To') == []
    assert fields(octets, 'Cc') == ['bob@example.org']


def test_letters_in_base64(pinned: None) -> None:
    """Where most letters are not ASCII, base64 is shorter."""
    octets = composed({'Subject': 'こんにちは'}, 'こんにちは、ボブ。\n' * 3)
    assert octets.split(b'\r\n\r\n')[1] == wire('''
        44GT44KT44Gr44Gh44Gv44CB44Oc44OW44CCDQrjgZPjgpPjgavjgaHjga/jgIHjg5zjg5bjgIIN
        CuOBk+OCk+OBq+OBoeOBr+OAgeODnOODluOAgg0K
        ''')
    assert fields(octets, 'Content-Transfer-Encoding') == ['base64']
    assert fields(octets, 'Subject') == ['=?utf-8?b?44GT44KT44Gr44Gh44Gv?=']
    mail = read(octets)
    assert mail.subject == 'こんにちは'
    assert mail.text == 'こんにちは、ボブ。\r\n' * 3


# ------------------------------------------------------------------ header


def test_the_date_and_message_id_are_made_when_they_are_missing() -> None:
    """The clock gives the one, chance the other, so that none comes twice."""
    octets = composed({'Date': None, 'From': 'Alice <a@lab.example.com>'})
    date, = fields(octets, 'Date')
    moment = email.utils.parsedate_to_datetime(date)
    assert email.utils.format_datetime(moment) == date      # the weekday, too
    age = datetime.datetime.now(datetime.timezone.utc) - moment
    assert abs(age) < datetime.timedelta(seconds=30)
    name, = fields(octets, 'Message-ID')
    assert re.fullmatch('<[!-;=?A-~]{20,}@lab[.]example[.]com>', name)
    assert name not in octets_of(compose({'Date': None})).decode()
    assert compose({}).message_id != compose({}).message_id


def test_a_given_date_is_kept() -> None:
    """Also an empty one means: now."""
    assert fields(composed({'Date': DATE}), 'Date') == [DATE]
    assert reading.DATE_FORM.fullmatch(
        fields(composed({'Date': ''}), 'Date')[0])


@pytest.mark.parametrize('date', ['Montag, 23. Jänner 2026', 'x' * 2000])
def test_a_date_that_cannot_be_sent_as_it_is(date: str) -> None:
    """Refused, or written by the rules of header fields; never raw."""
    try:
        message = compose({'Date': date})
    except smtp.SMTPMessageError as error:
        assert error.exit_code == 65
    else:
        lint(octets_of(message), utf8=False)


def test_message_info_is_left_as_it_was() -> None:
    """A caller may send the same to somebody else afterwards."""
    info = {**reading.INFO, 'To': ['bob@example.org'], 'X-Lab': ['1', '2']}
    before = repr(info)
    smtp.build_message(info, 'Hello')
    assert repr(info) == before


def test_recipients_once_each() -> None:
    """The domain in any case of letters; before the @ every letter counts."""
    message = compose({
        'To': 'bob@example.org, BOB@example.org', 'Cc': 'bob@EXAMPLE.org',
        'Bcc': ['bob@example.org', 'carol@example.org']})
    assert list(message.recipients) == [
        'bob@example.org', 'BOB@example.org', 'carol@example.org']


def test_each_entry_of_a_list_stands_for_itself() -> None:
    """An open parenthesis in one does not make the next a comment."""
    for to in (['bob@example.org (x', 'carol@example.org)'],
               ['"bob', 'x" <carol@example.org>'],
               ['Friends: bob@example.org', 'carol@example.org;'],
               ['Bob <bob@example.org', 'carol@example.org>']):
        for field in 'To', 'Cc', 'Bcc':
            with refused(field):
                compose({'To': 'dave@example.org', field: to})


@pytest.mark.parametrize('info, naming', [
    ({'From': None}, 'From'), ({'From': ''}, 'From'),
    ({'From': 'alice@example.com, bob@example.org'}, 'From'),
    ({'From': ['alice@example.com', 'bob@example.org']}, 'From'),
    ({'From': 'undisclosed:;'}, 'From'),
    ({'To': None}, 'recipient'), ({'To': ''}, 'recipient'),
    ({'To': ' , '}, 'recipient'), ({'To': []}, 'recipient'),
    ({'To': 'friends:;'}, 'recipient'), ({'from': 'bob@example.org'}, 'twice'),
    ({'SUBJECT': 'x'}, 'twice')])
def test_whom_a_message_cannot_do_without(info: Any, naming: str) -> None:
    """One sender, a recipient, and no field twice."""
    with refused(naming):
        compose(info)


def test_own_header_fields() -> None:
    """They stand between Message-ID and MIME-Version, in the given order."""
    octets = composed({'X-Lab': ['1', 'Zwölf'], 'In-Reply-To': '<1@example>',
                       'Reply-To': 'Bob Ö <b@example.org>, "c d"@example.org',
                       'Keywords': '', 'X-Long': 'word ' * 40 + 'end'})
    assert fields(octets, 'X-Lab') == ['1', '=?utf-8?q?Zw=C3=B6lf?=']
    assert fields(octets, 'In-Reply-To') == ['<1@example>']
    assert fields(octets, 'Reply-To') == [
        '=?utf-8?q?Bob_=C3=96?= <b@example.org>, "c d"@example.org']
    assert fields(octets, 'Keywords') == ['']
    assert fields(octets, 'X-Long') == ['word ' * 40 + 'end']
    names = re.findall(rb'^([\w-]+):', octets.partition(b'\r\n\r\n')[0],
                       re.MULTILINE)
    assert names[5:] == [
        b'X-Lab', b'X-Lab', b'In-Reply-To', b'Reply-To', b'Keywords',
        b'X-Long', b'MIME-Version', b'Content-Type',
        b'Content-Transfer-Encoding']


@pytest.mark.parametrize('name', [
    'MIME-Version', 'Content-Type', 'content-transfer-encoding', 'Message-ID',
    'message-id', 'CONTENT-disposition', 'Bad Name', 'Bad:Name', '', 'Naïve',
    'X\r\nBcc', 'X\n', 'X\0', ' X', 'X ', SURROGATE, 'X' * 1000])
def test_fields_that_cannot_be_ones_own(name: str) -> None:
    """Those that smtp.py writes itself, and names that are none."""
    with refused() as error:
        compose({name: 'value'})
    if name.isprintable():
        assert name.lower() in str(error.value).lower()


@pytest.mark.parametrize('evil', [
    '\r', '\n', '\r\n', '\0', SURROGATE, '\r\nBcc: eve@example.org',
    '\n eve', '\ud83d'], ids=ascii)
@pytest.mark.parametrize('field, value', [
    ('From', 'alice{}@example.com'), ('From', 'Ali{}ce <alice@example.com>'),
    ('From', '"Ali{}ce" <alice@example.com>'), ('From', 'a@example.com{}'),
    ('From', 'alice@exam{}ple.com'), ('From', 'a@example.com (A{}lice)'),
    ('From', '"ali{}ce"@example.com'), ('From', 'alice@[192.0.2.{}7]'),
    ('To', 'Friends{}: bob@example.org;'), ('To', 'bob@example.org{}'),
    ('Cc', '{}bob@example.org'), ('Bcc', 'bob@example.org,{}'),
    ('Subject', 'Hel{}lo'), ('Subject', '{}'), ('Date', DATE + '{}'),
    ('X-Lab', 'a{}b'), ('Reply-To', 'bob@example.org{}')])
def test_no_line_end_nor_nul_in_a_header(field: str, value: str, evil: str
                                         ) -> None:
    """They would begin a field, or a command, of a stranger's choice."""
    with refused(field):
        compose({field: value.format(evil)})


@pytest.mark.parametrize('subject', [
    'x', 'two words', 'a  b', 'a' + ' ' * 90 + 'b', 'a' + ' ' * 2000 + 'b',
    ' ', '   ', ' leading', '  leading', 'trailing ', 'trailing  ',
    'tab\tinside', '\t', 'ä', 'ä b', 'a ä', 'a ä b', 'ä b ö', 'ä  b', 'a  ä',
    'a  ä  b', ' ä ', '=?utf-8?q?Hello?=', 'a =?utf-8?b?QQ==?= b', '=?', '?=',
    'a=?b', '=?utf-8?q?a b?=', 'x' * 200, 'x' * 998, 'x' * 5000,
    'word ' * 100 + '.', 'ä' * 300, 'ä ' * 100 + 'ö', '日本語' * 100,
    GENDER * 50, '\N{PILE OF POO}' * 200, 'e\u0301' * 100, 'a_b=c?d é',
    'quote " and \\ back', 'comma, semicolon; <angle> (round)', 'Re: Fwd: é',
    '\x01\x1b[31m\x7f', '\v', '\f', '\x85', '\u2028', '\u202egnp.exe',
    'x\ufeffy', '\U0010ffff', '\ufffe', 'ä' + 'x' * 900 + ' y',
    ('x' * 74 + ' ') * 3 + 'é', 'A' * 69, 'A' * 70, 'é' * 20 + ' ' * 200,
    'https://example.com/' + 'p' * 300], ids=lambda text: ascii(text)[1:21])
def test_subjects(subject: str) -> None:
    """Whatever is written comes back, space for space."""
    octets = composed({'Subject': subject})
    assert read(octets).subject == subject


def test_subject_octets() -> None:
    """What can be read as it is stays so; the rest is encoded, not more."""
    for subject, value in [
            ('Lunch at 12:00, OK?', 'Lunch at 12:00, OK?'),
            ('Übermorgen', '=?utf-8?q?=C3=9Cbermorgen?='),
            ('Re: Übermorgen um 12', 'Re: =?utf-8?q?=C3=9Cbermorgen?= um 12'),
            ('a für Alice und ö b', 'a =?utf-8?q?f=C3=BCr_Alice_und_=C3=B6?= b'),
            ('你好', '=?utf-8?b?5L2g5aW9?=')]:
        assert fields(composed({'Subject': subject}), 'Subject') == [value]


@pytest.mark.parametrize('letters, form', [
    ('\N{PILE OF POO}é' * 40, 'b'), (f'{"x" * 12}é' * 20, 'q')],
    ids=['base64', 'quoted'])
def test_a_character_is_never_cut(letters: str, form: str) -> None:
    """Each encoded-word can be decoded alone (RFC 2047 section 5)."""
    for shift in range(12):
        subject = 'x' * shift + letters
        value, = fields(composed({'Subject': subject}), 'Subject')
        words = value.split(' ')
        assert len(words) > 3 and words[0].startswith(f'=?utf-8?{form}?')
        text = ''
        for word in words:
            _, _, encoding, encoded, _ = word.split('?')
            raw = (binascii.a2b_base64(encoded) if encoding in 'bB' else
                   binascii.a2b_qp(encoded, header=True))
            text += raw.decode('utf-8')
        assert text == subject


@pytest.mark.parametrize('name', [
    'X-A', 'X-Description', 'X-A-Rather-Long-Name-For-A-Field',
    'X-' + 'Long-' * 11 + 'Name'])
@pytest.mark.parametrize('value', ['Ä' * 100, 'Ä b ' * 30 + 'c', 'x ' * 99],
                         ids=['Ä', 'Ä b', 'x'])
def test_long_names_leave_less_room(name: str, value: str) -> None:
    """A line with an encoded-word has at most 76 octets (RFC 2047 2)."""
    octets = composed({name: value.strip()})
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    # Up to Python 3.12 the space after a fold behind the colon is left there.
    assert parsed[name].lstrip() == value.strip()


def test_long_words_that_must_stay_as_they_are() -> None:
    """An encoded Message-ID would be another one, and break the thread."""
    name = f'<{"a" * 120}@example.org>'
    octets = composed({'In-Reply-To': name, 'References': f'{name} {name}'})
    assert fields(octets, 'In-Reply-To') == [name]
    assert fields(octets, 'References') == [f'{name} {name}']


@pytest.mark.parametrize('field', ['Reply-To', 'Sender', 'Mail-Followup-To'])
@pytest.mark.parametrize('name', ['Ä' * 100, 'b' * 64, 'Bob Exämple'],
                         ids=['Ä', 'b', 'Bob'])
def test_long_names_of_people(field: str, name: str) -> None:
    """Fields of addresses follow the same rules."""
    octets = composed({field: f'"{name}" <bob@example.org>'})
    value, = fields(octets, field)
    read_as_to = octets.replace(b'\r\nTo: ', b'\r\nX-To: ').replace(
        f'\r\n{field}:'.encode(), b'\r\nTo:')
    assert value
    assert read(read_as_to).to == [(name, 'bob@example.org')]


def test_many_recipients_are_folded() -> None:
    """A thousand addresses in To, each on a line of its own if need be."""
    to = [f'Person Number {number} <person.{number}@example.org>'
          for number in range(1000)]
    message = compose({'To': to})
    octets = octets_of(message)
    lint(octets)
    assert list(message.recipients) == [
        f'person.{number}@example.org' for number in range(1000)]
    assert [person[1] for person in read(octets).to] == message.recipients


def test_the_longest_address() -> None:
    """It cannot be folded, and stays below 998."""
    local = 'a' * 64
    domain = '.'.join(['b' * 63, 'c' * 63, 'd' * 61])
    address = f'{local}@{domain}'
    assert len(address) == 254
    octets = composed({'To': f'{"Ä" * 99} <{address}>'})
    assert read(octets).to == [('Ä' * 99, address)]


def test_who_needs_smtputf8() -> None:
    """Only who has letters beyond ASCII before the @, wherever it stands."""
    assert not compose({'To': 'Bób <bob@bücher.example>'}).needs_smtputf8
    for field in 'From', 'To', 'Cc', 'Bcc', 'Reply-To':
        message = compose({field: 'jösé@example.org'})
        assert message.needs_smtputf8, field
        octets = octets_of(message)
        lint(octets, utf8=True)
        assert ('jösé'.encode() in octets) == (field != 'Bcc')


# -------------------------------------------------------------------- text


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


# ------------------------------------------------------------- attachments


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
    """Refused, or whole; never silently nothing."""
    with open('/proc/version', 'rb') as whole:
        content = whole.read()
    try:
        octets = octets_of(compose({}, attachments=['/proc/version']))
    except smtp.SMTPMessageError:
        return
    assert read(octets).files[0][2] == content


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
    if when == 'while':
        while b'YWJjYWJj' not in next(chunks):
            pass
    change(path)
    if when == 'while' and change in (replace, os.remove, become_a_fifo):
        # The open file is still the one that it was: it may go on.
        try:
            b''.join(chunks)
        except smtp.SMTPMessageError:
            pass
        return
    with pytest.raises(smtp.SMTPMessageError) as caught:
        b''.join(chunks)
    assert path in str(caught.value)
    assert caught.value.exit_code in (65, 66)
    assert not caught.value.may_have_been_sent


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


# -------------------------------------------------------------- boundaries


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
