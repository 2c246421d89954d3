#!/usr/bin/env python3
"""A mail server to practise with: no account, no network, no questions.

    python tests/practice.py                          send a sample message
    python tests/practice.py --explain --step         ... one step at a time
    python tests/practice.py --refuse wrong-password  ... and see it refused
    python tests/practice.py --list-refusals          what else can go wrong
    python tests/practice.py --serve                  wait for your messages

The server is real (aiosmtpd) and speaks like Office 365 as far as it can: the
same extensions, the same sentences. It listens on this computer only, keeps
what it receives in memory, and its certificate comes from a throw-away
authority (trustme) that lives in a temporary folder until the program ends.

A practice run sends a message that is full of small traps (accents, a line
that is a single dot, an attachment of every octet) and then compares what
arrived with what was meant. Exit code 0: everything was right, or, with a
refusal, smtp.py failed the way it must. 1: something was wrong, and what.

Contents: the sample and its judge; showing a message; running smtp.py; the
command line. The server, which tests use as well, is in practice_server.py.
"""

import argparse
import base64
import contextlib
import os
import pathlib
import queue
import re
import shlex
import signal
import subprocess
import sys

from practice_server import (
    PASSWORD,
    REFUSALS,
    STEPS,
    TOKEN,
    USER,
    PracticeServer,
    expected_exit,
    parse_refusal,
)

CLIENT = pathlib.Path(__file__).resolve().parent.parent / 'smtp.py'


# ------------------------------------------------ the sample, and its judge
#
# Each part of the sample has gone wrong in some mail program. The judge reads
# what arrived with the standard library's email package, which has nothing in
# common with smtp.py.

SENDER = ('Alice', 'alice@example.com')
RECIPIENT = ('Bób Exämple', 'bob@example.org')
HIDDEN = 'carol@example.org'  # the blind copy
SUBJECT = 'Grüße aus dem Labor: naïve café, α β γ, 你好 ✓'
TEXT = '''Hello Bob,

a line that holds only a dot ends a message in SMTP. So the client
doubles a dot at the start of a line, and the server takes it away:
.
You can read on? Then both have done it.
..This line began with two dots, and still does.

Alice
'''
FILE_NAME = 'jedes Oktett – every octet.bin'
OCTETS = bytes(range(256))


def people(message, field):
    """Return the (name, address) pairs of From or To."""
    return [(one.display_name, one.addr_spec)
            for one in getattr(message[field], 'addresses', ())]


def wrong(received):
    """Return what is wrong with the sample as it arrived, as sentences."""
    message = received.parse()
    text = message.get_body(('plain',))
    text = text and text.get_content().replace('\r\n', '\n')
    files = [(part.get_filename(), part.get_payload(decode=True))
             for part in message.iter_attachments() if part.is_attachment()]
    return [f'{what}: {got!r} arrived, {meant!r} was meant' for
            what, got, meant in [
        ("the envelope's sender", received.sender, SENDER[1]),
        ("the envelope's recipients", received.recipients,
         (RECIPIENT[1], HIDDEN)),
        ('the user who logged in', received.user, USER),
        ('From', people(message, 'from'), [SENDER]),
        ('To', people(message, 'to'), [RECIPIENT]),
        ('Bcc, which must not be sent', message['bcc'], None),
        ('the subject', message['subject'], SUBJECT),
        ('the number of Date fields', len(message.get_all('date', [])), 1),
        ('the text', text and text.rstrip(), TEXT.rstrip()),
        ('the attachments', files, [(FILE_NAME, OCTETS)]),
        ('a header of ASCII only',
         received.content.partition(b'\r\n\r\n')[0].isascii(), True),
        ('CR or LF alone',
         re.findall(b'.?\r(?!\n)|(?<!\r)\n.?', received.content), []),
        ("the parser's objections",
         [defect for part in message.walk() for defect in part.defects], []),
    ] if got != meant]


# -------------------------------------------------------- showing a message


def heading(text):
    """Print a heading."""
    print(f'\n=== {text} {"=" * max(3, 70 - len(text))}\n', flush=True)


