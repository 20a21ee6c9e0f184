"""Peers: what a data scientist would fit in an afternoon, and the field's known networks, on the same split and knowing
the same events.
"""
