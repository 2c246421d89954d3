"""Connecting: from the name of the server to the name that EHLO says."""

import errno
import socket

import pytest

from support import checks, cli, dialogue
from support.checks import LATER, MESSAGE, NO_HOST, USAGE
from support.post import MAIL, PASSWORD

NO_ANSWER = socket.timeout('timed out')
NONAME = socket.gaierror(socket.EAI_NONAME, 'no')
GIVEN_UP = (dialogue.GREETING + 'C: EHLO {}\nS: 421 4.3.2 Shutting down\n'
            '-- closes\n')


@pytest.fixture
def send(call):
    """A function that sends a mail, with further arguments."""
    return lambda *args, **more: call(*MAIL, *args, password=PASSWORD, **more)


@pytest.mark.parametrize('number, code, who, action', [
    (socket.EAI_NONAME, NO_HOST, 'You', '--server'),
    (getattr(socket, 'EAI_NODATA', socket.EAI_NONAME), NO_HOST, 'You', ''),
    (socket.EAI_AGAIN, LATER, '', 'online|offline|network|again')])
def test_a_host_name_that_is_not_found(send, lookup, number, code, who, action
                                       ):
    """68 if that is sure; 75 if the name server is silent."""
    lookup(socket.gaierror(number, 'no'))
    result = send('--server', 'smtp.exmaple.com')
    checks.check(result, code, 'smtp.exmaple.com', action, who=who)
    assert result.advice


@pytest.mark.parametrize('host', [
    'two words', 'a..b', '.', 'x' * 300, 'ä' * 100, 'ß\u200d', '\udcff', '-x',
    'a\r\nb', 'exa\tmple', 'a@b', '[::1]', '%', 'a:b:c', '\x1b[31m',
    'mail.straße.example', 'mail.ｅxample.org', 'local\0host', ''], ids=ascii)
def test_a_host_name_that_cannot_be_one(send, lookup, host):
    """A verdict, not one control character, and no look-up of another name."""
    asked = lookup(NONAME)
    result = send(f'--server={host}')
    assert result.code in (USAGE, MESSAGE, NO_HOST), result.err
    checks.ended_well(result)
    assert set(asked) <= {host, host.strip('[]'), 'mail.xn--strae-oqa.example'}


@pytest.mark.parametrize('args, env, name', [
    ([], {}, 'smtp.office365.com'),
    ([], {'SMTP_SERVER': 'mail.example.com'}, 'mail.example.com'),
    (['--server', 'mail.bücher.example'], {}, 'mail.xn--bcher-kva.example')])
def test_which_server(send, lookup, args, env, name):
    """The default, that of the environment, and an A-label as in addresses."""
    asked = lookup(NONAME)
    checks.check(send(*args, env=env), NO_HOST)
    assert asked == [name]


def test_all_addresses_are_tried(send, lookup, closed_port, post):
    """IPv6 first and dead; then IPv4. If all fail, each is reported."""
    dead = [('::1', closed_port), ('127.0.0.1', closed_port)]
    lookup([*dead, ('127.0.0.1', post.port)])
    checks.check(send(*post.options), 0)
    lookup(dead)
    result = send('--server', 'localhost', '-p', str(closed_port))
    checks.check(result, LATER, 'localhost', '::1', '127.0.0.1',
                 str(closed_port), 'refused', 'port')
    assert result.advice


def test_a_computer_without_ipv6(send, lookup, closed_port, post, monkeypatch):
    """It cannot even make such a socket, and goes on to the next address."""
    class Without(socket.socket):
        def __init__(self, family=-1, *args, **kwargs):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, 'no such family')
            super().__init__(family, *args, **kwargs)
    monkeypatch.setattr(socket, 'socket', Without)
    lookup([('::1', closed_port), ('127.0.0.1', post.port)])
    checks.check(send(*post.options), 0)
    lookup([('::1', closed_port)])
    checks.check(send(), LATER, '::1')


@pytest.fixture
def unreachable(monkeypatch):
    """A function that makes every connection fail; it returns the waits."""
    def decide(error=NO_ANSWER):
        waits = []

        def connect(sock, address):
            waits.append(sock.gettimeout())
            raise error
        monkeypatch.setattr(socket.socket, 'connect', connect)
        return waits
    return decide


@pytest.mark.parametrize('error', [
    NO_ANSWER, OSError(113, 'No route to host'),
    OSError(101, 'Network is unreachable')], ids=str)
def test_a_port_that_is_blocked(error, send, unreachable):
    """Many networks block port 25 or 587."""
    unreachable(error)
    result = send('--server', '127.0.0.1')
    checks.check(result, LATER, str(error.strerror or error),
                 '(?i:block|network)')
    assert result.advice


def test_how_long_an_address_is_waited_for(send, lookup, unreachable):
    """10 seconds while there is another one, then as long as for a reply.

    Nothing answers at 587: another network may help, but not port 465, which
    Office 365 does not have.
    """
    lookup([('192.0.2.7', 587), ('192.0.2.8', 587), ('192.0.2.9', 587)])
    waits = unreachable()
    checks.check(send(), LATER, 'smtp.office365.com', 'network', absent='465')
    assert waits == [pytest.approx(wait, abs=0.5) for wait in (10, 10, 60)]
    del waits[:]
    send('--timeout', '3')
    assert waits == [pytest.approx(3, abs=0.5)] * 3


# --------------------------------------------------------------- our own name


@pytest.mark.parametrize('name', [
    'host.example.com', 'localhost.localdomain', 'mac.local', 'host', ''])
def test_the_name_of_this_computer_is_not_used(name, play, monkeypatch):
    """EHLO says the address literal; the server speaks first."""
    monkeypatch.setattr(socket, 'gethostname', lambda: name)
    monkeypatch.setattr(socket, 'getfqdn', lambda *_: name)
    result, _ = play(GIVEN_UP.format('[127.0.0.1]'), '-v')
    checks.check(result, LATER)
    assert result.lines[0].startswith('S: 220 ')


def test_the_address_literal_of_ipv6(send, server_context):
    """It has a tag (RFC 5321, section 4.1.3)."""
    try:
        player = dialogue.playing(GIVEN_UP.format('[IPv6:::1]'),
                                  server_context, '::1')
    except OSError:
        pytest.skip('this computer has no IPv6')
    with player:
        send(*cli.reach(player.port), '--server', '::1', '--tls', 'none')
    assert not player.mismatch, player.difference()


@pytest.mark.parametrize('name', [
    'client.example.com', '[192.0.2.7]', '[IPv6:2001:db8::1]', 'my-host'])
def test_a_name_that_is_given(name, play):
    """By --ehlo, or by $SMTP_DOMAINNAME; the option wins."""
    told = dialogue.parse(GIVEN_UP.format(name))
    for options, variable in ('', name), (f'--ehlo {name}', 'other.example'):
        told.settings['run'] = [options]
        result, _ = play(told, env={'SMTP_DOMAINNAME': variable})
        checks.check(result, LATER, '421 4.3.2')


@pytest.mark.parametrize('name', [
    'a b', 'a\r\nQUIT', '', '-x.example', '[300.1.1.1]', 'x' * 300, 'a_b..c'],
    ids=ascii)
def test_a_name_that_is_not_one(name, send, lookup):
    """A usage error, before anything is looked up."""
    asked = lookup(NONAME)
    result = send(f'--ehlo={name}')
    assert result.code in (USAGE, checks.SETTINGS, *[NO_HOST] * (not name))
    checks.ended_well(result)
    assert bool(asked) == (result.code == NO_HOST)
