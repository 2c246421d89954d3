"""The network of the benchmark: a fast server, and the delay before it."""

import collections
import contextlib
import queue
import select
import socket
import ssl
import threading
import time

LARGEST = 150 << 20                     # 100 MiB in base64, and some text
PASSWORD = b'D29UZGVYBGFUZA=='          # its base64, in upper case
REPLIES = {
    b'EHLO': b'250-sink\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n'
             b'250-STARTTLS\r\n250 AUTH LOGIN\r\n',
    b'STARTTLS': b'220 Go ahead\r\n',
    b'AUTH LOGIN': b'334 VXNlcm5hbWU6\r\n',
    b'AUTH': b'334 UGFzc3dvcmQ6\r\n',
    b'YWXPY2VAZXHHBXBSZS5JB20=': b'334 UGFzc3dvcmQ6\r\n',
    PASSWORD: b'235 2.7.0 Welcome\r\n',
    b'DATA': b'354 Go ahead\r\n',
    b'QUIT': b'221 Bye\r\n'}


class Network:
    """A server, with and without a delay between it and the clients.

    `near` and `far` are what a client connects to. `rtt` is the delay of `far`
    both ways, in seconds; `trips` counts the round trips of its last session.
    """

    def __init__(self, folder, authority):
        """Start the servers; the certificate goes into the folder."""
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert('localhost').configure_cert(self.context)
        authority.cert_pem.write_to_path(str(folder / 'authority.pem'))
        self.rtt, self.trips = 0, 0
        self.sessions = queue.Queue()
        self.memory = bytearray(LARGEST)    # made once: clients must be slower
        self.near = 'localhost', self.start(self.serve)
        self.far = 'localhost', self.start(self.relay)

    def start(self, body):
        """Let a thread serve one client after another; return the port."""
        def accept():
            while True:
                with contextlib.suppress(OSError, EOFError), \
                        listener.accept()[0] as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    body(sock)
        listener = socket.create_server(('', 0), backlog=50)
        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]

    def relay(self, client):
        """Pass the octets of a client on to the server and back, but later."""
        # SYN, its answer, and the ACK that lets the server speak cannot be
        # delayed: the greeting waits for them, too.
        self.trips, waited = 2, False
        time.sleep(1.5 * self.rtt)
        with socket.create_connection(self.near) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            others = {client: server, server: client}
            waiting = collections.deque()       # (time to leave, target, data)
            while others or waiting:
                pause = (max(0, waiting[0][0] - time.monotonic()) if waiting
                         else None)
                for source in select.select(list(others), [], [], pause)[0]:
                    data = source.recv(1 << 16)
                    waiting.append((time.monotonic() + self.rtt / 2,
                                    others[source], data))
                    if not data:
                        del others[source]
                    elif source is client and waited:
                        self.trips, waited = self.trips + 1, False
                while waiting and waiting[0][0] <= time.monotonic():
                    _, target, data = waiting.popleft()
                    waited = target is client or waited
                    if data:
                        target.sendall(data)
                    else:
                        target.shutdown(socket.SHUT_WR)

    def serve(self, sock):
        """Speak with a client until QUIT, and keep what it did."""
        seen = collections.Counter()            # commands, by their verb
        try:
            self.converse(sock, seen, b'220 sink\r\n', b'STARTTLS')
            with self.context.wrap_socket(sock, server_side=True) as tls:
                self.converse(tls, seen, b'', b'QUIT')
        finally:
            self.sessions.put(seen)

    def converse(self, sock, seen, answer, last):
        """Speak until a command, or raise OSError or EOFError."""
        pending = b''
        while not seen[last]:
            sock.sendall(answer)
            data = sock.recv(1 << 16)
            if not data:
                raise EOFError
            pending, answer = pending + data, b''
            while b'\r\n' in pending:       # all that came is answered at once
                line, _, pending = pending.partition(b'\r\n')
                verb = line.upper().partition(b' ')[0]
                seen[verb] += 1
                answer += REPLIES.get(line.upper()) or REPLIES.get(
                    verb, b'250 2.0.0 Ok\r\n')
                if verb == b'DATA':
                    sock.sendall(answer)
                    pending = self.swallow_message(sock, seen)
                    answer = b'250 2.0.0 Ok: gone\r\n'
        sock.sendall(answer)

    def swallow_message(self, sock, seen):
        """Read the message and return what follows its final dot."""
        octets, end = 0, -1
        while end < 0:
            with memoryview(self.memory) as view:
                count = sock.recv_into(view[octets:octets + (1 << 16)])
            if not count:
                raise EOFError
            octets += count
            # Only QUIT may follow, so the dot is in the last 20 octets.
            end = self.memory.find(b'\r\n.\r\n', max(0, octets - 20), octets)
        seen['octets'] = end
        return bytes(self.memory[end + 5:octets])

    def session(self):
        """Return what the last session did and its message, or raise Empty."""
        seen = {}
        while not seen.get('octets'):   # skip clients that failed
            seen = self.sessions.get(timeout=2)
        return seen, self.memory[:seen['octets']]
