"""A libtorrent peer for the tests: seeds or leeches one torrent and says what happens, one word per line.

Lines on standard output: `listening PORT`, `seeding`, `progress DONE TOTAL`, `finished SECONDS`,
`hash-failed PIECE`, `error TEXT`. It runs until it is ended, or with --exit until it has everything.
"""
import argparse
import sys
import time

import libtorrent as lt


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("torrent")
    parser.add_argument("save_path")
    parser.add_argument("--seed", action="store_true", help="the data is there; do not check it")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--tracker", action="append", default=[])
    parser.add_argument("--encryption", choices=["disabled", "prefer"], default="disabled")
    parser.add_argument("--fast", action="store_true", help="the settings that libtorrent recommends for speed")
    parser.add_argument("--exit", action="store_true", help="end when everything is there")
    return parser.parse_args()


def make_session(options):
    encryption = 1 if options.encryption == "prefer" else 2  # settings_pack::enc_policy: pe_enabled, pe_disabled
    fast = {
        "send_buffer_watermark": 3 * 1024 * 1024,
        "send_buffer_low_watermark": 1024 * 1024,
        "max_out_request_queue": 1500,
        "max_allowed_in_request_queue": 2000,
        "max_queued_disk_bytes": 32 * 1024 * 1024,
        "suggest_mode": 0,
    }
    return lt.session({
        **(fast if options.fast else {}),
        "listen_interfaces": f"{options.address}:{options.port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": encryption,
        "out_enc_policy": encryption,
        "prefer_rc4": options.encryption == "prefer",
        "alert_mask": lt.alert.category_t.error_notification | lt.alert.category_t.status_notification
            | lt.alert.category_t.storage_notification,
    })


def main():
    options = arguments()
    session = make_session(options)
    add = lt.add_torrent_params()
    add.ti = lt.torrent_info(options.torrent)
    add.save_path = options.save_path
    add.flags &= ~lt.torrent_flags.auto_managed
    add.flags &= ~lt.torrent_flags.paused
    if options.seed:
        add.flags |= lt.torrent_flags.seed_mode
    if options.tracker:
        add.trackers = options.tracker
    begin = time.monotonic()
    handle = session.add_torrent(add)
    for peer in options.peer:
        host, port = peer.rsplit(":", 1)
        handle.connect_peer((host, int(port)))
    print("listening", session.listen_port(), flush=True)
    watch(session, handle, options, begin)


def watch(session, handle, options, begin):
    complete = False
    announced = None
    while True:
        session.wait_for_alert(50)
        for alert in session.pop_alerts():
            if alert.category() & lt.alert.category_t.error_notification:
                print("error", alert.message(), flush=True)
            elif isinstance(alert, lt.hash_failed_alert):
                print("hash-failed", alert.piece_index, flush=True)
            elif isinstance(alert, lt.cache_flushed_alert) and complete:
                print(f"finished {time.monotonic() - begin:.6f}", flush=True)
                if options.exit:
                    return
        status = handle.status()
        if status.is_seeding and not complete:
            complete = True
            if options.seed:
                print("seeding", flush=True)
            else:
                handle.flush_cache()  # a piece counts as soon as it is hashed, which is before it is written
        if not complete and status.total_wanted_done != announced:
            announced = status.total_wanted_done
            print("progress", announced, status.total_wanted, flush=True)


sys.exit(main())
