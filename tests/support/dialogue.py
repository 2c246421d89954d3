"""A small SMTP server that plays one dialogue from a text file, once.

How a dialogue is written is told in dialogues/README.md.
"""

import base64
import binascii
import contextlib
import dataclasses
import difflib
import pathlib
import re
import shlex
import typing

from support.wire import HungUp, Mismatch, Server

DIALOGUES = pathlib.Path(__file__).resolve().parents[1] / 'dialogues'
FROM, TO = 'alice@example.com', 'bob@example.org'
PASSWORD = 'open sesame, please'
TEXT = 'Hello Bob!'
USER = base64.b64encode(FROM.encode()).decode()


def ehlo(*extensions):
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
ASKED = f'C: MAIL FROM:<{FROM}> SIZE=<size>\nC: RCPT TO:<{TO}>\nC: DATA\n'
ENVELOPE = (ASKED + 'S: 250 2.1.0 Sender OK\nS: 250 2.1.5 Recipient OK\n'
            'S: 354 Start mail input\n')
DOT = 'C: <message>\nC: .\nC: QUIT\n'
QUIT = 'C: QUIT\nS: 221 2.0.0 Bye\n'
BEGINS = {'clear': GREETING + ehlo(), 'groups': GREETING + ehlo('PIPELINING'),
          'tls': GREETING + EHLO + TLS}
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
    'TLS begins': 'tls', 'resets': 'reset', 'says nothing': 'wait',
    'closes': 'close', 'The server closes': 'close',
    'The server closed': 'close'}
MASK = '********'
LITERAL = r'\[(?:\d+\.\d+\.\d+\.\d+|IPv6:[0-9a-f:.]+)\]'
# What an S: line escapes; a backslash at its very end stands for no line end.
ESCAPED = re.compile(rb'\\(?:x[0-9a-f]{2}|(u)[0-9a-f]{4}|[rnt\\]|($))')


class Event(typing.NamedTuple):
    """One line of the dialogue: who does what."""

    kind: str  # 'S', 'C', 'note', or one of the values of ACTIONS
    text: str  # the line as the file has it, its comment stripped
    line: str  # the whole line, for showing what went wrong


@dataclasses.dataclass
class Dialogue:
    """A dialogue file: its settings and its events."""

    settings: dict[str, list[str]]
    events: list[Event]

    def setting(self, key, default=''):
        """Return the last value that was given for `key`."""
        return self.settings.get(key, [default])[-1]

    def arguments(self):
        """Return what smtp.py is called with, the place of the server aside.

        What `run:` does not give follows from the dialogue itself; a
        transcript can be played without any setting.
        """
        def said(pattern):
            found = (re.match(pattern, event.text) for event in self.events
                     if event.kind == 'C')
            return list(dict.fromkeys(match[1] for match in found if match))

        given = shlex.split(self.setting('run'))
        mail = not {'--check', '--message'}.intersection(given)
        senders = said(r'MAIL FROM:<(.*?)>')
        recipients = said(r'RCPT TO:<(.*?)>') or [TO] * mail
        kinds = [event.kind for event in self.events]
        tls = (['implicit'] if kinds[:1] == ['tls'] else
               ['none'] if senders and 'tls' not in kinds else [])
        text = '\n'.join(self.settings.get('text', [TEXT]))
        wanted = {
            '--from -f --message': senders[:1] or [FROM],
            '--to -t --cc -c --bcc -b --message': recipients,
            '--subject -s': ['Greetings'] * mail, '--body': [text] * mail,
            '--ehlo': said(r'EHLO ([^<]*)$')[:1], '--tls': tls}
        return given + [
            part for options, values in wanted.items() for value in values
            for part in (options.split()[0], value)
            if not set(options.split()).intersection(given)]


def parse(text):
    """Read a dialogue; raise ValueError for a line that is of no kind."""
    settings, events, in_message = {}, [], False
    text = re.sub(r'(?m)^(.*)\{(\d+)\.\.(\d+)\}(.*)', lambda found: '\n'.join(
        f'{found[1]}{number}{found[4]}'
        for number in range(int(found[2]), int(found[3]) + 1)), text)
    for line in text.split('\n'):
        setting = re.match(r'([a-z]+):(?: +|$)(.*)', line)
        if not line.strip() or line.startswith('#') and not events:
            continue
        if setting and setting[1] in SETTINGS and not events:
            settings.setdefault(setting[1], []).append(setting[2])
        elif re.match(r'[CS]:( |$)', line):
            # Within the message the same characters are part of its text.
            in_message = in_message and not line.startswith('S:')
            if not in_message:
                line = re.sub(r'(?<=\S) {2,}# .*', '', line)
            in_message = in_message or line.startswith('S: 354')
            events.append(Event(line[0], line[3:], line))
        elif line.startswith('-- ') or line == '--':
            kinds = [kind for words, kind in ACTIONS.items()
                     if re.match(rf'-- {words}\b', line)]
            events.append(Event(*kinds or ['note'], line[3:], line))
        else:
            raise ValueError(f'neither setting nor dialogue: {line}')
    if 'begins' in settings:
        events = parse(BEGINS[settings['begins'][0]]).events + events
    return Dialogue(settings, events)


