"""Ctrl-C, and the system's wish to end, at each step of a session.

As long as the final dot has not left, the connection is closed without it, so
that nothing is sent. While its reply is awaited nobody can know. And what the
server has taken is sent, whatever interrupts the goodbye.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List

import conftest
import faults
import hostile
import pytest

pytestmark = pytest.mark.skipif(
    os.name == 'nt', reason='Windows cannot send these signals to a process')

PATIENCE = 10  # seconds for the session to come to its step, and to end
STEPS = [step for step in hostile.STEPS if step != 'connect']
SOME_STEPS = ['greeting', 'TLS handshake', 'password', 'DATA', 'body',
              'final dot', 'QUIT']
SENT, MAY_HAVE_BEEN_SENT = 0, 74
CODES = {'SIGINT': {130}, 'SIGTERM': {143}, 'SIGHUP': {129, 130, 143}}


@pytest.fixture
def large_file(tmp_path: Any) -> str:
    """An attachment that no socket can swallow."""
    path = tmp_path / 'large.bin'
    with open(path, 'wb') as file:
        file.truncate(6_000_000)
    return str(path)


@pytest.mark.parametrize('name, step', [
    *(('SIGINT', step) for step in STEPS),
    *(('SIGTERM', step) for step in SOME_STEPS),
    *(('SIGHUP', step) for step in SOME_STEPS)])
def test_interrupted(name: str, step: str, ca_file: str, large_file: str,
                     server_context: Any, tmp_path: Any,
                     clean_environment: Dict[str, str]) -> None:
    """The verdict is true, and comes at once."""
    with hostile.serving(step, 'silent', server_context) as server:
        process = start(server, ca_file, large_file, tmp_path,
                        clean_environment)
        try:
            wait_for(server, process)
            begun = time.monotonic()
            process.send_signal(getattr(signal, name))
            output, errors = process.communicate(timeout=PATIENCE)
            took = time.monotonic() - begun
        finally:
            process.kill()
            process.wait()
    if step == 'QUIT':
        assert process.returncode == SENT, errors
        assert output.startswith('Sent to ')
        assert server.accepted
    elif step == 'final dot':
        assert process.returncode == MAY_HAVE_BEEN_SENT, errors
        assert verdict_of(errors) == 'May have been sent'
    else:
        assert process.returncode in CODES[name], errors
        assert verdict_of(errors) == 'Not sent'
        assert not server.complete
    assert 'Traceback' not in errors
    assert faults.PASSWORD not in output + errors
    assert took < 3


def start(server: hostile.Hostile, ca_file: str, large_file: str, folder: Any,
          environment: Dict[str, str]) -> 'subprocess.Popen[str]':
    """Start smtp.py with a message for the server."""
    to: List[str] = [
        part for address in hostile.RECIPIENTS for part in ('--to', address)]
    large = ['--attach', large_file] if server.step == 'body' else []
    return subprocess.Popen(
        [sys.executable, str(conftest.PROGRAM), '--server', 'localhost', '-4',
         '--port', str(server.port), '--ca-file', ca_file, '--timeout', '30',
         '--from', faults.USER, *to, '--subject', 'Greetings', '--body',
         'Hello!', *large],
        env={**environment, 'SMTP_PASSWORD': faults.PASSWORD}, cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, encoding='utf-8')


def wait_for(server: hostile.Hostile,
             process: 'subprocess.Popen[str]') -> None:
    """Wait until the session has come to the step that never ends."""
    until = time.monotonic() + PATIENCE
    while not server.reached:
        assert time.monotonic() < until and process.poll() is None, \
            f'never came to {server.step}'
        time.sleep(0.005)
    # The 250 has been sent by then; a client that sleeps has read it, for it
    # was woken by it.
    status = pathlib.Path(f'/proc/{process.pid}/stat')
    while status.exists() and status.read_text().split(') ')[1][0] != 'S':
        assert time.monotonic() < until, 'the client never waits'
        time.sleep(0.005)


def verdict_of(errors: str) -> str:
    """Return the one verdict on standard error."""
    found = re.findall(r'(?m)^smtp\.py: (Not sent|May have been sent): ',
                       errors)
    assert len(found) == 1, errors
    return str(found[0])
