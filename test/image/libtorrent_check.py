"""Reads a torrent with libtorrent and compares its pieces with the source: prints info hash, name and counts as JSON."""

import hashlib
import json
import sys

import libtorrent

torrent_path, source_path = sys.argv[1:3]
info = libtorrent.torrent_info(torrent_path)
files = info.files()
source = open(source_path, "rb")
payload_sha1 = hashlib.sha1()
piece_length = info.piece_length()
piece = bytearray()
index = 0
bad = []


def end_piece():
    global index
    if hashlib.sha1(piece).digest() != info.hash_for_piece(index):
        bad.append(index)
    index += 1
    piece.clear()


for number in range(files.num_files()):
    source.seek(int(files.file_name(number), 16))
    left = files.file_size(number)
    while left > 0:
        data = source.read(min(left, piece_length - len(piece)))
        if not data:
            sys.exit("the source ends inside of an extent")
        left -= len(data)
        piece += data
        if len(piece) == piece_length:
            end_piece()
if piece:
    end_piece()

print(
    json.dumps(
        {
            "infoHash": str(info.info_hashes().v1),
            "isV2": info.info_hashes().has_v2(),
            "name": info.name(),
            "pieceBytes": piece_length,
            "pieceCount": info.num_pieces(),
            "pieceCountRead": index,
            "bytesTotal": info.total_size(),
            "extentCount": files.num_files(),
            "badPieces": bad,
            "trackers": [tracker.url for tracker in info.trackers()],
        }
    )
)
