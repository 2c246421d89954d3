"""Complete messages: what smtp.py composes of all its parts, octet for octet.

Header, text and attachments have files of their own. Every message there and
here is also held against the RFCs and read by the standard library's parser;
see reading.py, where both judges live.
"""

import itertools
import os
import pathlib
import re
import textwrap

import pytest
import reading
from reading import compose, composed, fields, lint, octets_of, read


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random octets that are not: 01 01 01..., then 02 02 02..., and so on."""
    numbers = itertools.count(1)
    monkeypatch.setattr(os, 'urandom',
                        lambda size: bytes([next(numbers)]) * size)


def wire(text: str) -> bytes:
    """Return a text of this file as it has to be on the wire."""
    return textwrap.dedent(text).lstrip('\n').replace('\n', '\r\n').encode()


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
        Subject: =?utf-8?q?=C3=9Cbermorgen_Lunch?=
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
    """A message may say nothing at all; its header is complete anyhow."""
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
