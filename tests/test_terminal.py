"""At a real terminal: what is asked, in which order, and what is never shown.

pexpect plays the person. What it reads is what a person would see, echo of the
typing included; so a password that is echoed would be found there.
"""

import os
import pathlib
import re
import shlex
import sys
from typing import Callable, Dict, Iterator, List

import at_terminal
import conftest
import practice_server
import pytest
import reading
from at_terminal import PATIENCE, Person
from practice_server import PASSWORD, TOKEN, USER, PracticeServer

pytestmark = at_terminal.NEEDED

ALICE, BOB = USER, 'bob@example.org'
GIVEN = {'From': ['-f', ALICE], 'To': ['-t', BOB], 'Subject': ['-s', 'Lunch'],
         'Text': ['--body', 'Hello']}


Start = Callable[..., Person]


@pytest.fixture
def person(tmp_path: pathlib.Path, clean_environment: Dict[str, str],
           session: List[str]) -> Iterator[Start]:
    """A function that starts smtp.py on a terminal, with these arguments.

    Its keywords: `shell`, a pattern for a command line of a shell, with {} in
    the place of ours; `password`, for SMTP_PASSWORD; and variables of the
    environment.
    """
    people: List[Person] = []

    def start(*args: str, shell: str = '', password: str = '',
              **variables: str) -> Person:
        command = [sys.executable, str(conftest.PROGRAM), *session, *args]
        if shell:
            command = ['/bin/sh', '-c', shell.format(shlex.join(command))]
        environment = {**clean_environment, 'TERM': 'dumb', **variables}
        if password:
            environment['SMTP_PASSWORD'] = password
        people.append(Person(command, environment, tmp_path, columns=500))
        return people[-1]
    yield start
    for someone in people:
        someone.child.close(force=True)


def test_all_questions_in_the_order_of_a_letter(
        person: Start, server: PracticeServer
        ) -> None:
    """From, Password, To, Subject, and the text up to the dot."""
    someone = person()
    someone.asked('From')
    someone.enters(f'Alice <{ALICE}>')
    someone.types_hidden(PASSWORD)
    someone.asked('To')
    someone.enters(f'Bób <{BOB}>, carol@example.org')
    someone.asked('Subject')
    someone.enters('Grüße aus dem Labor')
    someone.sees('(?i)text[^\r\n]*dot[^\r\n]*[\r\n]')
    for line in ('Hällo,', '', '..', ' .', '.'):
        someone.enters(line)
    someone.sees('Sent to bob@example.org, carol@example.org: 250 ')
    assert someone.ends() == 0
    message, = server.messages
    assert message.recipients == (BOB, 'carol@example.org')
    mail = reading.read(message.content)
    assert mail.sender == [('Alice', ALICE)]
    assert mail.to == [('Bób', BOB), ('', 'carol@example.org')]
    assert mail.subject == 'Grüße aus dem Labor'
    assert mail.text == 'Hällo,\r\n\r\n..\r\n .\r\n'
    assert PASSWORD not in someone.seen
    assert someone.seen.count('Password') == 1


@pytest.mark.parametrize('missing', [*GIVEN, 'Password'])
def test_only_what_is_missing_is_asked(
        person: Start, server: PracticeServer,
        missing: str) -> None:
    """One question, and it is sent."""
    args = [part for name, option in GIVEN.items() if name != missing
            for part in option]
    someone = person(*args, password='' if missing == 'Password'
                     else PASSWORD)
    if missing == 'Password':
        someone.types_hidden(PASSWORD)
    else:
        someone.asked(missing)
        someone.enters({'From': ALICE, 'To': BOB, 'Subject': 'Lunch',
                       'Text': 'Hello\n.'}[missing])
    assert someone.ends() == 0, someone.seen
    for name in [*GIVEN, 'Password']:
        # At the start of a line it would be a question.
        assert len(re.findall(rf'(?m)^{name}\b.*:', someone.seen)) == (
            name == missing), someone.seen
    mail = reading.read(server.messages[0].content)
    assert (mail.subject, mail.text) == ('Lunch', 'Hello\r\n')


def test_the_password_is_asked_on_the_terminal_behind_a_pipe(
        person: Start, server: PracticeServer
        ) -> None:
    """The text comes from the pipe, the password from the person."""
    someone = person('-f', ALICE, '-t', BOB, '-s', 'Lunch',
                     shell="printf 'from the pipe\\n.\\n' | {} | cat")
    someone.types_hidden(PASSWORD)
    someone.sees('Sent to bob@example.org')
    assert someone.ends() == 0
    assert reading.read(server.messages[0].content).text == \
        'from the pipe\r\n.\r\n'
    assert PASSWORD not in someone.seen


def test_a_token_is_asked_for_by_its_name(
        person: Start, server: PracticeServer) -> None:
    """Whoever chose XOAUTH2 has no password to give."""
    someone = person('--auth', 'xoauth2', *GIVEN['From'], *GIVEN['To'],
                     *GIVEN['Subject'], *GIVEN['Text'])
    someone.types_hidden(TOKEN, 'Access token')
    assert someone.ends() == 0, someone.seen
    assert len(server.messages) == 1
    assert 'Password' not in someone.seen
    assert TOKEN not in someone.seen


def test_nothing_else_is_asked_behind_a_pipe(person: Start
                                             ) -> None:
    """The pipe holds the text, not answers."""
    someone = person('-f', ALICE, '-s', 'Lunch', password=PASSWORD,
                     shell="printf 'text' | {}")
    someone.sees('smtp.py: Not sent: --to is missing')
    assert someone.ends() == 64


