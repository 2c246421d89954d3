"""Addresses as people write them, and what the envelope and the header get.

The first table says what is understood, and how; the second what is refused,
and which words of the error name the problem. All envelope addresses are given
in full: one more or one less would be a mail to a stranger, or a mail lost.
"""

import random
import time
from typing import List

import pytest
import reading

import smtp

IDEOGRAPHIC_STOP = '\N{IDEOGRAPHIC FULL STOP}'


def puny(domain: str) -> str:
    """Write a domain as A-labels, by the bare algorithm (RFC 3492)."""
    return '.'.join(
        label if label.isascii()
        else 'xn--' + label.encode('punycode').decode()
        for label in domain.split('.'))


UNDERSTOOD = [
    # what is written, the addresses in it, the field (None: as written)

    # plain
    ('bob@example.org', ['bob@example.org'], None),
    ('Bob@Example.ORG', ['Bob@Example.ORG'], None),
    ('  bob@example.org\t', ['bob@example.org'], 'bob@example.org'),
    ('bob @ example.org', ['bob@example.org'], 'bob@example.org'),
    ('bob@localhost', ['bob@localhost'], None),
    ('b@a-b.c1', ['b@a-b.c1'], None),
    ('bob@1.example', ['bob@1.example'], None),
    ("!#$%&'*+-/=?^_`{|}~@example.org",
     ["!#$%&'*+-/=?^_`{|}~@example.org"], None),
    ('a.b.c+tag@example.org', ['a.b.c+tag@example.org'], None),
    ('<bob@example.org>', ['bob@example.org'], 'bob@example.org'),

    # names
    ('Bob <bob@example.org>', ['bob@example.org'], None),
    ('Bob<bob@example.org>', ['bob@example.org'], 'Bob <bob@example.org>'),
    ('Bob B  <bob@example.org>', ['bob@example.org'],
     'Bob B <bob@example.org>'),
    ('"Bob" <bob@example.org>', ['bob@example.org'], 'Bob <bob@example.org>'),
    ('Dr. Bob <bob@example.org>', ['bob@example.org'],
     '"Dr. Bob" <bob@example.org>'),
    ('"Doe, Bob" <bob@example.org>', ['bob@example.org'], None),
    ('"Bob" "the" Builder <bob@example.org>', ['bob@example.org'],
     'Bob the Builder <bob@example.org>'),
    (r'"Bob \"the\" B\\" <bob@example.org>', ['bob@example.org'], None),
    ('"bob@example.com" <bob@example.org>', ['bob@example.org'], None),
    ('"<eve@example.com>," <bob@example.org>', ['bob@example.org'], None),
    ('"a  b" <bob@example.org>', ['bob@example.org'], None),
    ('"" <bob@example.org>', ['bob@example.org'], 'bob@example.org'),
    ('Bób <bob@example.org>', ['bob@example.org'],
     '=?utf-8?q?B=C3=B3b?= <bob@example.org>'),
    ('"Bób, the" <bob@example.org>', ['bob@example.org'],
     '=?utf-8?q?B=C3=B3b=2C_the?= <bob@example.org>'),

    # comments
    ('bob@example.org (Bob)', ['bob@example.org'], 'Bob <bob@example.org>'),
    ('(one)bob(two)@(three)example.org', ['bob@example.org'], ...),
    ('(a(b(c)d)e) Bob <bob@example.org>', ['bob@example.org'],
     'Bob <bob@example.org>'),
    ('(,@<>;:"[) Bob <bob@example.org>', ['bob@example.org'],
     'Bob <bob@example.org>'),
    (r'(\)\() Bob <bob@example.org> (\\)', ['bob@example.org'],
     'Bob <bob@example.org>'),
    ('Bob (the (great) one) B <bob(x)@example.org>', ['bob@example.org'],
     'Bob B <bob@example.org>'),
    ('Friends (old ones): bob@example.org;', ['bob@example.org'],
     'Friends: bob@example.org;'),
    ('Friends: (nobody) ;, bob@example.org', ['bob@example.org'],
     'Friends:;, bob@example.org'),
    ('Friends: bob@example.org; (all), c@example.org',
     ['bob@example.org', 'c@example.org'],
     'Friends: bob@example.org;, c@example.org'),
    ('bob@example.org, (nobody), c@example.org',
     ['bob@example.org', 'c@example.org'], 'bob@example.org, c@example.org'),

    # lists and groups
    ('a@example.org,b@example.org', ['a@example.org', 'b@example.org'],
     'a@example.org, b@example.org'),
    ('a@example.org,, b@example.org , ,', ['a@example.org', 'b@example.org'],
     'a@example.org, b@example.org'),
    (',a@example.org', ['a@example.org'], 'a@example.org'),
    ('Friends: a@example.org, Bob <b@example.org>;',
     ['a@example.org', 'b@example.org'], None),
    ('"A, B": a@example.org;', ['a@example.org'], None),
    ('F:a@example.org;,b@example.org', ['a@example.org', 'b@example.org'],
     'F: a@example.org;, b@example.org'),
    ('F:;, bob@example.org', ['bob@example.org'], None),
    ('b@example.org, undisclosed-recipients:;', ['b@example.org'], None),
    ('F: a@example.org;, G: b@example.org;',
     ['a@example.org', 'b@example.org'], None),
    ('Schoolfriends Ü: a@example.org;', ['a@example.org'],
     '=?utf-8?q?Schoolfriends_=C3=9C?= : a@example.org;'),

    # quoted local parts
    ('"bob"@example.org', ['bob@example.org'], 'bob@example.org'),
    ('"b.o.b"@example.org', ['b.o.b@example.org'], 'b.o.b@example.org'),
    ('"odd one"@example.org', ['"odd one"@example.org'], None),
    ('"a..b"@example.org', ['"a..b"@example.org'], None),
    ('".a"@example.org', ['".a"@example.org'], None),
    ('"@"@example.org', ['"@"@example.org'], None),
    ('"a,b"@example.org', ['"a,b"@example.org'], None),
    ('"> RCPT TO:<eve"@example.org', ['"> RCPT TO:<eve"@example.org'], None),
    (r'"\a"@example.org', ['a@example.org'], 'a@example.org'),
    (r'"a\"b"@example.org', [r'"a\"b"@example.org'], None),
    (r'"a\\"@example.org', [r'"a\\"@example.org'], None),
    ('"("@example.org', ['"("@example.org'], None),
    ('""@example.org', ['""@example.org'], None),
    ('Bob <"odd one"@example.org>', ['"odd one"@example.org'], None),

    # address literals
    ('bob@[192.0.2.7]', ['bob@[192.0.2.7]'], None),
    ('bob@[IPv6:2001:db8::7]', ['bob@[IPv6:2001:db8::7]'], None),
    ('bob@[IPv6:::1]', ['bob@[IPv6:::1]'], None),
    ('bob@[IPv6:::ffff:192.0.2.7]', ['bob@[IPv6:::ffff:192.0.2.7]'], None),
    ('Bob <bob@[192.0.2.7]>', ['bob@[192.0.2.7]'], None),

    # lengths, at their limits
    ('a' * 64 + '@example.org', ['a' * 64 + '@example.org'], None),
    ('"' + 'a ' * 31 + '"@example.org', ['"' + 'a ' * 31 + '"@example.org'],
     None),
    ('bob@' + 'a' * 63 + '.org', ['bob@' + 'a' * 63 + '.org'], None),
    ('é' * 32 + '@example.org', ['é' * 32 + '@example.org'], None),

    # letters beyond ASCII
    ('bob@bücher.example', ['bob@xn--bcher-kva.example'],
     'bob@xn--bcher-kva.example'),
    ('bob@xn--bcher-kva.example', ['bob@xn--bcher-kva.example'], None),
    ('Bób <bób@bücher.example>', ['bób@xn--bcher-kva.example'],
     '=?utf-8?q?B=C3=B3b?= <bób@xn--bcher-kva.example>'),
    ('bøb@example.org', ['bøb@example.org'], None),
    ('用户@例子.测试', ['用户@xn--fsqu00a.xn--0zwm56d'], ...),
] + [(f'bob@{domain}', [f'bob@{puny(domain)}'], ...) for domain in (
    # names that ICANN registered to test just this, and two more
    'пример.испытание', '例え.テスト', '例子.測試', '실례.테스트',
    'παράδειγμα.δοκιμή', 'مثال.إختبار', 'उदाहरण.परीक्षा',
    'உதாரணம்.பரிட்சை', 'paral·lel.example', 'ไทย.example',
    'ma\N{LATIN SMALL LETTER N WITH TILDE}ana.example')]


