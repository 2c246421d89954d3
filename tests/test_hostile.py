"""Every step of a session, every fault that a server can have there.

What has to come of it follows from a few rules, written down in `expected`
below, and not from running the program. Nothing of it depends on the fault
being noticed in one particular way: where the rules leave room for two exit
codes, both are in the set.
"""

import concurrent.futures
import io
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import unicodedata
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    NamedTuple,
    Set,
)

import faults
import hostile
import pytest
from secrecy import forms_of

import smtp

Run = Callable[..., Any]

TIMEOUT = 5           # seconds that smtp.py waits for a reply
SHORT_TIMEOUT = 1     # the same where the server lets it wait
DEADLINE = 4          # seconds for a whole session, whatever happens in it
TOGETHER = 32         # such sessions that run at the same time
LARGE = 6_000_000     # octets of an attachment that no socket can swallow

LOST = ('closed', 'cut', 'reset', 'silent', 'drip', 'line by line',
        'half a line')
NEXT_LOST = ('right, then closed', 'right, then reset')
NOT_SMTP = ('wrong success', 'HTTP', 'binary', 'codes differ',
            'endless reply', 'endless line', 'extra reply', 'extra octets',
            'bare LF', 'bare CR')
HARMLESS = ('control characters', 'password echoed', 'password in base64')
NOW = ('4yz', '421')
FOR_GOOD = ('5yz', '5yz, then silent', 'refused in control characters',
            'refused with the password')
CHALLENGED = ('AUTH', 'user name', 'password')

SENT, TOO_LARGE, NO_RECIPIENT, REFUSED = 0, 65, 67, 69
MAY_HAVE_BEEN_SENT, LATER, PROTOCOL, LOGIN = 74, 75, 76, 77
VERDICTS = {'Sent to ': {SENT},
            'smtp.py: Not sent: ': {65, 67, 69, 75, 76, 77},
            'smtp.py: May have been sent: ': {MAY_HAVE_BEEN_SENT}}


def expected(step: str, fault: str) -> FrozenSet[int]:
    """Return the exit codes that the rules allow for a fault at a step."""
    if step == 'QUIT':
        allowed = {SENT}  # the 250 to the final dot has decided
    elif step == 'final dot':
        allowed = at_the_dot(fault)
    elif step == 'body':
        allowed = in_the_body(fault)
    elif step == 'TLS handshake':
        # Octets that are no TLS are a protocol error; to a connection that
        # ends there, both "TLS failed" and "lost before the dot" apply.
        allowed = {LATER, PROTOCOL} if fault in LOST else {PROTOCOL}
    else:
        allowed = before_the_dot(step, fault)
    return frozenset(allowed)


def before_the_dot(step: str, fault: str) -> Set[int]:
    """Nothing is sent, unless the fault lies in the words alone."""
    if fault in LOST + NOW:
        return {LATER}
    if fault in NEXT_LOST:
        return after_the_right_reply(step)
    if fault == 'broken TLS':
        return {LATER, PROTOCOL}  # as in a handshake that breaks off
    if fault == 'extra octets' and step != 'STARTTLS':
        return {LATER, PROTOCOL}  # unasked, or a line without its end
    if fault in NOT_SMTP:
        return {PROTOCOL}
    if fault in FOR_GOOD:
        refused = LOGIN if step in CHALLENGED else (
            NO_RECIPIENT if 'RCPT' in step else REFUSED)
        # Where further replies are due, their absence may count as well.
        due = fault == '5yz, then silent' and (
            'RCPT' in step or step == 'MAIL')
        return {refused, LATER} if due else {refused}
    if (step, fault) == ('password', 'password in base64'):
        # A further challenge after the password: the login has failed, by
        # an answer that does not belong there.
        return {LOGIN, PROTOCOL}
    assert fault in HARMLESS
    return {SENT}


