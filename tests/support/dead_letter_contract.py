"""What `exitstream dead-letters` promises on any broker. Subclasses bring the fixture `broker`."""

from __future__ import annotations

import asyncio

import pytest
from letter_desk import LetterDesk
from updater_contract import clicks
from updater_world import UpdaterWorld
from worker_lab import PATIENCE_S, WorkerLab, requests

from runtime.kafka import RecordSink
from runtime.records import OutRecord, Record
from schemas.topics import ATTEMPT

KINDS = [(b"k", b"v"), (None, b"v"), (b"k", None), (b"k", b""), (None, None), (b"", b"\xff\x00")]


class DeadLetterContract:
    """Tests that pass on the embedded broker and on Kafka alike."""

    @pytest.fixture
    async def desk(self, broker, tmp_path):
        """The command, on topics of this test alone."""
        return await LetterDesk.on_new_topics(broker, tmp_path)

    async def test_a_refused_request_is_listed_shown_replayed_and_answered(self, broker, tiny_bundle_folder, tmp_path):
        """A limit refuses requests; once it is raised, a replay has them answered, and what is junk comes back."""
        lab = WorkerLab(broker, tiny_bundle_folder)
        await lab.prepare()
        desk = LetterDesk(broker, lab.topics, tmp_path)
        asked = lab.topics.impression_requests
        strict = lab.settings(max_candidates=2)
        async with lab.worker(strict):
            await lab.ask(*requests(3), junk=1)
            await lab.records(lab.topics.dead_letter(asked), 4)

        listed = await desk.listed("--topic", asked)
        limited = [letter for letter in listed if "at most 2" in letter["reason"]]
        assert (len(listed), len(limited)) == (4, 3)
        assert f"{asked}: 4 dead letters" in await desk.run("list")
        assert "a valid ImpressionRequest" in await desk.run("show", limited[0]["place"])

        generous = lab.settings(group_id=strict.worker.group_id)
        async with lab.worker(generous):
            assert "3 replayed" in await desk.run("replay", "--reason", "AT MOST 2")
            answers = await lab.scores(3)
            assert "1 replayed, 3 replayed before" in await desk.run("replay", "--all")
            letters = await self._until(lambda: desk.listed("--topic", asked), 5)

        assert sorted(scores.request_id for scores in answers) == ["r0", "r1", "r2"]
        assert [letter["attempt"] for letter in letters] == [1, 1, 1, 1, 2]
        assert [letter["replayed"] for letter in letters] == [True] * 4 + [False]

    async def test_a_refused_interaction_goes_the_same_way(self, broker, tiny_bundle, tiny_bundle_folder, tmp_path):
        """The updater's letters are replayed too: it takes in the record of a raised limit, and refuses junk again."""
        world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
        await world.create()
        desk = LetterDesk(broker, world.topics, tmp_path)
        try:
            async with world.running():
                await world.send(*clicks(20), b"rubbish")
                await self._until(desk.listed, 1)
                assert "1 replayed" in await desk.run("replay", "--all")
                [_, second] = await self._until(desk.listed, 2)
                await world.published.until_equal()
        finally:
            await world.published.stop()

        assert (second["program"], second["attempt"], second["replayed"]) == ("updater", 2, False)

    async def test_records_come_back_byte_for_byte(self, desk):
        """Null is not empty: keys, values and headers of every kind, and the key's partition, are as they were."""
        headers = (("trace", b"\xff"), ("trace", b"2"), ("null", None))
        topic = desk.topics.interactions
        async with RecordSink(desk.broker.settings()) as sink:
            await sink.send_and_wait(OutRecord(topic, b"k", b"first"))
        await desk.refuse(*(Record(topic, 0, at, key, value, headers, 7) for at, (key, value) in enumerate(KINDS)))

        await desk.run("replay", "--all")
        records = await desk.contents(topic)

        [first] = [record for record in records if record.value == b"first"]
        replayed = [record for record in records if record != first]
        contents = sorted(((record.key, record.value) for record in replayed), key=repr)
        assert contents == sorted(KINDS, key=repr)
        assert {record.headers for record in replayed} == {(*headers, (ATTEMPT, b"2"))}
        assert {record.partition for record in replayed if record.key == b"k"} == {first.partition}

    async def test_the_same_letter_is_replayed_once(self, desk):
        """Run twice, by place or as a whole; and a record with two letters, as after a crash, is one."""
        record = Record(desk.topics.interactions, 1, 17, b"k", b"v", (), 7)
        other = Record(desk.topics.interactions, 1, 18, b"k", b"w", (), 7)
        await desk.refuse(record, other, record)

        assert "1 replayed, 1 replayed before" in await desk.run("replay", f"{desk.topics.interactions}[1]@17")
        assert "1 replayed, 2 replayed before" in await desk.run("replay", "--all")
        assert "0 replayed, 3 replayed before" in await desk.run("replay", "--all")

        assert [record.value for record in await desk.contents(desk.topics.interactions)] == [b"v", b"w"]
        assert [letter["replayed"] for letter in await desk.listed()] == [True] * 3

    async def test_a_rehearsal_writes_nothing(self, desk):
        """With --dry-run it says what it would do, and the letters stay to be replayed."""
        await desk.refuse(Record(desk.topics.items, 0, 0, b"k", b"v", (), 7))
        told = await desk.run("replay", "--all", "--dry-run")
        assert f"would replay  {desk.topics.items}[0]@0, attempt 2" in told
        assert "nothing was written" in told
        assert await desk.contents(desk.topics.items) == []
        assert "1 replayed" in await desk.run("replay", "--all")

    async def test_more_letters_than_one_transaction_holds_are_all_replayed_in_order(self, desk):
        """Portions follow one another."""
        records = [Record(desk.topics.items, 0, at, b"k", b"%d" % at, (), 7) for at in range(450)]
        await desk.refuse(*records)
        assert "450 replayed" in await desk.run("replay", "--all")
        replayed = await desk.contents(desk.topics.items)
        assert [record.value for record in replayed] == [record.value for record in records]

    async def test_what_others_wrote_among_the_letters_is_told_and_left_alone(self, desk):
        """A record without our headers, or one that names another topic, is listed as none and not replayed."""
        dead = desk.topics.dead_letter(desk.topics.items)
        stray = Record(desk.topics.interactions, 0, 0, b"k", b"v", (), 7)
        await desk.refuse(stray)
        [letter] = await desk.contents(desk.topics.dead_letter(desk.topics.interactions))
        async with RecordSink(desk.broker.settings()) as sink:
            await sink.send_and_wait(OutRecord(dead, b"k", b"v"))
            await sink.send_and_wait(OutRecord(dead, b"k", b"v", letter.headers))
        told = await desk.listed("--topic", desk.topics.items)
        assert ["dead-letter-reason" in told[0]["no_letter"], "names the topic" in told[1]["no_letter"]] == [True, True]
        assert "2 records there are no letters" in await desk.run("list", "--topic", desk.topics.items)
        assert "0 replayed" in await desk.run("replay", "--all", "--topic", desk.topics.items)

    async def test_mistakes_end_in_one_line(self, desk):
        """A place without a letter, a replay of nothing in particular, a topic that is no input."""
        place = f"{desk.topics.items}[0]@9"
        assert place in await desk.run("show", place, fails=True)
        assert place in await desk.run("replay", place, fails=True)
        assert "--all" in await desk.run("replay", fails=True)
        assert "ctr_scores" in await desk.run("list", "--topic", desk.topics.ctr_scores, fails=True)

    @staticmethod
    async def _until(look, count):
        """What is listed, once it is so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await look()) < count:
                await asyncio.sleep(0.1)
        return found
