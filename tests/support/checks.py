"""The one check of how smtp.py ended: code, verdict, words, secrets."""

import base64
import re
import traceback
import unicodedata

from support.cli import ADVICE, VERDICT, on_one_line

SENT, USAGE, MESSAGE, FILE, RECIPIENT = 0, 64, 65, 66, 67
NO_HOST, REFUSED, UNKNOWN, LATER = 68, 69, 74, 75
PROTOCOL, LOGIN, SETTINGS = 76, 77, 78

#: The secrets of these tests; none of them may ever appear.
SECRETS = ('open-sesame', 'practice-token', 'open sesame, please',
           'Zq7-hunter2!')


def check(result, code, *words, absent=(), who='', secrets=SECRETS):
    """Check how smtp.py ended: with this code, and the verdict that fits.

    `words` are what the error says, or the success with its notes, `absent`
    what it does not say, `who` whose turn it is (You, Your administrator,
    Wait), `secrets` what must not appear in any form.
    """
    assert result.code == code, f'{result.code}: {result.text}{result.err}'
    ended_well(result, secrets)
    said = result.said + (result.text if code == SENT else '')
    for word in words:
        assert says(word, said), f'{word!r} is not in: {said}'
    for word in [absent] if isinstance(absent, str) else absent:
        assert not says(word, said), f'{word!r} is in: {said}'
    if who:
        assert ADVICE.findall(said) == [who], said


def says(word, text):
    """Find words as they are, or as a regular expression on one line."""
    one_line = on_one_line(text)
    return (word in text or on_one_line(word) in one_line
            or bool(re.search(word, one_line)))


def ended_well(result, secrets=SECRETS):
    """Check what holds for every end: one verdict, its stream, no leak."""
    wanted = {SENT: ('Sent to ', 'Connection accepted: ', 'Login accepted: '),
              UNKNOWN: ('smtp.py: May have been sent: ',)}.get(
                  result.code, ('smtp.py: Not sent: ',))
    out, err = VERDICT.findall(result.text), VERDICT.findall(result.err)
    everything = result.text + result.err
    assert len(out + err) == 1 and (out + err)[0] in wanted, everything
    assert bool(result.out) == bool(out) == (result.code == SENT), everything
    assert len(ADVICE.findall(result.said)) <= 1, result.err
    harmless(everything, secrets)


def harmless(text, secrets=SECRETS):
    """No traceback, nothing that a terminal obeys, and no secret."""
    for sign in ('Traceback (most', 'Exception ignored', 'Warning: '):
        assert sign not in text, text
    obeyed = {unicodedata.category(character) for character in text
              if character != '\n'} & {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
    assert not obeyed, ascii(text)
    hidden([text], *secrets)


def hidden(outputs, *secrets):
    """The secrets are in none of the outputs, nor in base64."""
    for secret in secrets:
        encoded = base64.b64encode(secret.encode()).decode()
        for form in (secret, encoded[:-4] or encoded):  # it may be cut off
            for output in outputs:
                assert form not in output, f'{secret}: {output}'


def all_of(error):
    """Yield all that a logger might print of an error, and of its causes."""
    yield ''.join(traceback.format_exception(
        type(error), error, error.__traceback__))
    cause, seen = error, []
    while cause and cause not in seen:
        seen.append(cause)
        yield from (str(cause), repr(cause), repr(cause.args),
                    repr(vars(cause)), repr(getattr(cause, 'object', '')))
        cause = cause.__cause__ or cause.__context__
