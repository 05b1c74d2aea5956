"""Makes a v1 torrent of a file or folder with libtorrent: SOURCE TORRENT PIECE_BYTES [TRACKER]..."""
import os
import sys

import libtorrent as lt

V1_ONLY = 64  # create_torrent::v1_only

source, torrent, piece_bytes, *trackers = sys.argv[1:]
storage = lt.file_storage()
lt.add_files(storage, source)
creator = lt.create_torrent(storage, int(piece_bytes), V1_ONLY)
for tracker in trackers:
    creator.add_tracker(tracker)
lt.set_piece_hashes(creator, os.path.dirname(os.path.abspath(source)))
with open(torrent, "wb") as file:
    file.write(lt.bencode(creator.generate()))
