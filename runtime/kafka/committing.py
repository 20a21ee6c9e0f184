"""Offsets as the client library takes them, with the text that stands beside each in the group."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition as VendorPartition
from aiokafka.structs import OffsetAndMetadata

from runtime.records import TopicPartition


def vendor_offsets(
    offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]
) -> dict[VendorPartition, int | OffsetAndMetadata]:
    """Next offsets by partition; a partition without text has the empty one."""
    return {
        VendorPartition(*partition): OffsetAndMetadata(offset, metadata[partition])
        if metadata.get(partition)
        else offset
        for partition, offset in offsets.items()
    }
