"""smtp.py against aiosmtpd, and against Postfix with Dovecot."""

import re

import pytest

from support import checks, cli, judges, post, postfix
from support.postfix import ALICE, BOB, CAROL, JOERG, LATER, LIST, PASSWORDS

# What Postfix writes into its log about a client that breaks the rules.
COMPLAINTS = re.compile(
    'improper command pipelining|bare <LF>|bare newline|non-SMTP command'
    '|request longer than|Illegal address|unexpected|Protocol error')


class Aiosmtpd:
    """The practice server in the role of the others; it writes no log."""

    def __init__(self, server):
        """Take over a server that runs."""
        self.messages, self.log = server.messages, str

    def delivered(self):
        """Return who has got what."""
        return {address: [each.content for each in self.messages
                          if address in each.recipients]
                for message in self.messages for address in message.recipients}


@pytest.fixture(scope='session')
def running(authority):
    """Postfix and Dovecot, started once for all the tests of a process."""
    with postfix.running(authority) as servers:
        yield servers


@pytest.fixture(params=['aiosmtpd', *postfix.SERVICES])
def send(request, call, ca_file):
    """A function that sends through a service, which has no complaints."""
    service, password = request.param, PASSWORDS[ALICE]
    if service == 'aiosmtpd':
        practice = request.getfixturevalue('post')
        server, options = Aiosmtpd(practice), practice.options
        password = post.PASSWORD
    else:
        server = request.getfixturevalue('running')
        options = [*cli.reach(server.ports[service], ca_file), *{
            'implicit': ['--tls', 'implicit'],
            'relay': ['--tls', 'none', '--auth', 'none']}.get(service, [])]
        server.delivered(last=True)
    before = len(server.log())

    def send(*args, text='Hello', **more):
        return call(*options, '-v', '-f', ALICE, '-s', 'Hello', '--body', '-',
                    *args, stdin=text.encode(), **{
                        'password': None if service == 'relay' else password,
                        **more})
    send.service, send.server = service, server
    yield send
    assert not COMPLAINTS.search(server.log()[before:])


def through(*services):
    """Run a test with these services only."""
    return pytest.mark.parametrize('send', services, indirect=True)


def only(send, address):
    """Return the one message of a mailbox, and what a reader sees of it."""
    octets, = send.server.delivered()[address]
    return octets, judges.read(octets)


def test_a_message_arrives_whole(send, folder):
    """Subject, names, text and every octet of a file, in few round trips."""
    name, every = 'Übersicht 1.bin', bytes(range(256)) * 1000
    text = 'Héllo,\n\n.\n..\n=20 \ntrailing blank \n' + 'ö' * 2000 + '\n'
    subject = 'Grüße aus Zürich — 会議の件 🎉, und das auf mehreren Zeilen'
    (folder / name).write_bytes(every)
    result = send('-f', f'Ålice Ünal <{ALICE}>', '-t', f'"Bob, B." <{BOB}>',
                  '-b', CAROL, '-s', subject, '-a', name, text=text)
    checks.check(result, 0, secrets=[PASSWORDS[ALICE]])
    octets, mail = only(send, BOB)
    assert mail == judges.Mail(
        [('Ålice Ünal', ALICE)], [('Bob, B.', BOB)], [], subject,
        judges.normal(text), '', [(name, 'application/octet-stream', every)])
    assert judges.fields(octets, 'Message-ID') == judges.fields(
        only(send, CAROL)[0], 'Message-ID')
    assert CAROL.encode() not in octets
    waits = ''.join(line[0] for line in result.lines).count('CS')
    assert waits == {'sparse': 11, 'relay': 3, 'implicit': 5}.get(
        send.service, 7)
    received = ''.join(judges.fields(octets, 'Received'))
    assert re.findall(' with [A-Z]+ id ', received) == {
        'aiosmtpd': [], 'relay': [' with ESMTP id ']}.get(
            send.service, [' with ESMTPSA id '])


@through('aiosmtpd', 'submission', 'sparse')
def test_text_that_looks_like_smtp(send):
    """No text can end its message early, let alone smuggle in another."""
    smuggled = f'MAIL FROM:<{ALICE}>\r\nRCPT TO:<{CAROL}>\r\nDATA\r\nHa!'
    ends = '\n', '\r', '\r\n', ''
    text = '.\n..\r...\r\n.x\r.\r' + ''.join(
        f'{end}.{other}{smuggled}{end}.{other}' for end in ends[:3]
        for other in ends) + '\n.\n.\r\n.\n'
    checks.check(send('-t', BOB, text=text), 0)
    assert only(send, BOB)[1].text == judges.normal(text)
    assert list(send.server.delivered()) == [BOB]


