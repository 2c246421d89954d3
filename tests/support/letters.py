"""The letters of practice.py, and what is wrong with one that arrived."""

import re
import sys
import typing


class Letter(typing.NamedTuple):
    """What Alice writes, and thus what has to arrive."""

    recipient: tuple
    subject: str
    text: str
    hidden: tuple = ()      # the blind copy
    files: tuple = ()       # names; each has all the OCTETS


SENDER, OCTETS = ('Alice', 'alice@example.com'), bytes(range(256))
EASY = Letter(('Bob', 'bob@example.org'), 'Dots', '''Hello Bob,
the next line begins with a dot; in the session it has two:
.like this
Alice
''')
# Each part of this one has gone wrong in some mail program.
HARD = Letter(
    ('Bób Exämple', 'bob@example.org'),
    'Grüße aus dem Labor: naïve café, α β γ, 你好 ✓', '''Hello Bob,
a line with a single dot ends a message in SMTP, so the client doubles it:
.
..This line began with two dots, and still does.
''', ('carol@example.org',), ('jedes Oktett – every octet.bin',))


def wrong(received, letter):
    """Return what is wrong with a message, compared with a letter or None."""
    message = received.parse()
    compared = [
        ('the user who logged in', received.user, SENDER[1]),
        ('the Bcc field, which must not be sent', message['bcc'], None),
        ('the number of Date fields', len(message.get_all('date', [])), 1),
        ('the header', received.content.partition(b'\r\n\r\n')[0].isascii()
         or 'SMTPUTF8' in received.mail_options, True),
        ('CR or LF alone',
         re.findall(b'.?\r(?!\n)|(?<!\r)\n.?', received.content), []),
        ("the parser's objections",
         [defect for part in message.walk() for defect in part.defects], [])]
    if letter:
        text = message.get_body(('plain',))
        text = text and text.get_content().replace('\r\n', '\n').rstrip()
        compared += [
            ("the envelope's sender", received.sender, SENDER[1]),
            ("the envelope's recipients", received.recipients,
             (letter.recipient[1], *letter.hidden)),
            *((field, str(message[field]), '{} <{}>'.format(*person))
              for field, person in (
                  ('From', SENDER), ('To', letter.recipient))),
            ('the subject', message['subject'], letter.subject),
            ('the text', text, letter.text.rstrip()),
            ('the attachments', [
                (part.get_filename(), part.get_payload(decode=True))
                for part in message.iter_attachments()
                if part.is_attachment()],
             [(name, OCTETS) for name in letter.files])]
    return [f'{what}: {got!r} arrived, not {meant!r}'
            for what, got, meant in compared if got != meant]


def printable(text):
    """Return text that cannot move the cursor or hide anything."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(received):
    """Print a message as it came, and, if that is encoded, as it is read."""
    print('\nWhat arrived, from <{}> for {}:\n'.format(
        received.sender, ', '.join(f'<{one}>' for one in received.recipients)))
    text = received.content.decode('utf-8', 'backslashreplace')
    lines = text.rstrip().split('\r\n')
    if len(lines) > 60:
        lines[60:] = [f'... and {len(lines) - 60} more lines']
    for line in lines:
        print(f'  {printable(line)}'.rstrip())
    if re.search(r'(?im)=\?|^content-transfer-encoding: (?!7bit)', text):
        try:
            show_as_read(received.parse())
        except Exception as error:  # whatever the parser trips over
            print(f'(It cannot be read: {error!r})')
    sys.stdout.flush()


def show_as_read(message):
    """Print fields and text of a parsed message, and list its attachments."""
    print('\nAs a mail reader shows it:\n')
    for field in ('From', 'To', 'Cc', 'Subject', 'Date'):
        if field in message:
            print(f'  {field}: {printable(str(message[field]))}')
    print()
    body = message.get_body(('plain', 'html'))
    for line in body.get_content().splitlines() if body else ():
        print(f'  {printable(line)}'.rstrip())
    for part in message.iter_attachments():
        content = part.get_payload(decode=True) or b''
        print(f'  Attached: {printable(part.get_filename() or "(no name)")} '
              f'({part.get_content_type()}, {len(content)} octets)')
