"""The server's end of a connection, for the servers of these tests."""

import contextlib
import select
import socket
import struct
import threading
import time

PATIENCE = 10  # seconds that the server waits for the client at any point


class Mismatch(Exception):
    """The client did something else than the file says."""


class HungUp(Mismatch):
    """The client hung up where the file says otherwise."""


class Wire:
    """The server's end of one connection: lines, TLS, and ways to end it."""

    def __init__(self, connection):
        """Take over an accepted connection."""
        self.socket = connection
        self.buffer = b''
        self.secure = self.ended = False
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self):
        """Return further octets, b'' when the client has hung up."""
        try:
            return self.socket.recv(65536)
        except socket.timeout:
            raise Mismatch('-- the client says nothing') from None
        except OSError:  # reset, or TLS cut off: gone is gone
            return b''

    def read_line(self):
        """Return the next line; its octets that are not UTF-8 escaped."""
        while b'\n' not in self.buffer:
            more = self.receive()
            if not more:
                raise HungUp('-- the client hangs up' + (
                    f' after {self.buffer!r}' if self.buffer else ''))
            self.buffer += more
        line, self.buffer = self.buffer.split(b'\n', 1)
        if not line.endswith(b'\r'):
            raise Mismatch(f'C: {line!r} and a bare LF')
        return line[:-1].decode('utf-8', 'backslashreplace')

    def talks_on(self):
        """Return whether the client has sent more than was read."""
        if (self.secure and self.socket.pending()
                or select.select([self.socket], [], [], 0)[0]):
            self.buffer += self.receive()
        return bool(self.buffer)

    def start_tls(self, context):
        """Do the server's part of the handshake."""
        try:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        except OSError as error:
            raise HungUp(f'-- no TLS: {error}') from None
        self.secure = True

    def send(self, octets):
        """Send all the octets; a client that is gone gets none."""
        with contextlib.suppress(OSError):
            self.socket.sendall(octets)

    def close(self):
        """End it so that all that was sent arrives; return what still came."""
        if self.ended:
            return self.buffer
        self.ended = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        rest, _ = self.drain()
        self.socket.close()
        return rest

    def drain(self):
        """Read on until the client hangs up; return what came, and if so."""
        octets, until = self.buffer, time.monotonic() + PATIENCE
        with contextlib.suppress(Mismatch):
            while time.monotonic() < until:
                more = self.receive()
                if not more:
                    return octets, True
                octets += more
        return octets, False

    def reset(self):
        """Cut the connection: the client gets ECONNRESET."""
        self.ended = True
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   struct.pack('ii', 1, 0))
        self.socket.close()


class Server(threading.Thread):
    """A server that serves one connection, during a `with` block."""

    def __init__(self, host='127.0.0.1', listens=True):
        """Take a port."""
        super().__init__(daemon=True)
        self.over = threading.Event()   # no client will come any more
        self.listener = socket.socket(
            socket.AF_INET6 if ':' in host else socket.AF_INET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.listener.bind((host, 0))
        self.listener.settimeout(0.05)
        self.port = self.listener.getsockname()[1]
        if listens:
            self.listener.listen()

    def run(self):
        """Serve a connection, until the client ends without one."""
        wire = over = None
        with self.listener:
            while not wire and not over:
                over = self.over.is_set()  # it may have come and gone by now
                with contextlib.suppress(OSError):
                    wire = Wire(self.listener.accept()[0])
        if wire:
            try:
                self.serve(wire)
            finally:
                wire.close()

    def __enter__(self):
        """Begin to serve."""
        self.start()
        return self

    def __exit__(self, *_):
        """Wait for the end of the session."""
        self.over.set()
        self.join(2 * PATIENCE)
        assert not self.is_alive(), 'the server did not end'
