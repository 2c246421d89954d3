"""The network of the benchmark: a fast server, and the delay before it."""

import collections
import contextlib
import ctypes
import fcntl
import os
import queue
import select
import shutil
import socket
import ssl
import struct
import subprocess
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


class Session:
    """The server's side of one session.

    It must be faster than every client, or the benchmark would measure the
    server. So it reads the message into memory that is used again and again,
    to be checked when the client has ended. TLS runs over memory as well:
    that is faster if records are small, and shows when octets arrive.
    """

    def __init__(self, sock, rtt):
        """Start after connecting; rtt is the delay both ways, in seconds."""
        self.sock, self.rtt, self.tls = sock, rtt, None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.raw = memoryview(bytearray(1 << 16))
        self.seen = collections.Counter()       # commands, by their verb
        # SYN and SYN-ACK, then the ACK that lets the server speak.
        self.seen['trips'] = 2
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        """Send octets."""
        if self.tls and data:
            self.tls.write(data)
            data = self.outgoing.read()
        self.sock.sendall(data)

    def wait(self):
        """Return the octets that arrive next, and count round trips.

        What a client sends after it waited for the server arrives a round
        trip later at the earliest; anything else arrives sooner.
        """
        self.sock.sendall(self.outgoing.read())     # of the TLS handshake
        begin = time.monotonic()
        count = self.sock.recv_into(self.raw)
        self.seen['trips'] += time.monotonic() - begin > 0.8 * self.rtt
        if not count:
            raise EOFError
        return self.raw[:count]

    def receive(self, buffer):
        """Read octets into a buffer and return their number."""
        while self.tls:
            try:
                count = self.tls.read(len(buffer), buffer)
                if not count:
                    raise EOFError
                return count
            except ssl.SSLWantReadError:
                self.incoming.write(self.wait())
        data = self.wait()
        buffer[:len(data)] = data
        return len(data)

    def swallow_message(self, memory):
        """Read the message and return what follows its final dot."""
        octets, end = 0, -1
        while end < 0:
            with memoryview(memory) as view:
                octets += self.receive(view[octets:octets + (1 << 16)])
            # Only QUIT may follow, so the dot is in the last 20 octets.
            end = memory.find(b'\r\n.\r\n', max(0, octets - 20), octets)
        self.seen['octets'] = end
        return bytes(memory[end + 5:octets])

    def converse(self, context, memory):
        """Speak until QUIT, or raise OSError or EOFError."""
        chunk, pending, answer = bytearray(1 << 16), b'', b'220 sink\r\n'
        while not self.seen[b'QUIT']:
            self.send(answer)
            pending += chunk[:self.receive(chunk)]
            # All commands that came together are answered together.
            answer = b''
            while b'\r\n' in pending:
                line, _, pending = pending.partition(b'\r\n')
                verb = line.upper().partition(b' ')[0]
                self.seen[verb] += 1
                answer += REPLIES.get(line.upper()) or REPLIES.get(
                    verb, b'250 2.0.0 Ok\r\n')
                if verb == b'STARTTLS':
                    self.send(answer)
                    self.tls = context.wrap_bio(self.incoming, self.outgoing,
                                                server_side=True)
                    answer = b''
                elif verb == b'DATA':
                    self.send(answer)
                    pending = self.swallow_message(memory)
                    answer = b'250 2.0.0 Ok: gone\r\n'
        self.send(answer)


# === The delay =============================================================

CLONE_NEWNET_NEWNS, TUNSETIFF, IFF_TUN_NO_PI = 0x40020000, 0x400454ca, 0x1001
NEAR, FAR = '10.255.255.1', '10.255.255.2'      # exist in the namespaces only
HOSTS = f'127.0.0.1 localhost\n{FAR} sink.example.com\n'


def call(command):
    """Run a program of the system, or raise OSError."""
    if subprocess.run(command.split()).returncode:
        raise OSError(f'{command} failed')