def after_the_right_reply(step: str) -> Set[int]:
    """The connection is lost where the next reply is waited for."""
    if step == 'DATA':
        # A small message leaves in one piece, with its final dot. Whether
        # the loss is noticed before that is a matter of luck.
        return {LATER, MAY_HAVE_BEEN_SENT}
    return {LATER, PROTOCOL} if step == 'STARTTLS' else {LATER}


def at_the_dot(fault: str) -> Set[int]:
    """Only a reply decides; without one nobody knows."""
    if fault in HARMLESS + ('extra reply', 'extra octets',
                            'right, then closed'):
        return {SENT}
    if fault == 'right, then reset':
        return {SENT, MAY_HAVE_BEEN_SENT}  # a reset may overtake the reply
    if fault in NOW:
        return {LATER}
    if fault in FOR_GOOD:
        return {REFUSED}
    return {MAY_HAVE_BEEN_SENT}


def in_the_body(fault: str) -> Set[int]:
    """Nothing is sent without the final dot.

    Mostly the server hangs up after its fault, so that its words, which
    nobody asked for, may or may not be heard. In three cases it reads on: it
    says 250 or 554 in the middle of the message, which is no reply to the
    final dot, and the opposite at the end. A client that hears the first one
    too late to keep the dot back cannot know.
    """
    if fault in ('wrong success', 'extra reply'):
        return {PROTOCOL, MAY_HAVE_BEEN_SENT}
    if fault == 'early refusal':
        return {PROTOCOL, REFUSED, MAY_HAVE_BEEN_SENT}
    if fault in FOR_GOOD:
        return {LATER, REFUSED}
    if fault in NOW or fault in LOST and fault not in ('half a line',
                                                       'line by line'):
        return {LATER}
    return {LATER, PROTOCOL}


def makes_sense(step: str, fault: str) -> bool:
    """Tell whether there is such a fault at this step."""
    if step == 'connect':
        return fault in ('closed', 'reset', 'silent')  # no reply is due yet
    if step in ('body', 'TLS handshake') and fault in NEXT_LOST:
        return False
    if fault == 'password in base64':
        return step in CHALLENGED
    if fault == 'early refusal':
        return step == 'body'
    if fault == 'broken TLS':
        return hostile.STEPS.index(step) > hostile.STEPS.index('TLS handshake')
    return True


class Cell(NamedTuple):
    """A step, what goes wrong there, and whether to pipeline."""

    step: str
    fault: str
    pipelining: bool = True

    def __str__(self) -> str:
        """Name the test."""
        how = '' if self.pipelining else ', one by one'
        return f'{self.step}, {self.fault}{how}'

    def takes_time(self) -> bool:
        """Tell whether the server lets the client wait."""
        return self.fault in ('silent', 'drip', 'line by line',
                              '5yz, then silent', 'extra octets') or (
            self.step == 'body' and 'endless' in self.fault)


def all_cells() -> Iterator[Cell]:
    """Yield each step with each of its faults."""
    for step in hostile.STEPS:
        for fault in faults.FAULTS:
            if makes_sense(step, fault):
                yield Cell(step, fault)
                if step in hostile.ENVELOPE_ON:
                    yield Cell(step, fault, False)


CELLS = list(all_cells())


class Outcome(NamedTuple):
    """How a session ended, on both sides."""

    server: hostile.Hostile
    done: Any
    took: float


