"""The Kafka adapter: the only package that imports aiokafka. Records and errors that leave it are ours.

RecordSource        a member of a consumer group: batches of records, explicit commits, rebalance hooks
Backlog             a member's old records, read in parallel so that fresh ones need not wait
TopicFollower       all partitions of some topics without a group: from given offsets or the earliest
RecordSink          idempotent producer, every delivery awaited
TransactionalSink   records and offsets committed together or not at all; fences earlier holders of its id
probe, create_missing_topics, require_topics, topic_ids    before the start
partition_of        where Kafka's clients put a key
WarmAssignor        lets a group's partitions go where their state is held already
furthest_committed  offsets that groups of some name have committed
survey              a look at brokers, topics and groups, which changes nothing
"""

from runtime.kafka.backlog import Backlog
from runtime.kafka.connection import probe
from runtime.kafka.follower import CommittedOffset, TopicFollower
from runtime.kafka.group_offsets import furthest_committed
from runtime.kafka.partitioner import partition_of
from runtime.kafka.rebalance import RebalanceHooks
from runtime.kafka.record_sink import RecordSink
from runtime.kafka.source import RecordSource
from runtime.kafka.survey import ClusterFacts, GroupFacts, Member, TopicFacts, survey
from runtime.kafka.topic_ids import topic_ids
from runtime.kafka.topics import Cluster, TopicReport, create_missing_topics, require_topics
from runtime.kafka.transactions import Transaction, TransactionalSink
from runtime.kafka.warm_assignor import Holding, WarmAssignor

__all__ = [
    "Backlog",
    "Cluster",
    "ClusterFacts",
    "CommittedOffset",
    "GroupFacts",
    "Holding",
    "Member",
    "RebalanceHooks",
    "RecordSink",
    "RecordSource",
    "TopicFacts",
    "TopicFollower",
    "TopicReport",
    "Transaction",
    "TransactionalSink",
    "WarmAssignor",
    "create_missing_topics",
    "furthest_committed",
    "partition_of",
    "probe",
    "require_topics",
    "survey",
    "topic_ids",
]
