"""kv_events.py ENDPOINT: what a vLLM publishes of its prefix cache, one JSON line an event.

A line {"ready": true} comes once the server has the subscription. Hashes are decimal strings: they are unsigned 64-bit integers,
which JSON's readers round.
"""

import json
import sys
import time

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message


def readable(value):
    """Hashes of a field as strings, also where they stand in a list."""
    if isinstance(value, list):
        return [readable(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return None if value is None else str(value)


def say(line):
    print(json.dumps(line), flush=True)


def main(endpoint):
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    socket.connect(endpoint)
    recv_monitor_message(monitor)
    # The subscription follows the handshake, and nothing answers it.
    time.sleep(0.5)
    say({"ready": True})
    while True:
        _topic, sequence, payload = socket.recv_multipart()
        _time, events, *_rank = msgspec.msgpack.decode(payload)
        for event in events:
            for field in ("block_hashes", "parent_block_hash"):
                if field in event:
                    event[field] = readable(event[field])
            say({"sequence": int.from_bytes(sequence, "big"), **event})


main(sys.argv[1])
