"""smtp.py against Postfix and Dovecot, from the command line to the Maildir.

Each test sends as a person would and looks into the mailboxes. Skipped where
the servers cannot run, unless SMTP_TEST_REAL_SERVERS=required says that they
must; `real_servers` tells what they are and what they are set up to refuse.
"""

import email
import email.message
import email.policy
import os
import pathlib
import re
import subprocess
from typing import Callable, Iterator, List

import pytest
import real_servers
import trustme
from real_servers import LIST, PASSWORDS, SIZE_LIMIT, RealServers

import smtp

ALICE, BOB, CAROL = 'alice@example.com', 'bob@example.com', 'carol@example.com'

#: What Postfix writes into its log about a client that breaks the rules.
COMPLAINTS = re.compile(
    'improper command pipelining|bare <LF>|bare newline|non-SMTP command'
    '|request longer than|Illegal address|unexpected|Protocol error')

Done = subprocess.CompletedProcess[str]
Send = Callable[..., Done]


@pytest.fixture(scope='session')
def running_servers(authority: trustme.CA) -> Iterator[RealServers]:
    """Postfix and Dovecot, started once for all the tests of a process."""
    try:
        real_servers.check_machine()
    except real_servers.CannotRun as reason:
        if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
            pytest.fail(f'the real servers are required, but {reason}')
        pytest.skip(f'no real servers: {reason}')
    with real_servers.running(authority) as servers:
        yield servers


@pytest.fixture
def servers(running_servers: RealServers) -> Iterator[RealServers]:
    """The servers with empty mailboxes, whose log must stay free of blame."""
    running_servers.clear()
    before = set(running_servers.log().splitlines())
    yield running_servers
    log = '\n'.join(line for line in running_servers.log().splitlines()
                    if line not in before)
    print(log)  # pytest shows it when the test has failed
    assert not COMPLAINTS.search(log)


@pytest.fixture
def send(servers: RealServers, run_smtp: Send, ca_file: str) -> Send:
    """A function that runs smtp.py with what every message here needs.

    What the test gives comes after that, and so wins over it. `service` is
    one of real_servers.SERVICES, `user` whose account is used; the text is
    the standard input, if the test gives one.
    """
    def run(*args: str, service: str = 'submission', user: str = ALICE,
            **others: object) -> Done:
        tls = {'implicit': ['--tls', 'implicit'],
               'relay': ['--tls', 'none', '--auth', 'none']}
        text = [] if 'input' in others else ['--body', 'Hello']
        return run_smtp(
            '--server', servers.host, '--port', str(servers.ports[service]),
            *tls.get(service, []), '--ca-file', ca_file, '--from', user,
            '--subject', 'Hello', *text, *args,
            **{'env': {'SMTP_PASSWORD': PASSWORDS[user]}, **others})
    return run


def only(messages: List[bytes]) -> email.message.EmailMessage:
    """Read the one message of a mailbox."""
    assert len(messages) == 1
    return email.message_from_string(messages[0].decode('utf-8'),
                                     policy=email.policy.default)


def text_of(message: email.message.EmailMessage) -> str:
    """Return the text of a message as a mail reader would show it."""
    body = message.get_body(('plain',))
    assert body is not None
    # A Maildir keeps CRLF only where base64 hides it.
    return str(body.get_content()).replace('\r\n', '\n')


def assert_sent(done: Done) -> None:
    """smtp.py says by all its means that the message was sent."""
    errors = re.sub('(?m)^smtp.py: note: .*\n', '', done.stderr)
    assert (done.returncode, errors) == (0, '')
    assert re.fullmatch('Sent to [^\n]*: 250 [^\n]*\n', done.stdout)


def assert_not_sent(done: Done, exit_code: int,
                    servers: RealServers) -> None:
    """smtp.py says that nothing was sent, and nobody has got anything."""
    assert done.returncode == exit_code, done.stderr
    assert re.search('^smtp.py: Not sent: ', done.stderr, re.MULTILINE)
    assert done.stdout == ''
    assert servers.delivered() == {}


def logins(servers: RealServers, done: Done) -> List[str]:
    """Return how the server logged in the client that it thanked in `done`.

    The server's last reply says under which name it has put the message into
    its queue, and its log has more to say about that name.
    """
    queue_id, = re.findall(r'queued as (\w+)', done.stdout)
    return re.findall(rf'{queue_id}: .*sasl_method=(\w+)', servers.log())


