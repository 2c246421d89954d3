"""--message: finished messages go as they are, to the people whom they name.

messages/*.eml are of the shapes that mail programs write, with everything that
the RFCs allow and some things that they do not. Each arrives octet for octet,
but for its line ends and its blind copies. What cannot go as it is, is in
test_finished_limits.py; large ones are in test_large_messages.py.
"""

import os
import pathlib
import re
import subprocess
import sys
from typing import Callable, Dict, List, Tuple

import pytest
from finishing import HEADER, MESSAGES, assert_not_sent, assert_sent, meant
from posting import ALICE, BOB, CAROL, HIDDEN, PASSWORD, PROGRAM, Post, call

DESK = 'desk@example.org'

# The envelope that each sample asks for: MAIL, RCPT, parameters of MAIL.
ENVELOPES: Dict[str, Tuple[str, List[str], List[str]]] = {
    'bare': (ALICE, [BOB], []),
    'blind_copies': (ALICE, [BOB, HIDDEN, 'front@example.net',
                             'list@example.net', 'team@example.net'], []),
    'dots': (ALICE, [BOB], []),
    'empty_body': (ALICE, [BOB], []),
    'forwarded': (ALICE, [BOB], ['BODY=8BITMIME']),
    'groups': (ALICE, [BOB, CAROL, DESK], []),
    'header_only': (ALICE, [BOB], []),
    'latin_1': (ALICE, [BOB], ['BODY=8BITMIME']),
    'line_ends': (ALICE, [BOB], []),
    'lower_case': (ALICE, [BOB, CAROL, HIDDEN], []),
    'mailbox': (ALICE, [BOB], []),
    'names': (ALICE, [BOB, CAROL, DESK, '"front desk"@example.org',
                      'list@[192.0.2.7]'], []),
    'no_line_end': (ALICE, [BOB], []),
    'outlook': (ALICE, [BOB, CAROL, DESK, HIDDEN, 'front@example.net'], []),
    'resent': (ALICE, [BOB, CAROL, HIDDEN], []),
    'resent_twice': (ALICE, [BOB], []),
    'spaces': (ALICE, [BOB, CAROL, HIDDEN], []),
    'thunderbird': (ALICE, [BOB, CAROL, HIDDEN], ['BODY=8BITMIME']),
    'two_authors': (DESK, [BOB, CAROL], []),
    'utf8_header': (ALICE, [BOB], ['BODY=8BITMIME', 'SMTPUTF8']),
}


# -------------------------------------------------------------- the samples


def test_each_sample_has_an_envelope() -> None:
    """No file lies there without being sent."""
    assert sorted(ENVELOPES) == sorted(
        path.stem for path in MESSAGES.glob('*.eml'))


@pytest.mark.parametrize('piped', [False, True], ids=['file', 'pipe'])
@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_sample(name: str, piped: bool, post: Post) -> None:
    """It arrives octet for octet, at the people whom it names."""
    path = MESSAGES / f'{name}.eml'
    done = call(*post.options, '--user', ALICE,
                '--message', '-' if piped else str(path),
                input=path.read_bytes() if piped else b'')
    assert_sent(done)
    received = post.only()
    sender, recipients, options = ENVELOPES[name]
    assert received.sender == sender
    assert list(received.recipients) == recipients
    assert [option for option in received.mail_options
            if not option.startswith('SIZE=')] == options
    assert f'SIZE={len(received.content)}' in received.mail_options
    content = received.content
    if name == 'bare':
        content = without_added_fields(content)
    wanted = meant(path.read_bytes())
    if name == 'header_only':
        content = content.rstrip(b'\r\n') + b'\r\n\r\n'
    assert content == wanted
    assert HIDDEN.encode() not in content


def without_added_fields(content: bytes) -> bytes:
    """Take away the Date and the Message-ID that smtp.py has added."""
    for field in (rb'Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}\r\n',
                  rb'Message-ID: <[^<>@\s]+@example\.com>\r\n'):
        header, empty_line, body = content.partition(b'\r\n\r\n')
        header, count = re.subn(b'(?m)^' + field, b'', header + b'\r\n')
        assert count == 1
        content = header[:-2] + empty_line + body
    return content


@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_dry_run(name: str, post: Post) -> None:
    """It prints what would be sent, and does not connect."""
    path = MESSAGES / f'{name}.eml'
    done = call(*post.options, '--dry-run', '--message', str(path), env={})
    assert (done.code, done.errors) == (0, '')
    assert done.output.startswith(meant(path.read_bytes())[:20])
    call(*post.options, '--user', ALICE, '--message', str(path))
    if name != 'bare':
        assert done.output == post.only().content


