"""What was piped and not sent is kept, and one command sends it.

The command is the last line that smtp.py prints; `keeping` runs it. What is
kept when somebody interrupts is in test_unsent_interrupted.py, and where it is
kept in test_unsent_files.py.
"""

import email
import email.policy
import pathlib
import re
import shlex
from typing import Any, List

import pytest
from calling import POSIX
from keeping import (
    FINISHED,
    PEOPLE,
    TEXT,
    assert_sends,
    command_of,
    kept,
    mail,
    text_of,
)
from posting import ALICE, BOB, CAROL, HIDDEN, PASSWORD, TOKEN, Post, call

import smtp

pytestmark = POSIX


# ------------------------------------------------------ piped, and not sent


@pytest.mark.parametrize('refusal, code', [
    ('server-down', 75), ('wrong-password', 77), ('not-your-address', 77),
    (f'rcpt:{CAROL}=550 5.1.1 Nobody here', 67), ('mailbox-full', 69),
    ('too-many-connections', 75),
])
def test_refused(refusal: str, code: int, post: Post,
                 folder: pathlib.Path) -> None:
    """Whatever was refused, the text is there, and goes to the same people."""
    post.refuse(refusal)
    done = call(*mail(post), input=TEXT.encode(), cwd=folder)
    assert (done.code, done.output, post.messages) == (code, b'', [])
    received = assert_sends(done.errors, folder, post, PEOPLE)
    message = received.parse()
    assert text_of(received) == TEXT
    assert message['Subject'] == 'Grüße'
    assert message['To'].addresses[0].display_name == 'Bob, B.'
    assert received.sender == ALICE


def test_file_is_the_message_with_its_blind_copies(
        post: Post, folder: pathlib.Path) -> None:
    """What the file holds and what arrives differ by Bcc alone."""
    post.refuse('mailbox-full')
    done = call(*mail(post, '-H', 'X-Lab: 1'), input=TEXT.encode(),
                cwd=folder)
    octets = kept(folder).read_bytes()
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert not message.defects
    assert [address.addr_spec for address in message['Bcc'].addresses] == [
        HIDDEN, 'desk@example.net']
    assert message['X-Lab'] == '1'
    del message['Bcc']
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert re.sub(rb'(?m)^Bcc: .*\r\n(?:[ \t].*\r\n)*', b'', octets) == \
        received.content


def test_only_blind_copies(post: Post, folder: pathlib.Path) -> None:
    """`To: undisclosed-recipients:;` names nobody, and Bcc all of them."""
    post.refuse('mailbox-full')
    many = [f'person{number}@example.net' for number in range(60)]
    done = call(*post.options, '-f', ALICE, '-s', 'x', '--bcc',
                ', '.join(many), input=b'Hello\n', cwd=folder)
    assert_sends(done.errors, folder, post, many)


def test_attachment_and_html(post: Post, folder: pathlib.Path,
                             tmp_path: pathlib.Path) -> None:
    """They are in the file, so that the command needs nothing else."""
    path = tmp_path / 'all octets.bin'
    path.write_bytes(bytes(range(256)) * 100)
    post.refuse('mailbox-full')
    done = call(*mail(post, '--attach', str(path), '--html', '<p>Hello</p>',
                      '--body', '-'), input=TEXT.encode(), cwd=folder)
    path.unlink()
    message = assert_sends(done.errors, folder, post, PEOPLE).parse()
    attachment, = message.iter_attachments()
    assert attachment.get_content() == bytes(range(256)) * 100
    assert message.get_body(('html',)).get_content().strip() == '<p>Hello</p>'


def test_nobody_listens(post: Post, folder: pathlib.Path) -> None:
    """No connection: kept, for when there is one."""
    port = next(port for port in range(1, 1024)
                if port not in (25, 465, 587) and refuses(port))
    done = call(*mail(post, '--port', str(port)), input=TEXT.encode(),
                cwd=folder)
    assert done.code == 75
    assert f'--port {port}' in command_of(done.errors, folder)


def refuses(port: int) -> bool:
    """Tell whether nobody listens at a port."""
    import socket
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) != 0


def test_may_have_been_sent(post: Post, folder: pathlib.Path) -> None:
    """It did arrive: the words warn, and both have the same Message-ID."""
    post.server.drop_after_dot = True
    done = call(*mail(post), input=TEXT.encode(), cwd=folder)
    assert done.code == 74
    assert done.errors.startswith('smtp.py: May have been sent: ')
    lines = done.errors.rstrip('\n').split('\n')
    assert re.search('(?i)if it has not arrived', lines[-2])
    first = post.only().parse()['Message-ID']
    assert first in done.errors
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert received.parse()['Message-ID'] == first


# --------------------------------------------------- finished, and not sent


