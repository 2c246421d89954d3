"""Whatever octets a server sends, what smtp.py makes of them is true.

The judge is `judge`, a second reading of the grammar (RFC 5321, section 4.2):
it looks at all octets at once, where smtp.py reads them as they come.
"""

import functools
import itertools
import re
import socket
import string
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import checks, cli, dialogue, hostile
from support.checks import LATER, PROTOCOL, REFUSED, SENT, UNKNOWN
from support.post import MAIL

LIMIT_OF_LINE, LIMIT_OF_REPLY = 8192, 65536


@pytest.fixture
def answer(call, server_context):
    """A function that lets smtp.py meet a server that says these segments."""
    def answer(*segments, step='greeting'):
        def say(server, wire, right):
            for segment in segments:
                wire.send(segment)
            raise hostile.Over
        with hostile.serving(step, say, server_context) as server:
            result = call(*cli.reach(server.port, timeout=5), '--tls', 'none',
                          '-v', *MAIL)
        checks.ended_well(result)
        return result
    return answer


class Verdict(NamedTuple):
    """What the grammar makes of the first reply."""

    kind: str               # 'reply', 'not SMTP', 'cut off'
    code: int = 0           # of the last line
    texts: tuple[str, ...] = ()
    yes: bool = False       # one of its lines says yes
    rest: bytes = b''       # what follows it
    mixed: bool = False     # its lines carry more than one code


def judge(octets):
    """Return what the grammar makes of the first reply in these octets."""
    codes = []
    texts = []
    size = 0
    while True:
        line, newline, octets = octets.partition(b'\n')
        if len(line) + len(newline) > LIMIT_OF_LINE:
            return Verdict('not SMTP')
        if not newline:
            return Verdict('cut off', mixed=len(set(codes)) > 1)
        size += len(line) + 1
        whole = re.fullmatch(rb'([2-5][0-9]{2})(?:([ -])([^\r\n]*))?\r', line)
        if not whole or size > LIMIT_OF_REPLY:
            return Verdict('not SMTP')
        codes.append(whole[1])
        texts.append(line[:-1].decode('utf-8', 'backslashreplace'))
        if whole[2] != b'-':
            break
    mixed = len(set(codes)) > 1
    if mixed and whole[1][:1] not in b'45':
        return Verdict('not SMTP', yes=True)
    return Verdict('reply', int(whole[1]), tuple(texts),
                   any(code[:1] == b'2' for code in codes), octets, mixed)


def codes_for_a_greeting(verdict):
    """Return the exit codes that fit a greeting."""
    if verdict.kind == 'cut off':
        return {LATER, PROTOCOL} if verdict.mixed else {LATER}
    if verdict.kind == 'not SMTP' or 220 != verdict.code < 400:
        return {PROTOCOL}
    if verdict.code >= 400:
        return codes_for_a_refusal(verdict)
    # What follows a 220 unasked is an error, and may be more than that.
    unasked = judge(verdict.rest)
    return {LATER} if not verdict.rest else {PROTOCOL} | (
        {LATER} if unasked.kind == 'cut off' else
        codes_for_a_refusal(unasked) if unasked.code >= 400 else set())


def codes_for_a_refusal(verdict):
    """Return the exit codes that fit a refusal that is not of a recipient."""
    if verdict.code < 500:
        return {LATER}
    login = verdict.code in (530, 534, 535, 538) or any(
        re.match(r'...[ -]5\.7\.', text) for text in verdict.texts)
    return {checks.LOGIN} if login else {
        REFUSED, *[checks.MESSAGE] * (verdict.code == 552)}


def codes_for_the_dot(verdict):
    """Return the exit codes that fit the reply to the final dot."""
    if verdict.kind != 'reply' or verdict.yes and verdict.code != 250:
        return {UNKNOWN}
    if verdict.code < 400:
        return {SENT} if verdict.code == 250 else {UNKNOWN}
    return codes_for_a_refusal(verdict)


@st.composite
def lines(draw):
    """Something like a line of a reply: right, or wrong in one place."""
    code = draw(st.sampled_from([
        b'250', b'250', b'220', b'354', b'421', b'550', b'571', b'535', b'199',
        b'260', b'25', b'2500', b'\xb2\xb5\xb0', b'', b' 250', b'+25', b'999',
        '２５０'.encode()]))
    separator = draw(st.sampled_from([b' ', b' ', b'-', b'-', b'', b'\t',
                                      b'_', b'\xa0']))
    text = draw(st.one_of(
        st.sampled_from([b'', b'ok', b'2.0.0 Ok', b'5.7.1 no', b'a\rb',
                         b'a\0b', b'\xff']),
        st.text(string.printable, max_size=20).map(str.encode),
        st.binary(max_size=20)))
    end = draw(st.sampled_from([b'\r\n'] * 6 + [b'\n', b'\r', b'', b'\r\r\n']))
    return code + separator + text + end


streams = st.one_of(st.lists(lines(), max_size=6).map(b''.join),
                    st.binary(max_size=60))
refusals = st.builds(
    lambda code, texts: '\r\n'.join([
        *(f'{code}-{text}' for text in texts[:-1]), f'{code} {texts[-1]}', ''
    ]).encode(), st.integers(400, 599), st.lists(st.text(st.characters(
        min_codepoint=0x20, exclude_categories=['C', 'Z'])), min_size=1,
        max_size=5))


def also(*cases):
    """Return a decorator that tries these cases, too."""
    return lambda test: functools.reduce(
        lambda decorated, case: example(*case)(decorated), cases, test)


