#!/usr/bin/env python3
"""Plant one bug at a time in a copy of smtp.py: do the tests see it?

    python tests/planted_bugs.py                    all of them
    python tests/planted_bugs.py NAME ...           those whose names have NAME
    python tests/planted_bugs.py --list             only look whether they fit

Each bug is a change of one place in smtp.py, and stands beside the tests that
ought to fail because of it. A test counts only if it passes without the bug.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Iterable, List, NamedTuple, Optional, Set

ROOT = pathlib.Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns('.*', '__pycache__', 'unsent-*')
TLS = 'context.minimum_version = ssl.TLSVersion.TLSv1_2'


class Bug(NamedTuple):
    """What to change in smtp.py; the old text must occur exactly once."""

    name: str
    tests: str
    old: str
    new: str


BUGS = [Bug(*words) for words in (
    # The server's replies
    ('a reply is any digits, as in int(line[:3])', 'test_dialogues '
     'test_reply_properties', 'REPLY_LINE.fullmatch(line)',
     "re.match('([0-9]+)(?:(.)(.*))?', line)"),
    ('the codes of a reply may differ', 'test_dialogues',
     'not found or line[:3] != lines[0][:3]', 'not found'),
    ('a bare LF ends a line', 'test_dialogues',
     "'[^\\r]*\\r', line", "'[^\\r]*\\r?', line"),
    ('a line may be endless', 'test_reply_properties',
     'and len(self._received) <= MAX_REPLY_LINE:', 'and True:'),
    ('a reply may be endless', 'test_reply_properties',
     'len(lines) > MAX_REPLY_LINES or octets > MAX_REPLY', 'False'),
    ('a reply that nobody asked for is accepted', 'test_dialogues '
     'test_hostile', 'if not self.has_unread():', 'if True:'),
    ('each octet has a deadline of its own', 'test_reply_properties '
     'test_hostile', 'self._receive(deadline)',
     'self._receive(time.monotonic() + self.timeout)'),
    ('the reply to QUIT may take for ever', 'test_hostile test_dialogues',
     'seconds = min(QUIT_TIMEOUT, connection.timeout)', 'seconds = 3600.0'),
    ('an extension is known by a part of its name', 'test_dialogues',
     "'STARTTLS' not in connection.extensions:",
     "'STARTTLS' not in str(connection.extensions):"),
    ('an extension is not known in small letters', 'test_dialogues',
     "'AUTH ', line.upper())", "'AUTH ', line)"),

    # TLS
    ('any certificate is trusted', 'test_tls', TLS,
     TLS + '; context.check_hostname = False; context.verify_mode = 0'),
    ('a certificate for any host is trusted', 'test_tls', TLS,
     TLS + '; context.check_hostname = False'),
    ('the CN is the name of a host', 'test_tls',
     'hostname_checks_common_name = False',
     'hostname_checks_common_name = True'),
    ('TLS 1.0 is good enough', 'test_tls', TLS,
     "context.minimum_version = ssl.TLSVersion.TLSv1; "
     "context.set_ciphers('ALL:@SECLEVEL=0')"),
    ('SSLKEYLOGFILE is honoured', 'test_tls',
     'ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)',
     'ssl.create_default_context(cafile=ca_file)'),
    ("octets after STARTTLS's 220 are believed", 'test_tls',
     'if not self.awaited and self.has_unread():', 'if False:'),
    ('EHLO is not said again after STARTTLS', 'test_dialogues',
     'start_tls(connection, context, server)\n                say_hello('
     'connection, ehlo)', 'start_tls(connection, context, server)'),

    # The login
    ('any 2yz may end a login', 'test_dialogues test_hostile',
     'LAST_REPLIES = (AUTHENTICATION_SUCCEEDED, CHALLENGE)',
     'LAST_REPLIES = (*range(200, 300), CHALLENGE)'),
    ('334 means that the login succeeded', 'test_dialogues test_hostile',
     '    if reply.code != AUTHENTICATION_SUCCEEDED:\n        raise',
     '    if reply.code >= 400:\n        raise'),
    ('a login without TLS', 'test_dialogues',
     "if connection.encrypted and auth != 'none':", "if auth != 'none':"),
    ('a token on a line of more than 512 octets', 'test_xoauth2',
     'if len(line) + len(CRLF) <= MAX_COMMAND_LINE:', 'if True:'),
    ('the password command runs in a shell', 'test_password_command',
     "subprocess.run(shlex.split(command) or [''],",
     'subprocess.run(command, shell=True,'),

    # What the user sees
    ('the password is in the transcript', 'test_transcript test_dialogues',
     '        line = self.hide(line)\n        login',
     '        print(line, file=self.stream)\n        login'),
    ('the password is in an error', 'test_hostile test_secrets',
     'in map(self.transcript.hide, lines):', 'in lines:'),
    ('the password stays in the environment', 'test_secrets',
     'os.environ.pop(name', 'os.environ.get(name'),
    ('what the server echoes is not masked', 'test_dialogues',
     'return self._secret.sub(MASK, text)', 'return text'),
    ('halves of a secret are shown', 'test_dialogues test_secrets',
     'if self.hide(joined) != joined:', 'if False:'),
    ('a short secret is shown by its own mask', 'test_transcript '
     'test_secrets', "if re.fullmatch(r'\\w{1,3}', text)", 'if False'),
    ('control characters are printed as they are', 'test_dialogues',
     'character if character.isprintable()', 'character if True'),

    # The envelope
    ('pipelining where it is not offered', 'test_dialogues',
     'MAX_GROUP if may_pipeline(connection) else 1', 'MAX_GROUP'),
    ('a group of 101 commands', 'test_dialogues',
     'MAX_GROUP = 100', 'MAX_GROUP = 101'),
    ('the size is one octet wrong', 'test_dialogues',
     'SIZE={mail.size}', 'SIZE={mail.size - 1}'),
    ('SMTPUTF8 is missing in MAIL', 'test_dialogues',
     "command += ' SMTPUTF8'", 'pass'),
    ('one of several recipients may be refused', 'test_dialogues',
     "first = next(iter(wrong), '')", "first = '' if connection.last_code == "
     "START_MAIL_INPUT else next(iter(wrong), '')"),
    ('DATA after a recipient was refused', 'test_dialogues',
     '        if wrong:\n            group = ', '        if False:\n'
     '            group = '),
    ('DATA after a refused recipient, then the dot', 'test_dialogues',
     'if wrong and connection.last_code == START_MAIL_INPUT:',
     'if wrong and connection.last_code == START_MAIL_INPUT:\n'
     "        connection.send_octets(b'.\\r\\n')"),

    # The message on the wire
    ('no dot is doubled', 'test_dialogues',
     "stuffed = lines.replace(b'\\n.', b'\\n..')", 'return lines'),
    ('no dot at the start of a chunk is doubled', 'test_dialogues',
     "return b'.' + stuffed if stuffed.startswith(b'.') else stuffed",
     'return stuffed'),
    ('QUIT comes with the dot without PIPELINING', 'test_dialogues',
     "['.', 'QUIT'] if may_pipeline(connection) else ['.']",
     "['.', 'QUIT']"),
    ('lost after the dot is "Not sent"', 'test_dialogues',
     'transcript.verdict = SMTPDeliveryUnknown(',
     'transcript.verdict = SMTPServerDisconnected('),
    ('interrupted after the dot is "Not sent"', 'test_interrupts',
     'except BaseException as error:', 'except SMTPException as error:'),
    ('SIGTERM gives no verdict', 'test_interrupts',
     "'SIGQUIT', 'SIGTERM',", "'SIGQUIT',"),

    # What the message is made of
    ('Bcc is in the header', 'test_message',
     "(('To', to), ('Cc', cc))", "(('To', to), ('Cc', cc), ('Bcc', bcc))"),
    ('Resent-Bcc is transmitted', 'test_finished_messages',
     "not in ('bcc', 'resent-bcc')", "not in ('bcc',)"),
    ('CR and LF may stand in a header field', 'test_header test_addresses',
     "'[\\r\\n\\0\\ud800-\\udfff]', text)", "'[\\0\\ud800-\\udfff]', text)"),
    ('an encoded-word ends within a character', 'test_header',
     'pack(q_forms, room)',
     "pack(re.findall('=..|.', ''.join(q_forms)), room)"),
    ('a line may have 999 octets', 'test_text',
     '{{{MAX_TEXT_LINE + 1}}}', '{{{MAX_TEXT_LINE + 2}}}'),
    ('a CR in a text is left as it is', 'test_text',
     ".replace(CRLF, '\\n').replace('\\r', '\\n')", ".replace(CRLF, '\\n')"),
    ('an attachment may change while it is read', 'test_attachments',
     'and get_state(file) == self._state)', ')'),

    # A text that was not sent
    ('a draft goes over a file', 'test_unsent_files test_unsent',
     "open(path, 'xb'", "open(path, 'wb'"),
    ('a draft can be read by others', 'test_unsent_files', '0o600', '0o644'),
)]


def run_tests(folder: pathlib.Path, tests: Iterable[str]) -> Set[str]:
    """Run tests of a copy up to the first that fails; return which did."""
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-x', '-q', '-n', '0', '-rf',
         '-p', 'no:cacheprovider', '--tb=no', '--timeout=60', '--rootdir=.',
         f'--basetemp={folder / "basetemp"}', *tests],
        cwd=folder / 'copy', stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding='utf-8', errors='replace',
        env={**os.environ, 'COLUMNS': '1000', 'PYTHONDONTWRITEBYTECODE': '1'})
    if done.returncode not in (0, 1):
        raise SystemExit(f'pytest could not run:\n{done.stdout}')
    return set(re.findall(r'(?m)^FAILED (.+?)(?: - .*)?$', done.stdout))


def plant(bug: Bug, source: str) -> Optional[str]:
    """Return the source with the bug in it; None if it does not fit."""
    if source.count(bug.old) != 1:
        return None
    planted = source.replace(bug.old, bug.new)
    compile(planted, bug.name, 'exec', dont_inherit=True)
    return planted


def catch(bug: Bug, planted: str, folder: pathlib.Path, whole: bool) -> str:
    """Return the test that fails with the bug, and not without; or ''."""
    copy = folder / 'copy'
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    source = (copy / 'smtp.py').read_text('utf-8')
    (copy / 'smtp.py').write_text(planted, 'utf-8')
    tests = ['tests'] if whole else [
        f'tests/{name}.py' for name in bug.tests.split()]
    failed = run_tests(copy.parent, tests)
    (copy / 'smtp.py').write_text(source, 'utf-8')
    anyway = run_tests(copy.parent, failed) if failed else set()
    for test in anyway:
        print(f'(fails without any bug: {test})')
    return ''.join(failed - anyway)


def try_out(bugs: List[Bug], only_list: bool, whole: bool) -> List[str]:
    """Print a line for each bug; return the names of those at fault."""
    source = (ROOT / 'smtp.py').read_text('utf-8')
    width = max(len(bug.name) for bug in bugs)
    at_fault = []
    for bug in bugs:
        began = time.monotonic()
        planted = plant(bug, source)
        found = bug.tests if planted and only_list else ''
        if planted and not only_list:
            with tempfile.TemporaryDirectory() as folder:
                found = catch(bug, planted, pathlib.Path(folder), whole)
        if not found:
            at_fault.append(bug.name)
            found = 'NOT CAUGHT' if planted else (
                f'STALE: {source.count(bug.old)} times in smtp.py: {bug.old}')
        seconds = '' if only_list else f'{time.monotonic() - began:4.0f} s  '
        print(f'{bug.name:{width}}  {seconds}{found}', flush=True)
    return at_fault


def main() -> int:
    """Run the script; return 1 if a bug was not caught, or does not fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help='only bugs whose names have this in them')
    parser.add_argument('--list', action='store_true',
                        help='run nothing, and say what fits smtp.py')
    parser.add_argument('--all', action='store_true',
                        help='run the whole suite for each bug')
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if not options.names
            or any(name in bug.name for name in options.names)]
    if not bugs:
        parser.error('no bug has such a name; see --list')
    at_fault = try_out(bugs, options.list, options.all)
    verb = 'fit smtp.py' if options.list else 'were caught'
    print(f'{len(bugs) - len(at_fault)} of {len(bugs)} bugs {verb}.')
    return 1 if at_fault else 0


if __name__ == '__main__':
    sys.exit(main())