@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_transcript_of_any_message(name: str, post: Post) -> None:
    """-v shows it, whatever octets it has, and nothing a terminal obeys."""
    done = call(*post.options, '--user', ALICE, '-v', '--message',
                str(MESSAGES / f'{name}.eml'))
    assert done.code == 0
    assert 'C: MAIL FROM:' in done.errors
    for line in done.errors.split('\n'):
        assert line.isprintable(), line
    post.only()


def test_standard_parser_agrees(post: Post) -> None:
    """What a mail reader makes of Thunderbird's and Outlook's."""
    for name, subject, text in (
            ('thunderbird', 'Grüße aus dem Labor: eine lange Betreffzeile in '
             'zwei Wörtern', 'das sind Umlaute (äöü)'),
            ('outlook', 'RE: Lunch', 'Grüße,')):
        post.accept()
        call(*post.options, '--message', str(MESSAGES / f'{name}.eml'))
        message = post.only().parse()
        assert message['Subject'] == subject
        assert text in message.get_body(('plain',)).get_content()
        assert message['Bcc'] is None


# ------------------------------------------------------------- the envelope


@pytest.mark.parametrize('options, sender, recipients', [
    (['--to', CAROL], ALICE, [CAROL]),
    ([CAROL], ALICE, [CAROL]),
    ([CAROL, DESK, '--cc', HIDDEN], ALICE, [CAROL, DESK, HIDDEN]),
    (['--bcc', f'Carol <{CAROL}>, {DESK}'], ALICE, [CAROL, DESK]),
    (['--from', DESK], DESK, [BOB, CAROL, HIDDEN]),
    (['-i', '-f', f'Desk <{DESK}>', '--', CAROL], DESK, [CAROL]),
    ([CAROL, f'<{CAROL}>', 'carol@EXAMPLE.org'], ALICE, [CAROL]),
])
def test_envelope_of_the_command_line(
        options: List[str], sender: str, recipients: List[str],
        post: Post) -> None:
    """What is given there counts; the message stays as it is."""
    path = MESSAGES / 'lower_case.eml'
    done = call(*post.options, '--user', ALICE, '--message', str(path),
                *options)
    assert_sent(done)
    received = post.only()
    assert (received.sender, list(received.recipients)) == (sender, recipients)
    assert received.content == meant(path.read_bytes())


@pytest.mark.parametrize('sender', [',', 'G:;', 'x@b.example, y@b.example'])
def test_sender_that_is_not_one_address(sender: str, post: Post) -> None:
    """An error of the user's, which names the field."""
    done = call(*post.options, '--message', str(MESSAGES / 'dots.eml'),
                '-f', sender)
    assert_not_sent(done, post, 65)
    assert 'From' in done.errors


def test_message_without_from(finished: Callable[[bytes], str], post: Post
                              ) -> None:
    """The sender on the command line is its author, too."""
    header = HEADER.replace(b'From: alice@example.com\r\n', b'')
    done = call(*post.options, '--message',
                finished(header + b'\r\nHello.\r\n'), '-f',
                f'Alice <{ALICE}>')
    assert_sent(done)
    assert post.only().content == (
        header + b'From: alice@example.com\r\n\r\nHello.\r\n')


def test_fields_that_the_envelope_does_not_need(
        finished: Callable[[bytes], str], post: Post) -> None:
    """Recipients and sender are given, so nobody needs to understand these."""
    message = (b'From: somebody\r\nTo: whoever; it <may concern\r\n'
               b'Cc: @\r\nDate: today\r\nMessage-ID: <1@example.com>\r\n'
               b'\r\nHello.\r\n')
    done = call(*post.options, '--from', ALICE, '--message',
                finished(message), BOB)
    assert_sent(done)
    assert post.only().content == message


@pytest.mark.parametrize('field', [
    b'Bcc: hidden@example.net\r\n',
    b'bcc:hidden@example.net\r\n',
    b'BCC :\r\n\thidden@example.net,\r\n hidden@example.net\r\n',
    b'Resent-Bcc: hidden@example.net\r\n',
    b'RESENT-BCC\t: Hidden\r\n <hidden@example.net>\r\n',
])
def test_blind_copies_are_never_transmitted(
        field: bytes, finished: Callable[[bytes], str], post: Post) -> None:
    """Nor if the envelope comes from the command line."""
    for place in (0, HEADER.index(b'To:'), len(HEADER)):
        post.accept()
        message = HEADER[:place] + field + HEADER[place:] + b'\r\nHello.\r\n'
        done = call(*post.options, '--message', finished(message), CAROL)
        assert_sent(done)
        assert post.only().content == HEADER + b'\r\nHello.\r\n'
        assert list(post.only().recipients) == [CAROL]


