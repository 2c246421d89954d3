"""Connecting: from the name of the server to the name that EHLO says."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

import pytest

import smtp
from support import checks, cli, dialogue
from support.checks import LATER, MESSAGE, NO_HOST, USAGE
from support.post import MAIL, PASSWORD

NONAME = socket.gaierror(socket.EAI_NONAME, 'no')


@pytest.mark.parametrize('number, code, who, action', [
    (socket.EAI_NONAME, NO_HOST, 'You', '--server'),
    (getattr(socket, 'EAI_NODATA', socket.EAI_NONAME), NO_HOST, 'You', ''),
    (socket.EAI_AGAIN, LATER, '', 'online|offline|network|again')])
def test_a_host_name_that_is_not_found(call: Any, lookup: Any, number: int,
                                       code: int, who: str, action: str
                                       ) -> None:
    """68 if that is sure; 75 if the name server is silent."""
    lookup(socket.gaierror(number, 'no'))
    result = call(*MAIL, '--server', 'smtp.exmaple.com', password=PASSWORD)
    checks.check(result, code, 'smtp.exmaple.com', action, who=who)
    assert result.advice


@pytest.mark.parametrize('host', [
    'two words', 'a..b', '.', 'x' * 300, 'ä' * 100, 'ß\u200d', '\udcff', '-x',
    'a\r\nb', 'exa\tmple', 'a@b', '[::1]', '%', 'a:b:c', '\x1b[31m',
    'mail.straße.example', 'mail.ｅxample.org', ''], ids=ascii)
def test_a_host_name_that_cannot_be_one(call: Any, lookup: Any, host: str
                                        ) -> None:
    """A verdict, not one control character, and no look-up of another name."""
    asked = lookup(NONAME)
    result = call(*MAIL, f'--server={host}', password=PASSWORD)
    assert result.code in (USAGE, MESSAGE, NO_HOST), result.err
    checks.ended_well(result)
    assert set(asked) <= {host, host.strip('[]'), 'mail.xn--strae-oqa.example'}


def test_an_international_host_name(call: Any, lookup: Any) -> None:
    """It is looked up as its A-label, by the rule for addresses."""
    asked = lookup(NONAME)
    result = call(*MAIL, '--server', 'mail.bücher.example', password=PASSWORD)
    checks.check(result, NO_HOST)
    assert set(asked) == {'mail.xn--bcher-kva.example'}


def test_a_host_name_with_nul() -> None:
    """It can come by the Python interface only."""
    with pytest.raises(smtp.SMTPException):
        smtp.smtp_send(PASSWORD, {'From': 'a@example.com',
                                  'To': 'b@example.org'}, 'x',
                       server='local\0host')


def test_the_default_server(call: Any, lookup: Any) -> None:
    """Without --server, and with it in the environment."""
    asked = lookup(NONAME)
    call(*MAIL, password=PASSWORD)
    call(*MAIL, password=PASSWORD, env={'SMTP_SERVER': 'mail.example.com'})
    assert asked == ['smtp.office365.com', 'mail.example.com']


def test_a_port_that_refuses(call: Any, closed_port: int) -> None:
    """75, with the address and its reason."""
    result = call(*MAIL, '--server', '127.0.0.1', '-p', str(closed_port),
                  password=PASSWORD)
    checks.check(result, LATER, '127.0.0.1', str(closed_port), 'refused',
                 'port')
    assert result.advice


def test_all_addresses_are_tried(call: Any, lookup: Any, closed_port: int,
                                 post: Any) -> None:
    """IPv6 first and dead; then IPv4. If all fail, each is reported."""
    lookup([('::1', closed_port), ('127.0.0.1', closed_port),
            ('127.0.0.1', post.server.port)])
    result = call(*MAIL, *post.options, password=PASSWORD)
    checks.check(result, 0)
    lookup([('::1', closed_port), ('127.0.0.1', closed_port)])
    result = call(*MAIL, password=PASSWORD)
    checks.check(result, LATER, '::1', '127.0.0.1', 'refused')


def test_a_computer_without_ipv6(call: Any, lookup: Any, closed_port: int,
                                 post: Any, monkeypatch: Any) -> None:
    """It cannot even make such a socket, and goes on to the next address."""
    real = socket.socket

    class Without(real):        # type: ignore[valid-type, misc]
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any
                     ) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, 'no such family')
            super().__init__(family, *args, **kwargs)
    lookup([('::1', closed_port), ('127.0.0.1', post.server.port)])
    monkeypatch.setattr(socket, 'socket', Without)
    checks.check(call(*MAIL, *post.options, password=PASSWORD), 0)
    lookup([('::1', closed_port)])
    checks.check(call(*MAIL, password=PASSWORD), LATER, '::1')


@pytest.fixture
def unreachable(monkeypatch: Any) -> Any:
    """A function that makes every connection fail; it returns the waits."""
    def decide(error: OSError) -> list[Any]:
        waits: list[Any] = []

        def connect(sock: socket.socket, address: Any) -> None:
            waits.append(sock.gettimeout())
            raise error
        monkeypatch.setattr(socket.socket, 'connect', connect)
        return waits
    return decide


@pytest.mark.parametrize('error', [
    socket.timeout('timed out'), OSError(113, 'No route to host'),
    OSError(101, 'Network is unreachable')], ids=str)
def test_a_port_that_is_blocked(error: OSError, call: Any, unreachable: Any
                                ) -> None:
    """Many networks block port 25 or 587."""
    unreachable(error)
    result = call(*MAIL, '--server', '127.0.0.1', password=PASSWORD)
    checks.check(result, LATER, str(error.strerror or error),
                 '(?i:block|network)')
    assert result.advice


def test_office365_has_no_other_port(call: Any, lookup: Any, unreachable: Any
                                     ) -> None:
    """Nothing answers at 587: another network may help, but not port 465."""
    lookup([('192.0.2.7', 587)])
    unreachable(socket.timeout('timed out'))
    result = call(*MAIL, password=PASSWORD)
    checks.check(result, LATER, 'smtp.office365.com', 'network', absent='465')


def test_how_long_an_address_is_waited_for(call: Any, lookup: Any,
                                           unreachable: Any) -> None:
    """10 seconds while there is another one, then as long as for a reply."""
    lookup([('192.0.2.7', 587), ('192.0.2.8', 587), ('192.0.2.9', 587)])
    waits = unreachable(socket.timeout('timed out'))
    call(*MAIL, password=PASSWORD)
    assert waits[:2] == [pytest.approx(10, abs=0.5)] * 2
    assert waits[2:] == [pytest.approx(60, abs=1)]
    del waits[:]
    call(*MAIL, '--timeout', '3', password=PASSWORD)
    assert waits == [pytest.approx(3, abs=0.5)] * 3


# --------------------------------------------------------------- our own name


@pytest.mark.parametrize('name', [
    'host.example.com', 'localhost.localdomain', 'mac.local', 'host', ''])
def test_the_name_of_this_computer_is_not_used(name: str, play: Any,
                                               monkeypatch: Any) -> None:
    """EHLO says the address literal, whatever the computer is called."""
    monkeypatch.setattr(socket, 'gethostname', lambda: name)
    monkeypatch.setattr(socket, 'getfqdn', lambda *_: name)
    result, _ = play(GIVEN_UP.format('[127.0.0.1]'), env={})
    checks.check(result, LATER)


GIVEN_UP = (dialogue.GREETING + 'C: EHLO {}\nS: 421 4.3.2 Shutting down\n'
            '-- closes\n')


def test_the_address_literal_of_ipv6(call: Any, server_context: Any) -> None:
    """It has a tag (RFC 5321, section 4.1.3)."""
    try:
        with dialogue.playing(GIVEN_UP.format('[IPv6:::1]'), server_context,
                              '::1') as player:
            call(*MAIL, *cli.reach(player.port), '--server', '::1',
                 '--tls', 'none')
    except OSError:
        pytest.skip('this computer has no IPv6')
    assert not player.mismatch, player.difference()


@pytest.mark.parametrize('name', [
    'client.example.com', '[192.0.2.7]', '[IPv6:2001:db8::1]', 'my-host'])
def test_a_name_that_is_given(name: str, play: Any) -> None:
    """By --ehlo, or by $SMTP_DOMAINNAME; the option wins."""
    told = dialogue.parse(GIVEN_UP.format('<name>').replace('<name>', name))
    for options, variable in ([], name), (['--ehlo', name], 'other.example'):
        told.settings['run'] = [' '.join(options)]
        result, _ = play(told, *options, env={'SMTP_DOMAINNAME': variable})
        checks.check(result, LATER, '421 4.3.2')


@pytest.mark.parametrize('name', [
    'a b', 'a\r\nQUIT', '', '-x.example', '[300.1.1.1]', 'x' * 300, 'a_b..c'],
    ids=ascii)
def test_a_name_that_is_not_one(name: str, call: Any, lookup: Any) -> None:
    """A usage error, before anything is looked up."""
    asked = lookup(NONAME)
    result = call(*MAIL, f'--ehlo={name}', password=PASSWORD)
    assert result.code in (USAGE, checks.SETTINGS, *[NO_HOST] * (not name))
    checks.ended_well(result)
    assert bool(asked) == (result.code == NO_HOST)


def test_the_transcript_begins_with_the_greeting(play: Any) -> None:
    """The server speaks first."""
    result, _ = play(GIVEN_UP.format('<name>'), '-v')
    assert re.match('S: 220 ', '\n'.join(result.lines))
