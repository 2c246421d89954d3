"""The header of a message: dates, people, own fields, subjects, folding."""

import binascii
import datetime
import email.utils
import re
from typing import Any

import pytest
import reading
from reading import (
    DATE,
    GENDER,
    SURROGATE,
    compose,
    composed,
    fields,
    lint,
    octets_of,
    read,
    refused,
)

import smtp

# ----------------------------------------------------- dates and recipients


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


# ------------------------------------------------------ fields of one's own


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


# ------------------------------------------------ encoded-words and folding


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
    """In ASCII it stays as it is, else it is encoded as a whole."""
    for subject, value in [
            ('Lunch at 12:00, OK?', 'Lunch at 12:00, OK?'),
            ('Übermorgen', '=?utf-8?q?=C3=9Cbermorgen?='),
            ('Re: Übermorgen um 12',
             '=?utf-8?q?Re=3A_=C3=9Cbermorgen_um_12?='),
            ('a für Alice und ö b',
             '=?utf-8?q?a_f=C3=BCr_Alice_und_=C3=B6_b?='),
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


# ----------------------------------------------------------------- SMTPUTF8


def test_who_needs_smtputf8() -> None:
    """Only who has letters beyond ASCII before the @, wherever it stands."""
    assert not compose({'To': 'Bób <bob@bücher.example>'}).needs_smtputf8
    for field in 'From', 'To', 'Cc', 'Bcc', 'Reply-To':
        message = compose({field: 'jösé@example.org'})
        assert message.needs_smtputf8, field
        octets = octets_of(message)
        lint(octets, utf8=True)
        assert ('jösé'.encode() in octets) == (field != 'Bcc')
