"""Every step of a session, every fault that a server can have there.

What has to happen follows from the rules in `expected`, not from running the
program; where they leave room for two exit codes, both are in the set.
"""

import concurrent.futures
import io
import os
import select
import socket
import time

import pytest

import smtp
from support import checks, cli, hostile
from support.checks import LATER, LOGIN, PROTOCOL, REFUSED, SENT, UNKNOWN
from support.post import MAIL

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
FOR_GOOD = ('5yz', '5yz, then silent', 'unlisted 5yz',
            'refused in control characters', 'refused with the password')
CHALLENGED = ('AUTH', 'user name', 'password')


def expected(step, fault):
    """Return the exit codes that the rules allow for a fault at a step."""
    if step == 'QUIT':
        return {SENT}  # the 250 to the final dot has decided
    if step == 'final dot':
        return at_the_dot(fault)
    if step == 'body':
        return in_the_body(fault)
    if step == 'TLS handshake':
        # Octets that are not TLS are a protocol error; to a connection that
        # ends there, both "TLS failed" and "lost before the dot" apply.
        return {LATER, PROTOCOL} if fault in LOST else {PROTOCOL}
    return before_the_dot(step, fault)


def before_the_dot(step, fault):
    """Nothing is sent, unless the fault lies in the words alone."""
    if fault in LOST + NOW:
        return {LATER}
    if fault in NEXT_LOST:
        # A small message leaves in one piece, with its final dot. Whether the
        # loss is noticed before that is a matter of luck.
        return {LATER} | ({UNKNOWN} if step == 'DATA' else
                          {PROTOCOL} if step == 'STARTTLS' else set())
    if fault == 'broken TLS' or (
            fault == 'extra octets' and step != 'STARTTLS'):
        return {LATER, PROTOCOL}  # unasked, or a line without its end
    if fault in NOT_SMTP:
        return {PROTOCOL}
    if fault in FOR_GOOD:
        refused = LOGIN if step in CHALLENGED else (
            checks.RECIPIENT if 'RCPT' in step else REFUSED)
        # Where further replies are due, their absence may count as well.
        due = fault == '5yz, then silent' and (
            'RCPT' in step or step == 'MAIL')
        return {refused, LATER} if due else {refused}
    if (step, fault) == ('password', 'password in base64'):
        return {LOGIN, PROTOCOL}    # failed, by an answer out of its place
    assert fault in HARMLESS
    return {SENT}


def at_the_dot(fault):
    """Only a reply decides; without one nobody knows."""
    if fault in HARMLESS + ('extra reply', 'extra octets',
                            'right, then closed'):
        return {SENT}
    if fault == 'right, then reset':
        return {SENT, UNKNOWN}  # a reset may overtake the reply
    if fault in NOW:
        return {LATER}
    if fault in FOR_GOOD:
        return {REFUSED}
    return {UNKNOWN}


def in_the_body(fault):
    """Nothing is sent without the final dot.

    Mostly the server hangs up, and its words may or may not be heard. Where it
    reads on, a client that hears it too late to keep the dot back cannot know.
    """
    if fault in ('wrong success', 'extra reply'):
        return {PROTOCOL, UNKNOWN}
    if fault == 'early refusal':
        return {PROTOCOL, REFUSED, UNKNOWN}
    if fault in FOR_GOOD:
        return {LATER, REFUSED}
    if fault in NOW or fault in LOST and fault not in ('half a line',
                                                       'line by line'):
        return {LATER}
    return {LATER, PROTOCOL}


def makes_sense(step, fault):
    """Return whether there is such a fault at this step."""
    if step == 'connect':
        return fault in ('closed', 'reset', 'silent')  # no reply is due yet
    if step in ('body', 'TLS handshake') and fault in NEXT_LOST:
        return False
    if fault == 'password in base64':
        return step in CHALLENGED
    if fault == 'early refusal':
        return step == 'body'
    # the password has to be known, and TLS to have begun
    first = ('AUTH' if 'password' in fault else
             'EHLO again' if fault == 'broken TLS' else 'connect')
    return hostile.STEPS.index(step) >= hostile.STEPS.index(first)


# A step, what goes wrong there, and how commands are sent
CELLS = {(step, fault, how)
         for step in hostile.STEPS for fault in hostile.FAULTS
         for how in (['pipelined', 'one by one'] if step in hostile.ENVELOPE_ON
                     else ['pipelined']) if makes_sense(step, fault)}
