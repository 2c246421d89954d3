#!/usr/bin/env python3
"""Practise SMTP with a mail server on this computer: no account, no network.

    python tests/practice.py                          a letter, and its session
    python tests/practice.py --explain --step         ... one step at a time
    python tests/practice.py --refuse wrong-password  ... and how it fails
    python tests/practice.py --list-refusals          what can be refused
    python tests/practice.py --drop-after-dot         was it sent, or not?
    python tests/practice.py --serve                  wait for your own mail

The server is aiosmtpd, with the extensions and the sentences of Office 365,
and a certificate from an authority that is gone when the program ends.
Options after -- are for smtp.py: practice.py -- --cc carol@example.org

A run ends with what arrived, compared with what smtp.py reported. Exit code
0: smtp.py was right, whether it sent, refused to or failed; 1: it was wrong.
"""

import argparse
import base64
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

try:
    from support import letters, refusals
    from support import practice_server as post
    MISSING = None
except ModuleNotFoundError as error:
    MISSING = error.name  # main() says how to install it

TESTS = pathlib.Path(__file__).resolve().parent
CLIENT = TESTS.parent / 'smtp.py'


def demonstrate(server, options):
    """Send a letter with smtp.py, show what arrives, and judge."""
    print('smtp.py sends a letter to a server on this computer (C: client, '
          'S: server).\n', flush=True)
    switches = [f'--{name}' for name in ('explain', 'step')
                if getattr(options, name)] or ['--verbose']
    letter = letters.HARD if options.hard else letters.EASY
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in letter.files]
        for file in files:
            file.write_bytes(letters.OCTETS)
        code, printed, complete = run([
            sys.executable, str(CLIENT), '--server', server.host,
            '--port', str(server.port), '--ca-file', server.ca_file,
            *([] if '--message' in ' '.join(options.more) else [
                '--from', '{} <{}>'.format(*letters.SENDER),
                '--to', '{} <{}>'.format(*letter.recipient),
                '--subject', letter.subject, '--body', letter.text,
                *(f'--bcc={one}' for one in letter.hidden),
                *(f'--attach={file}' for file in files)]),
            *switches, *options.more])
    for received in server.messages:
        letters.show(received)
    faults = judge(server, None if options.more else letter, code, printed,
                   complete)
    print('\n' + ('\n'.join(f'WRONG: {fault}.' for fault in faults)
                  or result(server, code, options)))
    follow = ('--serve' if options.drop_after_dot else
              '--drop-after-dot' if options.refuse else
              '--refuse wrong-password' if options.explain or options.step
              else '--explain --step')
    print(f'Next: {typed(sys.executable)} {typed(__file__)} {follow}')
    return int(bool(faults))


def serve(server, options):
    """Print the commands of the lab, and each message that arrives."""
    names = {'SMTP_SERVER': server.host, 'SMTP_FROM': post.USER,
             'SMTP_PASSWORD': post.PASSWORD, 'CA': server.ca_file}
    if os.name == 'nt':
        ca, setting = '$env:CA', '; '.join(
            f"$env:{name}='{value}'" for name, value in names.items())
    else:
        ca, setting = '$CA', 'export ' + ' '.join(
            f'{name}={shlex.quote(value)}' for name, value in names.items())
    command = (f'{typed(sys.executable)} {typed(CLIENT)} -p {server.port} '
               f'--ca-file "{ca}"')
    letter = "-t bob@example.org -s Hello --body 'It works.'"
    print(f'The server waits on port {server.port}. Ctrl-C ends it.\n\n'
          'Paste into another terminal, in this folder. First, the settings '
          f'for this run:\n\n{setting}\n\n'
          'Then log in; send; send one step at a time:\n\n'
          f'{command} --check\n{command} {letter} -v\n'
          f'{command} {letter} --explain --step\n', flush=True)
    shown = 0
    try:
        while True:
            for message in server.messages[shown:]:
                letters.show(message)
                shown += 1
            time.sleep(0.2)
    except KeyboardInterrupt:
        print(f'\nStopped. Messages received: {len(server.messages)}.')
    return 0


def list_refusals():
    """Print the table of refusals, a line each."""
    table = refusals.named_refusals()
    width = max(map(len, table))
    lines = [f'{name:{width}} {one.step:8} '
             + letters.printable(one.reply.replace('\r\n', ' '))
             for name, one in table.items()]
    follow = f'{typed(sys.executable)} {typed(__file__)} --refuse NAME'
    try:
        print(*(line[:79] for line in lines), '', f'Next: {follow}', sep='\n',
              flush=True)
    except BrokenPipeError:     # as with `| head`: nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def ask_to_install():
    """Print the commands that install what is missing."""
    python = typed(sys.executable)
    print(f'practice.py: the package {MISSING} is missing. Type:',
          file=sys.stderr)
    if sys.prefix == sys.base_prefix:  # and few systems allow pip there
        print(f'{python} -m venv .venv', file=sys.stderr)
        python = os.path.join(
            '.venv', 'Scripts' if os.name == 'nt' else 'bin', 'python')
    requirements = typed(TESTS / 'practice-requirements.txt')
    print(f'{python} -m pip install -q -r {requirements}\n'
          f'{python} {typed(__file__)}', file=sys.stderr)
    return 69