# -- Messages that arrive ---------------------------------------------------

@pytest.mark.parametrize('service, auth, protocol, mechanisms', [
    ('submission', 'auto', 'ESMTPSA', ['LOGIN']),
    ('submission', 'plain', 'ESMTPSA', ['PLAIN']),
    ('implicit', 'login', 'ESMTPSA', ['LOGIN']),
    ('sparse', 'login', 'ESMTPSA', ['LOGIN']),
    ('relay', 'none', 'ESMTP', []),
])
def test_message_with_attachment_arrives_whole(
        servers: RealServers, send: Send, tmp_path: pathlib.Path,
        service: str, auth: str, protocol: str,
        mechanisms: List[str]) -> None:
    """Subject, names, text and every octet of a file come out as put in."""
    subject = 'Grüße aus Zürich — 会議の件 🎉, und das auf mehreren Zeilen'
    text = 'Héllo,\n\n.\n..\n=20 \ntrailing blank \n' + 'ö' * 2000 + '\n'
    octets = bytes(range(256)) * 1000
    path = tmp_path / 'Übersicht 1.bin'
    path.write_bytes(octets)
    done = send('--auth', auth, '--from', f'Ålice Ünal <{ALICE}>',
                '--to', f'"Bob, B." <{BOB}>', '--bcc', CAROL,
                '--subject', subject, '--attach', str(path),
                input=text, service=service)
    assert_sent(done)
    assert servers.mail(BOB)[0].isascii()
    message = only(servers.mail(BOB))
    assert message['Subject'] == subject
    assert message['From'].addresses[0].display_name == 'Ålice Ünal'
    assert message['To'].addresses[0].display_name == 'Bob, B.'
    assert message['Return-Path'] == f'<{ALICE}>'
    assert text_of(message) == text
    attachment, = message.iter_attachments()
    assert attachment.get_filename() == 'Übersicht 1.bin'
    assert attachment.get_content() == octets
    # The blind copy is equal, and nobody sees whom it went to.
    assert CAROL.encode() not in servers.mail(BOB)[0]
    assert only(servers.mail(CAROL))['Message-ID'] == message['Message-ID']
    # S stands for TLS here, and A for a login.
    assert f' with {protocol} id ' in message['Received']
    assert logins(servers, done) == mechanisms


@pytest.mark.parametrize('service, waits', [('submission', 7), ('sparse', 10)])
def test_waits_for_no_more_replies_than_it_must(
        servers: RealServers, send: Send, service: str, waits: int) -> None:
    """EHLO, STARTTLS, EHLO, user, password; then the envelope, the message.

    Where PIPELINING is not offered, MAIL, RCPT, DATA, the message and QUIT
    each wait for their reply.
    """
    done = send('--to', BOB, '-v', service=service)
    speakers = ''.join(re.findall('^([CS]): ', done.stderr, re.MULTILINE))
    assert speakers.count('CS') == waits
    only(servers.mail(BOB))


@pytest.mark.parametrize('user', [CAROL, 'zoë@example.com'])
def test_login_outside_ascii(servers: RealServers, send: Send,
                             user: str) -> None:
    """User names and passwords are UTF-8, whatever they consist of."""
    sender = user.replace('ë', 'e')
    for auth in ('login', 'plain'):
        assert_sent(send('--to', BOB, '--subject', auth,
                         '--user', user, '--from', sender, '--auth', auth,
                         user=user))
    assert [only([message])['Subject'] for message in servers.mail(BOB)] == [
        'login', 'plain']


@pytest.mark.parametrize('service', ['submission', 'sparse'])
def test_text_that_looks_like_smtp(servers: RealServers, send: Send,
                                   service: str) -> None:
    """No text can end its message early, let alone smuggle in another."""
    smuggled = f'MAIL FROM:<{ALICE}>\r\nRCPT TO:<{CAROL}>\r\nDATA\r\nHa!'
    text = ''.join(f'{line_end}.{other}{smuggled}{line_end}.{other}'
                   for line_end in ('\n', '\r', '\r\n')
                   for other in ('\n', '\r', '\r\n', ''))
    text = '.\n..\r...\r\n.x\r.\r' + text + '\n.\n.\r\n.\n'
    assert_sent(send('--to', BOB, '--subject', 'Dots', service=service,
                     input=text))
    assert text_of(only(servers.mail(BOB))) == re.sub('\r\n?', '\n', text)
    assert servers.mail(CAROL) == []