assert len(CELLS) > 400
# The server lets the client wait.
SLOW = {(step, fault, how) for step, fault, how in CELLS if fault in (
    'silent', 'drip', 'line by line', '5yz, then silent', 'extra octets')
    or step == 'body' and 'endless' in fault}


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    """A file that takes a while to send."""
    path = tmp_path_factory.mktemp('large') / 'large.bin'
    with open(path, 'wb') as file:
        file.truncate(LARGE)
    return str(path)


@pytest.mark.parametrize('cell', sorted(CELLS - SLOW), ids=', '.join)
def test_at_once(cell, call, ca_file, server_context, large):
    """One step, one fault: the verdict, the time, the secrets."""
    attached = ['--attach', large] if cell[0] == 'body' else []
    check(cell, server_context, lambda port: call(
        *cli.reach(port, ca_file, TIMEOUT), '--verbose', '--from',
        hostile.USER, '--to', ', '.join(hostile.RECIPIENTS), '--subject',
        'Greetings', '--body', 'Hello!', *attached, password=hostile.PASSWORD))


@pytest.mark.parametrize('cell', sorted(SLOW), ids=', '.join)
def test_in_time(cell, checked):
    """The same where the server lets the client wait."""
    checked[cell].result()      # or the assertion that failed


@pytest.fixture(scope='module')
def checked(ca_file, server_context, large):
    """All cells that take time, held by the library, at the same time."""
    def hold(cell):
        shown = io.StringIO()

        def send(port):
            try:
                smtp.smtp_send(
                    hostile.PASSWORD,
                    {'From': hostile.USER, 'To': list(hostile.RECIPIENTS),
                     'Subject': 'Greetings'}, 'Hello!',
                    attachments=[large] * (cell[0] == 'body'), port=port,
                    server='localhost', ca_file=ca_file, timeout=SHORT_TIMEOUT,
                    transcript=smtp.Transcript(shown))
            except smtp.SMTPException as error:
                verdict = 'May have been' if isinstance(
                    error, smtp.SMTPDeliveryUnknown) else 'Not'
                return cli.Result(error.exit_code, b'', shown.getvalue()
                                  + f'smtp.py: {verdict} sent: {error}')
            return cli.Result(0, b'Sent to all', shown.getvalue())
        check(cell, server_context, send)

    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
        yield {cell: pool.submit(hold, cell) for cell in SLOW}


def check(cell, context, hold_a_session):
    """Compare the outcome with the rules, and with what the server has."""
    step, fault, how = cell
    with hostile.serving(step, fault, context, how == 'pipelined') as server:
        begun = time.monotonic()
        result = hold_a_session(server.port)
        took = time.monotonic() - begun
    assert server.reached, \
        'the session did not come to this step:\n' + result.err
    assert result.code in expected(step, fault), result.err
    checks.ended_well(result)
    refused = step == 'final dot' and fault in NOW + FOR_GOOD
    if result.code == SENT:
        assert server.complete and server.accepted
        text, dot, _ = server.message.partition(b'\r\n.\r\n')
        assert text.startswith(b'From: ') and dot
        assert server.lines.count('DATA') == 1
    elif result.code == UNKNOWN:
        assert not refused
    else:
        assert not server.complete or refused
    assert not server.strange
    checks.hidden([server.clear.decode()], hostile.PASSWORD)
    assert took < DEADLINE


def test_a_refusal_in_the_body_is_heard(call, server_context, large):
    """552, and the server stops reading: too large, not "try again later"."""
    def fault(server, wire, right):
        wire.send(b'552 5.3.4 too big\r\n')
        server.over.wait(cli.PATIENCE)
    with hostile.serving('body', fault, server_context) as server:
        result = call(*cli.reach(server.port, timeout=20), '--tls', 'none',
                      *MAIL, '--attach', large)
        server.over.set()
    checks.check(result, checks.MESSAGE, '552 5.3.4 too big')


@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='Linux')
def test_last_words(start, large):
    """552 and a reset while smtp.py is in the middle of a piece: heard."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        process = start(*cli.reach(listener.getsockname()[1]), '--tls', 'none',
                        *MAIL, '--attach', large)
        server, _ = listener.accept()
        with server, server.makefile('rb') as lines:
            for code in 220, 250, 250, 250:
                server.sendall(b'%d a\r\n' % code)
                lines.readline()
            server.sendall(b'354 a\r\n')
            cli.wait_until(lambda: select.select([server], [], [], 0)[0]
                           and cli.waits(process.pid), 'being stuck')
            server.sendall(b'552 5.3.4 too big\r\n')
    checks.check(cli.ended(process), checks.MESSAGE, '552 5.3.4 too big')
