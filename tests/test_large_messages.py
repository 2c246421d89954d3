"""Large messages: memory and time do not grow with what is sent."""

import io
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from typing import Any, Callable, Tuple

import pytest
from finishing import HEADER
from posting import PROGRAM, call

import smtp

MEBI = 1024 * 1024


class Sink(threading.Thread):
    """A server without TLS that takes one message as fast as it can.

    Attributes:
        port: Where it listens.
        size: Octets of the message, as promised by MAIL.
        received: Octets of the message, as they came.
        checksum: Of the message.
    """

    def __init__(self) -> None:
        """Listen; `start` begins to serve."""
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(60)
        self.port: int = self.listener.getsockname()[1]
        self.size = self.received = self.checksum = 0

    def run(self) -> None:
        """Serve one connection."""
        with self.listener:
            connection, _ = self.listener.accept()
        with connection, connection.makefile('rwb') as wire:
            wire.write(b'220 sink\r\n')
            wire.flush()
            for line in wire:
                size = re.search(rb'SIZE=(\d+)', line)
                self.size = int(size[1]) if size else self.size
                if line == b'DATA\r\n':
                    wire.write(b'354 go on\r\n')
                    wire.flush()
                    self.swallow(wire)
                wire.write(b'250-sink\r\n250 SIZE\r\n'
                           if line.startswith(b'EHLO') else b'250 ok\r\n')
                wire.flush()

    def swallow(self, wire: Any) -> None:
        """Take a message that has no dots, up to the final one."""
        last = b''
        while not last.endswith(b'\r\n.\r\n'):
            octets = wire.read1(256 * 1024)
            assert octets, 'the client hung up'
            self.received += len(octets)
            self.checksum = zlib.crc32(octets, self.checksum)
            last = last[-5:] + octets[-5:]


# ru_maxrss of a process counts what it was before it became another program,
# too; so smtp.py is not started by pytest, but by a program smaller than it.
STARTER = '''
import os, sys
process = os.fork()
if not process:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(process, 0)
print(os.WEXITSTATUS(status), 'maxrss', usage.ru_maxrss)
'''
needs_wait4 = pytest.mark.skipif(not hasattr(os, 'wait4'),
                                 reason='cannot measure it here')


def peak_of(path: str, *options: str) -> Tuple[int, int, str]:
    """Return exit code, the peak of the memory in KiB, and the errors."""
    with open(path, 'rb') as file:
        done = subprocess.run(
            [sys.executable, '-I', '-S', '-c', STARTER, sys.executable,
             str(PROGRAM), *options],
            stdin=file, capture_output=True, encoding='utf-8', timeout=60)
    code, peak = re.findall(r'(\d+) maxrss (\d+)', done.stdout)[0]
    return (int(code), int(peak) // (1024 if sys.platform == 'darwin' else 1),
            done.stderr)


def send_to_sink(path: str, *options: str) -> Tuple[int, Sink]:
    """Send a message; return the peak of the memory in KiB, and the sink."""
    sink = Sink()
    sink.start()
    code, peak, errors = peak_of(
        path, '--server', '127.0.0.1', '--port', str(sink.port),
        '--tls', 'none', '--ehlo', 'localhost', *options)
    assert code == 0, errors
    sink.join(10)
    return peak, sink


@needs_wait4
@pytest.mark.parametrize('kind', ['file', 'pipe', 'only CR'])
def test_memory_does_not_grow(kind: str, tmp_path: pathlib.Path) -> None:
    """A hundred megabytes take no more of it than a few octets."""
    path = str(tmp_path / 'large.eml')
    options = ['--message', '-' if kind == 'pipe' else path]
    line = b'0123456789abcdef' * 4 + b'\r\n'
    pathlib.Path(path).write_bytes(HEADER + b'\r\n' + line)
    small, sink = send_to_sink(path, *options)
    assert sink.size == len(HEADER + b'\r\n' + line)

    size = (20 if kind == 'only CR' else 100) * MEBI
    block = line * 1000 if kind != 'only CR' else line[:-1] * 1000
    mended = block if kind != 'only CR' else line * 1000
    checksum = zlib.crc32(HEADER + b'\r\n')
    with open(path, 'wb') as file:
        file.write(HEADER + b'\r\n')
        for _ in range(size // len(block)):
            file.write(block)
            checksum = zlib.crc32(mended, checksum)
    large, sink = send_to_sink(path, *options)
    assert sink.received == sink.size + len('.\r\n')
    assert sink.checksum == zlib.crc32(b'.\r\n', checksum)
    assert large <= small + 2048


@needs_wait4
@pytest.mark.parametrize('piped', [False, True], ids=['file', 'pipe'])
@pytest.mark.parametrize('place', ['first line', 'header', 'body'])
def test_memory_for_a_line_without_end(place: str, piped: bool,
                                       tmp_path: pathlib.Path) -> None:
    """What turns out to be no message is not read into memory, either."""
    path = tmp_path / 'large.eml'
    options = ['--dry-run', '--message', '-' if piped else str(path)]
    path.write_bytes(HEADER + b'\r\nHello\r\n')
    small = peak_of(str(path), *options)[1]
    with open(path, 'wb') as file:
        file.write({'first line': b'', 'header': HEADER + b'X-Long: ',
                    'body': HEADER + b'\r\n'}[place])
        for _ in range(20):
            file.write(b'x' * MEBI)
    code, large, errors = peak_of(str(path), *options)
    assert code == 65, errors
    assert 'Not sent: ' in errors
    assert len(errors) < 1000
    assert large <= small + 2048


def test_long_lines_take_no_longer(finished: Callable[[bytes], str]) -> None:
    """The work depends on the octets alone, however they form lines."""
    seconds = []
    for length in (70, 990):
        line = b'x' * length + b'\r\n'
        path = finished(HEADER + b'\r\n' + line * (4 * MEBI // len(line)))
        begun = time.process_time()
        assert call('--dry-run', '--message', path).code == 0
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 3 * seconds[0] + 0.2


@pytest.mark.parametrize('header', [
    'To: ' + 'a' * 500_000, 'To: b@example.org\n' + 'X: y\n z\n' * 100_000,
    'X-A: b\n' + ' c\n' * 500_000, 'Bcc: b@example.org\n' * 50_000],
    ids=['one word', 'short fields', 'a folded field', 'many Bcc'])
def test_a_large_header_is_read_in_linear_time(header: str) -> None:
    """Seconds for a megabyte, not hours (the bound is generous)."""
    message = f'From: a@example.com\n{header}\n\nHello\n'
    began = time.process_time()
    try:
        smtp.read_message(io.BytesIO(message.encode()), 'x.eml')  # no file
    except (smtp.SMTPMessageError, io.UnsupportedOperation):
        pass            # what comes of it is another test's business
    assert time.process_time() - began < 10