@through('aiosmtpd', 'submission', 'sparse')
def test_many_recipients(send):
    """Each gets one, and the envelope is not the header."""
    checks.check(send('-t', ','.join(LIST[:60]), '-c', ', '.join(LIST[60:90]),
                      '-b', ','.join(LIST[90:] + LIST[:5])), 0)
    assert sorted(send.server.delivered()) == sorted(LIST)
    octets, mail = [only(send, address) for address in LIST][0]
    assert [address for _, address in mail.to] == LIST[:60]
    assert not judges.fields(octets, 'Bcc')


@through('submission', 'sparse')
@pytest.mark.parametrize('mechanism', ['login', 'plain'])
def test_a_login_beyond_ascii(send, mechanism):
    """User names and passwords are UTF-8."""
    for user in CAROL, postfix.ZOE:
        checks.check(send(
            '-t', BOB, '-u', user, '-f', user.replace('ë', 'e'), '--auth',
            mechanism, password=PASSWORDS[user]), 0)
    assert len(send.server.delivered()[BOB]) == 2
    assert f'sasl_method={mechanism.upper()}' in send.server.log()


@through('submission')
def test_an_address_beyond_ascii(send):
    """A local part in UTF-8 needs SMTPUTF8, and stays unencoded."""
    checks.check(send('-t', JOERG), 0)
    octets, = send.server.delivered()[JOERG]
    assert b'with UTF8SMTPSA id' in octets
    assert judges.fields(octets, 'To') == [JOERG]


@pytest.mark.parametrize('send, args, code, words, never', [
    ('submission', ['--auth', 'login'], 77, '535 5.7.8', 'MAIL'),
    ('submission', ['--auth', 'plain'], 77, '535 5.7.8', 'MAIL'),
    *((service, ['-t', f'x@example.com,{CAROL},y@example.com'], 67,
       r'550 5\.1\.1 <x@.*550 5\.1\.1 <y@', 'From')
      for service in ('submission', 'sparse')),
    ('submission', ['-f', CAROL, '-u', ALICE], 77, '553 5.7.1', 'From'),
    ('submission', ['--auth', 'none'], 77, 'not logged in', 'From'),
    ('submission', ['-t', LATER], 75, f'450 4.2.0 <{LATER}>', 'From'),
    ('submission', ['-a', 'large.bin'], 65, '1,000,000', 'MAIL'),
    ('sparse', ['-a', 'large.bin'], 65, '552 5.3.4', 'X'),  # not announced
    ('sparse', ['-t', JOERG], 69, 'SMTPUTF8', 'MAIL'),
    ('relay', ['--tls', 'starttls'], 69, 'STARTTLS', 'AUTH'),
    ('submission', ['--server', '127.0.0.1'], 76, 'IP', 'AUTH'),
    ('implicit', ['--server', '127.0.0.1'], 76, 'IP', 'EHLO'),
], indirect=['send'])
def test_not_sent(send, args, code, words, never, folder):
    """The server's own reply is told, and nobody has got anything."""
    (folder / 'large.bin').write_bytes(bytes(postfix.SIZE_LIMIT * 3 // 4))
    password = 'open sesame' if words[:3] == '535' else PASSWORDS[ALICE]
    result = send('-t', BOB, *args, password=password)
    checks.check(result, code, words, secrets=[password])
    assert not [line for line in result.lines if f'C: {never}' in line]
    assert send.server.delivered() == {}


@through('submission', 'implicit', 'sparse')
@pytest.mark.parametrize('padding', [0, 3000])
def test_tokens(send, padding):
    """A token opens the mailbox that it is for, however long it is."""
    token = postfix.token(ALICE, padding=padding)
    checks.check(send('-t', BOB, password=None,
                      env={'SMTP_ACCESS_TOKEN': token}), 0, secrets=[token])
    assert 'sasl_method=XOAUTH2' in send.server.log()
    for user, expires_in, scope in ((ALICE, -60, 'SMTP.Send'),
                                    (CAROL, 3600, 'SMTP.Send'),
                                    (ALICE, 3600, 'IMAP.AccessAsUser.All')):
        token = postfix.token(user, expires_in, scope, padding)
        checks.check(send('-t', BOB, '--auth', 'xoauth2', password=token), 77,
                     '535 5.7.8', '401', secrets=[token])
    assert len(send.server.delivered()[BOB]) == 1
