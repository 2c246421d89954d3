"""--explain: each step in the words of the source, each reply in plain words.

There is no second text: what is told before a step is the docstring of the
function that does it.
"""

import inspect
import re
from typing import List, Tuple

import pytest
from sessions import (
    EXPLAINED,
    GREETING,
    LETTER,
    LOGIN,
    NARRATION,
    ONE_BY_ONE,
    QUIT,
    SECOND_EHLO,
    SESSION,
    Play,
    on_one_line,
    told,
)

import smtp


def paragraphs(transcript: str) -> List[List[str]]:
    """Return each run of narration lines, without the dashes."""
    blocks: List[List[str]] = [[]]
    for line in transcript.split('\n'):
        if re.match(r'-- \S', line):
            blocks[-1].append(line[3:])
        elif blocks[-1]:
            blocks.append([])
    return blocks[:-1] if not blocks[-1] else blocks


def steps_of_the_session() -> List[Tuple[str, str]]:
    """Return the functions that the module docstring puts beside its lines.

    Each with the beginning of its line: ('C: MAIL', 'send_envelope').
    """
    session = (smtp.__doc__ or '').partition('Contents')[0]
    found = {name: '' if line.startswith('(') else ' '.join(line.split()[:2])
             for line, name in reversed(re.findall(
                 r'(?m)^    (\S.*?) {2,}([a-z]+_[a-z_]+)\b', session))}
    assert len(found) >= 8
    return [(line, name) for name, line in found.items()]


@pytest.fixture
def explained(play: Play) -> str:
    """The transcript of a session with --explain."""
    done, _ = play(EXPLAINED, '--explain', *LETTER, password='open sesame')
    assert done.returncode == 0
    return str(done.stderr)


@pytest.mark.parametrize(
    'name', sorted(name for _, name in steps_of_the_session()))
def test_explanation_is_the_docstring(name: str, explained: str) -> None:
    """Source and demo teach in the same words: there is no second text."""
    document = inspect.getdoc(getattr(smtp, name)) or ''
    beginnings = [
        on_one_line(' '.join(document.split('\n\n')[:number]))
        for number in range(1, 1 + document.count('\n\n'))]
    found = [block for block in paragraphs(explained)
             if on_one_line(' '.join(block)) in beginnings]
    assert found, f'{name} is not explained'
    for block in found:
        assert re.search(r'RFC \d{4},? sections? \d', ' '.join(block)), block
        assert len(block) <= 3, block


def test_steps_are_explained_in_order(explained: str) -> None:
    """Each explanation comes before the first line of its step."""
    text = on_one_line(explained.replace('\n-- ', ' '))
    for line, name in steps_of_the_session():
        document = inspect.getdoc(getattr(smtp, name)) or ''
        summary = document.split('\n')[0]
        if line:
            assert text.index(summary) < text.index(line)


@pytest.mark.parametrize('tls', ['starttls', 'implicit'])
def test_narration_fits_a_terminal(tls: str, play: Play) -> None:
    """Short lines, readable in a lecture hall."""
    session = EXPLAINED
    if tls == 'implicit':
        session = '-- TLS begins\n' + GREETING + SECOND_EHLO + LOGIN \
            + ONE_BY_ONE + QUIT
    done, _ = play(session, '--explain', '--tls', tls, *LETTER,
                   password='open sesame')
    lines = NARRATION.findall(done.stderr)
    assert len(lines) > 30
    assert [line for line in lines if len(line) > 80] == []
    if tls == 'implicit':
        assert 'RFC 8314' in done.stderr


def test_extensions_in_words(explained: str) -> None:
    """Each extension is explained once, and then what TLS has changed."""
    first, second = (
        part.partition('\nC: ')[0]
        for part in explained.split('C: EHLO client.example.com\n')[1:])
    for keyword, words in [
            ('SIZE', '150 M'), ('PIPELINING', 'commands'),
            ('ENHANCEDSTATUSCODES', 'code'), ('STARTTLS', 'encrypt')]:
        assert re.search(rf'(?m)^-- .*\b{keyword}\b.*{words}', first)
    changed = told(second)
    for wanted in 'AUTH', 'STARTTLS', 'LOGIN PLAIN XOAUTH2', 'RFC 3207':
        assert wanted in changed
    for same in 'SIZE', 'PIPELINING', 'ENHANCEDSTATUSCODES':
        assert same not in changed, f'{same} has not changed'


