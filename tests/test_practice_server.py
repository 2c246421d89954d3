"""The practice server: on the wire it is what Office 365 would be.

A client without opinions talks to it, so what it answers to mistakes is seen
as well.
"""

import base64
import contextlib
import re
import socket
import ssl
import sys
import time

import practice_server
import pytest


class Client:
    """A client without opinions: it sends lines and reads replies."""

    def __init__(self, server, tls=True, login=True):
        """Connect, and go as far as is asked for."""
        self.socket = socket.create_connection(('127.0.0.1', server.port), 10)
        self.file = self.socket.makefile('rb')
        self.read()
        if tls:
            self.start_tls(server.ca_file)
        if login:
            user = base64.b64encode(practice_server.USER.encode()).decode()
            assert self.say(f'AUTH LOGIN {user}') == ['334 UGFzc3dvcmQ6']
            assert self.say('b3Blbi1zZXNhbWU=')[0].startswith('235 2.7.0 ')

    def start_tls(self, ca_file):
        """Begin TLS and say EHLO on both sides of it."""
        self.say('EHLO [127.0.0.1]')
        assert self.say('STARTTLS') == ['220 2.0.0 SMTP server ready']
        context = ssl.create_default_context(cafile=ca_file)
        self.socket = context.wrap_socket(self.socket,
                                          server_hostname='localhost')
        self.file = self.socket.makefile('rb')
        self.say('EHLO [127.0.0.1]')

    def read(self):
        """Return the lines of one reply; [''] at the end."""
        lines = []
        while not lines or lines[-1][3:4] == '-':
            lines.append(self.file.readline().decode().rstrip('\r\n'))
        return lines

    def say(self, *lines):
        """Send lines in one write and return the reply to the first."""
        self.socket.sendall(''.join(f'{line}\r\n' for line in lines).encode())
        return self.read()

    def __enter__(self):
        """Return the client itself."""
        return self

    def __exit__(self, *exception):
        """Hang up."""
        self.file.close()
        self.socket.close()


@pytest.fixture(scope='module')
def server():
    """A server that refuses nothing."""
    with practice_server.PracticeServer() as server:
        yield server


def test_the_offers_on_both_sides_of_tls(server):
    """As Office 365's, in its order, without what aiosmtpd cannot do."""
    with Client(server, tls=False, login=False) as client:
        assert client.say('EHLO [127.0.0.1]') == [
            '250-localhost Hello [127.0.0.1]', '250-SIZE 157286400',
            '250-PIPELINING', '250-ENHANCEDSTATUSCODES', '250-STARTTLS',
            '250-8BITMIME', '250 SMTPUTF8']
        for line in 'AUTH LOGIN', 'MAIL FROM:<alice@example.com>':
            assert client.say(line) == [
                '530 5.7.0 Must issue a STARTTLS command first']
        client.start_tls(server.ca_file)
        assert client.say('EHLO [127.0.0.1]') == [
            '250-localhost Hello [127.0.0.1]', '250-SIZE 157286400',
            '250-PIPELINING', '250-ENHANCEDSTATUSCODES',
            '250-AUTH LOGIN XOAUTH2', '250-8BITMIME', '250 SMTPUTF8']
        assert client.say('MAIL FROM:<alice@example.com>') == [
            '530 5.7.57 Client not authenticated to send mail.']


def test_groups_of_commands_in_one_write(server):
    """It offers PIPELINING, so aiosmtpd had better mean it."""
    with Client(server) as client:
        replies = [client.say(
            'MAIL FROM:<alice@example.com> SIZE=20 BODY=8BITMIME SMTPUTF8',
            *(f'RCPT TO:<u{i}@example.org>' for i in range(98)), 'DATA')]
        replies += [client.read() for _ in range(99)]
        assert replies == [['250 2.1.0 Sender OK'],
                           *[['250 2.1.5 Recipient OK']] * 98,
                           ['354 Start mail input; end with <CRLF>.<CRLF>']]
        reply = client.say('Subject: x', '', '..', '...x', '.', 'QUIT')
        assert re.fullmatch(r'250 2\.0\.0 OK <.+> queued', reply[0])
        assert client.read() == [
            '221 2.0.0 Service closing transmission channel']
        assert client.read() == ['']
    received = server.messages[-1]
    assert received.content == b'Subject: x\r\n\r\n.\r\n..x\r\n'
    assert received.recipients[-1] == 'u97@example.org'
    assert received.mail_options == ('SIZE=20', 'BODY=8BITMIME', 'SMTPUTF8')