def enter_namespace(here, there):
    """Move into a new network namespace, and return its tun device.

    Sockets that are already open stay where they are.
    """
    unshare = getattr(ctypes.CDLL(None), 'unshare', None)
    if not unshare or not shutil.which('ip') or unshare(CLONE_NEWNET_NEWNS):
        raise OSError('no new namespace')
    call('ip link set lo up')
    call('mount --make-rprivate /')
    device = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack('16sH22x', b'far',
                                               IFF_TUN_NO_PI))
    call(f'ip address add {here} peer {there} dev far')
    call('ip link set far up')
    return device


class Network:
    """A server, with and without a delay between it and the clients.

    Where the system permits, the benchmark moves into a network namespace,
    and the delayed server is in another; a thread passes the packets between
    them on when they are due. Elsewhere it passes octets on between two
    connections, so connecting is not delayed.
    """

    def __init__(self, folder, authority, linked=True):
        """Start the servers; the certificate goes into the folder."""
        authority.issue_cert('localhost', 'sink.example.com') \
            .private_key_and_cert_chain_pem.write_to_path(folder / 'sink.pem')
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(folder / 'sink.pem')
        self.rtt, self.memory = 0, bytearray(LARGEST)
        self.sessions = queue.Queue()
        try:
            self.delay = 'a link between two network namespaces'
            self.open_link(folder / 'hosts', linked)
        except OSError:
            self.delay = 'a relay (connecting is not delayed)'
            self.far = 'localhost', self.start(self.relay)
        self.near = 'localhost', self.start(self.serve)

    def open_link(self, hosts, linked):
        """Put a server at the other end of a link, or raise OSError."""
        if not linked:
            raise OSError('no link is wanted')
        far = enter_namespace(FAR, NEAR)
        self.far = 'sink.example.com', self.start(self.serve)
        near = enter_namespace(NEAR, FAR)
        hosts.write_text(HOSTS)
        call(f'mount --bind {hosts} /etc/hosts')
        threading.Thread(target=self.pass_on, args=[near, far],
                         daemon=True).start()

    def start(self, body):
        """Listen, leave it to a thread what to do, and return the port."""
        listener = socket.create_server(('', 0), backlog=50)
        threading.Thread(target=body, args=[listener], daemon=True).start()
        return listener.getsockname()[1]

    def serve(self, listener):
        """Serve one client after another."""
        while True:
            session = Session(listener.accept()[0], self.rtt)
            with contextlib.suppress(OSError, EOFError):
                session.converse(self.context, self.memory)
            session.sock.close()
            self.sessions.put(session.seen)

    def relay(self, listener):
        """Pass the octets of one client after another on to the server."""
        while True:
            with contextlib.suppress(OSError), \
                    listener.accept()[0] as client, \
                    socket.create_connection(self.near) as server:
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.pass_on(client.fileno(), server.fileno())

    def pass_on(self, one, other):
        """Pass what comes from either file descriptor on to the other."""
        waiting = collections.deque()   # (time to leave, target, data)
        targets = {one: other, other: one}
        while targets or waiting:
            pause = (max(0, waiting[0][0] - time.monotonic()) if waiting
                     else None)
            for source in select.select(list(targets), [], [], pause)[0]:
                data = os.read(source, 1 << 16)
                due = time.monotonic() + self.rtt / 2
                waiting.append((due, targets[source], data))
                if not data:
                    del targets[source]
            while waiting and waiting[0][0] <= time.monotonic():
                _, target, data = waiting.popleft()
                os.write(target, data)
                if not data:
                    with socket.socket(fileno=os.dup(target)) as sock:
                        sock.shutdown(socket.SHUT_WR)

    def session(self):
        """Return what the latest session did, and its message.

        Raises:
            queue.Empty: there was none with a message.
        """
        seen = {}
        while not seen.get('octets'):   # skip clients that failed
            seen = self.sessions.get(timeout=2)
        return seen, self.memory[:seen['octets']]
