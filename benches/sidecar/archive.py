"""An archive_command that speaks to a sidecar, as the instance manager's does.

    archive.py SOCKET FOLDER PATH     FOLDER holds `definition`, the Cluster as JSON

It encodes its one request itself: importing the message classes costs more than the call.
"""

import sys

import grpc


def field(number, content):
    """A length-delimited protobuf field."""
    length, words = len(content), bytearray()
    while length > 127:
        words.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2]) + bytes(words) + bytes([length]) + content


def main():
    socket, folder, path = sys.argv[1:]
    with open(f"{folder}/definition", "rb") as file:
        definition = file.read()
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
        ask = channel.unary_unary("/cnpgi.wal.v1.WAL/Archive")
        # check_empty_wal_archive, field 4, is false.
        ask(field(1, definition) + field(2, path.encode()) + b"\x20\x00", timeout=300)


if __name__ == "__main__":
    main()
