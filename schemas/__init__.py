"""The messages that cross Kafka, their codecs and the documents made from them. A leaf: imports nothing of ours."""
