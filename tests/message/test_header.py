"""The header, by data/header.ini: fields, encoded-words, dates, recipients."""

import email
import email.policy
import re
import time

import pytest

import smtp
from support import judges, tables
from support.judges import GENDER, SURROGATE, composed, fields, read, refused
from support.post import ALICE, PASSWORD

MIXED = 'Ann (x) "y" <b@[192.0.2.7]>, F: "a b"@c.d;'


def test_date_and_message_id():
    """The clock gives the one, chance the other, so that none comes twice."""
    octets = composed({'Date': '', 'From': 'A <a@bücher.example>'})
    date, = fields(octets, 'Date')
    assert judges.DATE_FORM.fullmatch(date)
    moment = email.utils.parsedate_to_datetime(date)
    assert abs(moment.timestamp() - time.time()) < 30
    name, = fields(octets, 'Message-ID')
    assert re.fullmatch('<[!-;=?A-~]{20,}@xn--bcher-kva.example>', name)
    assert fields(composed({}), 'Message-ID') != fields(
        composed({}), 'Message-ID')


def test_each_recipient_once():
    """The domain in any case of letters; info may be used again."""
    info = {**judges.INFO, 'Cc': 'bob@EXAMPLE.org, BOB@example.org',
            'Bcc': ['bob@example.org', 'carol@example.org']}
    before = repr(info)
    assert judges.envelope_of(smtp.build_message(info, ''))[1] == [
        'bob@example.org', 'BOB@example.org', 'carol@example.org']
    assert repr(info) == before


@pytest.mark.parametrize('info, naming', [
    ({'From': None}, 'From'), ({'From': ''}, 'From'),
    ({'From': ['a@b.c', 'd@e.f']}, 'From'), ({'From': 'x:;'}, 'From'),
    ({'To': None}, 'recipient'), ({'To': ' , '}, 'recipient'),
    ({'To': []}, 'recipient'), ({'To': 'friends:;'}, 'recipient'),
    # Each entry of a list counts alone: what one opens no other can close.
    ({'To': ['b@c.d (x', 'c@d.e)']}, 'To'), ({'Cc': ['"b', '" <c@d>']}, 'Cc'),
    ({'Bcc': ['F: b@c.d', 'c@d.e']}, 'Bcc'), ({'To': ['<b@c.d', '>']}, 'To'),
    ({'from': 'b@c.d'}, 'twice'), ({'SUBJECT': 'x'}, 'twice'),
    ({'Reply-To': ['a@b.c', 'd@e.f']}, 'twice'),
    ({'Reply-To': 'a@b.c', 'reply-to': 'd@e.f'}, 'twice'),
    ({'References': ['<1@b.c>', '<2@b.c>']}, 'twice'),
    ({'Reply-To': 'no address'}, 'Reply-To'), ({'Sender': 'x'}, 'Sender'),
    ({'Date': 'Jänner'}, 'Date'), ({'Date': 'x' * 2000}, 'Date'),
    *(({name: 'x'}, name) for name in (
        'MIME-Version', 'Content-Type', 'content-transfer-encoding', 'Resent-'
        'Bcc', 'Message-ID', 'CONTENT-disposition', 'Bad Name', 'Bad:Name', '',
        'Naïve', 'X\n', 'X\0', ' X', 'X ', SURROGATE, 'X' * 1000))], ids=ascii)
def test_what_a_header_cannot_be(info, naming):
    """One sender, a recipient, no field twice, names that are valid."""
    with refused() as caught:
        judges.compose(info)
    assert naming.lower() in str(caught.value).lower() or \
        not naming.isprintable()


@pytest.mark.parametrize('row', tables.rows('header', 'fields'),
                         ids=lambda row: row[0])
def test_fields(row):
    """Only what has to be is encoded; an address never vanishes."""
    name, text, value = (row + row[-1:])[:3]
    octets = composed({name: text})
    assert fields(octets, name) == [value]
    assert name != 'Subject' or read(octets).subject == text


@pytest.mark.parametrize('evil', [
    '\r', '\n', '\r\nBcc: eve@example.org', '\0', SURROGATE, '\ud83d'],
    ids=ascii)
def test_no_line_end_nor_nul_in_a_header(evil):
    """They would begin a field, or a command, of a stranger's choice."""
    for field, value in (
            ('From', '"A{}l" <a@b.c>'), ('Bcc', 'b@c.d{}'), ('Cc', '{}b@c.d'),
            ('Subject', 'H{}i'), ('Subject', '{}'), ('Reply-To', 'b@c.d{}'),
            ('Date', judges.DATE + '{}'), ('X-A', 'a{}b'), *(
                ('To', MIXED[:place] + '{}' + MIXED[place:])
                for place in range(len(MIXED) + 1))):
        with refused(field):
            judges.compose({field: value.format(evil)})


@pytest.mark.parametrize('subject', [
    '', 'a' + ' ' * 2000 + 'b', '   ', ' leading', 'trailing  ', '\t',
    ' a  ä  b ', '=?', 'a=?b', '=?utf-8?q?a b?=', 'x' * 998, 'x' * 5000,
    'word ' * 100 + '.', 'ä ' * 100 + 'ö', '日本語' * 100, 'e\u0301' * 100,
    'é' * 20 + ' ' * 200, GENDER * 50, '\x01\x1b[31m\x7f', '\v\f\ufffe',
    'x\ufeffy', *('A' * length for length in range(65, 80)), 'A' * 76 + ' ',
    ('x' * 74 + ' ') * 3 + 'é', *(
        'x' * shift + letters for shift in range(12) for letters in (
            '\N{PILE OF POO}é' * 40, f'{"x" * 12}é' * 20))],
    ids=lambda text: ascii(text)[1:21])
def test_subjects_come_back(subject):
    """Space for space; each line is short, no character is cut."""
    assert read(composed({'Subject': subject})).subject == subject
    for name in 'X-A', 'X' * 60:
        parsed = email.message_from_bytes(
            composed({name: subject}), policy=email.policy.default)
        # Up to Python 3.12 the space after a fold before it is left there.
        assert parsed[name].lstrip(' ') == subject.lstrip(' ')


@pytest.mark.parametrize('field', ['From', 'To', 'Cc', 'Bcc', 'Reply-To'])
def test_who_needs_smtputf8(post, field):
    """Only who has letters beyond ASCII before the @, in whatever field."""
    for name, address in ('Alice', 'ö@b.c'), ('Ö', 'ö@b.c'), ('Ö', 'a@ö.c'):
        post.accept()
        smtp.smtp_send(PASSWORD, {**judges.INFO, field: f'{name} <{address}>'},
                       'x', user=ALICE, **post.session)
        options, octets = post.only().mail_options, post.only().content
        assert ('SMTPUTF8' in options) == (address == 'ö@b.c')
        assert octets.isascii() == (address != 'ö@b.c' or field == 'Bcc')


def test_a_line_is_filled():
    """A word goes to the next line only if it does not fit into 76."""
    for last, lines in ('y' * 6, 1), ('y' * 7, 2):
        text = composed({'Subject': f'{"x" * 60} {last}'}).decode()
        field = re.search(r'(?s)\r\n(Subject: .*?)\r\nDate', text)[1]
        assert field.count('\r\n') + 1 == lines
        assert max(map(len, field.split('\r\n'))) <= 76