def typed(path):
    """Return a path as one would type it in the current folder."""
    path = pathlib.Path(os.path.abspath(path))
    with contextlib.suppress(ValueError):
        path = path.relative_to(pathlib.Path.cwd())
    if shutil.which(path.name) == str(path):
        path = path.name
    if os.name != 'nt':
        return shlex.quote(str(path))
    return f"& '{path}'" if ' ' in str(path) else str(path)


def run(command):
    """Run smtp.py; return its exit code, its output, and if that is all.

    On a terminal its standard error goes there directly, so that it can be in
    colour and wait for Enter; then only standard output is returned.
    """
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith('SMTP_')}
    secret = ({'SMTP_ACCESS_TOKEN': post.TOKEN} if 'xoauth2' in command
              else {'SMTP_PASSWORD': post.PASSWORD})
    complete = not (sys.stdout.isatty() and sys.stderr.isatty())
    printed = []
    with subprocess.Popen(
            command, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if complete else None,
            env={**environment, **secret, 'PYTHONIOENCODING': 'utf-8'},
            encoding='utf-8', errors='backslashreplace') as process:
        # Ctrl-C is for smtp.py; what it makes of it is judged like the rest.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        for line in process.stdout:
            printed.append(line)
            print(line, end='', flush=True)
        process.wait()
        signal.signal(signal.SIGINT, before)
    return process.returncode, ''.join(printed), complete


def judge(server, letter, code, printed, complete):
    """Return what is wrong with this run, as sentences.

    Without a letter, as after other options, only what smtp.py reports and
    what happened must agree. Complete output includes standard error.
    """
    arrived, owed = len(server.messages), server.given
    expected = (owed.exit if owed else
                74 if server.drop_after_dot and arrived else
                0 if letter and code != 130 else code)
    sent = bool(re.search('^Sent to ', printed, re.MULTILINE))
    faults = [fault for one in server.messages
              for fault in letters.wrong(one, letter)]
    if arrived != int(sent or expected == 74):
        faults.append(f'{arrived} messages arrived')
    if code != expected:
        faults.append(f'the exit code is {code}, not {expected}')
    if not code and letter and not sent:
        faults.append('it did not report "Sent to ..."')
    words = {0: '', 64: '', 74: 'May have been sent: '}.get(code, 'Not sent: ')
    advice = f'{owed.who}: ' if owed and owed.who else ''
    for text in filter(None, [words, advice] if complete else []):
        if not re.search(f'^(smtp.py: )?{text}', printed, re.MULTILINE):
            faults.append(f'it did not report "{text}..."')
    secret = base64.b64encode(post.PASSWORD.encode()).decode()
    if post.PASSWORD in printed or secret in printed:
        faults.append('the password was printed')
    return faults


def result(server, code, options):
    """Return the sentence for a run without a fault."""
    return 'Checked: ' + (
        'it arrived, but smtp.py cannot know that.' if code == 74
        else 'a message arrived, as reported.'
        if server.messages and options.more
        else 'everything arrived intact.' if server.messages
        else f'nothing arrived, and exit code {code} is right for this reply.'
        if server.given else 'nothing arrived, as reported.')


def parse_arguments(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='practice.py [options] [-- options for smtp.py]',
        description='Send a letter with smtp.py to a server on this computer: '
        'no account, no network.\nExit code 0: smtp.py was right about what '
        'happened; 1: it was wrong.',
        epilog='examples:\n' + __doc__.split('\n\n')[1])
    add = parser.add_argument
    add('--explain', action='store_true', help='smtp.py explains each step')
    add('--step', action='store_true', help='smtp.py asks before each command')
    add('--hard', action='store_true', help='a letter full of traps')
    add('--refuse', metavar='NAME|STEP=REPLY', action='append', default=[],
        help='refuse a step; may be repeated. Steps: '
        + ', '.join(refusals.STEPS))
    add('--list-refusals', action='store_true',
        help='list the names, with their steps and replies')
    add('--drop-after-dot', action='store_true',
        help='close the connection after the final dot, without a reply')
    add('--serve', action='store_true',
        help='wait for messages, and print them, until Ctrl-C')
    add('more', nargs='*', help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        list(map(refusals.parse_refusal, options.refuse))
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments=None):
    """Do what the options say and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')
    if MISSING:
        return ask_to_install()
    options = parse_arguments(arguments)
    if options.list_refusals:
        return list_refusals()
    try:
        with post.PracticeServer(
                options.refuse, options.drop_after_dot) as server:
            return (serve if options.serve else demonstrate)(server, options)
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):  # even in the background
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