@pytest.mark.parametrize('text, addresses, field', UNDERSTOOD,
                         ids=lambda value: ascii(value)[:40])
def test_what_is_understood(text: str, addresses: List[str], field: str
                            ) -> None:
    """The envelope, the header, and what a reader makes of it."""
    parsed = smtp.parse_addresses('To', text)
    assert list(parsed.addresses) == addresses
    message = reading.compose({'To': text, 'Bcc': ''})
    octets = reading.octets_of(message)
    reading.lint(octets, utf8=not ''.join(addresses).isascii())
    assert list(message.recipients) == addresses
    if field is not ...:
        assert reading.fields(octets, 'To') == [field or text]
    if ''.join(addresses).isascii():
        assert [each[1] for each in reading.read(octets).to] == addresses


@pytest.mark.parametrize('domain', [
    'BÜCHER.example', 'bücher.EXAMPLE', 'Bücher.Example', 'BÜCHER.EXAMPLE'])
def test_case_of_domains(domain: str) -> None:
    """Capitals mean the same in a domain, in whatever letters."""
    address, = smtp.parse_addresses('To', f'bob@{domain}').addresses
    assert address.lower() == 'bob@xn--bcher-kva.example'


REFUSED = [
    # no address at all, or half of one
    ('bob', 'bob'), ('@', '@'), ('bob@', 'bob@'), ('@example.org', 'example'),
    ('bob@@example.org', 'bob'), ('b@c@example.org', 'b@c'), ('<>', '<>'),
    ('Bob', 'Bob'), ('Bob <>', 'Bob'), ('Bob <bob>', 'bob'), ('.', '.'),
    ('"bob@example.org"', 'bob'), ('(bob@example.org', '('), ('"', '"'),
    ('a@b, c', 'c'), ('bob at example.org', 'bob'), ('mailto:b@c.de', 'mail'),
    ('Bob bob@example.org', 'bob'), ('https://example.org/b@c', 'https'),

    # dots
    ('.bob@example.org', '.bob'), ('bob.@example.org', 'bob.'),
    ('b..b@example.org', 'b..b'), ('bob@.example.org', '.example'),
    ('bob@example..org', 'example..org'), ('bob@example.org.', 'org.'),
    ('b. b@example.org', 'b'), ('bob@example .org', 'example'),

    # brackets, quotes and parentheses without their counterpart
    ('<bob@example.org', 'bob'), ('bob@example.org>', 'bob'),
    ('<<bob@example.org>>', 'bob'), ('<bob@example.org>>', 'bob'),
    ('"Bob <bob@example.org>', '"'), ('Bob" <bob@example.org>', '"'),
    ('"Bob\\" <bob@example.org>', '"'), ('(Bob <bob@example.org>', '('),
    ('Bob) <bob@example.org>', ')'), ('((a) bob@example.org', '('),
    ('(a\\) bob@example.org', '('), ('bob@[192.0.2.7', '['),
    ('bob\\@example.org', '\\'), ('bob@example.org\\', '\\'),
    ('bob"@example.org', '"'), ('"b"b@example.org', 'b'),
    ('b"b"@example.org', 'b'), ('b(x)b@example.org', 'b'),

    # a second address in the place of a name, or behind the first
    ('eve@example.com <bob@example.org>', 'eve'),
    ('<eve@example.com> <bob@example.org>', 'eve'),
    ('Bob <bob@example.org> eve@example.com', 'eve'),
    ('Bob <bob@example.org eve@example.com>', 'eve'),
    ('bob@example.org eve@example.com', 'eve'),
    ('bob@example.org;eve@example.com', 'semicolon'),
    ('Bob <bob@example.org>; Eve <eve@example.com>', 'semicolon'),

    # groups
    ('Friends: bob@example.org', 'group'), ('a@example.org;', 'semicolon'),
    ('F: G: bob@example.org;;', 'G'), ('F:;;', 'semicolon'), (';', 'semi'),
    (': bob@example.org;', ':'), ('F: a@example.org, G: b@example.org;;', 'G'),
    ('Bob <F: bob@example.org;>', 'bob'), ('<a@b.c>: bob@example.org;', 'bob'),

    # source routes, and paths of other networks
    ('<@example.com:bob@example.org>', 'bob'),
    ('<@a.example,@b.example:bob@example.org>', '@a.example'),

    # literals
    ('bob@[192.0.2]', 'IP'), ('bob@[192.0.2.256]', 'IP'), ('bob@[]', 'IP'),
    ('bob@[192.0.2.7.8]', 'IP'), ('bob@[::1]', 'IP'), ('bob@[IPv6:]', 'IP'),
    ('bob@[IPv6:192.0.2.7]', 'IP'), ('bob@[IPv6:1::2::3]', 'IP'),
    ('bob@[IPv6:fe80::1%eth0]', 'IP'), ('bob@[example.org]', 'IP'),
    ('bob@[ 192.0.2.7]', 'IP'), ('bob@[192.0.2.7] x', 'bob'),
    ('[192.0.2.7]', '192'), ('bob@[192.0.2.7', '['), ('bob@x[192.0.2.7]', 'x'),
    ('bob@[IPv6:12345::]', 'IP'), ('bob@[[192.0.2.7]]', '['),
    ('bob@[192.0.2.7]\\', '\\'), ('bob@[tag:content]', 'IP'),

    # domains
    ('bob@exam_ple.org', 'host'), ('bob@-example.org', 'host'),
    ('bob@example-.org', 'host'), ('bob@exam!ple.org', 'host'),
    ('bob@' + 'a' * 64 + '.org', 'host'), ('bob@example.org/x', 'host'),
    ('bob@exam%ple.org', 'host'), ('bob@x\x7f.org', 'host'),

    # lengths
    ('a' * 65 + '@example.org', 'too long'),
    ('"' + 'a ' * 31 + 'b"@example.org', 'too long'),
    ('é' * 33 + '@example.org', 'too long'),
    ('bob@' + '.'.join(['a' * 60] * 5), 'aaa'),
    ('a' * 64 + '@' + '.'.join(['b' * 63, 'c' * 63, 'd' * 62]), 'too long'),
    ('bob@' + 'ä' * 60 + '.example', 'ä'),
    ('bob@' + '.'.join(['ä' * 10] * 20), 'ä'),

    # local parts
    ('"a\tb"@example.org', '@example.org'),
    ('a\x01b@example.org', '@example.org'),
    ('"a\x7fb"@example.org', '@example.org'),
    ('"a\x1bb"@example.org', '@example.org'),

    # what many readers would decode, and then see another address
    ('=?utf-8?q?eve=40example.com?=@example.org', 'eve'),
    ('"=?utf-8?q?eve=40example.com?="@example.org', 'eve'),
    ('=?utf-8?b?ZXZl?=x@example.org', 'ZXZl'),

    # domains that not everybody writes in the same way: where the standards
    # of 2003 and 2008 differ, or a letter would quietly become another one
    ('bob@faß.example', 'faß'), ('bob@βόλος.example', 'βόλος'),
    ('bob@a\u200db.example', 'bob@'), ('bob@a\u200cb.example', 'bob@'),
    ('bob@नी\u200d.example', 'bob@'), ('bob@☃.example', '☃'),
    ('bob@i❤.example', 'i❤'), ('bob@\N{PILE OF POO}.example', 'bob@'),
    ('bob@ｅxample.org', 'ｅxample'), ('bob@example．org', 'example'),
    (f'bob@bücher{IDEOGRAPHIC_STOP}example', 'bücher'),
    ('bob@bu\u0308cher.example', 'cher'), ('bob@ﬁsh.example', 'ﬁsh'),
    ('bob@①.example', '①'), ('bob@x².example', 'x²'), ('bob@½.example', '½'),
    ('bob@\N{KELVIN SIGN}elvin.example', 'bob@'),
    ('bob@\N{ANGSTROM SIGN}ngstrom.example', 'bob@'),
    ('bob@\N{OHM SIGN}.example', 'bob@'),
    ('bob@كـتاب.example', 'bob@'),
    ('bob@STRA\N{LATIN CAPITAL LETTER SHARP S}E.example', 'STRA'),
    ('bob@a\xadb.example', 'bob@'), ('bob@\u202egro.example', 'bob@'),
    ('bob@ä_b.example', 'ä_b'), ('bob@-ä.example', 'ä'),
    ('bob@ä..example', 'ä..'), ('bob@ä!.example', 'ä'),
    ('bob@ä\xa0b.example', 'ä'), ('bob@ä\u2028b.example', 'ä'),
]


