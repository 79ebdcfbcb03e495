"""One end of a call's media: sends numbered datagrams to the other end and notes what arrives.

`media_end.py OWN PEER PORT GAP` sends from OWN:PORT to PEER:PORT every GAP seconds until its input
ends, then listens a little longer and prints how many it has sent and the numbers that came.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; needs CAP_NET_ADMIN and ignores rmem_max
RECEIVE_BUFFER = 8 << 20
# RTP version 2 with G.711; the number is in the last four bytes, since RTP's own wraps.
HEADER = b"\x80\x00" + bytes(10)
LINGER = 1.0


def receive(media: socket.socket, arrived: list[int], over: threading.Event) -> None:
    while not over.is_set():
        if select.select([media], [], [], 0.1)[0]:
            arrived.append(int.from_bytes(media.recv(2048)[-4:], "big"))


def main() -> None:
    own, peer, port, gap = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    media = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
    media.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    media.bind((own, port))
    arrived: list[int] = []
    over = threading.Event()
    listening = threading.Thread(target=receive, args=(media, arrived, over))
    listening.start()
    sys.stdout.write("bound\n")
    sys.stdout.flush()
    # The other end is bound as well before the first datagram leaves.
    sys.stdin.readline()
    sent = 0
    while not select.select([sys.stdin], [], [], gap)[0]:
        media.sendto(HEADER + sent.to_bytes(160, "big"), (peer, port))
        sent += 1
    time.sleep(LINGER)
    over.set()
    listening.join()
    sys.stdout.write(json.dumps({"sent": sent, "arrived": arrived}) + "\n")


if __name__ == "__main__":
    main()
