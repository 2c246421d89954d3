"""Connecting: from the name of the server to the name that EHLO says."""

import errno
import re
import socket
from typing import Any, List, Optional

import practice_server
import pytest
import reading
from calling import MAIL, SECRET, Call, not_sent

import smtp


@pytest.mark.parametrize('number, code', [
    (socket.EAI_NONAME, 68), (getattr(socket, 'EAI_NODATA', None), 68),
    (socket.EAI_AGAIN, 75)])
def test_a_host_name_that_does_not_exist(call: Call, lookup: Any,
                                         number: int, code: int) -> None:
    """68 if that is sure; 75 if the name server is silent."""
    lookup(socket.gaierror(number, 'no'))
    done = call(*MAIL, '--server', 'mail.nowhere.invalid', password=SECRET)
    not_sent(done, code, 'mail.nowhere.invalid')


@pytest.mark.parametrize('host', [
    'two words', 'a..b', '.', 'x' * 300, 'ä' * 100, 'ß\u200d', '\udcff', '-x',
    'a\r\nb', 'exa\tmple', 'a@b', '[::1]', '%', 'a:b:c', '\x1b[31m'],
    ids=ascii)
def test_a_host_name_that_cannot_be_one(call: Call, lookup: Any, host: str
                                        ) -> None:
    """A verdict, and not one control character."""
    lookup(socket.gaierror(socket.EAI_NONAME, 'no'))
    done = call(*MAIL, f'--server={host}', password=SECRET)
    assert done.code in (64, 68)
    not_sent(done, done.code)
    assert re.fullmatch('[ -~\n\xa1-\u1fff]*', done.errors)


def test_a_host_name_with_nul() -> None:
    """It can come by the Python interface only."""
    with pytest.raises(smtp.SMTPException):
        smtp.smtp_send(SECRET, reading.INFO, 'x', server='local\0host')


def test_nobody_listens(call: Call, closed_port: int) -> None:
    """75, with each address and its reason."""
    done = call(*MAIL, '--server', '127.0.0.1', '-p', str(closed_port),
                password=SECRET)
    not_sent(done, 75, '127.0.0.1', str(closed_port), 'refused')


def addresses(*pairs: Any) -> List[Any]:
    """Return what getaddrinfo returns for pairs of IP address and port."""
    return [(socket.AF_INET6, socket.SOCK_STREAM, 6, '', (host, port, 0, 0))
            if ':' in host else
            (socket.AF_INET, socket.SOCK_STREAM, 6, '', (host, port))
            for host, port in pairs]


def test_all_addresses_are_tried(
        call: Call, lookup: Any, closed_port: int,
        server: practice_server.PracticeServer) -> None:
    """IPv6 first and dead; then IPv4."""
    lookup(addresses(('::1', closed_port), ('127.0.0.1', closed_port),
                     ('127.0.0.1', server.port)))
    done = call('-q', 'connect', '--server', 'localhost')
    assert done.code == 0, done.errors
    lookup(addresses(('::1', closed_port), ('127.0.0.1', closed_port)))
    done = call(*MAIL, password=SECRET)
    not_sent(done, 75, '::1', '127.0.0.1')


def test_a_computer_without_ipv6(
        call: Call, lookup: Any, closed_port: int,
        server: practice_server.PracticeServer, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    """It cannot even make such a socket, and goes on to the next address."""
    real = socket.socket

    class Without(real):        # type: ignore[valid-type, misc]
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any
                     ) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, 'no such family')
            super().__init__(family, *args, **kwargs)
    lookup(addresses(('::1', closed_port), ('127.0.0.1', server.port)))
    monkeypatch.setattr(socket, 'socket', Without)
    done = call('-q', 'connect', '--server', 'localhost')
    assert done.code == 0, done.errors
    lookup(addresses(('::1', closed_port)))
    not_sent(call(*MAIL, password=SECRET), 75, '::1')


@pytest.mark.parametrize('option, family', [
    ('-4', socket.AF_INET), ('-6', socket.AF_INET6), (None, 0)])
def test_families(call: Call, monkeypatch: pytest.MonkeyPatch, option: str,
                  family: int) -> None:
    """-4 and -6 reach the look-up."""
    asked: List[Any] = []

    def getaddrinfo(host: str, port: int, family: int = 0, *args: Any,
                    **kwargs: Any) -> Any:
        asked.append((host, port, family))
        raise socket.gaierror(socket.EAI_NONAME, 'no')
    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    call(*MAIL, *[option] * bool(option), password=SECRET)
    assert asked == [('smtp.office365.com', 587, family)]


def test_an_address_of_the_other_family(call: Call) -> None:
    """-6 and an IPv4 address: the error says what is missing."""
    not_sent(call(*MAIL, '--server', '127.0.0.1', '-6', password=SECRET),
             68, '127.0.0.1', 'IPv6')


@pytest.mark.parametrize('name, said', [
    ('host.example.com', 'host.example.com'), ('my_host.example.com', None),
    ('host', None), ('localhost', None), ('', None), ('a..b', None),
    ('host.example.com.', None), ('-a.example.com', None),
    ('büro.example.com', None), ('a b.example.com', None),
    ('x' * 64 + '.example.com', None), ('192.0.2.7', None),
    ('a.example.com\r\nQUIT', None), ('.'.join(['x' * 60] * 5), None)],
    ids=lambda name: ascii(name)[:24])
def test_what_we_are_called(call: Call, session: List[str], name: str,
                            said: Optional[str],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that servers refuse gives way to the IP address."""
    monkeypatch.setattr(socket, 'gethostname', lambda: name)
    monkeypatch.setattr(socket, 'getfqdn', lambda *_: name)
    done = call('-v', '-q', 'ehlo', *session)
    assert done.code == 0, done.errors
    assert re.findall(r'(?m)^C: EHLO (.*)$', done.errors) == [
        said or '[127.0.0.1]']
