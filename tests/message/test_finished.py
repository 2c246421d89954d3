"""--message: finished messages go as they are, to the people they name."""

import re
import time

import pytest

from support import checks, judges
from support.checks import MESSAGE, REFUSED, SENT
from support.judges import MESSAGES, meant
from support.post import ALICE, BOB, CAROL, HIDDEN, PASSWORD

FINISHED = {path.stem: path.read_bytes()
            for path in sorted((MESSAGES / 'finished').glob('*.eml'))}
DESK, LIST, TEAM = 'desk@example.org', 'list@[192.0.2.7]', 'team@example.net'
EIGHT, FRONT = 'BODY=8BITMIME', 'front@example.net'
# Sample, options, and what they ask for: MAIL, RCPT, parameters of MAIL
SAMPLES = [
    ('blind_copies', [], ALICE,
     [HIDDEN, FRONT, 'list@example.net', TEAM, BOB], []),
    ('forwarded', [], ALICE, [BOB], [EIGHT]),
    ('line_ends', [], ALICE, [BOB], []), ('mailbox', [], ALICE, [BOB], []),
    ('outlook', [], ALICE, [BOB, CAROL, DESK, HIDDEN, FRONT], []),
    ('people', [], DESK, [
        BOB, 'carol@Example.ORG', LIST, TEAM, '"front desk"@example.org',
        '"a <b, c"@example.org'], []),
    ('thunderbird', [], ALICE, [BOB, CAROL, HIDDEN], [EIGHT]),
    ('utf8_header', [], ALICE, [BOB], [EIGHT, 'SMTPUTF8']),
    # What is given there counts; the message stays as it is.
    ('resent', ['-f', ALICE, CAROL, DESK], ALICE, [CAROL, DESK], []),
    ('mailbox', ['-f', DESK], DESK, [BOB], []),
    ('outlook', ['-b', f'Carol <{CAROL}>, {DESK}'], ALICE, [CAROL, DESK], []),
    ('people', ['-i', '-f', f'Desk <{DESK}>', f'<{CAROL}>', CAROL], DESK,
     [CAROL], [])]
HEADER = (b'From: alice@example.com\nTo: bob@example.org\n'
          b'Date: Mon, 23 Nov 2026 12:00:00 +0100\nMessage-ID: <1@b.c>\n')
SECOND = b'\nFrom bob Mon\nSubject: b\n\nHi\n'


@pytest.fixture
def send(call, folder, post):
    """A function that sends octets, from a file and a pipe."""
    def send(octets, code, *words, args=(), absent=()):
        (folder / 'a.eml').write_bytes(octets)
        for source in '-', 'a.eml':
            post.accept()
            result = call(*post.options, '-v', '-u', ALICE, *args, '--message',
                          source, password=PASSWORD, stdin=octets)
            checks.check(result, code, *words, absent=absent)
            assert code == SENT or 'C: MAIL' not in result.err
        return post.only() if code == SENT else None
    return send


@pytest.mark.parametrize('name, args, sender, recipients, options', SAMPLES)
def test_samples(call, send, name, args, sender, recipients, options):
    """They arrive octet for octet, at those they name; -n prints them."""
    received = send(FINISHED[name], SENT, args=args)
    assert received.sender == sender
    assert sorted(received.recipients) == sorted(recipients)
    assert sorted(received.mail_options) == sorted(
        [*options, f'SIZE={len(received.content)}'])
    assert received.content == meant(FINISHED[name])
    assert call('-n', *args, '--message', '-', stdin=FINISHED[name]
                ).out == received.content
    assert FINISHED.keys() == {sample[0] for sample in SAMPLES}


def test_what_is_added(send):
    """Date, Message-ID, From; no one has to understand its addresses."""
    received = send(b'To: x y\nCc: @', SENT, args=['-f', f'A <{ALICE}>', BOB])
    assert received.content.startswith(b'To: x y\r\nCc: @\r\n')
    assert received.content.endswith(b'\r\n\r\n')
    assert judges.fields(received.content, 'From') == [ALICE]
    assert judges.DATE_FORM.fullmatch(*judges.fields(received.content, 'Date'))
    assert re.fullmatch('<[^<>@]+@example.com>', *judges.fields(
        received.content, 'Message-ID'))


