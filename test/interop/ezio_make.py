"""The torrent that EZIO's tool makes of partclone's torrent.info: INFO NAME TORRENT. Prints its info hash.

Written from what EZIO documents of it (utils/partclone_create_torrent.py): pieces of 16 MiB, one file per extent in
the folder NAME, called as the offset is written in the text, the hashes as they stand there, BitTorrent v1 alone.
"""

import sys

import libtorrent as lt

PIECE_BYTES = 16 * 1024 * 1024
info_path, name, torrent_path = sys.argv[1:]
values = {"offset": [], "length": [], "sha1": []}
for line in open(info_path):
    key, _, value = line.strip().partition(": ")
    if key in values:
        values[key].append(value)

storage = lt.file_storage()
storage.set_piece_length(PIECE_BYTES)
for offset, length in zip(values["offset"], values["length"], strict=True):
    storage.add_file(f"{name}/{offset}", int(length, 16))
creator = lt.create_torrent(storage, PIECE_BYTES, flags=lt.create_torrent.v1_only)
for index, digest in enumerate(values["sha1"]):
    creator.set_hash(index, bytes.fromhex(digest))
with open(torrent_path, "wb") as file:
    file.write(lt.bencode(creator.generate()))
print(lt.torrent_info(torrent_path).info_hashes().v1)
