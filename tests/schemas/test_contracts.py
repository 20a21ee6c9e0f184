"""The generated documents: current, complete, and true."""

from __future__ import annotations

import json

import jsonschema
import msgspec
import pytest

from runtime.clock import ManualClock
from runtime.dead_letters import DeadLetters
from runtime.records import Record
from schemas import contracts, examples


def test_what_is_checked_in_is_current(tmp_path):
    """`exitstream schemas generate` would change nothing."""
    written = {path.name: path.read_bytes() for path in contracts.generate(tmp_path)}

    assert {path.name: path.read_bytes() for path in contracts.GENERATED.iterdir()} == written


@pytest.mark.parametrize("message", [*examples.FULL, *examples.SMALLEST], ids=lambda message: type(message).__name__)
def test_examples_keep_their_schema(message):
    """Every example is valid by its JSON Schema, and the schema itself is valid."""
    schema = contracts.json_schema(type(message))

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(msgspec.to_builtins(message, builtin_types=()), schema)


@pytest.mark.parametrize("missing", ["type", "event_id", "user_id", "item_id", "kind", "event_time_ms"])
def test_the_schema_refuses_what_the_decoder_refuses(missing):
    """Readers outside reject a record without a required field, as we do."""
    click = msgspec.to_builtins(examples.FULL[0])
    del click[missing]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(click, contracts.json_schema(type(examples.FULL[0])))


def test_every_reference_of_the_asyncapi_document_resolves():
    """No `$ref` leads nowhere."""
    document = contracts.asyncapi()
    references = list(_references(document))

    assert references
    for reference in references:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_examples_of_the_asyncapi_document_keep_its_schemas():
    """The payload shown for each message is valid by the schema that the document gives for it."""
    document = json.loads(json.dumps(contracts.asyncapi()))
    shown = {name: message for name, message in document["components"]["messages"].items() if "examples" in message}

    assert len(shown) == len(contracts.MESSAGES)
    for message in shown.values():
        schema = {**message["payload"], "components": document["components"]}
        for example in message["examples"]:
            jsonschema.validate(example["payload"], schema)


def test_every_message_travels_on_exactly_one_topic():
    """The document covers all messages, and each input has a dead-letter channel."""
    document = contracts.asyncapi()
    inputs = {channel.topic for channel in contracts.CHANNELS if channel.action == "receive"}

    assert {channel.message for channel in contracts.CHANNELS} == set(contracts.MESSAGES)
    assert inputs == {name.removesuffix(".dead-letter") for name in document["channels"] if "dead-letter" in name}


def test_the_headers_of_dead_letters_are_those_that_are_written():
    """The document names exactly the headers that every dead letter carries, and what only some carry."""
    letters = DeadLetters("updater", ".dead-letter", ManualClock())
    letter = letters.letter(Record(topic="items", partition=0, offset=7, key=b"k", value=b"?"), "not an item")
    of_nothing = letters.letter(Record(topic="items", partition=0, offset=8, key=None, value=None), "not an item")

    described = contracts.asyncapi()["components"]["schemas"]["DeadLetterHeaders"]
    assert {name for name, _ in letter.headers} == set(described["required"])
    assert {name for name, _ in of_nothing.headers} == set(described["properties"])


def _references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