@pytest.mark.parametrize('octets', [
    HEADER + b'\nHi\n' + SECOND,    # not a mailbox
    b'From x\n' + HEADER + b'\nHi\nFrom y\nSubject: b\n',
    b'From x\n' + HEADER + b'\n\nFrom the desk of Bob\nprose\n>From y\nb: c\n',
    HEADER, HEADER + b'\n', HEADER + b'\n' + bytes({*range(1, 256)} - {10, 13})
    + b'\n', HEADER + b'X:\n ' + b'x' * 997 + b'\n\n.' + b'x' * 997,
    HEADER + b'X: y\n z\n' * 9999 + b''.join(
        b'\n' + b'x' * shift + b'\n.' * 30_000 for shift in range(3))
    + b'\xe2\x82\xac' * 332],
    ids=lambda octets: ascii(octets[-20:]))
def test_what_goes_through(send, octets):
    """A body that looks like a mailbox; any octet; lines of 998; at once."""
    begun = time.process_time()
    assert send(octets, SENT).content == meant(octets)
    assert time.process_time() - begun < 10     # of a slow, busy computer


@pytest.mark.parametrize('octets, words', [
    (b'\r\n', "line .*: ''"), (b'PK\x03\x04\0', 'line .*PK'),
    (b'From x\n' + HEADER + b'\nHi\n' + SECOND, 'holds 2 messages'),
    (b'From x\n' + HEADER + b'\n' * 99_999 + SECOND * 2, 'holds 3 messages'),
    ((b'From x\n' + HEADER + b'\n' + SECOND).replace(b'\n', b'\r\n'),
     'holds 2 messages'), (b'To: bob@example.org\n\n', 'From.*--from'),
    (b'From: a@b.c, d@e.f\nTo: b@c.d\n\n', 'Sender.*--from'),
    (b'From: a@b.c\nTo: Nobody:;\n\n', 'recipient.*--to'),
    (b'From: a@b.c\nTo: bob\n\n', 'bob.*--to'), (b'\n' + HEADER, 'line'),
    (b'From: a@b.c\nTo: <@hub.example:b@c.d>\n\n', '--from.*--to'),
    (b'From: a@b.c\nTo: a@b.c bob <b@c.d>\n\n', 'comma'),
    (b'Resent-From: a@b.c\n' + HEADER + b'\n', 'resent.*--from.*--to'),
    (b'Hello Bob,\n\nlunch?\n', 'line .*Hello Bob'), (b' ' + HEADER, 'line'),
    (HEADER + b'X Y: z\n\n', "line .*: 'X Y"),
    (HEADER + b'Hi\n\n', "line .*: 'Hi"),
    (HEADER + b'Subject: Gr\xfc\xdfe\n\nHi', "line .*: 'Subject: Gr"),
    ('From: a@b.c\n'.encode('utf-16'), 'line'),
    (HEADER + b'\nHel\0lo', 'has a NUL'),
    (HEADER + b'X:\n \0\n\n', 'has a NUL'),
    (HEADER + b'X:\n ' + b'x' * 998 + b'\n\n', '998.* fold'),
    (HEADER + b'\n.' + b'x' * 998, '998.*quoted-printable'),
    (HEADER + b'\n' + b'Hi\n' * 99_999 + b'\xe2\x82\xac' * 333, '998'),
    # A CR in a header neither ends a line nor disappears.
    *((octets, 'line') for cr in (
        b'Subject: x\rBcc: evil@b.c\n', b'Subject: x\n y\r\rTo: evil@b.c\n',
        b'Subject: x\r\n\rTo: e@b.c\r\n', b'Subject: x\n \rTo: evil@b.c\n',
        b'\rTo: evil@b.c\n', b'Cc:\n carol@c.d,\r evil@b.c\n', b'X\r-Y: x\n',
        b'Bcc: h@b.c\n x\r\r\nTo: evil@b.c\n')
      for octets in (cr + HEADER + b'\nHi', HEADER + cr + b'\nHi'))],
    ids=lambda value: ascii(value)[-40:])
def test_what_cannot_be_sent(send, octets, words):
    """It is said what is missing, or wrong."""
    send(octets, MESSAGE, words)


def test_what_the_server_does_not_offer(send, monkeypatch):
    """A server of seven bits is not even asked; there is advice."""
    monkeypatch.setattr('support.practice_server.EXTENSIONS', ('STARTTLS',))
    send(FINISHED['forwarded'], REFUSED, '8BITMIME', 'quoted-printable')
    send(FINISHED['utf8_header'], REFUSED, 'SMTPUTF8', 'encoded-words')