def test_address_outside_ascii(servers: RealServers, send: Send) -> None:
    """A local part in UTF-8 needs SMTPUTF8, and stands there unencoded."""
    assert_sent(send('--to', 'jörg@example.com', '--subject', 'Grüße'))
    message = only(servers.mail('jörg@example.com'))
    assert message['To'] == 'jörg@example.com'
    assert message['Subject'] == 'Grüße'
    assert 'with UTF8SMTPSA id' in message['Received']


@pytest.mark.parametrize('service', ['submission', 'sparse'])
def test_many_recipients(servers: RealServers, send: Send,
                         service: str) -> None:
    """More recipients than one group of commands holds; each gets one."""
    done = send('--to', ','.join(LIST[:60]), '--cc', ', '.join(LIST[60:90]),
                '--bcc', ','.join(LIST[90:] + LIST[:5]), '--subject', 'All',
                service=service)
    assert_sent(done)
    delivered = servers.delivered()
    assert sorted(delivered) == sorted(LIST)
    for address in LIST:
        message = only(delivered[address])
    assert [to.addr_spec for to in message['To'].addresses] == LIST[:60]
    assert [cc.addr_spec for cc in message['Cc'].addresses] == LIST[60:90]
    assert message['Bcc'] is None


def test_one_message_after_the_other(servers: RealServers,
                                     ca_file: str) -> None:
    """From Python as well, and as often as one likes."""
    for number in range(3):
        receipt = smtp.smtp_send(
            PASSWORDS[ALICE],
            {'From': ALICE, 'To': [BOB], 'Subject': f'Nº {number}'},
            f'Text {number}', server=servers.host, ca_file=ca_file,
            port=servers.ports['submission'])
        assert receipt.reply.code == 250
    messages = [only([message]) for message in servers.mail(BOB)]
    assert [(message['Subject'], text_of(message).strip())
            for message in messages] == [
        (f'Nº {number}', f'Text {number}') for number in range(3)]


# -- Messages that are refused ------------------------------------------------

@pytest.mark.parametrize('auth', ['login', 'plain'])
def test_wrong_password(servers: RealServers, send: Send, auth: str) -> None:
    """The server's own reply is told, and the password by nobody."""
    done = send('--to', BOB, '--auth', auth, '-v',
                env={'SMTP_PASSWORD': 'open sesame'})
    assert_not_sent(done, 77, servers)
    assert '535 5.7.8' in done.stderr
    assert 'sesame' not in done.stderr
    assert 'b3BlbiBzZXNhbW' not in done.stderr


def test_address_of_somebody_else(servers: RealServers, send: Send) -> None:
    """Alice may log in, but not write in Carol's name."""
    done = send('--from', CAROL, '--user', ALICE, '--to', BOB)
    assert_not_sent(done, 77, servers)
    assert '553 5.7.1' in done.stderr


def test_login_left_out(servers: RealServers, send: Send) -> None:
    """The server wants a login that was declined."""
    done = send('--auth', 'none', '--to', BOB)
    assert_not_sent(done, 77, servers)


@pytest.mark.parametrize('service', ['submission', 'sparse'])
def test_unknown_recipients_among_good_ones(
        servers: RealServers, send: Send, service: str) -> None:
    """All or nobody; each who was refused is named, and nobody else."""
    unknown = ['nobody@example.com', 'noone@example.com']
    done = send('--to', f'{BOB},{unknown[0]},{CAROL},{unknown[1]}',
                service=service)
    assert_not_sent(done, 67, servers)
    for address in unknown:
        assert f'550 5.1.1 <{address}>' in done.stderr
    assert BOB not in done.stderr and CAROL not in done.stderr


def test_recipient_who_may_be_tried_later(servers: RealServers,
                                          send: Send) -> None:
    """A recipient refused for the moment: nobody gets it, try again."""
    done = send('--to', f'{BOB},later@example.com')
    assert_not_sent(done, 75, servers)
    assert '450 4.2.0 <later@example.com>' in done.stderr


