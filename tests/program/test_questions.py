"""At a terminal, by data/questions.ini: what is asked, and never shown."""

import os
import re
import shlex
import sys

import pytest

from support import checks, judges, practice_server, tables
from support.post import ALICE, BASIC, BOB, PASSWORD

GIVEN = {'From': ['-f', ALICE], 'To': ['-t', BOB], 'Subject': ['-s', 'Lunch'],
         'Text': ['--body', 'Hello'], 'Password': []}
ALL = list(GIVEN)


def types(someone, keys):
    """Type keys, once the program waits for them."""
    octets = keys.encode('latin-1', 'backslashreplace').decode(
        'unicode_escape').encode('latin-1')
    if keys[0] in '*^':                 # ^: ended by Ctrl-D, twice
        count, _, what = keys[1:].partition(' ')
        octets = int(count) * what.encode() + (
            b'\n' if keys[0] == '*' else b'\x04\x04')
    someone.is_read()
    os.write(someone.child.child_fd, octets)


def begin(sit, post, lacks, *args, **more):
    """Run smtp.py without what these questions ask for."""
    given = [word for name in GIVEN if name not in lacks
             for word in GIVEN[name]]
    return sit(*post.options, *given, *args, columns=500, **more,
               password=None if 'Password' in lacks else PASSWORD)


@pytest.mark.parametrize('row', [
    pytest.param(row, id=name) for name, row in tables.read('questions')])
def test_row(row, sit, post):
    """Each case: what is asked, seen, and sent."""
    someone = begin(sit, post, row.get('lacks', ''),
                    *shlex.split(row.get('args', '')))
    for line in filter(None, row.get('does', '').split('\n')):
        question, arrow, keys = line.rpartition('=> ')
        if not arrow:
            someone.sees(line.partition(' ')[2])
        elif question:
            someone.asked(question.strip())
        if arrow:
            types(someone, keys)
    if 'may have cut' in row.get('does', ''):
        someone.child.sendeof()     # it may ask again
    result = someone.ends()
    assert result.code == int(row.get('exit', 0)), result.err
    assert 'not' not in row or not re.search(row['not'], result.err)
    texts = [judges.read(message.content).text for message in post.messages]
    assert texts == ([] if 'exit' in row or row.get('text') == '-' else [
        judges.normal(row.get('text', 'Hello'))])
    checks.hidden([result.err], PASSWORD)


def test_all_questions_in_order(sit, post, monkeypatch):
    """From, To, Subject, the text up to the dot, and the password last."""
    monkeypatch.setattr(practice_server, 'PASSWORD', '6Xcf§5c€ä')
    # Before Python 3.10 a C locale has no passwords beyond ASCII.
    someone = begin(sit, post, ALL, env={
        'LC_ALL': 'C' if sys.version_info >= (3, 10) else 'C.UTF-8'})
    someone.answers('From', f'Alice <{ALICE}>')
    someone.answers('To', f'Bób <{BOB}>, carol@example.org')
    someone.answers('Subject', 'Grüße')
    someone.sees('Text[^\r\n]* dot[^\r\n]*[\r\n]')
    someone.enters('x' * 4094, 'ü' * 2047, '', '..', ' .', '.')
    someone.types_hidden('6Xcf§5c€ä', f'Password for {ALICE} at localhost')
    someone.sees('Sent to bob@example.org, carol@example.org: 250 ')
    checks.hidden([someone.ends().err], '6Xcf§5c€ä')
    mail = judges.read(post.only().content)
    assert (mail.sender, mail.to) == (
        [('Alice', ALICE)], [('Bób', BOB), ('', 'carol@example.org')])
    assert (mail.subject, mail.text) == ('Grüße', '\r\n'.join(
        ['x' * 4094, 'ü' * 2047, '', '..', ' .', '']))


@pytest.mark.parametrize('args, piped', [
    (BASIC, ''), (['--message=-'], f'From: {ALICE}\\nTo: {BOB}\\n\\n')])
def test_the_password_beside_a_pipe(args, piped, sit, post):
    """The text comes from the pipe, the password from the person."""
    someone = sit(*post.options, *args,
                  shell=f"printf '{piped}from the pipe\\n.\\n' | {{}} | cat")
    someone.types_hidden(PASSWORD)
    assert someone.ends().code == 0
    assert b'from the pipe\r\n.\r\n' in post.only().content


@pytest.mark.parametrize('key, code', [('\x04', 64), ('\x03', 130)])
@pytest.mark.parametrize('question', ALL)
def test_giving_up(question, key, code, sit, post):
    """130 for Ctrl-C, a missing value for Ctrl-D; but see [empty]."""
    someone = begin(sit, post, question)
    someone.asked(question)
    types(someone, key)
    if (question, key) != ('Text', '\x04'):
        result = someone.ends()
        assert (result.code, post.messages) == (code, []), result.err
        assert re.search('(?m)^smtp.py: Not sent: ', result.err), 'not alone'


def test_nowhere_to_ask(sit, folder, post):
    """Without standard error, a question is not part of the result."""
    someone = begin(sit, post, ['To'], shell='{} 2>&- > result; echo ended')
    someone.enters(BOB)
    someone.sees('ended')
    result = (folder / 'result').read_text(encoding='utf-8')
    assert result.startswith(f'Sent to {BOB}: ')
    post.only()
