"""Addresses, by data/addresses.ini: understood, or refused, and at once."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import smtp
from support import judges, tables


@pytest.mark.parametrize('row', tables.rows('addresses', 'taken'),
                         ids=lambda row: ascii(row[1])[1:40])
def test_what_is_understood(row):
    """The envelope, the header, and what a reader makes of it."""
    _, text, envelope, field = (row + row[-1:] * 2)[:4]
    addresses = judges.envelope_of(judges.compose({'To': text}))[1]
    assert addresses == envelope.split(' & ') or envelope == '*'
    octets = judges.composed({'To': text})
    assert judges.fields(octets, 'To') == [field] or field == '*'
    if ''.join(addresses).isascii():
        assert [each[1] for each in judges.read(octets).to] == addresses


@pytest.mark.parametrize('reason, text', [
    (reason, text) for reason, *texts in tables.rows(
        'addresses', 'refused', ' {2,}') for text in texts], ids=ascii)
def test_what_is_refused(reason, text):
    """The error names the field and the reason."""
    for field in 'To', 'From', 'Bcc':
        with judges.refused(f'{field}: ', reason):
            judges.compose({field: text})


@pytest.mark.parametrize('more', [0, 1])
@pytest.mark.parametrize('address', [    # each as long as it may be
    'bob@' + 'a' * 63 + '.org', 'bob@' + 'ä' * 57 + '.org',
    'bob@' + '.'.join(['a' * 62] * 4 + ['aaa']), 'a' * 983 + '@example.org'],
    ids=lambda address: ascii(address)[-20:])
def test_long_addresses(address, more):
    """The server knows its limit of local parts; ours is that of a line."""
    text = f'{"Ä" * 99} <{address.replace("a", "a" * (1 + more), 1)}>'
    if more:
        with judges.refused():
            judges.compose({'To': text.replace('ä', 'ää', 1)})
    else:
        assert judges.read(judges.composed({'To': text})).to[0][0] == 'Ä' * 99


@pytest.mark.timeout(30)
@pytest.mark.parametrize('start, piece, end', [
    *(('', piece, '') for piece in (
        *',"()@<>:;\\[.aé ', '"\\', '()', '(a', '(\\', 'a:', 'a:;', 'a@',
        '<a@b.c>', 'a@b.c ', 'a@b.c,', '" "', '"" ', '(()) ')),
    *(('a@', piece, '') for piece in ('b.', 'ä', 'ä.', '-', 'ä-', 'नी', 'ß')),
    ('', 'a.', '@b.c'), ('"', 'a', '"@b.c'), ('', 'é ', '<a@b.c>'),
    ('Bob (', '(', ')' * 50_001 + ' <b@c.d>')])
def test_endless_addresses(start, piece, end):
    """An answer, whatever it is, at once, and a short error."""
    begun = time.process_time()
    try:
        judges.compose({'To': start + piece * (50_000 // len(piece)) + end})
    except smtp.SMTPMessageError as error:
        assert error.exit_code == 65 and len(str(error)) < 2000
    assert time.process_time() - begun < 4      # of a slow, busy computer


@given(st.lists(st.sampled_from([
    'a', 'b.c', 'a@b.c', '@', '@b.c', ' ', '\t', ',', '"', '(', ')', '<', '>',
    ':', ';', '\\', '[', ']', '[192.0.2.7]', '.', '=?utf-8?q?a?=', '"a b"',
    '(x)', 'Bob ', '<a@b.c>', 'é', '%', 'F:', '\x01', '\xa0', '-']),
    max_size=14).map(''.join))
@example('a@b.c, "x@y.z" <d@e.f>, F: g@h.i;, (j@k.l) "m n"@o.p')
def test_others_find_the_same_addresses(text):
    """Never more recipients than were typed; all else is refused."""
    try:
        message = judges.compose({'To': text, 'Bcc': 'z@example.org'})
    except smtp.SMTPMessageError as error:
        assert str(error).startswith('To: '), error
        return
    *found, _ = judges.envelope_of(message)[1]
    assert len(found) <= text.count('@')
    octets = judges.composed({'To': text, 'Bcc': 'z@example.org'})
    if found:
        value, = judges.fields(octets, 'To')
        assert judges.envelope_of(judges.compose({'To': value}))[1] == found
    if found and ''.join(found).isascii():
        assert {address.replace('"', '') for _, address in judges.read(
            octets).to} == {one.replace('"', '') for one in found}