class playing(Server):
    """Plays a dialogue to the one client that connects."""

    def __init__(self, dialogue, context, host='127.0.0.1'):
        """Listen; a `with` block plays it, and to its end after the block."""
        super().__init__(host)
        self.dialogue = (parse(dialogue) if isinstance(dialogue, str)
                         else dialogue)
        self.context = context
        self.played = []            # the dialogue as it went
        self.mismatch = '-- no client connects'     # or does otherwise
        self.message = None         # after 354, dots unstuffed, as bytes
        self.dot_received = False   # it came to its end
        self.invited = False        # a 354 is the last reply
        self.secrets = []           # what the masks stood for, as bytes
        self.clear = ''             # what the client said outside TLS
        self.sizes = []             # what MAIL announced

    def serve(self, wire):
        """Play all events, then wait for the client to hang up."""
        self.mismatch = ''
        try:
            self._play(wire)
            if not wire.ended:
                self._goodbye(wire)
        except Exception as mismatch:   # a fault of ours must be seen, too
            self.mismatch = str(mismatch) or repr(mismatch)
            self.played += self.mismatch.split('\n')

    def _play(self, wire):
        """Play the events, each by its own few lines."""
        events, position = self.dialogue.events, 0
        while position < len(events):
            reached, event = position, events[position]
            position += 1
            if event.kind == 'S':
                position = self._answer(wire, reached)
            elif event.kind == 'C' and self.invited:
                position = self._listen_to_message(wire, reached)
            elif event.kind == 'C':
                self._listen(wire, event)
            elif event.kind == 'tls':
                wire.start_tls(self.context)
            elif event.kind == 'wait':
                self._goodbye(wire)
            elif event.kind != 'note':      # 'close' or 'reset'
                getattr(wire, event.kind)()
            self.played += [event.line for event in events[reached:position]]

    def _goodbye(self, wire):
        """Wait until the client hangs up; it has nothing left to say."""
        rest, hung_up = wire.drain()
        if rest:
            line = rest.decode('utf-8', 'backslashreplace')
            raise Mismatch('C: ' + line.rstrip('\r\n'))
        if not hung_up:
            raise Mismatch('-- the client does not hang up')

    def _answer(self, wire, position):
        """Send all the server's lines from here on in one write."""
        events = self.dialogue.events
        if position and events[position - 1].kind == 'C' and wire.talks_on():
            raise Mismatch(f'C: {wire.read_line()}   # without waiting')
        octets = b''
        while position < len(events) and events[position].kind == 'S':
            octets += octets_of(events[position].text)
            position += 1
        wire.send(octets)
        self.invited = self.message is None and events[
            position - 1].text.startswith('354')
        return position

    def _listen(self, wire, event):
        """Read one line of the client's; it has to be what the file says."""
        line = wire.read_line()
        if not wire.secure:
            self.clear += line + '\r\n'
        pattern = re.escape(event.text).replace(
            '<name>', LITERAL).replace(re.escape(MASK), r'(\S+)')
        pattern = re.sub('(?<=SIZE=)([0-9]+|<size>)', r'(\\d+)', pattern)
        matched = re.fullmatch(pattern, line)
        if not matched:
            raise Mismatch('C: ' + line)
        if MASK in event.text:
            self.secrets.append(secret_of(matched[1]))
        elif 'SIZE=' in event.text:
            self.sizes.append(int(matched[1]))

    def _listen_to_message(self, wire, position):
        """Read lines up to the final dot, then compare what the file has."""
        events, end = self.dialogue.events, position
        self.invited = False
        while events[end].kind in ('C', 'note') and events[end].text != '.':
            end += 1
        cut_off = events[end].kind != 'C'   # the file ends within the message
        sent = []
        with contextlib.suppress(HungUp if cut_off else ()):
            for line in iter(wire.read_line, '.'):
                sent.append(line)
            self.dot_received = True
        self.message = b''.join(
            line[line.startswith('.'):].encode() + b'\r\n' for line in sent)
        written = events[position:end]
        pattern = ''.join(
            r'(?:C: .*\n)*' if event.kind == 'note' else re.sub(
                r'^(C:\\ (?:Date|Message\\-ID):).*', r'\1.*',
                re.escape('C: ' + event.text)) + r'\n' for event in written)
        received = ''.join(f'C: {line}\n' for line in sent)
        if [event.text for event in written] != ['<message>'] and (
                not re.fullmatch(pattern, received)):
            raise Mismatch(received)
        return end + (not cut_off)

    def difference(self):
        """Return how the session went, beside how it should have gone."""
        expected = [event.line for event in self.dialogue.events]
        return '\n'.join(difflib.ndiff(expected, self.played))


def octets_of(text):
    """Return what the server sends for an `S:` line."""
    line = text.encode() + b'\r\n' * (not text.endswith((r'\n', '\\')))
    return ESCAPED.sub(lambda match: b'' if match[2] is not None else (
        match[0].decode('unicode_escape').encode(
            'utf-8' if match[1] else 'latin-1')), line)


def secret_of(text):
    """Return the secret within the base64 of LOGIN, PLAIN or XOAUTH2."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
    token = re.fullmatch(
        rb'user=[^\x01]+\x01auth=Bearer ([^\x01]*)\x01\x01', decoded)
    return token[1] if token else decoded.split(b'\0')[-1]
