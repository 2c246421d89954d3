r"""A small SMTP server that plays one dialogue from a text file, once.

A dialogue is written as the RFCs write theirs, and as `smtp.py -v` prints its
transcript, so that a transcript from the field can be pasted in as a test:

    # What this dialogue shows, and where the RFC says so.
    run: --auth plain                 further arguments of smtp.py
    exit: 77                          its exit code (0 unless said otherwise)
    says: credentials were incorrect  text, or a regular expression, that its
                                      error holds (may be repeated)
    not: too large                    the same for what it must not say
    who: You                          whose turn it is after an error
    prints: queued as 9F1             what is on its standard output
    shows: S: 250 ok                  what is in the transcript of -v
    hides: C: QUIT                    what is not in it
    text: Hello Bob!                  a line of the text to send (repeated)
    password: open sesame             the password that the masks stand for
    token: practice-token             an access token in its place
    begins: login                     leaves out what always comes first: up to
                                      `tls`, `login`, `envelope` or `dot`

    S: 220 mail.example.com ESMTP     what the server sends
    C: EHLO <name>                    what the client has to send, exactly
    -- TLS begins                     the handshake, with the server's part
    C: AUTH PLAIN ********            a masked secret: any line that fits, and
                                      the test decodes and compares it
    -- closes                         the server ends the connection (`resets`
                                      cuts it, `says nothing` lets it wait)

Consecutive `C:` lines are one pipelined group: the server answers only where
the file says `S:`, and a client that talks on before the answer that the file
has next is at fault. At the end of the file the client has to hang up.

Within `C:` lines `<name>` is an address literal, and `<size>` (or a number
after `SIZE=`) the octets of the message as it arrives afterwards. A line
`<message>` is everything up to the final dot; a message that is written out is
compared line by line, where Date and Message-ID may have any value and a
narration line stands for lines left out. `{1..99}` repeats a line with each of
these numbers. Within `S:` lines `\x1b`, `\u202e` and the like are those
characters; a line that ends in `\n` ends in a bare LF, and one that ends in a
backslash does not end at all. From two spaces and `# ` on a line is a comment,
and `-- ` begins a narration line; both are there for the reader.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import difflib
import pathlib
import re
import shlex
import socket
import ssl
import threading
from typing import Iterator, Sequence

from support.wire import PATIENCE, HungUp, Mismatch, Wire

DIALOGUES = pathlib.Path(__file__).resolve().parents[1] / 'dialogues'
FROM, TO = 'alice@example.com', 'bob@example.org'
PASSWORD = 'open sesame, please'
TEXT = 'Hello Bob!'
USER = base64.b64encode(FROM.encode()).decode()


def ehlo(*extensions: str) -> str:
    """Return EHLO and a reply that offers these extensions."""
    *lines, last = ['mail.example.com Hello', *extensions]
    return 'C: EHLO <name>\n' + ''.join(
        f'S: 250-{line}\n' for line in lines) + f'S: 250 {last}\n'


# What always comes first, piece by piece.
GREETING = 'S: 220 mail.example.com ESMTP ready\n'
OFFERED = 'SIZE 157286400', 'PIPELINING', 'ENHANCEDSTATUSCODES'
EHLO = ehlo(*OFFERED, 'STARTTLS')
TLS = 'C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\n-- TLS begins\n'
SECOND_EHLO = ehlo(*OFFERED, 'AUTH LOGIN PLAIN XOAUTH2')
LOGIN = (f'C: AUTH LOGIN {USER}\nS: 334 UGFzc3dvcmQ6\nC: ********\n'
         'S: 235 2.7.0 Welcome\n')
ASKED = (f'C: MAIL FROM:<{FROM}> SIZE=<size>\nC: RCPT TO:<{TO}>\nC: DATA\n')
ENVELOPE = (ASKED + 'S: 250 2.1.0 Sender OK\nS: 250 2.1.5 Recipient OK\n'
            'S: 354 Start mail input\n')
DOT = 'C: <message>\nC: .\nC: QUIT\n'
QUIT = 'C: QUIT\nS: 221 2.0.0 Bye\n'
BEGINS = {'tls': GREETING + EHLO + TLS}
BEGINS['login'] = BEGINS['tls'] + SECOND_EHLO
BEGINS['envelope'] = BEGINS['login'] + LOGIN
BEGINS['dot'] = BEGINS['envelope'] + ENVELOPE + DOT
SESSION = BEGINS['dot'] + 'S: 250 2.0.0 Queued as 9F1\nS: 221 2.0.0 Bye\n'
# The same with question and answer one after the other.
ONE_BY_ONE = BEGINS['envelope'] + (
    f'C: MAIL FROM:<{FROM}> SIZE=<size>\nS: 250 2.1.0 Sender OK\n'
    f'C: RCPT TO:<{TO}>\nS: 250 2.1.5 Recipient OK\n'
    'C: DATA\nS: 354 Start mail input\n'
    'C: <message>\nC: .\nS: 250 2.0.0 Queued as 9F1\n') + QUIT

SETTINGS = ('run', 'exit', 'says', 'not', 'who', 'prints', 'shows', 'hides',
            'text', 'password', 'token', 'begins')
ACTIONS = {  # the narration lines that are more than narration
    'TLS begins': 'tls',
    'closes': 'close', 'resets': 'reset', 'says nothing': 'silence',
    'The server closes': 'close', 'The server closed': 'close',
}
MASK = '********'
LITERAL = r'\[(?:\d+\.\d+\.\d+\.\d+|IPv6:[0-9a-f:.]+)\]'


@dataclasses.dataclass
class Event:
    """One line of the dialogue: who does what."""

    kind: str  # 'S', 'C', 'note', or one of the values of ACTIONS
    text: str  # the line as the file has it, its comment stripped
    line: str  # the whole line, for showing what went wrong


@dataclasses.dataclass
class Dialogue:
    """A dialogue file: its settings and its events."""

    name: str
    settings: dict[str, list[str]]
    events: list[Event]

    def setting(self, key: str, default: str = '') -> str:
        """Return the last value that was given for `key`."""
        return self.settings.get(key, [default])[-1]

    def sent_by_client(self, pattern: str) -> list[str]:
        """Return what `pattern` catches in each `C:` line, each once."""
        found = (re.match(pattern, event.text) for event in self.events
                 if event.kind == 'C')
        return list(dict.fromkeys(match.group(1) for match in found if match))

    def arguments(self) -> list[str]:
        """Return what smtp.py is called with, the place of the server aside.

        Sender and recipients follow from the dialogue itself unless `run:`
        gives them; a transcript can be played without any setting.
        """
        given = shlex.split(self.setting('run'))
        return given + [
            part for options, parts in self._from_the_dialogue().items()
            if not set(options).intersection(given) for part in parts]

    def _from_the_dialogue(self) -> dict[tuple[str, ...], list[str]]:
        """Return the arguments that `run:` may leave out, by option."""
        message = ('--message',)
        check = '--check' in shlex.split(self.setting('run'))
        sender = self.sent_by_client(r'MAIL FROM:<(.*?)>') or [FROM]
        recipients = self.sent_by_client(r'RCPT TO:<(.*?)>')
        name = self.sent_by_client(r'EHLO ([^<]*)$')
        arguments: dict[tuple[str, ...], list[str]] = {
            ('-f', '--from', *message): ['--from', sender[0]],
            ('-t', '--to', '-c', '--cc', '-b', '--bcc', *message): [
                part for to in recipients or [TO] * (not check)
                for part in ('--to', to)],
            ('-s', '--subject', '--check', *message): [
                '--subject', 'Greetings'],
            ('--body', '--check', *message): [
                '--body', '\n'.join(self.settings.get('text', [TEXT]))],
        }
        if name:
            arguments['--ehlo',] = ['--ehlo', name[0]]
        if self.events and self.events[0].kind == 'tls':
            arguments['--tls',] = ['--tls', 'implicit']
        return arguments


def load(path: pathlib.Path) -> Dialogue:
    """Read a dialogue file."""
    return parse(path.read_text(encoding='utf-8'), path.stem)


def parse(text: str, name: str = 'dialogue') -> Dialogue:
    """Read a dialogue; raise ValueError for a line that is of no kind."""
    settings: dict[str, list[str]] = {}
    events: list[Event] = []
    in_message = False
    for line in text.split('\n'):
        setting = re.match(r'([a-z]+):(?: +|$)(.*)', line)
        if not line.strip() or line.startswith('#') and not events:
            continue
        if setting and setting.group(1) in SETTINGS and not events:
            settings.setdefault(setting.group(1), []).append(setting.group(2))
        elif re.match(r'[CS]:( |$)', line):
            # Within the message the same characters are part of its text.
            in_message = in_message and not line.startswith('S:')
            if not in_message:
                line = re.sub(r'(?<=\S) {2,}# .*', '', line)
            in_message = in_message or line.startswith('S: 354')
            events += [Event(line[0], one[3:], one) for one in repeated(line)]
        elif line.startswith('-- ') or line == '--':
            events.append(narration(line))
        else:
            raise ValueError(f'{name}: neither setting nor dialogue: {line}')
    if 'begins' in settings:
        events = parse(BEGINS[settings['begins'][0]]).events + events
    return Dialogue(name, settings, events)


def repeated(line: str) -> list[str]:
    """Return the lines that `{1..99}` in a line stands for."""
    numbers = re.search(r'\{(\d+)\.\.(\d+)\}', line)
    if not numbers:
        return [line]
    first, last = (int(number) for number in numbers.groups())
    return [line.replace(numbers.group(), str(number))
            for number in range(first, last + 1)]


def narration(line: str) -> Event:
    """Return a narration line as the event that it is."""
    for words, kind in ACTIONS.items():
        if re.match(re.escape(words) + r'\b', line[3:]):
            return Event(kind, line[3:], line)
    return Event('note', line[3:], line)


class Player(threading.Thread):
    """Plays a dialogue to the one client that connects.

    Attributes:
        port: Where it listens.
        mismatch: What the client did otherwise than the file says, or None.
        message: What came after 354, dots unstuffed; None if nothing did.
        dot_received: Whether it came to its end.
        secrets: What the masks stood for.
        clear: What the client said outside TLS.
        sizes: What MAIL announced.
    """

    def __init__(self, dialogue: Dialogue, context: ssl.SSLContext,
                 host: str = '127.0.0.1') -> None:
        """Listen; `start` begins to play."""
        super().__init__(daemon=True, name=dialogue.name)
        self.dialogue = dialogue
        self.context = context
        self.listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ':' in host else
            socket.AF_INET)
        self.listener.settimeout(0.05)
        self.over = threading.Event()    # set when no client will come
        self.port: int = self.listener.getsockname()[1]
        self.played: list[str] = []      # the dialogue as it went
        self.mismatch: str | None = None
        self.message: bytes | None = None
        self.dot_received = False
        self.secrets: list[bytes] = []
        self.clear = ''
        self.sizes: list[int] = []

    def run(self) -> None:
        """Play all events, then wait for the client to hang up."""
        connection = self._accept()
        if connection is None:
            self.mismatch = '-- no client connects'
            return
        wire = Wire(connection)
        try:
            self._play(wire)
        except Exception as mismatch:   # a fault of ours must be seen, too
            self.mismatch = str(mismatch) or repr(mismatch)
            self.played.append(self.mismatch)
        finally:
            wire.close()

    def _accept(self) -> socket.socket | None:
        """Return the first connection, None if the client ends without one."""
        with self.listener:
            while True:
                over = self.over.is_set()  # it may have come and gone by now
                with contextlib.suppress(socket.timeout):
                    return self.listener.accept()[0]
                if over:
                    return None

    def _play(self, wire: Wire) -> None:
        """Play the events, each by its own few lines."""
        events = self.dialogue.events
        position = 0
        while position < len(events):
            event = events[position]
            reached = position
            if event.kind == 'S':
                position = self._answer(wire, position)
            elif event.kind == 'C':
                position = self._listen(wire, position)
            else:
                self._act(wire, event)
                position += 1
            self.played += [event.line for event in events[reached:position]]
        if not wire.ended:
            self._goodbye(wire)

    def _goodbye(self, wire: Wire) -> None:
        """Wait until the client hangs up; it has nothing left to say."""
        rest, hung_up = wire.drain()
        if rest:
            line = rest.decode('utf-8', 'backslashreplace')
            raise Mismatch('C: ' + line.rstrip('\r\n'))
        if not hung_up:
            raise Mismatch('-- the client does not hang up')

    def _answer(self, wire: Wire, position: int) -> int:
        """Send all the server's lines from here on in one write."""
        events = self.dialogue.events
        if position and events[position - 1].kind == 'C' and wire.talks_on():
            raise Mismatch(f'C: {wire.read_line()}   # without waiting')
        octets = b''
        while position < len(events) and events[position].kind == 'S':
            octets += octets_of(events[position].text)
            position += 1
        wire.send(octets)
        return position

    def _listen(self, wire: Wire, position: int) -> int:
        """Compare one line of the client's, or its whole message."""
        event = self.dialogue.events[position]
        if self._begins_message(position):
            return self._listen_to_message(wire, position)
        line = wire.read_line()
        if not wire.secure:
            self.clear += line + '\r\n'
        self._compare(event, line)
        return position + 1

    def _begins_message(self, position: int) -> bool:
        """Return whether this is the first line after a 354."""
        before = next((event for event in self.dialogue.events[:position][::-1]
                       if event.kind != 'note'), None)
        return bool(before and before.kind == 'S'
                    and before.text.startswith('354')
                    and self.message is None)

    def _compare(self, event: Event, line: str) -> None:
        """Raise Mismatch unless the line is what the file says."""
        pattern = re.escape(event.text)
        pattern = pattern.replace(re.escape('<name>'), LITERAL)
        pattern = pattern.replace(re.escape('<size>'), r'(\d+)')
        pattern = re.sub(r'(SIZE=)\d+', r'\1(\\d+)', pattern)
        pattern = pattern.replace(re.escape(MASK), r'(\S+)')
        matched = re.fullmatch(pattern, line)
        if not matched:
            raise Mismatch('C: ' + line)
        if MASK in event.text:
            self.secrets.append(secret_of(matched.group(1)))
        elif 'SIZE=' in event.text:
            self.sizes.append(int(matched.group(1)))

    def _listen_to_message(self, wire: Wire, position: int) -> int:
        """Read lines up to the final dot, then compare what the file has."""
        events = self.dialogue.events
        lines: list[str] = []
        self.message = b''
        last = position
        while events[last].kind in ('C', 'note') and events[last].text != '.':
            last += 1
        cut_off = events[last].kind != 'C'  # the file ends within the message
        while not lines or lines[-1] != '.':
            try:
                lines.append(wire.read_line())
            except HungUp:
                if cut_off:
                    break
                self.played += ['C: ' + line for line in lines]
                raise
        else:
            self.dot_received = True
        sent = [line for line in lines if line != '.']
        self.message = b''.join(
            line[line.startswith('.'):].encode() + b'\r\n' for line in sent)
        written = events[position:last]
        if [event.text for event in written] != ['<message>']:
            compare_message(written, sent)
        return last + (not cut_off)

    def _act(self, wire: Wire, event: Event) -> None:
        """Do what a narration line stands for."""
        if event.kind == 'tls':
            wire.start_tls(self.context)
        elif event.kind == 'close':
            wire.close()
        elif event.kind == 'reset':
            wire.reset()
        elif event.kind == 'silence':
            self._goodbye(wire)

    def difference(self) -> str:
        """Return how the session went, beside how it should have gone."""
        expected = [event.line for event in self.dialogue.events]
        return '\n'.join(difflib.ndiff(expected, self.played))


