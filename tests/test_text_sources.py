"""The text of a mail: from an option, a file or a pipe, in UTF-8 or UTF-16."""

import io
import pathlib
import sys
from typing import Any

import pytest
import reading
from calling import BASIC, Call, not_sent, text_of

TEXTS = [
    (b'Hello\nBob', 'Hello\r\nBob\r\n'), (b'', ''),
    ('Grüße\r\n'.encode(), 'Grüße\r\n'), (b'.\n..\n', '.\r\n..\r\n'),
    (b'\xef\xbb\xbfbom', 'bom\r\n'),
    ('a\u2028b\x0b'.encode(), 'a\u2028b\v\r\n'),
    ('\ufeffgrün\n'.encode('utf-16-le'), 'grün\r\n'),
    ('\ufeffgrün\n'.encode('utf-16-be'), 'grün\r\n'), (b'a\0b', 'a\0b\r\n')]


@pytest.mark.parametrize('octets, text', TEXTS)
def test_text_from_a_pipe_or_a_file(call: Call, octets: bytes, text: str,
                                    tmp_path: pathlib.Path) -> None:
    """UTF-8 with or without a mark, or UTF-16 with one; it is all the same."""
    assert text_of(call('-n', *BASIC, input=octets)) == text
    assert text_of(call('-n', *BASIC, '--body', '-', input=octets)) == text
    path = tmp_path / 'text file.txt'
    path.write_bytes(octets)
    assert text_of(call('-n', *BASIC, '--body', f'@{path}',
                        input=b'not this')) == text


@pytest.mark.parametrize('text', ['', ' ', '-x', '---', 'a@b', 'a\nb', '"'])
def test_text_from_the_option(call: Call, text: str) -> None:
    """Only a leading @ and a lone hyphen mean something else."""
    done = call('-n', *BASIC, f'--body={text}', input=b'not this')
    assert text_of(done) == reading.normal(text)


@pytest.mark.parametrize('octets, offset', [
    (b'\xff', 0), (b'Gr\xfc\xdfe', 2), (b'x' * 100_000 + b'\xe9', 100_000),
    ('é'.encode() + b'\xed\xa0\x80', 2), (b'abc\xe2\x82', 3),
    (b'\xff\xfeab\x00\xd8', 4)])
def test_text_that_is_not_utf_8(call: Call, octets: bytes, offset: int,
                                tmp_path: pathlib.Path) -> None:
    """65, with the offset of the first octet that is wrong."""
    path = tmp_path / 'latin.txt'
    path.write_bytes(octets)
    for done in (call('-n', *BASIC, input=octets),
                 call('-n', *BASIC, '--body', f'@{path}')):
        not_sent(done, 65, 'UTF', f'offset {offset}')


def test_no_standard_input_at_all(call: Call,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """As under some schedulers: the text is empty."""
    class Gone:
        def TextIOWrapper(self, *_: Any, **__: Any) -> None:
            return None
        BytesIO = io.BytesIO
    monkeypatch.setattr(sys.modules[__name__], 'io', Gone())
    assert text_of(call('-n', *BASIC)) == ''