@pytest.mark.parametrize('field', ['To', 'From', 'Bcc'])
@pytest.mark.parametrize('text, naming', REFUSED,
                         ids=lambda value: ascii(value)[:40])
def test_what_is_refused(text: str, naming: str, field: str) -> None:
    """The error says in which field, and what is wrong."""
    with reading.refused(field, naming):
        reading.compose({field: text})


@pytest.mark.parametrize('text', [
    'bo\x85b@example.org', 'bo\u2028b@example.org', 'bo\u2029b@example.org',
    'bo\x9bb@example.org'], ids=ascii)
def test_line_ends_of_others_in_an_address(text: str) -> None:
    """What other programs take for a line end, or a command to a terminal."""
    with reading.refused('To'):
        smtp.parse_addresses('To', text)


@pytest.mark.parametrize('evil', [
    '\r', '\n', '\0', '\r\n', '\udc80', '\ud800'], ids=ascii)
def test_evil_characters_everywhere(evil: str) -> None:
    """At each position of a list of all kinds of addresses."""
    text = 'Ann (x) "y" <bob@[192.0.2.7]>, F: "a b"@example.org;'
    for position in range(len(text) + 1):
        with reading.refused('To'):
            smtp.parse_addresses(
                'To', text[:position] + evil + text[position:])