@pytest.fixture(scope='session')
def large_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that takes a while to send."""
    path = tmp_path_factory.mktemp('large') / 'large.bin'
    with open(path, 'wb') as file:
        file.truncate(LARGE)
    return str(path)


def arguments(server: hostile.Hostile, ca_file: str, large_file: str,
              timeout: int = TIMEOUT) -> List[str]:
    """Return what smtp.py is called with."""
    to = [part for address in hostile.RECIPIENTS for part in ('--to', address)]
    large = ['--attach', large_file] if server.step == 'body' else []
    return ['--server', 'localhost', '-4', '--port', str(server.port),
            '--ca-file', ca_file, '--timeout', str(timeout), '--verbose',
            '--from', faults.USER, *to, '--subject', 'Greetings',
            '--body', 'Hello!', *large]


@pytest.mark.parametrize(
    'cell', [cell for cell in CELLS if not cell.takes_time()], ids=str)
def test_at_once(cell: Cell, run_main: Run, ca_file: str,
                 server_context: ssl.SSLContext, large_file: str) -> None:
    """One step, one fault: the verdict, the time, the secrets."""
    def run(server: hostile.Hostile) -> Any:
        return run_main(*arguments(server, ca_file, large_file),
                        password=faults.PASSWORD)
    check(cell, outcome_of(cell, server_context, run))


@pytest.mark.parametrize(
    'cell', [cell for cell in CELLS if cell.takes_time()], ids=str)
def test_in_time(cell: Cell, slow_outcomes: Dict[Cell, Outcome]) -> None:
    """The same where the server lets the client wait."""
    check(cell, slow_outcomes[cell])


def outcome_of(cell: Cell, context: ssl.SSLContext,
               run: Callable[[hostile.Hostile], Any]) -> Outcome:
    """Let `run` hold a session with a server that does as the cell says."""
    with hostile.serving(cell.step, cell.fault, context,
                         cell.pipelining) as server:
        begun = time.monotonic()
        done = run(server)
        took = time.monotonic() - begun
    return Outcome(server, done, took)


@pytest.fixture(scope='module')
def slow_outcomes(ca_file: str, server_context: ssl.SSLContext,
                  large_file: str,
                  tmp_path_factory: pytest.TempPathFactory,
                  ) -> Iterator[Dict[Cell, Outcome]]:
    """The outcomes of all cells that take time, waited for together."""
    slow = [cell for cell in CELLS if cell.takes_time()]
    with pytest.MonkeyPatch.context() as patch, \
            open(os.devnull) as nothing, \
            concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        output, errors = PerThread(), PerThread()
        patch.setattr(sys, 'stdout', output)
        patch.setattr(sys, 'stderr', errors)
        patch.setattr(sys, 'stdin', nothing)
        patch.setattr('getpass.getpass', lambda *_: faults.PASSWORD)
        patch.chdir(tmp_path_factory.mktemp('folder'))

        def run(server: hostile.Hostile) -> Any:
            output.clear()
            errors.clear()
            code = smtp.main(arguments(server, ca_file, large_file,
                                       SHORT_TIMEOUT))
            return subprocess.CompletedProcess(
                [], code, output.text(), errors.text())

        outcomes = {cell: pool.submit(outcome_of, cell, server_context, run)
                    for cell in slow}
        yield {cell: outcome.result() for cell, outcome in outcomes.items()}


class PerThread(io.TextIOBase):
    """A stream of which each thread sees only what it wrote itself."""

    encoding = 'utf-8'

    def __init__(self) -> None:
        """Begin with nothing."""
        self.local = threading.local()

    def clear(self) -> None:
        """Forget what this thread wrote."""
        self.local.text = ''

    def text(self) -> str:
        """Return what this thread wrote."""
        return str(self.local.text)

    def write(self, text: str) -> int:
        """Keep the text for this thread."""
        self.local.text += text
        return len(text)


@pytest.mark.parametrize('cell', [
    Cell('greeting', 'control characters'), Cell('STARTTLS', 'extra reply'),
    Cell('password', 'password echoed'), Cell('password', 'drip'),
    Cell('middle RCPT', '5yz'), Cell('final dot', 'reset'),
    Cell('QUIT', 'silent'),
], ids=str)
def test_process(cell: Cell, run_smtp: Run, ca_file: str,
                 server_context: ssl.SSLContext, large_file: str) -> None:
    """Some of them with the program as a process, as it is used."""
    def run(server: hostile.Hostile) -> Any:
        return run_smtp(*arguments(server, ca_file, large_file, SHORT_TIMEOUT),
                        timeout=15, env={'SMTP_PASSWORD': faults.PASSWORD})
    check(cell, outcome_of(cell, server_context, run))


def check(cell: Cell, outcome: Outcome) -> None:
    """Hold the outcome against the rules, and against what the server has."""
    server, done, took = outcome
    allowed = expected(cell.step, cell.fault)
    assert server.reached, 'the session did not come to this step:\n' \
        + done.stderr
    assert done.returncode in allowed, done.stderr
    check_verdict(server, done)
    assert not server.strange
    output = done.stdout + done.stderr
    assert 'Traceback' not in output
    check_printable(output)
    check_secrets(server, output)
    assert took < DEADLINE


def check_verdict(server: hostile.Hostile, done: Any) -> None:
    """There is one verdict, and the server does not contradict it."""
    found = [start for start in VERDICTS
             for output in (done.stdout, done.stderr)
             for _ in re.findall('^' + re.escape(start), output, re.MULTILINE)]
    assert len(found) == 1, done.stdout + done.stderr
    verdict = found[0]
    assert done.returncode in VERDICTS[verdict]
    assert ('Sent' in verdict) == bool(done.stdout)
    refused = server.step == 'final dot' and server.fault in NOW + FOR_GOOD
    if verdict.startswith('Sent'):
        assert server.complete and server.accepted
        check_message(server)
    elif 'Not sent' in verdict:
        assert not server.complete or refused
    else:
        assert not refused


def check_message(server: hostile.Hostile) -> None:
    """The server has the message once, to its end."""
    text, dot, _ = server.message.partition(b'\r\n.\r\n')
    assert text.startswith(b'From: ') and dot
    assert server.lines.count('DATA') == 1


def check_printable(output: str) -> None:
    """Nothing that a terminal would act upon is printed."""
    acted_upon = {character for character in output if character != '\n'
                  and unicodedata.category(character) in (
                      'Cc', 'Cf', 'Cs', 'Zl', 'Zp')}
    assert not acted_upon, output


def check_secrets(server: hostile.Hostile, output: str) -> None:
    """The password is nowhere, and in no form."""
    for form in forms_of(faults.PASSWORD):
        assert form not in output
        assert form.encode() not in server.clear


def test_expectations_cover_everything() -> None:
    """Each fault has its place in the rules."""
    known = LOST + NEXT_LOST + NOT_SMTP + HARMLESS + NOW + FOR_GOOD
    assert set(faults.FAULTS) == {*known, 'broken TLS', 'early refusal'}
    assert len(CELLS) > 400


def test_a_refusal_in_the_body_is_heard_though_nobody_reads_on(
        run_main: Run, tmp_path: pathlib.Path) -> None:
    """552 and silence: too large, and not "try again later"."""
    large = tmp_path / 'large.bin'
    large.write_bytes(bytes(20_000_000))
    ended = threading.Event()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock, sock.makefile('rb') as lines:
                sock.sendall(b'220 hello\r\n')
                for reply in b'250 hello', b'250 ok', b'250 ok', b'354 go':
                    lines.readline()
                    sock.sendall(reply + b'\r\n')
                sock.recv(1000)
                sock.sendall(b'552 5.3.4 too big\r\n')
                ended.wait(30)
        server = threading.Thread(target=serve)
        server.start()
        done = run_main(
            '--server', 'localhost', '-4', '--port',
            str(listener.getsockname()[1]), '--tls', 'none', '--timeout', '20',
            '--from', faults.USER, '--to', hostile.RECIPIENTS[0],
            '--subject', 'Greetings', '--body', 'Hello!', '--attach',
            str(large))
        ended.set()
        server.join()
    assert done.returncode == 65, done.stderr
    assert '552 5.3.4 too big' in done.stderr