def b64(text):
    """Return the base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def bearer(token):
    """Return what XOAUTH2 makes of a token."""
    return b64(f'user={practice_server.USER}\1auth=Bearer {token}\1\1')


REASON = base64.b64encode(
    b'{"status": "400", "schemes": "Bearer", '
    b'"scope": "https://outlook.office.com/"}').decode()


@pytest.mark.parametrize('lines, replies', [
    (['AUTH LOGIN ' + b64(practice_server.USER),
      b64(practice_server.PASSWORD)],
     ['334 UGFzc3dvcmQ6', '235 2.7.0 ']),
    (['auth login', b64(practice_server.USER), b64(practice_server.PASSWORD)],
     ['334 VXNlcm5hbWU6', '334 UGFzc3dvcmQ6', '235 2.7.0 ']),
    (['AUTH LOGIN', b64(practice_server.USER), b64('guess')],
     ['334 ', '334 ', '535 5.7.3 Authentication unsuccessful']),
    (['AUTH LOGIN', b64('bob@example.com'), b64(practice_server.PASSWORD)],
     ['334 ', '334 ', '535 5.7.3 ']),
    (['AUTH LOGIN', '*'], ['334 ', '501 5.']),
    (['AUTH LOGIN', '?'], ['334 ', '501 5.']),
    (['AUTH PLAIN AGEAYg=='], ['504 5.7.4 Unrecognized authentication type']),
    (['AUTH XOAUTH2 ' + bearer(practice_server.TOKEN)], ['235 2.7.0 ']),
    (['AUTH XOAUTH2', bearer(practice_server.TOKEN)], ['334 ', '235 2.7.0 ']),
    (['AUTH XOAUTH2 ' + bearer('old'), ''], ['334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2', bearer('old' * 2000), ''],
     ['334 ', '334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2 ' + bearer('old' * 2000)], ['500 5.5.0 Command line too']),
    (['AUTH XOAUTH2 ' + bearer('old'), '*'], ['334 ', '501 5.']),
    (['AUTH XOAUTH2 ' + b64('old'), ''], ['334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2 ?'], ['501 5.5.4 Invalid arguments']),
    (['AUTH XOAUTH2', '*'], ['334 ', '501 5.']),
], ids=lambda lines: lines[0][:30])
def test_logins(server, lines, replies):
    """Both mechanisms, with and without an initial response."""
    with Client(server, login=False) as client:
        got = [client.say(line)[0] for line in lines]
        assert all(map(str.startswith, got, replies)), got
        # One reply to each line, no more; and only 235 lets anybody in.
        expected = '250' if replies[-1].startswith('235') else '530 5.7.57'
        assert client.say('MAIL FROM:<alice@example.com>')[0].startswith(
            expected)


def test_every_refusal_of_its_own_has_an_enhanced_status_code(server):
    """It offers ENHANCEDSTATUSCODES, and aiosmtpd has not always one."""
    with Client(server) as client:
        for line in ('RCPT TO:<bob@example.org>', 'DATA', 'FOO', 'MAIL',
                     'MAIL FROM:<alice@example.com> SIZE=999999999', 'NOOP',
                     'MAIL FROM:<alice@example.com>', 'DATA', 'RSET',
                     'MAIL FROM:<alice@example.com> FOO=1', 'MAIL FROM:a b'):
            [reply] = client.say(line)
            assert re.match(r'(?P<class>[245])\d\d (?P=class)\.\d\.\d+ ',
                            reply), (line, reply)


def test_a_line_over_the_limit_is_refused(server):
    """998 octets and CRLF, RFC 5321 section 4.5.3.1.6."""
    before = len(server.messages)
    for length, code in ((998, '250'), (999, '500')):
        with Client(server) as client:
            client.say('MAIL FROM:<alice@example.com>')
            client.say('RCPT TO:<bob@example.org>')
            client.say('DATA')
            assert client.say('x' * length, '.')[0].startswith(code)
    assert len(server.messages) == before + 1


@pytest.mark.parametrize('step', ['mail', 'message'])
def test_421_reaches_the_client_before_the_connection_ends(step):
    """Even though the client has sent more than was read."""
    with practice_server.PracticeServer([f'{step}=421 4.3.2 Bye']) as server:
        with Client(server) as client:
            crowd = ['RCPT TO:<bob@example.org>'] * 99
            if step == 'mail':
                reply = client.say('MAIL FROM:<alice@example.com>',
                                   *crowd * 100, 'QUIT')
            else:
                client.say('MAIL FROM:<alice@example.com>', *crowd, 'DATA')
                assert [client.read() for _ in range(100)][-1][0][:3] == '354'
                reply = client.say('.', 'QUIT')
            assert reply == ['421 4.3.2 Bye']
            assert client.read() == ['']


def test_slow_delays_each_reply():
    """Five replies, the greeting included, are five times as slow."""
    with practice_server.PracticeServer(slow=0.05) as server:
        begin = time.monotonic()
        with Client(server, tls=False, login=False) as client:
            for _ in range(4):
                client.say('NOOP')
        assert time.monotonic() - begin >= 0.25


@pytest.mark.skipif(sys.version_info < (3, 10),
                    reason='asyncio says nothing of it before 3.10')
def test_a_client_that_mistrusts_the_certificate_is_one_line(server, capfd):
    """A beginner who forgets --ca-file sees no traceback here."""
    with Client(server, tls=False, login=False) as client:
        client.say('EHLO [127.0.0.1]')
        client.say('STARTTLS')
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(
                client.socket, server_hostname='localhost')
    deadline = time.monotonic() + 10
    printed = ''
    while 'handshake' not in printed and time.monotonic() < deadline:
        printed += capfd.readouterr().err
        time.sleep(0.01)
    assert printed.startswith('(The TLS handshake failed.) ')
    assert printed.count('\n') == 1


def test_it_ends_while_a_client_is_connected():
    """Ctrl-C need not wait for anybody."""
    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        with practice_server.PracticeServer() as server:
            stack.enter_context(Client(server, login=False))
            stack.enter_context(Client(server, tls=False, login=False))
        assert time.monotonic() - begin < 5
        assert not server.folder.exists()
