"""The one check of how smtp.py ended: code, verdict, words, secrets.

`ended_well` holds for every end; `check` adds what a test knows of this one.
"""

from __future__ import annotations

import base64
import re
import traceback
import unicodedata
from typing import Any, Iterator

from support.cli import ADVICE, VERDICT, Result, on_one_line

SENT, USAGE, MESSAGE, FILE, RECIPIENT = 0, 64, 65, 66, 67
NO_HOST, REFUSED, FAULT, UNKNOWN, LATER = 68, 69, 70, 74, 75
PROTOCOL, LOGIN, SETTINGS, INTERRUPTED = 76, 77, 78, 130

#: The secrets of these tests; none of them may ever appear.
SECRETS = ('open-sesame', 'practice-token', 'open sesame, please',
           'Zq7-hunter2!')


def check(result: Result, code: int, *words: str, absent: Any = (),
          who: str = '', secrets: Any = SECRETS) -> None:
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


def says(word: str, text: str) -> bool:
    """Find words as they are, or as a regular expression on one line."""
    one_line = on_one_line(text)
    return (word in text or on_one_line(word) in one_line
            or bool(re.search(word, one_line)))


def ended_well(result: Result, secrets: Any = SECRETS) -> None:
    """One verdict that agrees with code and stream; nothing that leaks."""
    wanted = {SENT: ('Sent to ', 'Connection accepted: ', 'Login accepted: '),
              UNKNOWN: ('smtp.py: May have been sent: ',)}.get(
                  result.code, ('smtp.py: Not sent: ',))
    out, err = VERDICT.findall(result.text), VERDICT.findall(result.err)
    everything = result.text + result.err
    assert out + err and len(out + err) == 1, everything
    assert (out + err)[0] in wanted, everything
    assert bool(out) == (result.code == SENT), everything
    assert bool(result.out) == bool(out), everything
    assert len(ADVICE.findall(result.said)) <= 1, result.err
    harmless(everything, secrets)


def harmless(text: str, secrets: Any = SECRETS) -> None:
    """No traceback, nothing that a terminal obeys, and no secret."""
    for sign in ('Traceback (most', 'Exception ignored', 'Warning: '):
        assert sign not in text, text
    obeyed = {unicodedata.category(character) for character in text
              if character != '\n'} & {'Cc', 'Cf', 'Cs', 'Zl', 'Zp'}
    assert not obeyed, ascii(text)
    hidden([text], *secrets)


def hidden(outputs: Any, *secrets: str) -> None:
    """The secrets are in none of the outputs, in no form."""
    for secret in secrets:
        for form in forms(secret):
            for output in outputs:
                assert form not in output, f'{secret}: {output}'


def forms(secret: str) -> Iterator[str]:
    """Yield a secret, and how it begins in base64."""
    encoded = base64.b64encode(secret.encode()).decode()
    yield from (secret, encoded[:-4] or encoded)  # its end may be cut off


def all_of(error: BaseException) -> Iterator[str]:
    """Yield all that a logger might print of an error, and of its causes."""
    yield ''.join(traceback.format_exception(
        type(error), error, error.__traceback__))
    cause: BaseException | None = error
    seen = []
    while cause and cause not in seen:
        seen.append(cause)
        yield from (str(cause), repr(cause), repr(cause.args),
                    repr(vars(cause)), repr(getattr(cause, 'object', '')))
        cause = cause.__cause__ or cause.__context__