def compare_message(written: Sequence[Event], sent: Sequence[str]) -> None:
    """Compare a message that the file writes out, as far as it does."""
    rest = list(sent)
    may_skip = False
    for event in written:
        if event.kind == 'note':
            may_skip = True
            continue
        while may_skip and rest and not alike(event.text, rest[0]):
            rest.pop(0)
        if not rest or not alike(event.text, rest[0]):
            raise Mismatch('C: ' + (rest[0] if rest else '.'))
        rest.pop(0)
        may_skip = False
    if rest and not may_skip:
        raise Mismatch('C: ' + rest[0])


def alike(written: str, sent: str) -> bool:
    """Compare two lines of a message; these two fields never repeat."""
    for field in ('Date: ', 'Message-ID: '):
        if written.startswith(field):
            return sent.startswith(field)
    return written == sent


def octets_of(text: str) -> bytes:
    """Return what the server sends for an `S:` line."""
    ends = not text.endswith(('\\n', '\\'))
    if text.endswith('\\') and not text.endswith('\\n'):
        text = text[:-1]
    octets = re.sub(
        rb'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([rnt\\]))',
        lambda match: (
            bytes([int(match.group(1), 16)]) if match.group(1)
            else chr(int(match.group(2), 16)).encode() if match.group(2)
            else {b'r': b'\r', b'n': b'\n', b't': b'\t',
                  b'\\': b'\\'}[match.group(3)]),
        text.encode())
    return octets + b'\r\n' * ends


def secret_of(text: str) -> bytes:
    """Return the secret within the base64 of LOGIN, PLAIN or XOAUTH2."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
    token = re.fullmatch(
        rb'user=[^\x01]+\x01auth=Bearer ([^\x01]*)\x01\x01', decoded)
    return token.group(1) if token else decoded.split(b'\0')[-1]


@contextlib.contextmanager
def playing(dialogue: Dialogue | str, context: ssl.SSLContext,
            host: str = '127.0.0.1') -> Iterator[Player]:
    """Play a dialogue during the `with` block, and to its end after it."""
    if isinstance(dialogue, str):
        dialogue = parse(dialogue)
    player = Player(dialogue, context, host)
    player.start()
    try:
        yield player
    finally:
        player.over.set()
        player.join(2 * PATIENCE)
    assert not player.is_alive(), 'the player did not end'