def test_nested_comments() -> None:
    """Ten thousand deep: no recursion, and no comment in the address."""
    start = time.process_time()
    deep = '(' * 10_000 + ')' * 10_000
    parsed = smtp.parse_addresses('To', f'Bob {deep} <bob@example.org>')
    assert parsed.addresses == ['bob@example.org']
    with reading.refused('To'):
        smtp.parse_addresses('To', f'Bob ({deep} <bob@example.org>')
    assert time.process_time() - start < 1


def lots_of(pattern: str, size: int) -> str:
    """Repeat the pattern up to the size."""
    return (pattern * (size // len(pattern) + 1))[:size]


@pytest.mark.timeout(30)
@pytest.mark.parametrize('text', [
    *(lots_of(character, 1_000_000) for character in ',"(@<'),
    *(lots_of(pattern, 200_000) for pattern in (
        ')', '>', ':', ';', '\\', '[', '.', 'a', '"\\', '()', 'a:', 'a:;',
        'a@', '<a@b.c>', 'a@b.c ', 'a@b.c,', 'é', '" "', '(\\', ' ')),
    *('a@' + lots_of(pattern, 1_000_000) for pattern in (
        'b.', 'ä', 'ä.', '-')),
    *('a@' + lots_of(pattern, 100_000) for pattern in ('ä-', 'नी', 'ß')),
    lots_of('a.', 200_000) + '@b.c', '"' + lots_of('a', 200_000) + '"@b.c',
    lots_of('é ', 200_000) + '<a@b.c>'],
    ids=lambda text: f'{ascii(text[:6])} and so on')
def test_endless_addresses(text: str) -> None:
    """An answer, whatever it is, within a second, and a short error.

    The bound leaves room for a slow computer that has other things to do.
    """
    start = time.process_time()
    try:
        smtp.parse_addresses('To', text)
    except smtp.SMTPMessageError as error:
        assert error.exit_code == 65
        assert len(str(error)) < 2000
    assert time.process_time() - start < 4


def test_nothing_but_the_documented_error() -> None:
    """Any mixture of special characters is understood or refused."""
    alphabet = ['a', 'b.c', '@', ' ', ',', '"', '(', ')', '<', '>', ':', ';',
                '\\', '[', ']', 'a@b.c', 'é', '.', '[192.0.2.7]', '\t', '=?']
    chance = random.Random(5322)
    for _ in range(3000):
        text = ''.join(chance.choices(alphabet, k=chance.randint(1, 12)))
        try:
            parsed = smtp.parse_addresses('To', text)
        except smtp.SMTPMessageError as error:
            assert 'To' in str(error)
        else:
            assert len(parsed.addresses) <= text.count('@')