def test_address_outside_ascii(finished: Callable[[bytes], str],
                               post: Post) -> None:
    """Such an address in the envelope asks for SMTPUTF8."""
    message = HEADER + b'Bcc: j\xc3\xb6rg@example.org\r\n\r\nHello.\r\n'
    assert_sent(call(*post.options, '--message', finished(message)))
    assert 'SMTPUTF8' in post.only().mail_options
    assert 'jörg@example.org' in post.only().recipients


# ------------------------------------------------------- what is no message


@pytest.mark.parametrize('message, word', [
    (b'To: bob@example.org\r\n\r\nHello\r\n', 'From'),
    (b'From: alice@example.com\r\n\r\nHello\r\n', 'recipient'),
    (b'From: alice@example.com\r\nTo: Nobody:;\r\n\r\n', 'recipient'),
    (b'From: alice@example.com\r\nTo: bob\r\n\r\n', 'bob'),
    (b'From: alice@example.com\r\nTo: <bob@example.org\r\n\r\n', 'bob'),
    (b'From: alice@example.com\r\nTo: bob@example.org carol@example.org\r\n'
     b'\r\n', 'bob@example.org'),
    (b'From: a@example.com, b@example.com\r\nTo: bob@example.org\r\n\r\n',
     'several and none in Sender'),
    (b'Hello Bob,\r\n\r\nlunch?\r\n', 'Hello Bob'),
    (b'\r\nFrom: alice@example.com\r\nTo: bob@example.org\r\n', 'From'),
    (b'', 'From'),
    (b'From: alice@example.com\r\nHello\r\nTo: bob@example.org\r\n\r\n',
     'line 2'),
    (b'From: alice@example.com\r\nFrom bob Mon\r\nTo: bob@example.org\r\n',
     'line 2'),
    (b'PK\x03\x04\x14\x00\x00\x00\x08\x00', 'line 1'),
    (b'From caf\xe9 Mon\r\nFrom: alice@example.com\r\n\r\n', 'line 1'),
])
def test_what_is_no_message(message: bytes, word: str, post: Post,
                            finished: Callable[[bytes], str]) -> None:
    """It is said what is missing."""
    done = call(*post.options, '--message', finished(message))
    assert_not_sent(done, post, 65)
    assert word in done.errors


def test_options_that_would_change_it(post: Post) -> None:
    """Subject, text and files are in the message already."""
    for option in (['--subject', 'x'], ['--body', 'x'], ['--attach', 'x'],
                   ['--html', 'x', '--body', 'x'], ['-H', 'X-Lab: 1']):
        done = call(*post.options, *option, '--message',
                    str(MESSAGES / 'dots.eml'))
        assert_not_sent(done, post, 64)
        assert '--message' in done.errors


def test_addresses_without_a_message(post: Post) -> None:
    """They are for --message; a mail of one's own has --to."""
    done = call(*post.options, '-f', ALICE, '-s', 'x', '--body', 'x', BOB)
    assert_not_sent(done, post, 64)
    assert '--message' in done.errors


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no FIFOs')
def test_files_that_are_none(tmp_path: pathlib.Path, post: Post) -> None:
    """Told at once, with exit code 66."""
    os.mkfifo(tmp_path / 'fifo')
    for name in ('missing', 'fifo', ''):
        path = str(tmp_path / name)
        done = call(*post.options, '--message', path, env={})
        assert_not_sent(done, post, 66)
        assert path in done.errors


def test_closed_standard_input(post: Post, monkeypatch: pytest.MonkeyPatch
                               ) -> None:
    """As with `<&-` in a shell: there is no message."""
    command = [sys.executable, '-c',
               'import sys, smtp; sys.stdin = None; sys.exit(smtp.main())',
               *post.options, '--message', '-']
    done = subprocess.run(
        command, env={**os.environ, 'SMTP_PASSWORD': PASSWORD,
                      'PYTHONPATH': str(PROGRAM.parent)},
        stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8')
    assert done.returncode == 65, done.stderr
    assert done.stderr.startswith('smtp.py: Not sent: ')
    assert post.messages == []
