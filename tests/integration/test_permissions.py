"""The programs on a broker with an authorizer: with exactly the permissions they need, and without any one of them."""

from __future__ import annotations

import asyncio
import re
import time
from itertools import count
from pathlib import Path

import acls
import pytest
from secure_programs import PATIENCE_S, Command

from runtime.kafka import RecordSink, TopicFollower
from runtime.records import OutRecord
from schemas.codec import encode, headers_for
from schemas.messages import ImpressionRequest, Interaction, Item

pytestmark = [pytest.mark.docker, pytest.mark.slow]
_numbers = count()


@pytest.fixture(scope="module")
def client(secure_kafka, tmp_path_factory, tiny_bundle_folder):
    """Topics made by the operator's command; settings of a client of the system."""
    operator = secure_kafka.grant("operator", acls.OPERATOR)
    folder = tmp_path_factory.mktemp("operator")
    with Command(["topics", "create"], operator, folder, tiny_bundle_folder) as command:
        assert command.ended() == 0, command.output
    return secure_kafka.grant("client", acls.CLIENT)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_exactly_the_permissions_told_are_enough(secure_kafka, client, tmp_path, tiny_bundle_folder, delivery):
    """Updater and worker work end to end with the permissions of the docs, and their password is written nowhere."""
    number = next(_numbers)
    worker_acls = acls.WORKER_EXACTLY_ONCE if delivery == "exactly_once" else acls.WORKER
    updater = secure_kafka.grant(f"updater-{number}", acls.UPDATER)
    worker = secure_kafka.grant(f"worker-{number}", worker_acls)
    mode = {"EXITSTREAM_KAFKA__DELIVERY": delivery}
    with (
        Command(["updater"], updater, tmp_path, tiny_bundle_folder, **mode) as updating,
        Command(["worker"], worker, tmp_path, tiny_bundle_folder, **mode) as working,
    ):
        await tell(client, f"{number}")
        await updating.ready()
        await working.ready()
        await ask(client, f"{number}")
        await read_until(client, "ctr-scores", f"r{number}".encode())
        await read_until(secure_kafka.scram(), "impression-requests.dead-letter", f"junk{number}".encode())
        await read_until(secure_kafka.scram(), "interactions.dead-letter", f"junk{number}".encode())
        pages = [program.page(name) for program in (updating, working) for name in ("healthz", "readyz", "metrics")]
        assert (updating.terminate(), working.terminate()) == (0, 0)
    written = "\n".join([updating.output, working.output, *pages])
    for settings in (updater, worker):
        assert settings.sasl_password.get_secret_value() not in written


async def test_shards_need_what_is_told_for_them(secure_kafka, client, tmp_path, tiny_bundle_folder):
    """Both come to lead, and tell each other parts of the item that both have users of."""
    updater = secure_kafka.grant("shards", (*acls.UPDATER, *acls.SHARD))
    settings = [{"EXITSTREAM_UPDATER__SHARDS": "2", "EXITSTREAM_UPDATER__SHARD": str(number)} for number in range(2)]
    first, second = (Command(["updater"], updater, tmp_path, tiny_bundle_folder, **one) for one in settings)
    with first as one, second as other:
        await one.ready()
        await other.ready()
        now_ms = time.time_ns() // 1_000_000
        for number in range(8):
            user = f"sharded-{number}"
            click = Interaction(event_id=user, user_id=user, item_id="i1", kind="click", event_time_ms=now_ms)
            await put(client, "interactions", user, click)
        for number in range(2):
            await read_until(secure_kafka.scram(), "item-parts", f"{number}-of-2/i1".encode())
        assert (one.terminate(), other.terminate()) == (0, 0)


FOR_LEADING = [
    acl
    for acl in acls.UPDATER
    if acl.name.startswith("exitstream-updater.") or (acl.operation == "write" and acl.name.endswith("-states"))
]
WITHOUT = [("updater", acl) for acl in acls.UPDATER if acl not in FOR_LEADING] + [
    ("worker", acl) for acl in acls.WORKER_EXACTLY_ONCE
]


