"""Connecting: from the name of the server to the name that EHLO says."""

import errno
import socket

import pytest

from support import checks, cli, dialogue
from support.checks import LATER, MESSAGE, NO_HOST, USAGE
from support.post import MAIL, PASSWORD

NONAME = socket.gaierror(socket.EAI_NONAME, 'no')
GIVEN_UP = (dialogue.GREETING + 'C: EHLO {}\nS: 421 4.3.2 Shutting down\n'
            '-- closes\n')


@pytest.fixture
def send(call):
    """A function that sends a mail, with further arguments."""
    return lambda *args, **more: call(*MAIL, *args, password=PASSWORD, **more)


@pytest.mark.parametrize('number, code, who, action', [
    (socket.EAI_NONAME, NO_HOST, 'You', 'name of the server'),
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


@pytest.mark.parametrize('ipv6', [True, False])
def test_all_addresses_are_tried(ipv6, send, lookup, closed_port, post,
                                 monkeypatch):
    """Those that are dead, and of a kind that this computer may not have."""
    class Socket(socket.socket):
        def __init__(self, family=-1, *args, **kwargs):
            if family == socket.AF_INET6 and not ipv6:
                raise OSError(errno.EAFNOSUPPORT, 'no such family')
            super().__init__(family, *args, **kwargs)
    monkeypatch.setattr(socket, 'socket', Socket)
    dead = [('127.0.0.1', closed_port), ('::1', closed_port)]
    lookup([*dead, ('127.0.0.1', post.port)])
    checks.check(send(*post.options), 0)
    lookup(dead)
    result = send('--server', 'localhost', '-p', str(closed_port))
    checks.check(result, LATER, 'localhost', '::1', '127.0.0.1',
                 str(closed_port), 'refused', 'port')
    assert result.advice


@pytest.mark.parametrize('error', [
    socket.timeout('timed out'), OSError(113, 'No route to host'),
    OSError(101, 'Network is unreachable')], ids=str)
def test_a_port_that_is_blocked(error, send, lookup, monkeypatch):
    """10 seconds while there is another address, then as for a reply."""
    def connect(sock, address):
        waits.append(sock.gettimeout())
        raise error
    monkeypatch.setattr(socket.socket, 'connect', connect)
    lookup([('192.0.2.7', 587), ('192.0.2.8', 587), ('192.0.2.9', 587)])
    for options, wanted in ([], (10, 10, 60)), (['--timeout=3'], (3, 3, 3)):
        waits = []
        result = send(*options)
        checks.check(result, LATER, 'smtp.office365.com',
                     str(error.strerror or error), 'network',
                     absent='465')      # Office 365 does not have it
        assert 'network' in result.advice
        assert waits == [pytest.approx(wait, abs=0.5) for wait in wanted]


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