@settings(max_examples=400)
@given(st.one_of(streams, refusals))
@also(
    [b'250-a\r\n220 b\r\n'], [b'220-a\r\n521 5.7.1 b\r\n'],
    [b'550-a\r\n220 b\r\n'], [b'220\r\n220 b\r\n'], [b'220 a\n'],
    [b'220 a\r'], [b'220 a\rb\r\n'], [b'220 a\r\r\n'], [b'220 a\r\n2'],
    [b'220 ' + b'x' * 9000], [b'999 a\r\n'], [b'571 a\r\n'])
def test_any_greeting(answer, octets):
    """EHLO after 220 alone; what is shown, and quoted, is as it was."""
    result = answer(octets)
    verdict = judge(octets)
    assert result.code in codes_for_a_greeting(verdict), result.err
    if verdict.code != 220 or verdict.rest:
        assert 'C: EHLO' not in result.err
    if verdict.kind == 'reply':
        shown = [line[3:] for line in result.lines if line.startswith('S:')]
        assert len(shown) >= len(verdict.texts)
        quoted = verdict.code >= 400 and len(''.join(verdict.texts)) < 400
        for line, text in zip(shown, verdict.texts):
            if text.isprintable() and '  ' not in text:
                assert line.rstrip() == text.rstrip()
                assert text.rstrip() in result.said or not quoted


@settings(max_examples=200)
@given(streams, st.lists(st.integers(1, 7), max_size=12))
@also(
    [b'250 a\r\n', []], [b'250 a\r\n250 b\r\n', []], [b'354 a\r\n', []],
    [b'250-a\r\n554 b\r\n', []], [b'554-a\r\n250 b\r\n', []],
    [b'550-a\r\n554 b\r\n', []], [b'251 a\r\n', [1]], [b'2500 a\r\n', []],
    [b'250 a\n', [2]], [b'552 5.3.4 a\r\n', [3]])
def test_any_reply_to_the_dot(answer, octets, sizes):
    """Sent after 250 alone, wherever TCP cuts the stream."""
    ends = [0, *itertools.accumulate(sizes), len(octets)]
    result = answer(*(octets[start:end] for start, end in zip(ends, ends[1:])),
                    step='final dot')
    assert result.code in codes_for_the_dot(judge(octets)), result.err


@pytest.mark.parametrize('octets, fits', [
    (b'220 ' + b'x' * (LIMIT_OF_LINE - 6) + b'\r\n', True),
    (b'220 ' + b'x' * (LIMIT_OF_LINE - 2) + b'\r\n', False),
    (b'220 ' + b'x' * LIMIT_OF_LINE, False),
    ((b'220-' + b'x' * 4000 + b'\r\n') * 16 + b'220 \r\n', True),
    ((b'220-' + b'x' * 4000 + b'\r\n') * 17 + b'220 \r\n', False),
    (b'220-\r\n' * 900 + b'220 \r\n', True),
], ids=['line', 'long line', 'endless line', 'reply', 'long reply', 'lines'])
def test_limits(answer, octets, fits):
    """What is within the limits is read, and what is beyond is not."""
    result = answer(octets)
    assert result.code == (LATER if fits else PROTOCOL), result.err
    assert ('EHLO' in result.said) == fits
    assert len(result.said) < 2000


@pytest.mark.parametrize('offered, known', [
    *((words, True) for words in (
        'STARTTLS', 'starttls', 'StartTLS', 'STARTTLS ', 'STARTTLS required')),
    *((words, False) for words in (
        'XSTARTTLS', 'STARTTLS2', 'HELP STARTTLS', 'STARTTLS-NOT', '',
        ' STARTTLS', '\u017fTARTTLS', 'START TLS', 'STARTTLS\\x00'))])
def test_keywords(play, offered, known):
    """The first word in any case; nothing that only looks like it."""
    result, _ = play(
        dialogue.GREETING + dialogue.ehlo(offered, 'HELP')
        + 'C: STARTTLS\nS: 454 4.7.0 Not now\n' * known + dialogue.QUIT)
    checks.check(result, LATER if known else REFUSED,
                 '454 4.7.0' if known else 'STARTTLS')


@pytest.mark.parametrize('offered, announced', [
    ('SIZE', True), ('size 0', True), ('XSIZE', False), ('SIZES 1', False),
    ('SIZE lots', True), ('SIZE ' + '9' * 30, True)])
def test_size(play, offered, announced):
    """MAIL announces the octets of the message if the server wants it."""
    result, _ = play(
        dialogue.GREETING + dialogue.ehlo(offered, 'HELP')
        + f'C: MAIL FROM:<alice@example.com>{" SIZE=<size>" * announced}\n'
        'S: 421 4.3.2 Shutting down\n-- closes\n', '--tls', 'none')
    checks.check(result, LATER, '421 4.3.2')


def test_patience(call, ca_file, server_context, monkeypatch):
    """A minute for each reply, and ten for the one that decides."""
    waits, settimeout = [], socket.socket.settimeout

    def spy(sock, seconds):
        waits.append(seconds or 0)
        settimeout(sock, seconds)
    monkeypatch.setattr(socket.socket, 'settimeout', spy)
    told = dialogue.parse(dialogue.SESSION)
    with dialogue.playing(told, server_context) as player:
        result = call('--server', 'localhost', '--port', str(player.port),
                      '--ca-file', ca_file, *told.arguments(),
                      password=dialogue.PASSWORD)
    checks.check(result, SENT)
    assert 599 < max(waits) <= 600
    assert 59 < max(seconds for seconds in waits if seconds < 500) <= 60
