"""Secrets in the tests: how they are handed over and looked for everywhere."""

import base64
import re
import shlex
import sys
import traceback
from typing import Any, Iterator, List

from posting import ALICE, BOB, Done, Post, call

MAIL = ['--from', ALICE, '--to', BOB, '--subject', 'Hello', '--body', 'Hello']


def send(post: Post, *options: str, **env: str) -> Done:
    """Send a mail with no secret but what the test gives."""
    return call(*post.options, *MAIL, *options, env=env)


def python(code: str) -> str:
    """Return the command that runs this Python program."""
    return shlex.join([sys.executable, '-I', '-S', '-c', code])


def xoauth2(token: str) -> bytes:
    """Return what has to be behind the base64 of a client's response."""
    return f'user={ALICE}\1auth=Bearer {token}\1\1'.encode()


def forms_of(secret: str) -> Iterator[str]:
    """Yield what any base64 of a text with this secret in it has in common."""
    yield secret
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret.encode()).decode()
        # the first and the last four characters depend on what is around
        yield encoded[4 if before else 0:-4]


def assert_secret(secret: str, *outputs: str) -> None:
    """The secret is in no output, in no form."""
    for output in outputs:
        for form in forms_of(secret):
            assert form not in output


def assert_printable(text: str) -> None:
    """Nothing in it that a terminal would obey."""
    for line in text.split('\n'):
        assert line.isprintable(), ascii(line)


def assert_refused(done: Done, code: int, *words: str) -> None:
    """smtp.py has one verdict, and these words to say."""
    assert done.code == code, done.errors
    assert done.output == b''
    verdicts = re.findall(r'(?m)^(Sent to|smtp\.py: (?!note)[\w ]+: )',
                          done.errors)
    assert verdicts == ['smtp.py: Not sent: ']
    for word in words:
        assert word in done.errors, done.errors
    assert_printable(done.errors)


def everything(error: BaseException) -> Iterator[str]:
    """Yield all that a logger might print of an error, and of its causes."""
    yield ''.join(traceback.format_exception(type(error), error,
                                             error.__traceback__))
    seen: List[BaseException] = []
    following: Any = error
    while following and following not in seen:
        seen.append(following)
        yield repr(following)
        yield str(following)
        yield repr(following.args)
        yield repr(vars(following))
        if isinstance(following, UnicodeError):
            yield repr(getattr(following, 'object', ''))
        following = following.__cause__ or following.__context__