@pytest.mark.parametrize('options, people', [
    ([], PEOPLE),
    (['--to', 'front@example.org'], ['front@example.org']),
    (['-f', ALICE, 'front@example.org', 'list@example.org'],
     ['front@example.org', 'list@example.org']),
    (['--to=-f@example.org', '--', 'list@example.org'],
     ['-f@example.org', 'list@example.org']),
    (["\"it's $HOME\"@example.org"], ["\"it's $HOME\"@example.org"]),
])
def test_finished_message(options: List[str], people: List[str], post: Post,
                          folder: pathlib.Path) -> None:
    """Kept with Bcc; who was named on the command line is named again."""
    post.refuse('mailbox-full')
    done = call(*post.options, '--message', '-', *options, input=FINISHED,
                cwd=folder)
    assert (done.code, post.messages) == (69, [])
    content = kept(folder).read_bytes()
    for address in PEOPLE:
        assert address.encode() in content
    received = assert_sends(done.errors, folder, post, people)
    assert received.content == re.sub(b'(?s)Bcc: .*?(?=Subject:)', b'',
                                      FINISHED)


def test_sender_of_the_envelope(post: Post, folder: pathlib.Path) -> None:
    """--from counts for the second attempt, too."""
    post.refuse('mailbox-full')
    done = call(*post.options, '--message', '-', '--from',
                'List <list@example.com>', '-u', ALICE, input=FINISHED,
                cwd=folder)
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert received.sender == 'list@example.com'


def test_passed_on(post: Post, folder: pathlib.Path) -> None:
    """Resent-Bcc is kept as well as Bcc is."""
    post.refuse('mailbox-full')
    message = (b'Resent-From: alice@example.com\r\n'
               b'Resent-To: front@example.org\r\n'
               b'Resent-Bcc: list@example.net\r\n' + FINISHED.replace(
                   b'alice@', b'team@'))
    done = call(*post.options, '--message', '-', input=message, cwd=folder)
    assert_sends(done.errors, folder, post,
                 ['front@example.org', 'list@example.net'])


def test_passed_on_twice(post: Post, folder: pathlib.Path) -> None:
    """Only the uppermost block counts, in what is kept as well."""
    post.refuse('mailbox-full')
    message = (b'Resent-From: alice@example.com\r\n'
               b'Resent-To: front@example.org\r\n'
               b'Resent-Bcc: top@example.net\r\n'
               b'Resent-From: team@example.com\r\n'
               b'Resent-To: desk@example.org\r\n'
               b'Resent-Bcc: secret@example.net\r\n' + FINISHED)
    done = call(*post.options, '-v', '--message', '-', input=message,
                cwd=folder)
    asked = re.findall('(?m)^C: (?:MAIL FROM|RCPT TO):<(.*?)>', done.errors)
    assert asked == [ALICE, 'front@example.org', 'top@example.net']
    path = kept(folder)
    with open(path, 'rb') as file:
        again = smtp.read_message(file, str(path))
    assert [again.sender, *again.recipients] == asked
    assert_sends(done.errors, folder, post, asked[1:])


def test_finished_message_without_date(post: Post, folder: pathlib.Path
                                       ) -> None:
    """The Message-ID that the server saw is that of the second attempt."""
    post.server.drop_after_dot = True
    done = call(*post.options, '--message', '-', cwd=folder, input=(
        b'From - Mon Nov 23 12:00:00 2026\n'
        b'From: alice@example.com\nTo: bob@example.org\n\nHello\n'))
    assert done.code == 74
    content = post.only().content
    received = assert_sends(done.errors, folder, post, [BOB])
    assert received.content == content


# ------------------------------------- what could not even become a message


@pytest.mark.parametrize('options, code', [
    (['--to', 'bob@'], 65), (['--from', 'nobody'], 65),
    (['--subject', 'a\rb'], 65), (['-H', 'X-Lab: a\nb'], 65),
    (['--attach', 'missing.pdf'], 66),
    (['--html', '@missing.html', '--body', '-'], 66),
    (['--password-command', 'false'], 78),
], ids=str)
def test_text_of_a_mail_that_cannot_be(
        options: List[str], code: int, post: Post,
        folder: pathlib.Path) -> None:
    """A mistake beside it does not cost the text that was piped."""
    done = call(*post.options, '-f', ALICE, '-t', BOB, '-s', 'x', *options,
                input=TEXT.encode(), cwd=folder)
    assert done.code == code, done.errors
    assert post.messages == []
    assert TEXT.encode() in kept(folder).read_bytes().replace(b'\r\n', b'\n')


