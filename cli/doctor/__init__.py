"""`exitstream doctor`: looks at everything that an installation needs, and says what to do.

facts     gathered first: Kafka, bundle, machine; nothing is changed
checks    pure functions from facts to findings
command   the lines, the JSON, the exit status
"""