@pytest.mark.parametrize(("program", "missing"), WITHOUT, ids=lambda value: re.sub(r"\W", "-", str(value)))
async def test_a_missing_permission_is_named(secure_kafka, client, tmp_path, tiny_bundle_folder, program, missing):
    """Without any single permission the program ends in one line that names what it may not use."""
    number = next(_numbers)
    granted = acls.UPDATER if program == "updater" else acls.WORKER_EXACTLY_ONCE
    settings = secure_kafka.grant(f"{program}-{number}", [acl for acl in granted if acl != missing])
    await tell(client, f"{number}")
    await ask(client, f"{number}")
    with Command(
        [program], settings, tmp_path, tiny_bundle_folder, EXITSTREAM_KAFKA__DELIVERY="exactly_once"
    ) as command:
        assert await asyncio.to_thread(command.ended) == 1, command.output[-2_000:]
    assert missing.name in command.error


@pytest.mark.parametrize("missing", FOR_LEADING, ids=lambda value: re.sub(r"\W", "-", str(value)))
async def test_an_updater_that_may_not_lead_yet_says_so_and_waits(
    secure_kafka, client, tmp_path, tiny_bundle_folder, missing
):
    """It is not ready, names what it lacks on its status page and in its log, and goes on once that is granted."""
    number = next(_numbers)
    user = f"updater-{number}"
    settings = secure_kafka.grant(user, [acl for acl in acls.UPDATER if acl != missing])
    await tell(client, f"{number}")
    with Command(["updater"], settings, tmp_path, tiny_bundle_folder) as updating:
        async with asyncio.timeout(PATIENCE_S):
            while missing.name not in updating.output or missing.name not in updating.page("readyz"):
                await asyncio.sleep(0.2)
        secure_kafka.allow(user, [missing])
        await updating.ready()


async def tell(client, name):
    """An item, a click on it, and an interaction that is none."""
    now_ms = time.time_ns() // 1_000_000
    click = Interaction(event_id=name, user_id="u", item_id="i1", kind="click", event_time_ms=now_ms)
    await put(client, "items", "i1", Item(item_id="i1", title="title"))
    await put(client, "interactions", "u", click)
    await put(client, "interactions", f"junk{name}", b"junk")


async def ask(client, name):
    """A request and one that is none."""
    now_ms = time.time_ns() // 1_000_000
    request = ImpressionRequest(
        request_id=f"r{name}", user_id="u", candidate_item_ids=["i1", "i2"], created_time_ms=now_ms
    )
    await put(client, "impression-requests", "u", request)
    await put(client, "impression-requests", f"junk{name}", b"junk")


async def put(settings, topic, key, message):
    """Writes one message."""
    value = message if isinstance(message, bytes) else encode(message)
    async with RecordSink(settings) as sink:
        await sink.send_and_wait(OutRecord(topic, key.encode(), value, tuple(headers_for("msgpack"))))


async def read_until(settings, topic, key):
    """Reads a topic until a record of that key has come."""
    follower = TopicFollower(settings, [topic])
    await follower.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while key not in [record.key for record in await follower.poll()]:
                pass
    finally:
        await follower.stop()


def test_the_docs_tell_these_permissions():
    """Every permission of these tests stands in the docs as the command that grants it, and no other does."""
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    told_there = set(re.findall(r"^(--add --allow-principal .*)$", page, re.MULTILINE))
    granted = {
        acl.command(user)
        for user, permissions in (
            *(
                ("worker", acls.WORKER_EXACTLY_ONCE),
                ("shadow", acls.SHADOW),
                ("updater", acls.UPDATER),
                ("updater", acls.SHARD),
            ),
            *(("client", acls.CLIENT), ("operator", acls.OPERATOR)),
        )
        for acl in permissions
    }
    assert told_there == granted