def printable(text):
    """Return text that cannot move the cursor or hide anything."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(received):
    """Print a message twice: as it came, and as a mail reader shows it."""
    heading('As the server received it')
    print(f'Envelope: from <{received.sender}> to '
          + ', '.join(f'<{one}>' for one in received.recipients))
    print(f'Session:  logged in as {printable(received.user)}, '
          f'{received.tls}, {len(received.content)} octets\n')
    lines = received.content.decode('utf-8', 'backslashreplace').split('\r\n')
    for line in lines[:60]:
        print(f'  | {printable(line)}')
    if len(lines) > 60:
        print(f'  ... and {len(lines) - 60} more lines')
    heading('As a mail reader shows it')
    try:
        show_as_read(received.parse())
    except Exception as error:  # whatever the parser trips over: not our fault
        print(f'(It cannot be read: {error!r})')
    sys.stdout.flush()


def show_as_read(message):
    """Print fields and text of a parsed message, and list its attachments."""
    for field in ('From', 'To', 'Cc', 'Subject', 'Date'):
        if field in message:
            print(f'{field + ":":9}{printable(str(message[field]))}')
    body = message.get_body(('plain', 'html'))
    print()
    for line in (body.get_content() if body else '').splitlines():
        print(f'  {printable(line)}')
    for part in message.iter_attachments():
        content = part.get_payload(decode=True) or b''
        print(f'\nAttached: {printable(part.get_filename() or "(no name)")} '
              f'({part.get_content_type()}, {len(content)} octets)')


# ---------------------------------------------------------- running smtp.py
#
# The command is a list of lines, and a line is a list of words, so that it
# can be shown as it is run, in the notation of either shell.


def near(path):
    """Return a path as seen from the current folder, if it lies in there."""
    with contextlib.suppress(ValueError):
        return str(pathlib.Path(path).relative_to(pathlib.Path.cwd()))
    return str(path)


def command_lines(server, client, *lines):
    """Return the command for this server, line by line."""
    return [[near(sys.executable), near(client)],
            ['--server', server.host, '-4', '--port', str(server.port)],
            ['--ca-file', server.ca_file], *filter(None, lines)]


def in_posix_shell(lines):
    """Return the command as one types it on Linux and macOS."""
    return f'SMTP_PASSWORD={PASSWORD} ' + ' \\\n    '.join(
        ' '.join(map(shlex.quote, line)) for line in lines)


def in_powershell(lines):
    """Return the command as one types it on Windows."""
    def quote(word):
        return (word if re.fullmatch(r'[\w./:\\-][\w./:\\@-]*', word)
                else "'" + word.replace("'", "''") + "'")
    return f"$env:SMTP_PASSWORD = '{PASSWORD}'\n& " + ' `\n    '.join(
        ' '.join(map(quote, line)) for line in lines)


def run(lines):
    """Run the command; return its exit code and what it printed.

    On a terminal it prints there by itself, in colour, and can wait for Enter;
    then nothing is returned, and the exit code alone must tell.
    """
    command = [word for line in lines for word in line]
    environment = dict(os.environ, SMTP_PASSWORD=PASSWORD)
    if sys.stdout.isatty():
        return subprocess.run(command, env=environment).returncode, None
    printed = []
    with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(environment, PYTHONIOENCODING='utf-8'),
            encoding='utf-8', errors='backslashreplace') as process:
        for line in process.stdout:
            printed.append(line)
            print(line, end='', flush=True)
    return process.returncode, ''.join(printed)


def verdict(code):
    """Return the words that go with an exit code."""
    return {0: 'Sent to', 74: 'May have been sent'}.get(code, 'Not sent')


def judge(server, code, printed):
    """Return what is wrong with this run, as sentences."""
    expected = 74 if server.drop_after_dot else 0
    if server.refusals:  # the first one counts
        step = min(server.refusals,
                   key=lambda step: STEPS.index(step.partition(':')[0]))
        expected = expected_exit(step, server.refusals[step])
    words = verdict(expected)
    arrived = int(expected in (0, 74))
    faults = [fault for one in server.messages for fault in wrong(one)]
    if len(server.messages) != arrived:
        faults.append(
            f'{len(server.messages)} messages arrived, not {arrived}')
    if code != expected:
        faults.append(f'the exit code is {code}, not {expected}')
    if printed is not None:
        if not re.search(rf'^([\w.]+: )?{words}', printed, re.MULTILINE):
            faults.append(f'it did not say "{words} ..."')
        secret = base64.b64encode(PASSWORD.encode()).decode()
        if PASSWORD in printed or secret in printed:
            faults.append('the password was printed')
    return faults


def practise(server, options):
    """Send the sample, show what arrives, and judge it."""
    letter = server.folder / 'letter.txt'
    attachment = server.folder / FILE_NAME
    letter.write_text(TEXT, encoding='utf-8')
    attachment.write_bytes(OCTETS)
    heading('The server')
    print(f'It listens on {server.host}, port {server.port}. Nothing that is '
          'sent to it leaves\nthis computer. Its certificate was made for '
          'this run only.')
    for step, reply in server.refusals.items():
        print(f'\nIt will refuse {step}:\n{printable(reply)}')
    heading('The command')
    switches = [f'--{name}' for name in ('explain', 'step')
                if getattr(options, name)] or ['--verbose']
    lines = command_lines(
        server, options.client,
        ['--from', '{} <{}>'.format(*SENDER)],
        ['--to', '{} <{}>'.format(*RECIPIENT), '--bcc', HIDDEN],
        ['--subject', SUBJECT],
        ['--body', f'@{letter}'], ['--attach', str(attachment)],
        switches, options.more)
    print(in_powershell(lines) if os.name == 'nt' else in_posix_shell(lines))
    heading('The session (C: is the client, S: the server)')
    code, printed = run(lines)
    for received in server.messages:
        show(received)
    heading('The result')
    if options.step and code == 0 and not server.messages:
        print('You ended the session, and nothing arrived, as it must.')
        return 0
    faults = judge(server, code, printed)
    print('\n'.join(f'WRONG: {fault}' for fault in faults) or (
        f'smtp.py said "{verdict(code)}", with exit code {code}, as it must '
        'after this.' if code else 'Everything arrived as it was meant.'))
    return int(bool(faults))


def serve(server, options):
    """Show each message that arrives, until Ctrl-C."""
    heading('The server')
    lines = command_lines(
        server, options.client,
        ['--from', USER, '--to', RECIPIENT[1]],
        ['--subject', 'Hello', '--body', 'It works.', '--verbose'])
    print(f'It listens on {server.host}, port {server.port}. User {USER},\n'
          f'password {PASSWORD}, XOAUTH2 token {TOKEN}.\n\n'
          'From another terminal, in this folder, on Linux and macOS:\n\n'
          f'{in_posix_shell(lines)}\n\nIn PowerShell:\n\n'
          f'{in_powershell(lines)}\n\n'
          'Waiting for messages. Ctrl-C ends it.', flush=True)
    try:
        while True:  # with a timeout, for Ctrl-C on Windows
            with contextlib.suppress(queue.Empty):
                show(server.arrivals.get(timeout=0.5))
    except KeyboardInterrupt:
        print(f'\nStopped. Messages received: {len(server.messages)}.')
    return 0


# --------------------------------------------------------- the command line


def parse_arguments(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(
        description='Send a message with smtp.py to a server of its own: no '
        'account, no network. Exit code 0: all was right; 1: it was not.')
    add = parser.add_argument
    add('--serve', action='store_true', help='wait for messages, until Ctrl-C')
    add('--explain', action='store_true', help='smtp.py explains each step')
    add('--step', action='store_true', help='smtp.py waits before each step')
    add('--refuse', metavar='NAME|STEP=REPLY', action='append', default=[],
        help='refuse a step; may be repeated. Steps: ' + ', '.join(STEPS))
    add('--list-refusals', action='store_true', help='list the names, and end')
    add('--slow', metavar='SECONDS', type=float, default=0,
        help='wait before each reply')
    add('--drop-after-dot', action='store_true',
        help='close the connection after the final dot, without a reply')
    add('--port', type=int, default=0, help='default: any free port')
    add('--client', metavar='FILE', default=CLIENT,
        help='run this program instead of smtp.py')
    add('more', nargs='*', metavar='-- OPTION', help='options for smtp.py')
    options = parser.parse_args(arguments)
    try:
        list(map(parse_refusal, options.refuse))
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments=None):
    """Do what the options say and return the exit code."""
    sys.stdout.reconfigure(errors='backslashreplace')
    options = parse_arguments(arguments)
    if options.list_refusals:
        for name, refusal in REFUSALS.items():
            print(f'{name:22}{refusal}')
        return 0
    try:
        with PracticeServer(options.refuse, options.slow,
                            options.drop_after_dot, options.port) as server:
            return (serve if options.serve else practise)(server, options)
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # the port is in use, the disk is full
        print(f'practice.py: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):  # even in the background
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