def test_a_wrong_password(person: Start,
                          server: PracticeServer) -> None:
    """77, the reply in full, and what was typed is shown nowhere."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     *GIVEN['Text'], '-v')
    someone.types_hidden('wrong-and-secret')
    someone.sees('Not sent')
    assert someone.ends() == 77
    assert '535 5.7.3' in someone.seen
    assert 'wrong-and-secret' not in someone.seen
    assert 'd3JvbmctYW5kLXNlY3JldA' not in someone.seen
    assert not server.messages


def test_a_password_beyond_ascii(person: Start,
                                 server: PracticeServer,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent as UTF-8."""
    monkeypatch.setattr(practice_server, 'PASSWORD', 'pässwörd ✓')
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     *GIVEN['Text'])
    someone.types_hidden('pässwörd ✓')
    assert someone.ends() == 0, someone.seen
    assert 'pässwörd' not in someone.seen


@pytest.mark.parametrize('answer, naming', [
    ('nobody', 'nobody'), ('a@example.org, b@example.org', 'From'),
    ('', 'From'), ('Bob <bob@example.org', 'bob')])
def test_a_wrong_sender_is_found_before_the_next_question(
        person: Start, answer: str, naming: str) -> None:
    """Nobody types a password or a letter in vain."""
    someone = person()
    someone.asked('From')
    someone.enters(answer)
    someone.sees('smtp.py: Not sent: |Password: ')
    assert 'Password: ' not in someone.seen
    assert someone.ends() == 65
    assert naming in someone.seen


@pytest.mark.parametrize('args', [
    ['-a', 'missing.txt'], ['--body', '@missing.txt'],
    ['-t', 'nobody'], ['-c', 'nobody'], ['-H', 'Bad Name: x']],
    ids=lambda args: ' '.join(args))
def test_what_is_wrong_is_found_before_the_typing(
        person: Start, args: List[str]) -> None:
    """A file or an address that is wrong shows before the text is asked for.

    A file even before the password.
    """
    someone = person(*GIVEN['From'], '-s', 'Lunch', *args,
                     *([] if args[0] == '-t' else GIVEN['To']),
                     password='' if 'missing.txt' in args[1] else 'x')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == (66 if 'missing.txt' in args[1] else 65)
    assert 'Password:' not in someone.seen
    assert 'dot' not in someone.seen


def test_ctrl_d_ends_the_text(person: Start,
                              server: PracticeServer) -> None:
    """As it does everywhere else."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=PASSWORD)
    someone.asked('Text')
    someone.enters('Hello')
    someone.child.sendeof()
    assert someone.ends() == 0, someone.seen
    assert reading.read(server.messages[0].content).text == 'Hello\r\n'


@pytest.mark.parametrize('question', ['From', 'Password', 'To', 'Subject'])
@pytest.mark.parametrize('key', ['Ctrl-C', 'Ctrl-D'])
def test_giving_up(person: Start, question: str, key: str,
                   server: PracticeServer) -> None:
    """130 for Ctrl-C, a missing value for Ctrl-D; no traceback for either."""
    someone = person()
    for name, answer in (('From', ALICE), ('Password', 'x'), ('To', BOB),
                         ('Subject', 'x')):
        someone.asked(name)
        if name == 'Password':
            assert someone.child.waitnoecho(PATIENCE)
        if name == question:
            break
        someone.enters(answer)
    if key == 'Ctrl-C':
        someone.child.sendintr()
    else:
        someone.child.sendeof()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == (130 if key == 'Ctrl-C' else 64)
    assert 'Traceback' not in someone.seen
    assert not server.messages


def test_ctrl_c_while_typing_keeps_the_text(
        person: Start, tmp_path: pathlib.Path) -> None:
    """What was typed up to there is in a file, and nothing was sent."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=PASSWORD)
    someone.asked('Text')
    someone.enters('precious words')
    someone.sees('precious words\r\n')
    someone.is_read()
    someone.child.sendintr()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 130
    path, = tmp_path.glob('unsent-*')
    assert b'precious words' in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_before_typing_keeps_nothing(
        person: Start, tmp_path: pathlib.Path) -> None:
    """There is nothing that could be lost."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=PASSWORD)
    someone.asked('Text')
    someone.is_read()
    someone.child.sendintr()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 130
    assert not list(tmp_path.glob('unsent-*'))


@pytest.mark.parametrize('errors', ['strict', 'surrogateescape'])
def test_letters_of_another_character_set(
        errors: str, person: Start, server: PracticeServer
        ) -> None:
    """A terminal that sends Latin-1: refused, and no traceback."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=PASSWORD,
                     PYTHONIOENCODING=f'utf-8:{errors}')
    someone.asked('Text')
    os.write(someone.child.child_fd, b'Gr\xfc\xdfe\n.\n')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 65
    assert 'Traceback' not in someone.seen
    assert not server.messages


@pytest.mark.parametrize('errors', ['strict', 'surrogateescape'])
def test_an_answer_of_another_character_set(
        errors: str, person: Start, server: PracticeServer
        ) -> None:
    """The same for a subject."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Text'],
                     password=PASSWORD,
                     PYTHONIOENCODING=f'utf-8:{errors}')
    someone.asked('Subject')
    os.write(someone.child.child_fd, b'Gr\xfc\xdfe\n')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 65
    assert 'Traceback' not in someone.seen
    assert not server.messages


def test_a_dry_run_asks_for_no_password(person: Start,
                                        server: PracticeServer
                                        ) -> None:
    """Nobody needs one to look at a message."""
    someone = person('-n', *GIVEN['From'], *GIVEN['Subject'])
    someone.asked('To')
    someone.enters(BOB)
    someone.asked('Text')
    someone.enters('Hello')
    someone.enters('.')
    someone.sees('MIME-Version: 1.0')
    assert someone.ends() == 0
    assert 'Password' not in someone.seen
    assert not server.messages
