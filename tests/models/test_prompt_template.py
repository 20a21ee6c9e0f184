"""The words of a prompt: what makes a template, and what is refused by name."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.prompt_template import (
    BUILT_IN,
    MOST_CHARACTERS,
    TERSE,
    WORDS,
    PromptTemplate,
    read_template,
    write_template,
)
from runtime.errors import PromptTemplateError

TEXTS = [name for name in PromptTemplate.__struct_fields__ if name not in {"name", "empty_headings", "sum_lines"}]


def changed(**texts):
    """The template in words with other texts."""
    return PromptTemplate(**(msgspec.structs.asdict(WORDS) | texts))


@pytest.mark.parametrize("template", BUILT_IN.values(), ids=list(BUILT_IN))
def test_a_template_is_read_as_it_was_written(template, tmp_path):
    """Every text is in the file, so that no other program's own texts take its place."""
    write_template(template, tmp_path / "prompt.json")
    assert read_template(tmp_path / "prompt.json") == template
    written = set(json.loads((tmp_path / "prompt.json").read_text()))
    assert written | {"sum_lines"} == set(PromptTemplate.__struct_fields__)
    assert ("sum_lines" in written) is template.sum_lines  # releases from before it read all other templates


@pytest.mark.parametrize("name", [*TEXTS, "empty_headings"])
def test_a_file_of_a_bundle_lacks_nothing(name, tmp_path):
    """A text that is missing is named."""
    content = msgspec.structs.asdict(WORDS)
    del content[name]
    (tmp_path / "prompt.json").write_text(json.dumps(content))
    with pytest.raises(PromptTemplateError, match=name):
        read_template(tmp_path / "prompt.json")


def test_a_file_that_would_not_end_is_not_read(tmp_path):
    """Its size is looked at first."""
    (tmp_path / "prompt.json").write_text(" " * 100_000)
    with pytest.raises(ValueError, match="larger than"):
        read_template(tmp_path / "prompt.json")


@pytest.mark.parametrize("name", TEXTS)
def test_an_unknown_placeholder_is_named(name):
    """With the text that it stands in, and those that would be known there."""
    with pytest.raises(PromptTemplateError, match=rf"{name} .*there is no \{{age\}} here; its placeholders are"):
        changed(**{name: "{age}" + getattr(WORDS, name)})


@pytest.mark.parametrize(
    ("name", "placeholder"),
    [
        *(("user", "user"), ("past", "answer"), ("title", "title"), ("similar_past", "answer"), ("voter", "answer")),
        *(("votes", "count"), ("votes", "positive"), ("attribute", "count"), ("attribute", "positive")),
        *(("candidate", "title"), ("question", "statistics")),
    ],
)
def test_a_missing_placeholder_is_named(name, placeholder):
    """A text without the evidence that it is there for would tell the same of everything."""
    whole = getattr(TERSE, name) if name == "voter" else getattr(WORDS, name)
    with pytest.raises(PromptTemplateError, match=rf"{name} .*lacks \{{{placeholder}\}}"):
        changed(**{name: whole.replace(f"{{{placeholder}}}", "") + " some"})


def test_a_similar_item_is_told_by_its_embedding_or_by_its_title():
    """Either does; with neither, all would read the same."""
    assert changed(similar_item="{item}\n").similar_item == "{item}\n"
    assert changed(similar_item="{title}\n").similar_item == "{title}\n"
    with pytest.raises(PromptTemplateError, match=r"similar_item .*lacks \{item\} or \{title\}"):
        changed(similar_item="another\n")


@pytest.mark.parametrize("name", TEXTS)
def test_what_may_be_left_out_is_empty(name):
    """Title, answers, candidate and question may not."""
    if name in {"title", "positive", "negative", "candidate", "question"}:
        with pytest.raises(PromptTemplateError, match=f"{name} is empty"):
            changed(**{name: ""})
    else:
        assert getattr(changed(**{name: ""}), name) == ""


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{item.__class__}{title}",
            "{item[0]}{title}",
            "{item!r}{title}",
            "{item:>9}{title}",
            "{}{title}",
            "{0}{title}",
        ),
        *("{{title}}{title}", "{title", "title}{title}", "{title}{", "{Item}{title}", "%(item)s{title}{"),
    ],
)
def test_nothing_but_plain_placeholders_is_read(text):
    """No attribute, index, conversion or format; a brace is either part of a placeholder or an error."""
    with pytest.raises(PromptTemplateError, match="candidate"):
        changed(candidate=text)


def test_a_placeholder_stands_once():
    """Two soft tokens of the same item would tell nothing new."""
    with pytest.raises(PromptTemplateError, match=r"names \{item\} twice"):
        changed(past="{item}{item} {answer}")


def test_the_question_ends_where_the_answer_is_read():
    """Nothing follows the statistics."""
    with pytest.raises(PromptTemplateError, match=r"end with \{statistics\}"):
        changed(question="{statistics}?")


def test_a_click_and_none_read_differently():
    """The same word for both would hide what the user did."""
    with pytest.raises(PromptTemplateError, match="both 'seen'"):
        changed(positive="seen", negative="seen")


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "a\x00b", "a\tb"])
def test_control_characters_are_refused(text):
    """A prompt is printed; only line breaks are of use in it."""
    with pytest.raises(PromptTemplateError, match="control character"):
        changed(instruction=text)
    with pytest.raises(PromptTemplateError, match="control character"):
        changed(name=text)


def test_a_text_has_an_end(tmp_path):
    """The limit is told, with the place."""
    content = msgspec.structs.asdict(WORDS) | {"instruction": "x" * (MOST_CHARACTERS + 1)}
    (tmp_path / "prompt.json").write_text(json.dumps(content))
    with pytest.raises(PromptTemplateError, match=r"<= 1000.*instruction"):
        read_template(tmp_path / "prompt.json")


@given(name=st.sampled_from(TEXTS), text=st.text(alphabet="{}itleanswru_.[]!:\n\x1b ", max_size=30))
def test_any_text_is_a_template_or_one_line(name, text):
    """Whatever stands in it, nothing but a `PromptTemplateError` is raised, without line breaks."""
    try:
        changed(**{name: text})
    except PromptTemplateError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any number of texts are right as well