def test_text_that_is_no_utf8(post: Post, folder: pathlib.Path) -> None:
    """Octet for octet, so that iconv can convert what was kept."""
    text = 'Grüße\n'.encode('latin-1')
    done = call(*mail(post), input=text, cwd=folder)
    assert (done.code, post.messages) == (65, [])
    assert kept(folder).read_bytes() == text


@pytest.mark.parametrize('message', [
    b'nonsense', b'Gr\xfc\xdfe,\r\rno header\n',
    FINISHED.replace(b'To:', b'-:').replace(b'Cc:', b'-C:').replace(
        b'Bcc:', b'-B:'),
    FINISHED.replace(b'bob@example.org', b'bob@'),
    FINISHED + b'x' * 999, FINISHED + b'\0\r',
], ids=['nonsense', 'text', 'nobody', 'address', 'line', 'NUL'])
def test_message_that_is_none(message: bytes, post: Post,
                              folder: pathlib.Path) -> None:
    """It cannot be sent as it is, so it is kept as it is."""
    done = call(*post.options, '--message', '-', input=message, cwd=folder)
    assert (done.code, post.messages) == (65, [])
    assert kept(folder).read_bytes() == message


# -------------------------------------------------------------- the command


def test_options_in_the_command(post: Post, folder: pathlib.Path,
                                tmp_path: pathlib.Path) -> None:
    """What leads to the server and into it is there, quoted for a shell."""
    post.refuse('mailbox-full')
    odd = tmp_path / "it's $HOME & \"more\""
    odd.mkdir()
    ca_file = odd / 'ca file.pem'
    ca_file.write_bytes(pathlib.Path(post.server.ca_file).read_bytes())
    secret = "sh -c 'echo \"open-$(printf sesame)\"'"
    done = call(*mail(post, '--ca-file', str(ca_file), '--user', ALICE,
                      '--auth', 'login', '--ehlo', 'client.example.com',
                      '--password-command', secret),
                input=TEXT.encode(), cwd=folder, env={})
    words = shlex.split(command_of(done.errors, folder))
    for option, value in (
            ('--server', 'localhost'), ('--port', str(post.server.port)),
            ('--ca-file', str(ca_file)), ('--user', ALICE),
            ('--auth', 'login'), ('--ehlo', 'client.example.com'),
            ('--password-command', secret)):
        assert value in (words[words.index(option) + 1:] or [''])[0], option
    assert float(words[words.index('--timeout') + 1]) == 10
    assert '-4' in words
    assert_sends(done.errors, folder, post, PEOPLE, LAB='1')


def test_token_in_the_environment(post: Post, folder: pathlib.Path) -> None:
    """The command takes the token from where it was; it is not in there."""
    post.refuse('mailbox-full')
    done = call(*mail(post), input=TEXT.encode(), cwd=folder,
                env={'SMTP_ACCESS_TOKEN': TOKEN})
    assert TOKEN not in done.errors
    assert TOKEN.encode() not in kept(folder).read_bytes()
    assert_sends(done.errors, folder, post, PEOPLE, SMTP_ACCESS_TOKEN=TOKEN)


def test_no_secret_is_kept(post: Post, folder: pathlib.Path) -> None:
    """Neither in the file nor in the command."""
    post.refuse('wrong-password')
    done = call(*mail(post, '-v'), input=TEXT.encode(), cwd=folder)
    assert PASSWORD not in done.errors
    assert PASSWORD.encode() not in kept(folder).read_bytes()


# -------------------------------------------- when there is nothing to keep


def test_nothing_to_keep(post: Post, folder: pathlib.Path,
                         tmp_path: pathlib.Path) -> None:
    """What was sent, or stands somewhere else, leaves no file behind."""
    path = tmp_path / 'finished.eml'
    path.write_bytes(FINISHED)
    text = [*mail(post)]
    cases: List[Any] = [
        (0, text, TEXT, ''), (0, [*post.options, '--message', '-'], FINISHED,
                              ''),
        (0, [*text, '--dry-run'], TEXT, ''),
        (0, [*text, '--quit-after', 'auth', '--body', 'x'], '', ''),
        (0, [*post.options, '--message', '-', '--quit-after', 'rcpt'],
         FINISHED, ''),
        (69, [*text, '--body', 'x'], '', 'mailbox-full'),
        (69, [*text, '--body', f'@{path}.txt'], '', 'mailbox-full'),
        (69, [*post.options, '--message', str(path)], '', 'mailbox-full'),
        (64, [*text, '--nonsense'], TEXT, ''),
    ]
    (tmp_path / 'finished.eml.txt').write_text('Hello')
    for code, args, text_in, refusal in cases:
        post.accept()
        if refusal:
            post.refuse(refusal)
        octets = text_in.encode() if isinstance(text_in, str) else text_in
        done = call(*args, input=octets, cwd=folder)
        assert (done.code, list(folder.iterdir())) == (code, []), args
