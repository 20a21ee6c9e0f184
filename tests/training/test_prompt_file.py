"""The prompt that a user asks for, by name or in a file."""

from __future__ import annotations

import json

import msgspec
import pytest

from models.prompt_template import TERSE, WORDS
from runtime.errors import PromptTemplateError
from training.presets import DEMO, PRETRAINED
from training.prompt_file import with_prompt


def refusal(path, content):
    """The line in which a file ends."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(PromptTemplateError) as raised:
        with_prompt(DEMO, str(path))
    line = str(raised.value)
    assert line.startswith(f"--prompt {path}: ")
    assert "\n" not in line
    return line


def test_a_built_in_template_goes_by_its_name():
    """The limits stay as the preset has them."""
    assert with_prompt(PRETRAINED, "terse").template == TERSE
    assert with_prompt(DEMO, "words").template == WORDS
    assert with_prompt(DEMO, "words").limits == DEMO.limits


def test_a_file_changes_what_it_names(tmp_path):
    """Other texts are those of the template in words, other limits those of the preset; its name is the file's."""
    path = tmp_path / "books.toml"
    path.write_text(
        'question = "Will they buy it?{statistics}"\npositive = "bought"\n'
        "[limits]\nsuffix_tokens = 80\nrecent_items = 5\n"
    )
    found = with_prompt(PRETRAINED, str(path))
    assert found.template == msgspec.structs.replace(
        WORDS, name="books", question="Will they buy it?{statistics}", positive="bought"
    )
    assert (found.limits.suffix_tokens, found.limits.recent_items) == (80, 5)
    assert found.limits.title_tokens == PRETRAINED.limits.title_tokens
    assert found.exits == PRETRAINED.exits


def test_a_file_may_start_from_another_template_and_be_json(tmp_path):
    """`based_on` names it."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"based_on": "terse", "name": "short", "positive": "ja"}))
    assert with_prompt(DEMO, str(path)).template == msgspec.structs.replace(TERSE, name="short", positive="ja")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"questoin": "?"}, "there is no text 'questoin'; there are name, instruction,"),
        ({"question": "?"}, "question '?' lacks {statistics}"),
        ({"past": "{age} {answer}"}, "there is no {age} here; its placeholders are {answer}, {item}, {title}"),
        ({"past": 3}, "$.past"),
        ({"based_on": "poem"}, "based_on 'poem' is unknown; there are terse, words"),
        ({"based_on": ["words"]}, "based_on ['words'] is unknown"),
        ({"limits": {"horoscopes": 3}}, "there is no limit 'horoscopes'; there are recent_items,"),
        ({"limits": {"recent_items": -1}}, "limits: Expected `int` >= 0"),
        ({"limits": 3}, "limits: Expected `object`"),
        ([], "it is a list or a single value"),
        ("{", "it is no JSON"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, content, told):
    """With the file, in one line."""
    assert told in refusal(tmp_path / "mine.json", content)


def test_a_file_that_is_no_toml_is_told(tmp_path):
    """By the parser's words, with the line."""
    assert "it is no TOML: " in refusal(tmp_path / "mine.toml", "a = [")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PromptTemplateError, match="no TOML"):
        with_prompt(DEMO, str(tmp_path / "bytes.toml"))


def test_a_name_that_is_none_tells_those_that_are():
    """A mistyped name is taken for a file that is not there."""
    with pytest.raises(PromptTemplateError, match=r"--prompt wrods: No such file.*terse, words, compact, or a file"):
        with_prompt(DEMO, "wrods")