def test_message_over_the_announced_size(
        servers: RealServers, send: Send, tmp_path: pathlib.Path) -> None:
    """The server said how much it takes, so it is not even asked."""
    path = tmp_path / 'large.bin'
    path.write_bytes(bytes(SIZE_LIMIT * 3 // 4))  # too long by base64 only
    done = send('--to', BOB, '--attach', str(path), '-v')
    assert_not_sent(done, 65, servers)
    assert 'C: AUTH LOGIN' in done.stderr
    assert 'C: MAIL' not in done.stderr
    assert str(SIZE_LIMIT) in done.stderr


def test_message_over_a_size_kept_secret(
        servers: RealServers, send: Send, tmp_path: pathlib.Path) -> None:
    """The server did not say, and refuses after the final dot."""
    path = tmp_path / 'large.bin'
    path.write_bytes(bytes(SIZE_LIMIT))
    done = send('--to', BOB, '--attach', str(path),
                service='sparse')
    assert_not_sent(done, 65, servers)
    assert '552 5.3.4' in done.stderr


def test_address_outside_ascii_without_smtputf8(servers: RealServers,
                                                send: Send) -> None:
    """This server cannot take such an address, so it is not even asked."""
    done = send('--to', f'{BOB},jörg@example.com', '-v',
                service='sparse')
    assert_not_sent(done, 69, servers)
    assert 'C: MAIL' not in done.stderr


def test_server_without_tls(servers: RealServers, send: Send) -> None:
    """STARTTLS is not offered: nothing is said to whoever that is."""
    done = send('--tls', 'starttls', '--auth', 'login', '--to', BOB,
                '-v', service='relay')
    assert_not_sent(done, 69, servers)
    assert 'C: AUTH' not in done.stderr and 'C: MAIL' not in done.stderr


@pytest.mark.parametrize('service', ['submission', 'implicit'])
def test_server_that_is_not_the_one_meant(
        servers: RealServers, send: Send, service: str,
        tmp_path: pathlib.Path) -> None:
    """A certificate for another name, or of an authority not trusted."""
    other = str(tmp_path / 'other.pem')
    trustme.CA().cert_pem.write_to_path(other)
    for trust in (['--server', '127.0.0.1'], ['--ca-file', other]):
        done = send(*trust, '--to', BOB, '-v',
                    service=service)
        assert_not_sent(done, 76, servers)
        assert 'C: AUTH' not in done.stderr


# -- Tokens -------------------------------------------------------------------

@pytest.mark.parametrize('service, padding, variable, options', [
    ('submission', 0, 'SMTP_PASSWORD', ['--auth', 'xoauth2']),
    ('submission', 3000, 'SMTP_PASSWORD', ['--auth', 'xoauth2']),
    ('implicit', 3000, 'SMTP_ACCESS_TOKEN', []),
    ('sparse', 0, 'SMTP_ACCESS_TOKEN', ['--auth', 'xoauth2']),
])
def test_token(servers: RealServers, send: Send, service: str, padding: int,
               variable: str, options: List[str]) -> None:
    """A token opens the mailbox that it is for, however long it is."""
    token = servers.token(ALICE, padding=padding)
    done = send('--to', BOB, *options, env={variable: token},
                service=service)
    assert_sent(done)
    assert logins(servers, done) == ['XOAUTH2']
    only(servers.mail(BOB))


@pytest.mark.parametrize('padding', [0, 3000])
@pytest.mark.parametrize('user, expires_in, scope', [
    (ALICE, -60, 'SMTP.Send'), (CAROL, 3600, 'SMTP.Send'),
    (ALICE, 3600, 'IMAP.AccessAsUser.All'),
], ids=['expired', 'of somebody else', 'for reading only'])
def test_token_that_does_not_count(
        servers: RealServers, send: Send, user: str, expires_in: int,
        scope: str, padding: int) -> None:
    """Told by 334 in JSON first; the real reply follows an empty line."""
    token = servers.token(user, expires_in, scope, padding)
    done = send('--to', BOB, '--auth', 'xoauth2', '-v',
                env={'SMTP_PASSWORD': token})
    assert_not_sent(done, 77, servers)
    assert '535 5.7.8' in done.stderr
    assert '"status":"401"' in done.stderr
    assert token not in done.stderr