@pytest.mark.parametrize('offer, wanted, unwanted', [
    ('SIZE 0', '(?i)no (fixed )?(limit|maximum)|any size', '0 M'),
    ('SIZE', r'(?i)SIZE', 'None|nan'),
    ('SIZE 500000', '500[ ,.]?000|500 k|488 K', r'\b0 M'),
    ('SIZE 35882577', r'\b3[45] M', '34[.]2'),
    ('X-ANONYMOUSTLS', 'X-ANONYMOUSTLS.*not known', '$^'),
    ('8BITMIME', 'ASCII', '$^'), ('SMTPUTF8', 'ASCII', '$^'),
    ('DSN', 'RFC 3461', '$^'), ('CHUNKING', 'BDAT', '$^'),
    ('BINARYMIME', 'octets', '$^'), ('AUTH=LOGIN', r'AUTH\b.*log in', '$^'),
    ('VRFY', 'RFC 5321', '$^'), ('HELP', 'RFC 5321', '$^'),
    ('ETRN', 'RFC 1985', '$^')])
def test_extension_in_words(offer: str, wanted: str, unwanted: str,
                            play: Play) -> None:
    """What an extension means, its parameter included."""
    done, _ = play(
        GREETING + 'C: EHLO client.example.com\nS: 250-mail.example.com\n'
        f'S: 250 {offer}\n' + QUIT, '--explain', '--tls', 'none',
        '-q', 'ehlo')
    words = told(done.stderr, f'S: 250 {offer}')
    assert re.search(wanted, words), words
    assert not re.search(unwanted, words), words


YES, GO_ON, LATER, NO = 'yes', 'go on', '(?i)not now|later', r'\bno\b'


@pytest.mark.parametrize('reply, verdict, about, status', [
    ('250 2.1.5 fine', YES, 'mail', 'address'),
    ('251 2.1.5 Will forward', YES, 'mail', 'address'),
    ('450 4.2.1 busy', LATER, 'mail', 'mailbox'),
    ('451 4.3.0 busy', LATER, 'mail', 'mail system'),
    ('452 4.4.5 busy', LATER, 'mail', 'network'),
    ('550 5.1.1 unknown', NO, 'mail', 'address'),
    ('501 5.5.4 syntax', NO, 'syntax', 'protocol'),
    ('503 5.5.1 sequence', NO, 'syntax', 'protocol'),
    ('530 5.7.0 login', NO, 'login', 'security|policy'),
    ('554 5.6.0 content', NO, 'mail', 'message|content'),
    ('550 no status', NO, 'mail', '')])
def test_reply_in_words(reply: str, verdict: str, about: str, status: str,
                        play: Play) -> None:
    """What the three digits mean, and the enhanced status code."""
    done, _ = play(
        GREETING + 'C: EHLO client.example.com\nS: 250 mail.example.com\n'
        'C: MAIL FROM:<alice@example.com>\nS: 250 ok\n'
        f'C: RCPT TO:<bob@example.org>\nS: {reply}\n' + QUIT,
        '--explain', '--tls', 'none', '-q', 'rcpt', *LETTER)
    words = told(done.stderr, f'S: {reply}')
    code, *rest = words.partition(status and reply.split()[1] or '\0')
    assert re.search(verdict, code) and re.search(about, code), words
    assert re.search(status, rest[-1]), words
    assert ('3463' in words) == bool(status)


def test_status_without_subject(explained: str) -> None:
    """X.0.Z says nothing more (RFC 3463 section 3.1), nor is more made up."""
    assert 'about anything else' not in told(explained, '2.0.0 Queued')


def test_base64_is_no_encryption(explained: str) -> None:
    """It is said where base64 is seen first, and once."""
    words = told(explained, 'S: 334', 'S: 235')
    assert re.search('base64.*(no|not) encrypt', words), words


def test_without_explain_nothing_is_explained(play: Play) -> None:
    """-v alone is the wire, and where TLS begins."""
    done, _ = play(SESSION, '-v', *LETTER, password='open sesame')
    assert 1 <= len(NARRATION.findall(done.stderr)) <= 3
    assert 'RFC' not in done.stderr
